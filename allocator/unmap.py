"""Clearing a range of PTEs and dropping what they mapped (mm/memory.c: zap_pte_range, zap_page_range_single,
unmap_mapping_range).

Before a table is changed, what reclaim has left pending for the mm is completed (flush_tlb_batched_pending).
Dirty bits move to the page. If the gather is full, or a page of a file was written to through one of the
PTEs, the flush comes before the PTE lock is released. Left out: large pages, skipping of pages by kind
(zap_details).
"""

from allocator.flush_sites import SITE_USER
from allocator.hooks import HOOK_MAPPING_CHANGE, HOOK_VMA_DONE
from allocator.mmu_gather import (
    PTES,
    tlb_finish_mmu,
    tlb_flush_mmu,
    tlb_flush_mmu_tlbonly,
    tlb_flush_range,
    tlb_flush_rmaps,
    tlb_gather_mmu,
    tlb_remove_page,
)
from allocator.page_cache import OBJECT_ANON
from allocator.rmap import DELAYED_RMAP, NOTHING, address_range, clear_mapped, lock_pte, unlock_pte
from allocator.vma import VM_HAS_ANON, lock_object, next_vma_of, unlock_object
from cpus.atomics import load_acquire
from cpus.compiled import apart, call, kernel
from cpus.completion import UNMAPPED, change_begins
from cpus.declare import EXERCISED, OWNER, Counter, Field
from cpus.exposed_changes import call_returns
from cpus.page_table import PTE_MIGRATION, PTE_SPECIAL, next_table, pte_pfn, pte_present, ptep_get

COUNTERS = (
    Counter(
        "zaps_flushed_early",
        EXERCISED,
        "zaps that flushed before they let go of the PTE lock: a written page of a file, or no room",
    ),
)

ZAP_RUNS = 64
FIELDS = (
    Field("zap_run", OWNER, "first page and end of runs that a zap which spares copies is to clear",
          ("nr_cpus", 2 * ZAP_RUNS)),
)  # fmt: skip


@kernel
def _is_private(ram, pte):
    """Does a PTE, whose lock is held, show an anonymous page (should_zap_cows)?"""
    if not (pte_present(pte) or pte & PTE_MIGRATION) or pte & PTE_SPECIAL:
        return False
    return ram.object_kind[ram.page_object[pte_pfn(pte)] - 1] == OBJECT_ANON


@kernel
def zap_ptes(ram, cpu, mm, start, end, copies):
    """Clear all PTEs in start..end into the open gather, those of private pages only with `copies`
    (unmap_page_range).
    """
    table, vpn, stop = next_table(ram, ram.mm_pgd[mm], start, end)
    while table >= 0:
        full = written = False
        lock_pte(ram, cpu, table)
        call(ram, HOOK_MAPPING_CHANGE, cpu, mm, 0, 0, 0)
        while vpn < stop and not full:
            if not copies and _is_private(ram, ptep_get(ram, table, vpn)):
                vpn += 1
                continue
            pfn = clear_mapped(ram, cpu, mm, vpn, table)
            if pfn != NOTHING:
                tlb_flush_range(ram, cpu, vpn, vpn + 1, PTES)
            if pfn >= 0:
                full = tlb_remove_page(ram, cpu, pfn)
                written |= pfn & DELAYED_RMAP != 0
            vpn += 1
        if full or written:  # force_flush
            tlb_flush_mmu_tlbonly(ram, cpu)
            tlb_flush_rmaps(ram, cpu)
        unlock_pte(ram, cpu, table)
        if full or written:
            tlb_flush_mmu(ram, cpu)
            ram.zaps_flushed_early[cpu] += 1
        table, vpn, stop = next_table(ram, ram.mm_pgd[mm], vpn, end)


@apart
def zap_range(ram, cpu, mm, start, end):
    """Clear all PTEs in start..end, flush, drop the pages (zap_page_range_single)."""
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_USER
    change = change_begins(ram, mm)
    tlb_gather_mmu(ram, cpu, mm)
    zap_ptes(ram, cpu, mm, start, end, True)
    tlb_finish_mmu(ram, cpu)
    call_returns(ram, cpu, mm, change, start, end, UNMAPPED)
    ram.cpu_site[cpu] = site
    return 0


@kernel
def _runs_of_file(ram, cpu, mm, start, end):
    """Note the runs of pages in start..end that show the file's own pages, as many as there is room for;
    returns how many. The change that will take them away has begun.
    """
    runs, inside = 0, False
    table, vpn, stop = next_table(ram, ram.mm_pgd[mm], start, end)
    while table >= 0 and runs < ZAP_RUNS:
        lock_pte(ram, cpu, table)
        while vpn < stop and runs < ZAP_RUNS:
            pte = ptep_get(ram, table, vpn)
            file = pte_present(pte) and not _is_private(ram, pte)
            if file and not inside:
                ram.zap_run[cpu, 2 * runs] = vpn
            if inside and not file:
                ram.zap_run[cpu, 2 * runs + 1] = vpn
                runs += 1
            inside = file
            vpn += 1
        if inside and runs < ZAP_RUNS:
            ram.zap_run[cpu, 2 * runs + 1] = vpn
            runs, inside = runs + 1, False
        unlock_pte(ram, cpu, table)
        table, vpn, stop = next_table(ram, ram.mm_pgd[mm], stop, end)
    return runs


@kernel
def _zap_all_but_copies(ram, cpu, vma, start, end):
    """Clear the PTEs in start..end of a VMA that show its file, flush once, drop the pages; private copies
    stay.

    What it completes names no copy. One made after the change began bears its number already, and is not
    meant either way.
    """
    mm, site = ram.vma_mm[vma], ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_USER
    change = change_begins(ram, mm)
    copies = load_acquire(ram.vma_flags, vma) & VM_HAS_ANON != 0
    runs = _runs_of_file(ram, cpu, mm, start, end) if copies else 0
    tlb_gather_mmu(ram, cpu, mm)
    zap_ptes(ram, cpu, mm, start, end, False)
    tlb_finish_mmu(ram, cpu)
    if not copies:
        call_returns(ram, cpu, mm, change, start, end, UNMAPPED)
    for i in range(runs):
        first, last = ram.zap_run[cpu, 2 * i], ram.zap_run[cpu, 2 * i + 1]
        call_returns(ram, cpu, mm, change, first, last, UNMAPPED)
    ram.cpu_site[cpu] = site


@apart
def unmap_mapping_range(ram, cpu, object, first, last, copies):
    """Clear every PTE, in whatever process, that shows pages first..last-1 of a file, with `copies` copies on
    write, too.
    """
    lock_object(ram, cpu, object)
    vma = ram.object_vmas[object] - 1
    while vma >= 0:
        start, end = address_range(ram, vma, first, last)
        if start < end:
            if copies:
                zap_range(ram, cpu, ram.vma_mm[vma], start, end)
            else:
                _zap_all_but_copies(ram, cpu, vma, start, end)
            call(ram, HOOK_VMA_DONE, cpu, ram.vma_mm[vma], vma, 0, 0)
        vma = next_vma_of(ram, object, vma)
    unlock_object(ram, cpu, object)
    return 0
