"""Large folios of files: 2^N pages that are allocated, aged, unmapped and freed together (mm/filemap.c,
mm/huge_memory.c).

A file with `object_order` N is cached in aligned runs of 2^N pages, each in one block of memory as long as
the buddy has one above the LOW watermark; else page by page, as Linux falls back. Every page keeps a struct
page of its own (references, page lock, PTEs), PG_LARGE says that it is part of a folio, and the folio's first
frame, its *head*, stands on the LRU for all of them.
A folio is *split* when one of its pages is taken out alone (truncation, a direct write) or is to move to
another node: from then on its pages go their own ways.
Left out: anonymous large folios and PMD mappings (THP, hugetlb), one count and one lock for all pages of a
folio, moving one as a whole, orders of per-CPU lists, compaction to make blocks, different orders in one
file.
"""

from allocator.buddy import free_one_page, take_block
from allocator.hooks import HOOK_TAKE_BEGIN, HOOK_TAKE_DONE
from allocator.lru import link_page, lru_list
from allocator.page import PG_ACTIVE, PG_LARGE, PG_LRU, clear_flag, folio_pages, node_of, set_flag, zone_of
from allocator.page_alloc import check_unused, free_page, prepare_new_page, take_from_owner
from allocator.page_list import NONE
from allocator.pcp import zone_watermark_ok
from cpus.compiled import apart, call, kernel
from cpus.locks import spin_lock_irq, spin_unlock_irq


@apart
def split_folio(ram, cpu, pfn):
    """Let the pages of the large folio around `pfn`, which the caller has locked, be folios of one page each.

    All at once under lru_lock: of two that split a folio one finds nothing left to do.
    """
    size = folio_pages(ram, pfn)
    if size == 1:
        return 0
    head, node = pfn & ~(size - 1), node_of(ram, pfn)
    spin_lock_irq(ram, cpu, ram.lru_lock, node)
    if clear_flag(ram, head, PG_LARGE):
        flags = ram.page_flags[head]
        if flags & PG_LRU:
            ram.lru_size[node, lru_list(flags)] -= size - 1
        for page in range(head + 1, head + size):
            set_flag(ram, page, PG_LRU | flags & PG_ACTIVE)
            clear_flag(ram, page, PG_LARGE)
            link_page(ram, node, lru_list(ram.page_flags[page]), page)
    spin_unlock_irq(ram, cpu, ram.lru_lock, node)
    return 0


@kernel
def _take_block(ram, cpu, zone, order):
    """Take a block from the buddy, through the design's take-off hooks (rmqueue_buddy)."""
    call(ram, HOOK_TAKE_BEGIN, cpu, zone, 1, 0, 0)
    spin_lock_irq(ram, cpu, ram.zone_lock, zone)
    pfn = take_block(ram, cpu, zone, order)
    spin_unlock_irq(ram, cpu, ram.zone_lock, zone)
    call(ram, HOOK_TAKE_DONE, cpu, 0, 0, 0, 0)
    return pfn


@apart
def alloc_folio(ram, cpu, node, order):
    """Allocate 2^order pages in a row, a reference each, from a zone that stays above LOW; -1 if there is
    none: nobody reclaims for it.
    """
    for i in range(ram.nr_zones):
        zone = ram.zonelist[node, i]
        if zone < 0:
            break
        if zone_watermark_ok(ram, zone, ram.wmark_low[zone] + (1 << order)):
            head = _take_block(ram, cpu, zone, order)
            if head != NONE:
                ram.cpu_clock[cpu] += ram.cost_page_alloc
                for pfn in range(head, head + (1 << order)):
                    # of a block that was merged into this one: its head alone says what is pending
                    ram.page_key[pfn] = 0
                    prepare_new_page(ram, cpu, pfn, zone)
                return head
    return NONE


@apart
def free_folio(ram, cpu, head, key):
    """Give a large folio without references back: as one block, or page by page if something is pending for
    them (free_unref_folios).
    """
    order, size = ram.page_private[head], folio_pages(ram, head)
    for pfn in range(head, head + size):
        ram.page_flags[pfn] &= ~PG_LARGE
        if key != 0:
            free_page(ram, cpu, pfn, key)
        else:
            check_unused(ram, cpu, pfn)
            take_from_owner(ram, cpu, pfn, 0)
            ram.page_flags[pfn] = 0
    if key == 0:
        zone = zone_of(ram, head)
        ram.cpu_clock[cpu] += ram.cost_page_free
        spin_lock_irq(ram, cpu, ram.zone_lock, zone)
        free_one_page(ram, cpu, zone, head, order, 0)
        spin_unlock_irq(ram, cpu, ram.zone_lock, zone)
        if ram.zone_below_high[zone] and zone_watermark_ok(ram, zone, ram.wmark_high[zone]):
            ram.zone_below_high[zone] = 0
    return 0
