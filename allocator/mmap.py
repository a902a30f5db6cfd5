"""Address spaces: VMAs, mapping, unmapping, MADV_DONTNEED (mm/mmap.c, mm/memory.c: zap_pte_range, mm/mmu_gather.c).

An mm has a short array of VMAs in address order, under mmap_lock. Pages whose PTEs are cleared are gathered, flushed once, and
only then dropped. Every change that a user asks for first completes what reclaim has left pending for the mm.
Left out: VMA merging, freeing of page tables, stack growth, mlock.
"""

from allocator.buddy import NONE
from allocator.hooks import HOOK_MAPPING_CHANGE
from allocator.lru import drop_page
from allocator.page import PG_TABLE
from allocator.page_alloc import GFP_USER, alloc_page, put_page
from allocator.panic import TOO_MANY_VMAS, panic
from allocator.rmap import clear_mapped, lock_pte, unlock_pte
from allocator.tlb_flush import SITE_USER, flush_tlb_mm_range
from cpus.atomics import fetch_add
from cpus.compiled import apart, call, kernel
from cpus.layout import GATHER_PAGES, MAX_VMAS
from cpus.locks import LOCK_OBJECT, LOCK_TABLE, mmap_write_lock, mmap_write_unlock, spin_lock, spin_unlock
from cpus.page_table import LEVEL_BITS, LEVEL_MASK, PTE_PFN_SHIFT, PTE_PRESENT, find_table

TABLE_SPAN = 1 << LEVEL_BITS  # pages that one PTE table maps


@kernel
def find_vma(ram, mm, vpn):
    """Find the VMA that holds `vpn`, -1 if none does. mmap_lock held."""
    low, high = 0, ram.mm_nr_vmas[mm]
    while low < high:
        middle = (low + high) // 2
        vma = ram.mm_vma[mm, middle]
        if ram.vma_end[vma] <= vpn:
            low = middle + 1
        elif ram.vma_start[vma] > vpn:
            high = middle
        else:
            return vma
    return NONE


@kernel
def insert_vma(ram, cpu, mm, vma):
    """Enter a filled-in VMA into its mm and its object's list. mmap_lock held for writing."""
    count = ram.mm_nr_vmas[mm]
    if count >= MAX_VMAS:
        panic(ram, cpu, TOO_MANY_VMAS, mm, MAX_VMAS)
    at = count
    while at > 0 and ram.vma_start[ram.mm_vma[mm, at - 1]] > ram.vma_start[vma]:
        ram.mm_vma[mm, at] = ram.mm_vma[mm, at - 1]
        at -= 1
    ram.mm_vma[mm, at] = vma
    ram.mm_nr_vmas[mm] = count + 1
    thing = ram.vma_object[vma]
    spin_lock(ram, cpu, ram.object_lock, thing, LOCK_OBJECT | thing)
    ram.vma_next[vma] = ram.object_vmas[thing]
    ram.object_vmas[thing] = vma + 1
    spin_unlock(ram, cpu, ram.object_lock, thing, LOCK_OBJECT | thing)


@kernel
def remove_vma(ram, cpu, mm, vma):
    """Take a VMA out of its mm and its object's list. mmap_lock held for writing; its PTEs are gone."""
    count = ram.mm_nr_vmas[mm]
    at = 0
    while at < count and ram.mm_vma[mm, at] != vma:
        at += 1
    for i in range(at, count - 1):
        ram.mm_vma[mm, i] = ram.mm_vma[mm, i + 1]
    ram.mm_nr_vmas[mm] = count - 1
    thing = ram.vma_object[vma]
    spin_lock(ram, cpu, ram.object_lock, thing, LOCK_OBJECT | thing)
    if ram.object_vmas[thing] == vma + 1:
        ram.object_vmas[thing] = ram.vma_next[vma]
    else:
        before = ram.object_vmas[thing] - 1
        while ram.vma_next[before] != vma + 1:
            before = ram.vma_next[before] - 1
        ram.vma_next[before] = ram.vma_next[vma]
    spin_unlock(ram, cpu, ram.object_lock, thing, LOCK_OBJECT | thing)


