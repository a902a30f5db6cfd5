"""madvise: DONTNEED, FREE, COLD, PAGEOUT (mm/madvise.c).

COLD takes the accessed bits away and moves pages to the inactive list; FREE takes accessed and dirty bits
away, so that reclaim may drop what nobody writes to again; both flush once for the whole range. PAGEOUT
isolates what only this mapping shows and reclaims it table by table, with reclaim's own flushes.
Left out: large pages, huge-page advice, process_madvise, pages in the swap cache.
"""

from allocator.flush_sites import SITE_USER
from allocator.hooks import HOOK_MAPPING_CHANGE, HOOK_VMA_DONE
from allocator.lru import isolate_page, lru_add_drain, move_to_inactive
from allocator.migrate import WORK_ISOLATED
from allocator.mmu_gather import PTES, tlb_finish_mmu, tlb_flush_range, tlb_gather_mmu
from allocator.page import (
    PG_ACTIVE,
    PG_DIRTY,
    PG_LRU,
    PG_REFERENCED,
    PG_SWAPBACKED,
    PG_WORKINGSET,
    clear_flag,
    node_of,
    set_flag,
    try_lock_page,
    unlock_page,
)
from allocator.panic import BAD_OPERATION, NOT_ANONYMOUS, panic
from allocator.rmap import lock_pte, unlock_pte
from allocator.unmap import zap_range
from allocator.vma import VM_ANON, find_vma_index
from allocator.vmscan import BY_DIRECT, SC_IGNORE_REFERENCES, move_folios_to_lru, shrink_folio_list
from cpus.abi.numbers import MADV_COLD, MADV_DONTNEED, MADV_FREE, MADV_PAGEOUT
from cpus.atomics import fetch_add, fetch_and, load_acquire
from cpus.compiled import apart, call, kernel
from cpus.locks import mmap_read_lock, mmap_read_unlock
from cpus.lost_data import may_go_from_now
from cpus.page_table import (
    LEVEL_MASK,
    PTE_ACCESSED,
    PTE_DIRTY,
    PTE_SPECIAL,
    next_table,
    pte_pfn,
    pte_present,
)


@kernel
def _free_page_lazily(ram, cpu, vpn, where, pte, pfn):
    """MADV_FREE of one PTE: what it holds may be dropped, unless somebody writes to it again: so the next
    store must set a dirty bit, also where the page was freed lazily before (madvise_free_pte_range).
    """
    if ram.page_flags[pfn] & PG_DIRTY:
        if not try_lock_page(ram, pfn):
            return
        alone = load_acquire(ram.page_mapcount, pfn) == 1
        if alone:
            clear_flag(ram, pfn, PG_DIRTY)
        unlock_page(ram, cpu, pfn)
        if not alone:
            return
    if pte & (PTE_ACCESSED | PTE_DIRTY):
        fetch_and(ram.frame_word, where, ~(PTE_ACCESSED | PTE_DIRTY))
        tlb_flush_range(ram, cpu, vpn, vpn + 1, PTES)
    if ram.page_flags[pfn] & PG_SWAPBACKED:  # else it is freed lazily already
        move_to_inactive(ram, cpu, pfn, True)


@kernel
def _make_cold(ram, cpu, vpn, where, pte, pfn):
    """MADV_COLD of one PTE."""
    if pte & PTE_ACCESSED:
        fetch_and(ram.frame_word, where, ~PTE_ACCESSED)
        tlb_flush_range(ram, cpu, vpn, vpn + 1, PTES)
    move_to_inactive(ram, cpu, pfn, False)


@kernel
def _advise_table(ram, cpu, mm, table, start, end, advice):
    """Work on the PTEs of one table; returns how many pages were isolated for PAGEOUT."""
    isolated = 0
    lock_pte(ram, cpu, table)
    call(ram, HOOK_MAPPING_CHANGE, cpu, mm, 0, 0, 0)
    for vpn in range(start, end):
        where = (table, vpn & LEVEL_MASK)
        pte = load_acquire(ram.frame_word, where)
        if not pte_present(pte) or pte & PTE_SPECIAL:  # vm_normal_folio
            continue
        pfn = pte_pfn(pte)
        if advice == MADV_FREE:
            _free_page_lazily(ram, cpu, vpn, where, pte, pfn)
            continue
        if ram.page_flags[pfn] & PG_LRU == 0 or load_acquire(ram.page_mapcount, pfn) != 1:
            continue  # others use it, or it is on its way elsewhere
        clear_flag(ram, pfn, PG_REFERENCED)
        if ram.page_flags[pfn] & PG_ACTIVE:
            set_flag(ram, pfn, PG_WORKINGSET)
        if advice == MADV_COLD:
            _make_cold(ram, cpu, vpn, where, pte, pfn)
        elif isolate_page(ram, cpu, pfn):
            ram.work_list[cpu, WORK_ISOLATED + isolated] = pfn
            isolated += 1
    unlock_pte(ram, cpu, table)
    return isolated


