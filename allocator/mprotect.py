"""mprotect: other rights for a range (mm/mprotect.c: mprotect_fixup, change_pte_range).

A present PTE is flushed if the right to write or to execute changes, whichever way, or access or a dirty bit
goes; one that no access may go through is in no TLB (pte_needs_flush). A gather collects the range, so that
one call costs one flush. More rights: a private page that nobody shares is made writable at once, and so is
one of a shared file that was written through the PTE; others fault first. A VMA that has the rights already
is left alone.
Left out: protection keys, soft-dirty, userfaultfd, file systems without page_mkwrite, partial success: a hole
stops the run (ENOMEM).
"""

from allocator.flush_sites import SITE_USER
from allocator.hooks import HOOK_MAPPING_CHANGE, HOOK_VMA_DONE, HOOK_WRITE_FAULT
from allocator.kmap import MKWRITE_PROTECT, mkwrite
from allocator.mmu_gather import PTES, tlb_finish_mmu, tlb_flush_range, tlb_gather_mmu
from allocator.page import PG_EXCLUSIVE
from allocator.panic import SEGV_MAPERR, panic
from allocator.rmap import lock_pte, unlock_pte
from allocator.vma import (
    VM_EXEC,
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
from cpus.completion import UNMAPPED, WRITE_PROTECTED, change_begins
from cpus.exposed_changes import call_returns
from cpus.locks import mmap_write_lock, mmap_write_unlock
from cpus.page_table import (
    LEVEL_MASK,
    PTE_DIRTY,
    PTE_MIGRATION,
    PTE_PRESENT,
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
    if flags & VM_SHARED:
        ready = pte & PTE_DIRTY != 0  # its file knows that it is written to
    else:
        ready = pte & PTE_SPECIAL == 0 and ram.page_flags[pte_pfn(pte)] & PG_EXCLUSIVE != 0
    if flags & VM_WRITE and ready:
        fresh |= PTE_WRITE
    return fresh


@kernel
def pte_needs_flush(old, fresh, other_code):
    """May a TLB hold what a PTE was, and does that allow or know more, or less code, than what it is now?

    `other_code`: the right to execute changes, which our PTEs do not show.
    """
    if old & PTE_PRESENT == 0:
        return False
    return other_code or (old ^ fresh) & PTE_WRITE != 0 or old & ~fresh & (PTE_PRESENT | PTE_DIRTY) != 0


@kernel
def _change_ptes(ram, cpu, mm, table, start, end, flags, before):
    """Change the PTEs of one table into the open gather (change_pte_range)."""
    other_code = (flags ^ before) & VM_EXEC != 0
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
                if pte_needs_flush(pte, fresh, other_code):
                    tlb_flush_range(ram, cpu, vpn, vpn + 1, PTES)
                break
    unlock_pte(ram, cpu, table)


@kernel
def _change_protection(ram, cpu, vma, before):
    """Give the PTEs of a VMA, which had the flags `before`, its rights, into the open gather
    (change_protection).
    """
    start, end = ram.vma_start[vma], ram.vma_end[vma]
    mm, flags = ram.vma_mm[vma], ram.vma_flags[vma]
    table, vpn, stop = next_table(ram, ram.mm_pgd[mm], start, end)
    while table >= 0:
        _change_ptes(ram, cpu, mm, table, vpn, stop, flags, before)
        table, vpn, stop = next_table(ram, ram.mm_pgd[mm], stop, end)


@kernel
def _mprotect_fixup(ram, cpu, mm, vma, rights):
    """Give a VMA other rights, and its PTEs, into the open gather (mprotect_fixup)."""
    before = ram.vma_flags[vma]
    lock_rmap(ram, cpu, vma)
    ram.vma_flags[vma] = (before & ~VM_RIGHTS) | rights
    unlock_rmap(ram, cpu, vma)
    if rights & VM_WRITE:
        object = max(ram.vma_object[vma], ram.vma_anon[vma])
        call(ram, HOOK_WRITE_FAULT, cpu, mm, vma, ram.vma_start[vma], object)
    _change_protection(ram, cpu, vma, before)
    call(ram, HOOK_VMA_DONE, cpu, mm, vma, 0, 0)


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
        if ram.vma_flags[ram.mm_vma[mm, at]] & VM_RIGHTS != rights:
            _mprotect_fixup(ram, cpu, mm, ram.mm_vma[mm, at], rights)
        at += 1
    tlb_finish_mmu(ram, cpu)
    if rights & VM_WRITE == 0:
        call_returns(ram, cpu, mm, change, start, end, WRITE_PROTECTED if rights else UNMAPPED)
    ram.cpu_site[cpu] = site
    merge_range(ram, cpu, mm, start, end)
    mmap_write_unlock(ram, cpu, mm)
    return 0