@kernel
def new_table(ram, cpu):
    """Allocate and clear a page-table frame."""
    pfn = alloc_page(ram, cpu, 0, GFP_USER)
    for i in range(LEVEL_MASK + 1):
        ram.frame_word[pfn, i] = 0
    ram.page_flags[pfn] = PG_TABLE
    ram.page_lock_word[pfn] = 0
    return pfn


@apart
def ensure_table(ram, cpu, mm, vpn):
    """Walk to the PTE table of `vpn`, building what is missing (__pte_alloc)."""
    table = ram.mm_pgd[mm]
    for level in range(3, 0, -1):
        index = (vpn >> (LEVEL_BITS * level)) & LEVEL_MASK
        entry = ram.frame_word[table, index]
        if entry & PTE_PRESENT == 0:
            fresh = new_table(ram, cpu)
            spin_lock(ram, cpu, ram.mm_table_lock, mm, LOCK_TABLE | mm)
            entry = ram.frame_word[table, index]
            if entry & PTE_PRESENT == 0:
                entry = (fresh << PTE_PFN_SHIFT) | PTE_PRESENT
                ram.frame_word[table, index] = entry
                fresh = NONE
            spin_unlock(ram, cpu, ram.mm_table_lock, mm, LOCK_TABLE | mm)
            if fresh != NONE:  # somebody else was faster
                ram.page_flags[fresh] = 0
                put_page(ram, cpu, fresh)  # not free_page: a late look-up of what the frame held before may hold it for a moment
        table = entry >> PTE_PFN_SHIFT
    return table


@kernel
def new_mm(ram, cpu, mm):
    """Give an mm its top page table."""
    ram.mm_pgd[mm] = new_table(ram, cpu)
    ram.mm_tlb_gen[mm] = 1
    fetch_add(ram.mm_users, mm, 1)
    return ram.mm_pgd[mm]


@kernel
def _flush_gathered(ram, cpu, mm, start, end, count):
    """One flush for all gathered pages, and only then drop them (tlb_flush_mmu)."""
    flush_tlb_mm_range(ram, cpu, mm, start, end, False)
    for i in range(count):
        drop_page(ram, cpu, ram.gather[cpu, i])


@apart
def zap_range(ram, cpu, mm, start, end):
    """Clear all PTEs in start..end, flush, drop the pages (zap_page_range_single)."""
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_USER
    count, first, last = 0, end, start
    vpn = start
    while vpn < end:
        stop = min(end, (vpn | (TABLE_SPAN - 1)) + 1)
        table = find_table(ram, ram.mm_pgd[mm], vpn)
        if table >= 0:
            lock_pte(ram, cpu, table)
            call(ram, HOOK_MAPPING_CHANGE, cpu, mm, 0, 0, 0)
            while vpn < stop and count < GATHER_PAGES:
                pfn = clear_mapped(ram, cpu, mm, vpn, table)
                if pfn >= 0:
                    ram.gather[cpu, count] = pfn
                    count += 1
                    first, last = min(first, vpn), max(last, vpn + 1)
                vpn += 1
            unlock_pte(ram, cpu, table)
            if count >= GATHER_PAGES:
                _flush_gathered(ram, cpu, mm, first, last, count)
                count, first, last = 0, end, start
        else:
            vpn = stop
    if count:
        _flush_gathered(ram, cpu, mm, first, last, count)
    ram.cpu_site[cpu] = site
    return 0


@kernel
def munmap(ram, cpu, mm, vma):
    """Unmap a whole VMA (do_munmap)."""
    mmap_write_lock(ram, cpu, mm)
    zap_range(ram, cpu, mm, ram.vma_start[vma], ram.vma_end[vma])
    remove_vma(ram, cpu, mm, vma)
    mmap_write_unlock(ram, cpu, mm)


@kernel
def mmap_again(ram, cpu, mm, vma):
    """Map a VMA that was unmapped, at its old place."""
    mmap_write_lock(ram, cpu, mm)
    insert_vma(ram, cpu, mm, vma)
    mmap_write_unlock(ram, cpu, mm)