@kernel
def reclaim_pages(ram, cpu, count):
    """Reclaim the isolated pages of work_list, node by node; put back what stays (reclaim_pages,
    reclaim_folio_list).
    """
    ram.sc_by[cpu], ram.sc_flags[cpu] = BY_DIRECT, SC_IGNORE_REFERENCES
    while count > 0:
        node = node_of(ram, ram.work_list[cpu, WORK_ISOLATED])
        mine = others = 0
        for i in range(count):
            pfn = ram.work_list[cpu, WORK_ISOLATED + i]
            if node_of(ram, pfn) == node:
                clear_flag(ram, pfn, PG_ACTIVE)
                ram.work_list[cpu, WORK_ISOLATED + mine] = pfn
                mine += 1
            else:
                ram.keep_list[cpu, others] = pfn
                others += 1
        shrink_folio_list(ram, cpu, cpu, node, mine, 0)
        move_folios_to_lru(ram, cpu, node, WORK_ISOLATED, ram.sc_kept[cpu])
        for i in range(others):
            ram.work_list[cpu, WORK_ISOLATED + i] = ram.keep_list[cpu, i]
        count = others


@kernel
def _advise_range(ram, cpu, mm, start, end, advice):
    """FREE, COLD and PAGEOUT: table by table, one gather."""
    lru_add_drain(ram, cpu)
    tlb_gather_mmu(ram, cpu, mm)
    table, vpn, stop = next_table(ram, ram.mm_pgd[mm], start, end)
    while table >= 0:
        isolated = _advise_table(ram, cpu, mm, table, vpn, stop, advice)
        reclaim_pages(ram, cpu, isolated)
        table, vpn, stop = next_table(ram, ram.mm_pgd[mm], stop, end)
    tlb_finish_mmu(ram, cpu)


@kernel
def _note_freed(ram, cpu, mm, start, end):
    """MADV_FREE is over: what was stored so far may be dropped."""
    table, vpn, stop = next_table(ram, ram.mm_pgd[mm], start, end)
    while table >= 0:
        lock_pte(ram, cpu, table)
        for page in range(vpn, stop):
            may_go_from_now(ram, page, table)
        unlock_pte(ram, cpu, table)
        table, vpn, stop = next_table(ram, ram.mm_pgd[mm], stop, end)


@apart
def madvise(ram, cpu, mm, start, end, advice):
    """Give advice on start..end, VMA by VMA (do_madvise)."""
    if advice not in (MADV_DONTNEED, MADV_FREE, MADV_COLD, MADV_PAGEOUT):
        panic(ram, cpu, BAD_OPERATION, start, advice)
    mmap_read_lock(ram, cpu, mm)
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_USER
    freeing = ram.check != 0 and advice == MADV_FREE
    if freeing:
        fetch_add(ram.mm_freeing, mm, 1)
    at = find_vma_index(ram, mm, start)
    while at < ram.mm_nr_vmas[mm] and ram.vma_start[ram.mm_vma[mm, at]] < end:
        vma = ram.mm_vma[mm, at]
        first, last = max(start, ram.vma_start[vma]), min(end, ram.vma_end[vma])
        if advice == MADV_FREE and ram.vma_flags[vma] & VM_ANON == 0:
            panic(ram, cpu, NOT_ANONYMOUS, first, mm)
        if advice == MADV_DONTNEED:
            zap_range(ram, cpu, mm, first, last)
        else:
            _advise_range(ram, cpu, mm, first, last, advice)
        call(ram, HOOK_VMA_DONE, cpu, mm, vma, 0, 0)
        if freeing:
            _note_freed(ram, cpu, mm, first, last)
        at += 1
    if freeing:
        fetch_add(ram.mm_freeing, mm, -1)
    ram.cpu_site[cpu] = site
    mmap_read_unlock(ram, cpu, mm)
    return 0
