"""Reverse mapping: from a page to the PTEs that map it (mm/rmap.c).

An object (file or anonymous memory) has a list of the VMAs that map it; a page at index i of it can only be
at one address of each. `try_to_unmap` and `try_to_migrate` clear those PTEs; whether the flush is sent now or
batched follows should_defer_flush, and what becomes of a batch is the design's. `page_referenced` looks at
accessed bits without flushing, as x86 does.
One anon_vma serves a whole family of forked processes; a page of one of them differs from another's by its
frame. Left out: KSM, mlock, device-private pages; i_mmap_rwsem is a plain lock here, not a reader-writer one.
"""

from allocator.hooks import HOOK_PTE_CLEARED, HOOK_VMA_DONE, HOOK_WALK_DONE, HOOK_YOUNG_CLEARED
from allocator.kmap import MKWRITE_MOVED, mkwrite
from allocator.lru import mod_isolated
from allocator.page import (
    PG_DIRTY,
    PG_EXCLUSIVE,
    PG_SWAPBACKED,
    folio_pages,
    get_page,
    mark_dirty,
    maybe_dma_pinned,
    node_of,
    set_flag,
)
from allocator.page_cache import OBJECT_ANON
from allocator.panic import BAD_MAPCOUNT, panic
from allocator.tlb_flush import flush_tlb_page, others_cache
from allocator.vma import VM_EXEC, VM_RIGHTS, lock_object, next_vma_of, unlock_object
from cpus.atomics import exchange, fetch_add, fetch_and, load_acquire, store_release
from cpus.compiled import apart, call, inlined, kernel
from cpus.declare import ANY, EXERCISED, OURS, OWNER, Cost, Counter, Field, Lock
from cpus.events import EV_MAP, EV_MOVE, EV_UNMAP, record
from cpus.exposed import note_unmap
from cpus.locks import spin_lock, spin_unlock
from cpus.lost_data import shows_no_more
from cpus.page_table import (
    LEVEL_MASK,
    PTE_ACCESSED,
    PTE_DIRTY,
    PTE_MIGRATION,
    PTE_PRESENT,
    PTE_PROTNONE,
    PTE_SPECIAL,
    PTE_WRITE,
    PTE_WRITTEN,
    find_table,
    pfn_pte,
    pte_pfn,
    pte_present,
    ptep_get,
)

FIELDS = (
    Lock("page_lock_word", "pte lock", "the entries of a page-table frame", ("nr_frames",)),
    Field(
        "mm_rss",
        OWNER,
        "pages mapped in each mm less those unmapped: the sum over CPUs",
        ("nr_cpus", "nr_mms"),
        reads=ANY,
    ),
)

COUNTERS = (
    Counter("unmap_ro", OURS, "PTEs cleared by reclaim or migration through which nobody could write"),
    Counter("unmap_rw", OURS, "PTEs cleared by reclaim or migration that were writable"),
    Counter("unmaps_undone", EXERCISED, "PTEs put back: a pinned page, or one written to since MADV_FREE"),
)
COSTS = (Cost("unmap_page", "rmap walk and PTE clear of one mapping"),)

UNMAP_FOR_RECLAIM, UNMAP_FOR_MIGRATION = 0, 1  # why
UNMAP_FAILED, UNMAP_DONE, UNMAP_LAZY = range(3)  # what became of all mappings of a page
NO_PTE, CLEARED, DEFERRED, WRITABLE_FLUSHED, LEFT = range(5)  # what became of one mapping


NOTHING, SPECIAL = -1, -2  # what clear_mapped found, if no page
DELAYED_RMAP = 1 << 40  # beside a pfn: its mapcount goes after the flush


@kernel
def lock_pte(ram, cpu, table):
    """Take the split page-table lock of a PTE table."""
    spin_lock(ram, cpu, ram.page_lock_word, table)


@kernel
def unlock_pte(ram, cpu, table):
    """Let go of the page-table lock."""
    spin_unlock(ram, cpu, ram.page_lock_word, table)


@apart
def pte_is_locked(ram, mm, vpn):
    """Does somebody hold the lock of an address' PTE, or is there none at the moment?"""
    table = find_table(ram, ram.mm_pgd[mm], vpn)
    return 1 if table < 0 or load_acquire(ram.page_lock_word, table) != 0 else 0


@kernel
def mod_rss(ram, cpu, mm, pages):
    """Count pages that an mm maps, on this CPU alone (as Linux's per-CPU mm counters)."""
    ram.mm_rss[cpu, mm] += pages


