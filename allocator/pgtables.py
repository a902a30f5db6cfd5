"""Page tables of an address space: making them, and freeing those that nobody uses any more (mm/memory.c:
__pte_alloc, free_pgtables).

Tables are taken out under mmap_lock held for writing, with the VMAs already hidden from reverse mapping, and
freed by the gather after its flush: by then no CPU walks them. As in Linux a table goes only if no
neighbouring VMA can need it (floor and ceiling), and the address that is noted for the flush is that of the
first page which the table could map: so a range may grow to a gigabyte and become a full flush. The P4D level
is folded into the PGD and noted all the same.
Left out: page-table accounting, freeing of empty tables while their VMA lives.
"""

from allocator.kmap import KMAP_TABLE, kmap
from allocator.mmu_gather import P4DS, PMDS, PUDS, tlb_remove_table
from allocator.page import PG_TABLE
from allocator.page_alloc import GFP_USER, alloc_page, put_page
from allocator.panic import TABLE_IN_USE, panic
from allocator.vma import unlink_rmap
from cpus.abi.numbers import TASK_SIZE
from cpus.atomics import store_release
from cpus.compiled import apart, kernel
from cpus.declare import Lock, Struct
from cpus.locks import spin_lock, spin_unlock
from cpus.page_table import LEVEL_BITS, LEVEL_MASK, PTE_PRESENT, pfn_pte, pte_pfn

FIELDS = (
    Struct(
        "nr_mms", "lock", (Lock("mm_table_lock", "mm.page_table_lock", "upper levels of the page table"),)
    ),
)

# that one entry maps
PMD_PAGES, PUD_PAGES, PGDIR_PAGES = 1 << LEVEL_BITS, 1 << 2 * LEVEL_BITS, 1 << 3 * LEVEL_BITS
NO_TABLE = -1


@kernel
def new_table(ram, cpu, mm):
    """Allocate and clear a page-table frame for an mm."""
    pfn = alloc_page(ram, cpu, ram.cpu_node[cpu], GFP_USER)
    kmap(ram, cpu, pfn, KMAP_TABLE, mm, 0)
    for i in range(LEVEL_MASK + 1):
        ram.frame_word[pfn, i] = 0
    ram.page_flags[pfn] = PG_TABLE
    store_release(ram.page_lock_word, pfn, 0)
    return pfn


@kernel
def free_table(ram, cpu, table):
    """Give a page-table frame back that no CPU can reach."""
    ram.page_flags[table] = 0
    # not free_page: a late look-up of what the frame held before may hold it for a moment
    put_page(ram, cpu, table)


@kernel
def _ensure_entry(ram, cpu, mm, table, index):
    """Give the table behind an upper-level entry, making it if it is not there."""
    entry = ram.frame_word[table, index]
    if entry & PTE_PRESENT == 0:
        fresh = new_table(ram, cpu, mm)
        spin_lock(ram, cpu, ram.mm_table_lock, mm)
        entry = ram.frame_word[table, index]
        if entry & PTE_PRESENT == 0:
            entry = pfn_pte(fresh, PTE_PRESENT)
            ram.frame_word[table, index] = entry
            fresh = NO_TABLE
        spin_unlock(ram, cpu, ram.mm_table_lock, mm)
        if fresh != NO_TABLE:  # somebody else was faster
            free_table(ram, cpu, fresh)
    return pte_pfn(entry)


@kernel
def ensure_pmd(ram, cpu, mm, vpn):
    """Walk to the PMD table of `vpn`, building what is missing."""
    table = ram.mm_pgd[mm]
    for level in range(3, 1, -1):
        table = _ensure_entry(ram, cpu, mm, table, (vpn >> (LEVEL_BITS * level)) & LEVEL_MASK)
    return table


@apart
def ensure_table(ram, cpu, mm, vpn):
    """Walk to the PTE table of `vpn`, building what is missing (__pte_alloc)."""
    return _ensure_entry(ram, cpu, mm, ensure_pmd(ram, cpu, mm, vpn), (vpn >> LEVEL_BITS) & LEVEL_MASK)


