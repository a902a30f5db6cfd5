"""mprotect: other rights for a range (mm/mprotect.c: mprotect_fixup, change_pte_range).

A PTE whose rights change is flushed whichever way they change (pte_needs_flush); a gather collects the range,
so that one call costs one flush. More rights: a private page that nobody shares is made writable at once,
others fault first.
Left out: protection keys, soft-dirty, userfaultfd, dirty accounting of shared mappings (they fault, as with
page_mkwrite), partial success: a hole stops the run (ENOMEM).
"""

from allocator.flush_sites import SITE_USER
from allocator.hooks import HOOK_MAPPING_CHANGE, HOOK_VMA_DONE, HOOK_WRITE_FAULT
from allocator.kmap import MKWRITE_PROTECT, mkwrite
from allocator.mmu_gather import PTES, tlb_finish_mmu, tlb_flush_range, tlb_gather_mmu
from allocator.page import PG_EXCLUSIVE
from allocator.panic import SEGV_MAPERR, panic
from allocator.rmap import lock_pte, unlock_pte
from allocator.vma import (
    VM_RIGHTS,
    VM_SHARED,
    VM_WRITE,
    find_vma_index,
    first_hole,
    lock_rmap,
    merge_range,
    split_at,
    unlock_rmap,
)
from cpus.atomics import compare_exchange, load_acquire
from cpus.compiled import apart, call, kernel
from cpus.completion import UNMAPPED, WRITE_PROTECTED, change_begins, change_is_complete
from cpus.locks import mmap_write_lock, mmap_write_unlock
from cpus.page_table import (
    LEVEL_MASK,
    PTE_MIGRATION,
    PTE_SPECIAL,
    PTE_WRITE,
    next_table,
    pte_mknone,
    pte_mkpresent,
    pte_pfn,
    pte_present,
)


@kernel
def _with_rights(ram, pte, flags):
    """Give the PTE with the rights of `flags` (pte_modify, can_change_pte_writable)."""
    if flags & VM_RIGHTS == 0:
        return pte_mknone(pte & ~PTE_WRITE)
    fresh = pte_mkpresent(pte & ~PTE_WRITE)
    private = flags & VM_SHARED == 0 and pte & PTE_SPECIAL == 0
    if flags & VM_WRITE and private and ram.page_flags[pte_pfn(pte)] & PG_EXCLUSIVE:
        fresh |= PTE_WRITE
    return fresh


@kernel
def _change_ptes(ram, cpu, mm, table, start, end, flags):
    """Change the PTEs of one table into the open gather (change_pte_range)."""
    lock_pte(ram, cpu, table)
    call(ram, HOOK_MAPPING_CHANGE, cpu, mm, 0, 0, 0)
    for vpn in range(start, end):
        where = (table, vpn & LEVEL_MASK)
        while True:
            pte = load_acquire(ram.frame_word, where)
            if pte & PTE_MIGRATION:
                fresh = pte & ~PTE_WRITE  # a writable one would come back writable
            elif not pte_present(pte):
                break
            else:
                fresh = _with_rights(ram, pte, flags)
            if fresh & ~pte & PTE_WRITE:
                mkwrite(ram, cpu, pte_pfn(pte), MKWRITE_PROTECT, mm, vpn)
            if compare_exchange(ram.frame_word, where, pte, fresh) == pte:  # else a walk set a bit
                if fresh != pte and pte & PTE_MIGRATION == 0:
                    tlb_flush_range(ram, cpu, vpn, vpn + 1, PTES)
                break
    unlock_pte(ram, cpu, table)


@kernel
def change_protection(ram, cpu, vma, start, end):
    """Give the PTEs in start..end of a VMA its rights, into the open gather (change_protection)."""
    mm, flags = ram.vma_mm[vma], ram.vma_flags[vma]
    table, vpn, stop = next_table(ram, ram.mm_pgd[mm], start, end)
    while table >= 0:
        _change_ptes(ram, cpu, mm, table, vpn, stop, flags)
        table, vpn, stop = next_table(ram, ram.mm_pgd[mm], stop, end)


@apart
def mprotect(ram, cpu, mm, start, end, rights):
    """Give start..end the rights `rights` (VM_READ, VM_WRITE, VM_EXEC; 0 none) (do_mprotect_pkey)."""
    mmap_write_lock(ram, cpu, mm)
    hole = first_hole(ram, mm, start, end)
    if hole < end:
        panic(ram, cpu, SEGV_MAPERR, hole, mm)
    split_at(ram, cpu, mm, start)
    split_at(ram, cpu, mm, end)
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_USER
    change = change_begins(ram, mm)
    tlb_gather_mmu(ram, cpu, mm)
    at = find_vma_index(ram, mm, start)
    while at < ram.mm_nr_vmas[mm] and ram.vma_start[ram.mm_vma[mm, at]] < end:
        vma = ram.mm_vma[mm, at]
        lock_rmap(ram, cpu, vma)
        ram.vma_flags[vma] = (ram.vma_flags[vma] & ~VM_RIGHTS) | rights
        unlock_rmap(ram, cpu, vma)
        if rights & VM_WRITE:
            call(
                ram,
                HOOK_WRITE_FAULT,
                cpu,
                mm,
                vma,
                ram.vma_start[vma],
                max(ram.vma_object[vma], ram.vma_anon[vma]),
            )
        change_protection(ram, cpu, vma, ram.vma_start[vma], ram.vma_end[vma])
        call(ram, HOOK_VMA_DONE, cpu, mm, vma, 0, 0)
        at += 1
    tlb_finish_mmu(ram, cpu)
    if rights & VM_WRITE == 0:
        change_is_complete(ram, cpu, mm, change, start, end, WRITE_PROTECTED if rights else UNMAPPED)
    ram.cpu_site[cpu] = site
    merge_range(ram, cpu, mm, start, end)
    mmap_write_unlock(ram, cpu, mm)
    return 0