@kernel
def rss(ram, mm):
    """How many pages an mm maps."""
    pages = 0
    for c in range(ram.nr_cpus):
        pages += ram.mm_rss[c, mm]
    return pages


@inlined
def set_pte(ram, cpu, mm, vpn, table, pfn, bits):
    """Map a page: one more PTE and one more mapping (set_pte_range). pte lock held; the reference is the
    caller's to give.

    It can be accessed at once, unless `bits` has PTE_PROTNONE.
    """
    fetch_add(ram.page_mapcount, pfn, 1)
    mod_rss(ram, cpu, mm, 1)
    present = PTE_PRESENT if bits & PTE_PROTNONE == 0 else 0
    record(ram, cpu, EV_MAP, pfn, mm, vpn, bits)
    store_release(ram.frame_word, (table, vpn & LEVEL_MASK), pfn_pte(pfn, present | bits))


@kernel
def record_unmap(ram, cpu, mm, vpn, old):
    """Record that a PTE that was `old` is cleared; pte lock still held."""
    record(ram, cpu, EV_UNMAP, pte_pfn(old), mm, vpn, old & PTE_WRITTEN)


@kernel
def record_move(ram, cpu, mm, old, new, pte):
    """Record that a PTE, taken from page `old`, is about to be seen at page `new`; pte lock held."""
    if pte_present(pte):
        record(ram, cpu, EV_MOVE, pte_pfn(pte), mm, old, new)


@inlined
def remove_rmap(ram, cpu, pfn):
    """Account for one PTE less (folio_remove_rmap_pte)."""
    before = fetch_add(ram.page_mapcount, pfn, -1)
    if before < 1:
        panic(ram, cpu, BAD_MAPCOUNT, pfn, before - 1)


@kernel
def address_in(ram, vma, index):
    """vpn at which a VMA shows page `index` of its object, -1 if it does not."""
    vpn = ram.vma_start[vma] + index - ram.vma_pgoff[vma]
    return vpn if ram.vma_start[vma] <= vpn < ram.vma_end[vma] else -1


@kernel
def address_range(ram, vma, first, last):
    """(start, end) of the vpns at which a VMA shows pages first..last-1 of its object; none: start >= end."""
    skew = ram.vma_start[vma] - ram.vma_pgoff[vma]
    return max(ram.vma_start[vma], first + skew), min(ram.vma_end[vma], last + skew)


@kernel
def _take_accessed(ram, cpu, vma, pfn, index):
    """Clear the accessed bit of the PTE by which a VMA shows page `index` of its object in frame `pfn`; was
    it set?
    """
    vpn, mm = address_in(ram, vma, index), ram.vma_mm[vma]
    table = find_table(ram, ram.mm_pgd[mm], vpn) if vpn >= 0 else -1
    if table < 0:
        return False
    lock_pte(ram, cpu, table)
    pte = ptep_get(ram, table, vpn)
    used = pte & PTE_PRESENT != 0 and pte_pfn(pte) == pfn and pte & PTE_ACCESSED != 0
    if used:
        fetch_and(ram.frame_word, (table, vpn & LEVEL_MASK), ~PTE_ACCESSED)
        call(ram, HOOK_YOUNG_CLEARED, cpu, mm, vpn, pfn, 0)
    unlock_pte(ram, cpu, table)
    return used


@inlined
def page_referenced(ram, cpu, pfn):
    """Count the mappings of a folio that were used since the last look and clear their accessed bits; returns
    how many, and whether one of them maps code (folio_referenced).
    """
    object, size = ram.page_object[pfn] - 1, folio_pages(ram, pfn)
    found, maps_code = 0, False
    if object < 0 or (size == 1 and load_acquire(ram.page_mapcount, pfn) == 0):
        return found, maps_code
    lock_object(ram, cpu, object)
    vma = ram.object_vmas[object] - 1
    while vma >= 0:
        used = False
        for i in range(size):
            used = _take_accessed(ram, cpu, vma, pfn + i, ram.page_index[pfn] + i) or used
        if used:
            found += 1
            maps_code = maps_code or ram.vma_flags[vma] & VM_EXEC != 0
        vma = next_vma_of(ram, object, vma)
    unlock_object(ram, cpu, object)
    return found, maps_code


