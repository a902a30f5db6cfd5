"""MAP_POPULATE: read and map a range ahead of its use (mm/gup.c: __mm_populate, populate_vma_page_range).

VMA by VMA, as mmap and mlock do it: holes are passed over, and so is a VMA that no access may go through. A
private page that may be written to is made writable, so that no later store has to fault for it. Left out:
VM_LOCKED and what may not be populated (VM_IO, VM_PFNMAP).
"""

from allocator.memory import fault_in_vma
from allocator.outcome import NEXT, RAN, SLEEP
from allocator.page import mark_dirty
from allocator.rmap import lock_pte, unlock_pte
from allocator.vma import VM_RIGHTS, VM_SHARED, VM_WRITE, find_vma_index
from cpus.abi.numbers import LOAD, STORE
from cpus.compiled import apart, kernel
from cpus.ipi import serve_interrupts
from cpus.locks import mmap_read_lock, mmap_read_unlock
from cpus.page_table import PTE_DIRTY, PTE_WRITE, find_table, pte_pfn, pte_present, ptep_get
from cpus.tlb import WAIT


@kernel
def _is_there(ram, cpu, mm, vpn, writes):
    """Is the page mapped already, writable if it is to be (follow_page_pte)? Then it counts as written to."""
    table = find_table(ram, ram.mm_pgd[mm], vpn)
    if table < 0:
        return False
    lock_pte(ram, cpu, table)
    pte = ptep_get(ram, table, vpn)
    there = pte_present(pte) and (not writes or pte & PTE_WRITE != 0)
    if there and writes and pte & PTE_DIRTY == 0:
        mark_dirty(ram, pte_pfn(pte))  # FOLL_TOUCH
    unlock_pte(ram, cpu, table)
    return there


@kernel
def _populate_vma(ram, cpu, mm, vma, vpn, end):
    """Map the pages of a VMA from `vpn` to `end`; returns where it stopped, since its slice is over, and -1 -
    that if the task must sleep there.
    """
    writes = ram.vma_flags[vma] & (VM_WRITE | VM_SHARED) == VM_WRITE
    while vpn < end:
        if _is_there(ram, cpu, mm, vpn, writes):
            vpn += 1
        elif fault_in_vma(ram, cpu, mm, vma, vpn, STORE if writes else LOAD) == WAIT:
            return -1 - vpn
        if ram.cpu_bell[cpu] > 0:
            serve_interrupts(ram, cpu)
        if ram.cpu_clock[cpu] >= ram.cpu_slice_end[cpu]:
            return vpn
    return vpn


@apart
def populate(ram, cpu, task, row):
    """Execute a POPULATE row from where the task left it. mmap_lock is let go of between its slices, so that
    VMAs are looked up anew.
    """
    mm = ram.task_mm[task]
    first = ram.proc_region[ram.task_process[task], ram.row_region[row]] + ram.row_page[row]
    end, result = first + ram.row_pages[row], NEXT
    mmap_read_lock(ram, cpu, mm)
    vpn = first + ram.task_visit[task]
    while vpn < end and result == NEXT:
        at = find_vma_index(ram, mm, vpn)
        if at == ram.mm_nr_vmas[mm]:
            break
        vma = ram.mm_vma[mm, at]
        stop = min(end, ram.vma_end[vma])
        if ram.vma_flags[vma] & VM_RIGHTS == 0:
            vpn = stop
            continue
        vpn = _populate_vma(ram, cpu, mm, vma, max(vpn, ram.vma_start[vma]), stop)
        if vpn < 0:
            vpn, result = -1 - vpn, SLEEP
        elif vpn < stop:
            result = RAN
    mmap_read_unlock(ram, cpu, mm)
    ram.task_visit[task] = 0 if result == NEXT else vpn - first
    return result
