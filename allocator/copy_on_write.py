"""Copy-on-write (mm/memory.c: do_wp_page, wp_page_copy, do_cow_fault; wp_can_reuse_anon_folio): private pages
and who gets a copy.

A mapping becomes writable only after the design has been asked (HOOK_WRITE_FAULT), never before. A store to a
private page that somebody shares, or to the zero page, gets a copy: the old translation is flushed
everywhere, under the PTE lock, before the new one is seen (ptep_clear_flush). More rights alone need no
flush.
Left out: swap cache, huge pages, unsharing for a pin (FAULT_FLAG_UNSHARE).
"""

from allocator.flush_sites import SITE_FAULT, SITE_WRITE_FAULT
from allocator.hooks import HOOK_WRITE_FAULT
from allocator.kmap import KMAP_COPY, KMAP_COW, MKWRITE_COPY, MKWRITE_COW, MKWRITE_REUSE, kmap, mkwrite
from allocator.lru import drop_page, lru_add, lru_add_drain, unlock_and_drop
from allocator.page import (
    PG_EXCLUSIVE,
    PG_LRU,
    PG_SWAPBACKED,
    PG_UPTODATE,
    get_page,
    mark_dirty,
    set_flag,
)
from allocator.page_alloc import GFP_USER, alloc_page
from allocator.page_cache import OBJECT_ANON
from allocator.rmap import lock_pte, mod_rss, record_unmap, remove_rmap, set_pte, unlock_pte
from allocator.tlb_flush import flush_tlb_page
from allocator.vma import VM_HAS_ANON, VM_SHARED
from cpus.atomics import exchange, fetch_or, load_acquire
from cpus.compiled import apart, call, kernel
from cpus.completion import UNMAPPED, change_begins
from cpus.declare import EXERCISED, VMSTAT, Cost, Counter
from cpus.events import CALL_WRITE_FAULT, EV_CALL, EV_RETURN, record
from cpus.exposed_changes import call_returns
from cpus.lost_data import now_shows, shows_copy
from cpus.oracle import name_anonymous
from cpus.page_table import (
    LEVEL_MASK,
    PTE_PRESENT,
    PTE_SPECIAL,
    PTE_WRITE,
    PTE_WRITTEN,
    find_table,
    pte_pfn,
    ptep_get,
)
from cpus.tlb import AGAIN

COUNTERS = (
    Counter("pgreuse", VMSTAT, "write faults that needed no copy: nobody else has the page", "pages"),
    Counter("copies_of_shared", EXERCISED, "stores that copied a page which others go on using", "pages"),
    Counter("copies_in_vain", EXERCISED, "copies thrown away: the PTE had changed meanwhile", "pages"),
)
COSTS = (Cost("page_copy", "copying a page"),)


@kernel
def ask_design(ram, cpu, mm, vma, vpn):
    """Let the design finish what is pending before a writable mapping of this mm or file is seen."""
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_WRITE_FAULT
    call(ram, HOOK_WRITE_FAULT, cpu, mm, vma, vpn, max(ram.vma_object[vma], ram.vma_anon[vma]))
    ram.cpu_site[cpu] = site


@kernel
def new_anonymous_page(ram, cpu, vma, vpn, site):
    """Allocate the private page of a VMA at `vpn`, filled for the oracle at `site`; it belongs to the VMA's
    anon_vma.
    """
    pfn = alloc_page(ram, cpu, ram.cpu_node[cpu], GFP_USER)
    kmap(ram, cpu, pfn, site, ram.vma_mm[vma], vpn)
    object, index = ram.vma_anon[vma], vpn - ram.vma_start[vma] + ram.vma_pgoff[vma]
    name_anonymous(ram, cpu, pfn, object, index)
    ram.page_object[pfn] = object + 1
    ram.page_index[pfn] = index
    ram.page_flags[pfn] = PG_SWAPBACKED | PG_UPTODATE | PG_EXCLUSIVE  # nobody else can reach it yet
    if ram.vma_flags[vma] & VM_HAS_ANON == 0:  # anon_vma_prepare
        fetch_or(ram.vma_flags, vma, VM_HAS_ANON)
    return pfn


@kernel
def copy_file_page(ram, cpu, mm, vma, vpn, table, pfn):
    """A store is the first access to a page of a private file mapping: map a copy (do_cow_fault). The page is
    locked, with a reference.
    """
    copy = new_anonymous_page(ram, cpu, vma, vpn, KMAP_COW)
    ram.cpu_clock[cpu] += ram.cost_page_copy
    # the page is still locked: nobody maps it here, and unmaps it again, after the design was asked
    ask_design(ram, cpu, mm, vma, vpn)
    lock_pte(ram, cpu, table)
    free = ptep_get(ram, table, vpn) == 0
    if free:
        mkwrite(ram, cpu, copy, MKWRITE_COW, mm, vpn)
        now_shows(ram, cpu, mm, vpn, table, copy)
        lru_add(ram, cpu, copy)  # before others can reach it, and drop its last reference
        set_pte(ram, cpu, mm, vpn, table, copy, PTE_WRITTEN)
    unlock_pte(ram, cpu, table)
    unlock_and_drop(ram, cpu, pfn)
    if not free:
        drop_page(ram, cpu, copy)
    return AGAIN