@kernel
def is_lazyfree(ram, pfn):
    """Is this an anonymous page whose content reclaim may drop (MADV_FREE)?"""
    return (
        ram.page_flags[pfn] & PG_SWAPBACKED == 0 and ram.object_kind[ram.page_object[pfn] - 1] == OBJECT_ANON
    )


@kernel
def _must_stay(ram, cpu, pfn, old, why):
    """Must a page whose PTE has just been cleared be mapped again as it was? Its flush is asked for by then,
    as in Linux; the PTE lock is held.
    """
    if old & PTE_PRESENT and ram.page_flags[pfn] & PG_EXCLUSIVE and maybe_dma_pinned(ram, pfn):
        return True  # where the device writes (folio_try_share_anon_rmap_pte)
    dirty = old & PTE_DIRTY != 0 or ram.page_flags[pfn] & PG_DIRTY != 0
    if why != UNMAP_FOR_RECLAIM or not dirty or not is_lazyfree(ram, pfn):
        return False
    # written to since MADV_FREE: it is wanted after all
    if not set_flag(ram, pfn, PG_SWAPBACKED):  # reclaim holds it isolated, as a file's page until now
        mod_isolated(ram, cpu, node_of(ram, pfn), 0, -1)
        mod_isolated(ram, cpu, node_of(ram, pfn), PG_SWAPBACKED, 1)
    return True


@inlined
def _unmap_one(ram, cpu, pfn, object, vma, why):
    """Clear the PTE by which one VMA maps the page.

    Returns NO_PTE, CLEARED (flushed, or left to the batch), DEFERRED (read-only, its flush may wait),
    WRITABLE_FLUSHED, or LEFT: the page must stay, where others map it, too (walk_abort).
    """
    vpn = address_in(ram, vma, ram.page_index[pfn])
    if vpn < 0:
        return NO_PTE
    mm = ram.vma_mm[vma]
    table = find_table(ram, ram.mm_pgd[mm], vpn)
    if table < 0:
        return NO_PTE
    index = vpn & LEVEL_MASK
    lock_pte(ram, cpu, table)
    pte = load_acquire(ram.frame_word, (table, index))
    if not pte_present(pte) or pte_pfn(pte) != pfn:
        unlock_pte(ram, cpu, table)
        return NO_PTE
    defer = others_cache(ram, cpu, mm)  # should_defer_flush, before the clear as in Linux
    note_unmap(ram, cpu, pfn)
    # one exchange: no accessed or dirty bit that a walk sets can be lost
    old = exchange(ram.frame_word, (table, index), 0)
    # pte_accessible: what the NUMA scanner has made inaccessible is in TLBs until it has flushed
    accessible = old & PTE_PRESENT != 0 or load_acquire(ram.mm_flush_pending, mm) > 0
    result = CLEARED
    if accessible and defer and call(ram, HOOK_PTE_CLEARED, cpu, mm, vpn, old, object) != 0:
        result = DEFERRED
    if not defer:  # ptep_clear_flush: under the lock, so that nobody finds the PTE gone before the flush
        if accessible:
            # nobody else had it loaded; who joins meanwhile is in the cpumask by now
            flush_tlb_page(ram, cpu, mm, vpn)
        else:
            call(ram, HOOK_VMA_DONE, cpu, mm, vma, 0, 0)
    if _must_stay(ram, cpu, pfn, old, why):
        ram.unmaps_undone[cpu] += 1
        store_release(ram.frame_word, (table, index), old)
        unlock_pte(ram, cpu, table)
        return LEFT
    # of what the scanner has made inaccessible, pte_write() is false
    writable = old & PTE_WRITE if old & PTE_PRESENT else 0
    if why == UNMAP_FOR_MIGRATION:
        keep = writable | old & (PTE_ACCESSED | PTE_DIRTY)
        store_release(ram.frame_word, (table, index), pfn_pte(pfn, PTE_MIGRATION | keep))
    if old & PTE_DIRTY:
        mark_dirty(ram, pfn)
    if writable:
        ram.unmap_rw[cpu] += 1
    else:
        ram.unmap_ro[cpu] += 1
    record_unmap(ram, cpu, mm, vpn, old)
    ram.cpu_clock[cpu] += ram.cost_unmap_page
    if accessible and not defer and writable:
        result = WRITABLE_FLUSHED
    remove_rmap(ram, cpu, pfn)
    mod_rss(ram, cpu, mm, -1)
    unlock_pte(ram, cpu, table)
    return result