@kernel
def _take_out(ram, cpu, table, index, start, level):
    """Clear an entry and leave the table behind it, which must be empty, to the gather."""
    below = pte_pfn(ram.frame_word[table, index])
    for i in range(LEVEL_MASK + 1):
        if ram.frame_word[below, i] != 0:
            panic(ram, cpu, TABLE_IN_USE, below, i)
    ram.frame_word[table, index] = 0
    tlb_remove_table(ram, cpu, below, start, level)


@kernel
def _unused(start, end, floor, ceiling, span):
    """May the table that maps `span` pages from `start` on go: is no VMA outside floor..ceiling in it?"""
    top = ceiling & ~(span - 1)
    return start >= floor and top != 0 and end <= top


@kernel
def _free_pmd_range(ram, cpu, pud, addr, end, floor, ceiling):
    """Free the PTE tables under one PUD entry, and then its PMD table."""
    index = (addr >> (2 * LEVEL_BITS)) & LEVEL_MASK
    entry = ram.frame_word[pud, index]
    if entry & PTE_PRESENT == 0:
        return
    pmd, start = pte_pfn(entry), addr
    while addr < end:
        slot = (addr >> LEVEL_BITS) & LEVEL_MASK
        if ram.frame_word[pmd, slot] & PTE_PRESENT:
            _take_out(ram, cpu, pmd, slot, addr, PMDS)
        addr = (addr + PMD_PAGES) & ~(PMD_PAGES - 1)
    start &= ~(PUD_PAGES - 1)
    if _unused(start, end, floor, ceiling, PUD_PAGES):
        _take_out(ram, cpu, pud, index, start, PUDS)


@kernel
def _free_pud_range(ram, cpu, mm, addr, end, floor, ceiling):
    """Free what lies under one PGD entry, and then its PUD table."""
    pgd, index, start = ram.mm_pgd[mm], (addr >> (3 * LEVEL_BITS)) & LEVEL_MASK, addr & ~(PGDIR_PAGES - 1)
    entry = ram.frame_word[pgd, index]
    if entry & PTE_PRESENT:
        while addr < end:
            after = min((addr + PUD_PAGES) & ~(PUD_PAGES - 1), end)
            _free_pmd_range(ram, cpu, pte_pfn(entry), addr, after, floor, ceiling)
            addr = after
    if _unused(start, end, floor, ceiling, PGDIR_PAGES):
        if entry & PTE_PRESENT:
            _take_out(ram, cpu, pgd, index, start, P4DS)
        # p4d_free_tlb of the folded level: notes one page, frees nothing
        tlb_remove_table(ram, cpu, NO_TABLE, start, 0)


@kernel
def _free_pgd_range(ram, cpu, mm, addr, end, floor, ceiling):
    """Free the tables of addr..end that nobody outside floor..ceiling needs (free_pgd_range)."""
    addr &= ~(PMD_PAGES - 1)
    if addr < floor:
        addr += PMD_PAGES
    ceiling &= ~(PMD_PAGES - 1)
    if ceiling == 0:
        return
    if end > ceiling:
        end -= PMD_PAGES
    while addr < end:
        after = min((addr + PGDIR_PAGES) & ~(PGDIR_PAGES - 1), end)
        _free_pud_range(ram, cpu, mm, addr, after, floor, ceiling)
        addr = after


@apart
def free_pgtables(ram, cpu, mm, first, count):
    """Hide `count` VMAs, from index `first` on, from reverse mapping and free the page tables that go with
    them (free_pgtables).
    """
    floor = ram.vma_end[ram.mm_vma[mm, first - 1]] if first > 0 else 0
    last = first + count
    top = ram.vma_start[ram.mm_vma[mm, last]] if last < ram.mm_nr_vmas[mm] else 2 * TASK_SIZE
    at = first
    while at < last:
        addr = ram.vma_start[ram.mm_vma[mm, at]]
        end = ram.vma_end[ram.mm_vma[mm, at]]
        unlink_rmap(ram, cpu, ram.mm_vma[mm, at])
        at += 1
        while at < last and ram.vma_start[ram.mm_vma[mm, at]] <= end + PMD_PAGES:  # near ones in one go
            end = ram.vma_end[ram.mm_vma[mm, at]]
            unlink_rmap(ram, cpu, ram.mm_vma[mm, at])
            at += 1
        _free_pgd_range(
            ram, cpu, mm, addr, end, floor, ram.vma_start[ram.mm_vma[mm, at]] if at < last else top
        )
    return 0