@kernel
def _reusable(ram, cpu, pfn):
    """May a store go to this private page in place: does nobody share it (wp_can_reuse_anon_folio)?"""
    flags = ram.page_flags[pfn]
    if flags & PG_EXCLUSIVE:
        return True
    if ram.object_kind[ram.page_object[pfn] - 1] != OBJECT_ANON or load_acquire(ram.page_mapcount, pfn) != 1:
        return False
    if flags & PG_LRU == 0:
        lru_add_drain(ram, cpu)  # a reference of this CPU's batch is nobody's
    if load_acquire(ram.page_refcount, pfn) != 1:
        return False
    set_flag(ram, pfn, PG_EXCLUSIVE)
    return True


@kernel
def _make_writable(ram, cpu, table, index):
    """Allow writing through a PTE that is there; pte lock held.

    More rights need no flush: a CPU with the old entry walks again (ptep_set_access_flags on x86).
    """
    fetch_or(ram.frame_word, (table, index), PTE_WRITTEN)


@kernel
def _copy_page(ram, cpu, mm, vma, vpn, table, pte):
    """Give a store a copy of the page in `pte` (wp_page_copy). pte lock held on entry, not on return."""
    index, old = vpn & LEVEL_MASK, pte_pfn(pte)
    zero = pte & PTE_SPECIAL != 0
    if not zero:
        get_page(ram, old)
    unlock_pte(ram, cpu, table)
    pfn = new_anonymous_page(ram, cpu, vma, vpn, KMAP_COPY)
    ram.cpu_clock[cpu] += ram.cost_page_zero if zero else ram.cost_page_copy
    ask_design(ram, cpu, mm, vma, vpn)
    lock_pte(ram, cpu, table)
    now = load_acquire(ram.frame_word, (table, index))
    same = pte_pfn(now) == old and now & PTE_PRESENT and now & PTE_WRITE == 0
    if same:
        site = ram.cpu_site[cpu]
        ram.cpu_site[cpu] = SITE_FAULT
        record(ram, cpu, EV_CALL, CALL_WRITE_FAULT, vpn, mm, vpn)
        change = change_begins(ram, mm)
        record_unmap(ram, cpu, mm, vpn, exchange(ram.frame_word, (table, index), 0))
        flush_tlb_page(ram, cpu, mm, vpn)
        call_returns(ram, cpu, mm, change, vpn, vpn + 1, UNMAPPED)
        ram.cpu_site[cpu] = site
        mkwrite(ram, cpu, pfn, MKWRITE_COPY, mm, vpn)
        shows_copy(ram, cpu, vpn, table, pfn, old)
        lru_add(ram, cpu, pfn)
        set_pte(ram, cpu, mm, vpn, table, pfn, PTE_WRITTEN)
        if not zero:
            remove_rmap(ram, cpu, old)
            mod_rss(ram, cpu, mm, -1)
    unlock_pte(ram, cpu, table)
    if same:
        ram.copies_of_shared[cpu] += not zero
    else:
        ram.copies_in_vain[cpu] += 1
        drop_page(ram, cpu, pfn)
    if not zero:
        drop_page(ram, cpu, old)  # ours
        if same:
            drop_page(ram, cpu, old)  # the PTE's
    if same:
        record(ram, cpu, EV_RETURN, CALL_WRITE_FAULT, vpn, 0, 0)


@apart
def do_wp_page(ram, cpu, mm, vma, vpn, seen):
    """A store through a read-only PTE of a writable VMA: in place if nobody shares the page, else to a copy
    (do_wp_page).

    `seen` is the PTE as the fault found it, before the design is asked. If another page is there by now, the
    one that was seen may have been unmapped after the question, and its flush deferred: the fault begins anew
    (pte_same).
    """
    table, index = find_table(ram, ram.mm_pgd[mm], vpn), vpn & LEVEL_MASK
    ask_design(ram, cpu, mm, vma, vpn)
    lock_pte(ram, cpu, table)
    pte = load_acquire(ram.frame_word, (table, index))
    if pte & PTE_PRESENT == 0 or pte & PTE_WRITE or pte_pfn(pte) != pte_pfn(seen):
        unlock_pte(ram, cpu, table)
    elif ram.vma_flags[vma] & VM_SHARED:
        mark_dirty(ram, pte_pfn(pte))
        mkwrite(ram, cpu, pte_pfn(pte), MKWRITE_REUSE, mm, vpn)
        _make_writable(ram, cpu, table, index)
        unlock_pte(ram, cpu, table)
    elif pte & PTE_SPECIAL == 0 and _reusable(ram, cpu, pte_pfn(pte)):
        mkwrite(ram, cpu, pte_pfn(pte), MKWRITE_REUSE, mm, vpn)
        _make_writable(ram, cpu, table, index)
        ram.pgreuse[cpu] += 1
        unlock_pte(ram, cpu, table)
    else:
        _copy_page(ram, cpu, mm, vma, vpn, table, pte)
    return AGAIN