@inlined
def try_to_unmap(ram, cpu, pfn, why):
    """Clear every PTE of a locked page; returns UNMAP_FAILED (still mapped), UNMAP_DONE, or UNMAP_LAZY
    (unmapped, and its flush may wait for the next owner).

    A page that nobody maps is no business of the design (folio_mapped): while it is locked nobody maps it.
    Flushes that are not sent at once lie with the design until HOOK_UNMAP_FLUSH (TTU_BATCH_FLUSH).
    """
    object = ram.page_object[pfn] - 1
    if load_acquire(ram.page_mapcount, pfn) == 0:
        return UNMAP_DONE
    walked, deferred, writable, result = 0, 0, 0, NO_PTE
    lock_object(ram, cpu, object)
    vma = ram.object_vmas[object] - 1
    while vma >= 0 and result != LEFT:
        result = _unmap_one(ram, cpu, pfn, object, vma, why)
        if result != NO_PTE and result != LEFT:
            walked += 1
            # the PTE's reference; the caller holds one, so it is not the last
            fetch_add(ram.page_refcount, pfn, -1)
        if result == DEFERRED:
            deferred += 1
        elif result == WRITABLE_FLUSHED:
            writable = 1
        vma = next_vma_of(ram, object, vma)
    unlock_object(ram, cpu, object)
    complete = load_acquire(ram.page_mapcount, pfn) == 0
    lazy = call(
        ram,
        HOOK_WALK_DONE,
        cpu,
        pfn,
        1 if deferred == walked and walked > 0 else 0,
        1 if complete else 0,
        writable,
    )
    if not complete:
        return UNMAP_FAILED
    return UNMAP_LAZY if lazy else UNMAP_DONE


@kernel
def remove_migration_ptes(ram, cpu, old, new):
    """Point every migration entry of `old` at `new` (which may be `old` itself, after a failure).

    Whether the page is exclusive is asked under the pte lock: a fork that has copied its entry meanwhile has
    taken that from `old`.
    """
    object = ram.page_object[new] - 1
    lock_object(ram, cpu, object)
    vma = ram.object_vmas[object] - 1
    while vma >= 0:
        vpn = address_in(ram, vma, ram.page_index[new])
        mm = ram.vma_mm[vma]
        table = find_table(ram, ram.mm_pgd[mm], vpn) if vpn >= 0 else -1
        if table >= 0:
            lock_pte(ram, cpu, table)
            pte = ptep_get(ram, table, vpn)
            if pte & PTE_MIGRATION and pte_pfn(pte) == old:
                get_page(ram, new)
                if ram.page_flags[old] & PG_EXCLUSIVE:
                    set_flag(ram, new, PG_EXCLUSIVE)
                bits = pte & PTE_WRITTEN
                if ram.vma_flags[vma] & VM_RIGHTS == 0:  # vm_page_prot
                    bits = (bits & ~PTE_WRITE) | PTE_PROTNONE
                if bits & PTE_WRITE:
                    mkwrite(ram, cpu, new, MKWRITE_MOVED, mm, vpn)
                set_pte(ram, cpu, mm, vpn, table, new, bits)
            unlock_pte(ram, cpu, table)
        vma = next_vma_of(ram, object, vma)
    unlock_object(ram, cpu, object)
    return 0


@kernel
def clear_mapped(ram, cpu, mm, vpn, table):
    """Clear a PTE for its own process (zap); returns the pfn, NOTHING, or SPECIAL for a page that nobody
    counts. pte lock held.

    The flush is the caller's, who drops the PTE's reference after it. Of a page of a file that was written
    through this PTE the answer has DELAYED_RMAP added: it counts as mapped until the caller has flushed, so
    that nobody takes it for clean while a CPU may still write to it (tlb_delay_rmap).
    """
    old = exchange(ram.frame_word, (table, vpn & LEVEL_MASK), 0)
    shows_no_more(ram, vpn, table)
    if not pte_present(old):
        return NOTHING
    if old & PTE_SPECIAL:
        return SPECIAL
    pfn = pte_pfn(old)
    written = old & PTE_DIRTY != 0 and ram.object_kind[ram.page_object[pfn] - 1] != OBJECT_ANON
    if written:
        mark_dirty(ram, pfn)
    record_unmap(ram, cpu, mm, vpn, old)
    mod_rss(ram, cpu, mm, -1)
    if written:
        return pfn | DELAYED_RMAP
    remove_rmap(ram, cpu, pfn)
    return pfn
