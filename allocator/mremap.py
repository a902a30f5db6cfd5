"""mremap: move a mapping to another address (mm/mremap.c: move_vma, move_page_tables, move_ptes,
move_normal_pmd).

The new VMA is on the lists of file and anon_vma before the first PTE moves. PTEs move table by table, each
stretch flushed under its locks; where both ends are aligned to 2 MiB and a whole PTE table moves, the table
itself is hung in at its new place. What is left of the old range is unmapped, its page tables freed.
Left out: growing and shrinking in place, MREMAP_DONTUNMAP, moving of whole PMD tables (1 GiB), realignment
(try_realign_addr).
"""

from allocator.flush_sites import SITE_USER
from allocator.hooks import HOOK_MAP, HOOK_MAPPING_CHANGE
from allocator.mmap import UNPLACED, check_in_user_space, unmap_range
from allocator.panic import MOVED_ONTO_ITSELF, SEGV_MAPERR, SEVERAL_MAPPINGS, panic
from allocator.pgtables import PMD_PAGES, ensure_pmd, ensure_table
from allocator.rmap import lock_pte, record_move, unlock_pte
from allocator.tlb_flush import flush_tlb_mm_range
from allocator.vma import (
    find_vma,
    first_hole,
    get_unmapped_area,
    insert_vma,
    link_rmap,
    lock_rmap,
    new_vma,
    unlock_rmap,
)
from cpus.atomics import exchange, load_acquire, store_release
from cpus.compiled import apart, call, kernel
from cpus.completion import UNMAPPED, change_begins
from cpus.exposed_changes import call_returns
from cpus.locks import mmap_write_lock, mmap_write_unlock, spin_lock, spin_unlock
from cpus.lost_data import shows_it_elsewhere
from cpus.page_table import LEVEL_BITS, LEVEL_MASK, find_table, pte_pfn, pte_present


@kernel
def _move_ptes(ram, cpu, mm, old, new, pages):
    """Move the PTEs of one stretch inside one old and one new table, and flush it if any was mapped
    (move_ptes).
    """
    source, target = find_table(ram, ram.mm_pgd[mm], old), find_table(ram, ram.mm_pgd[mm], new)
    moved = False
    lock_pte(ram, cpu, source)
    if target != source:
        lock_pte(ram, cpu, target)
    call(ram, HOOK_MAPPING_CHANGE, cpu, mm, 0, 0, 0)
    for i in range(pages):
        pte = exchange(ram.frame_word, (source, (old + i) & LEVEL_MASK), 0)
        shows_it_elsewhere(ram, source, (old + i) & LEVEL_MASK, target, (new + i) & LEVEL_MASK)
        if pte != 0:
            moved = moved or pte_present(pte)
            record_move(ram, cpu, mm, old + i, new + i, pte)
            store_release(ram.frame_word, (target, (new + i) & LEVEL_MASK), pte)
    if moved:  # before the locks go: nobody may free a page that is still in a TLB under its old address
        flush_tlb_mm_range(ram, cpu, mm, old, old + pages, 0)
    if target != source:
        unlock_pte(ram, cpu, target)
    unlock_pte(ram, cpu, source)


@kernel
def _move_table(ram, cpu, mm, old, new):
    """Hang a whole PTE table in at its new place, where there is none, and flush the old one
    (move_normal_pmd).
    """
    source, target = ensure_pmd(ram, cpu, mm, old), ensure_pmd(ram, cpu, mm, new)  # both are there
    old_slot, new_slot = (old >> LEVEL_BITS) & LEVEL_MASK, (new >> LEVEL_BITS) & LEVEL_MASK
    spin_lock(ram, cpu, ram.mm_table_lock, mm)
    table = exchange(ram.frame_word, (source, old_slot), 0)
    for i in range(PMD_PAGES):
        pte = load_acquire(ram.frame_word, (pte_pfn(table), i))
        record_move(ram, cpu, mm, old + i, new + i, pte)
    store_release(ram.frame_word, (target, new_slot), table)
    spin_unlock(ram, cpu, ram.mm_table_lock, mm)
    flush_tlb_mm_range(ram, cpu, mm, old, old + PMD_PAGES, 0)


@apart
def move_page_tables(ram, cpu, vma, old, new, pages):
    """Move all PTEs of a range of a VMA, with reverse mapping kept away from each stretch.

    The new tables are allocated before that: reclaim may want to look at a page of the very same file.
    """
    mm, end = ram.vma_mm[vma], old + pages
    while old < end:
        stretch = min(end - old, PMD_PAGES - (old & LEVEL_MASK), PMD_PAGES - (new & LEVEL_MASK))
        if find_table(ram, ram.mm_pgd[mm], old) >= 0:
            whole = stretch == PMD_PAGES and find_table(ram, ram.mm_pgd[mm], new) < 0
            if whole:
                ensure_pmd(ram, cpu, mm, new)
            else:
                ensure_table(ram, cpu, mm, new)
            lock_rmap(ram, cpu, vma)
            if whole:
                _move_table(ram, cpu, mm, old, new)
            else:
                _move_ptes(ram, cpu, mm, old, new, stretch)
            unlock_rmap(ram, cpu, vma)
        old += stretch
        new += stretch
    return 0


@kernel
def _vma_to_move(ram, cpu, mm, old, pages):
    """The VMA that holds all of the pages to be moved (vma_to_resize); the run ends if there is none."""
    hole = first_hole(ram, mm, old, old + pages)
    if hole < old + pages:
        panic(ram, cpu, SEGV_MAPERR, hole, mm)
    vma = find_vma(ram, mm, old)
    if ram.vma_end[vma] < old + pages:
        panic(ram, cpu, SEVERAL_MAPPINGS, ram.vma_end[vma], mm)
    return vma


@apart
def mremap(ram, cpu, mm, old, pages, new):
    """Move `pages` pages from `old` to `new`, whatever lies there (MREMAP_MAYMOVE | MREMAP_FIXED), or where
    there is room if that is UNPLACED. Returns where they are now.
    """
    mmap_write_lock(ram, cpu, mm)
    if new == UNPLACED:
        new = get_unmapped_area(ram, cpu, mm, pages)
    check_in_user_space(ram, cpu, new, pages)
    if old < new + pages and new < old + pages:
        panic(ram, cpu, MOVED_ONTO_ITSELF, old, pages)
    unmap_range(ram, cpu, mm, new, new + pages)
    vma = _vma_to_move(ram, cpu, mm, old, pages)
    call(ram, HOOK_MAP, cpu, mm, new, new + pages, 0)
    moved = new_vma(ram, cpu, mm)
    ram.vma_start[moved], ram.vma_end[moved], ram.vma_flags[moved] = new, new + pages, ram.vma_flags[vma]
    ram.vma_object[moved], ram.vma_anon[moved] = ram.vma_object[vma], ram.vma_anon[vma]
    ram.vma_pgoff[moved] = ram.vma_pgoff[vma] + old - ram.vma_start[vma]
    link_rmap(ram, cpu, moved, vma)
    insert_vma(ram, cpu, mm, moved)
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_USER
    change = change_begins(ram, mm)
    move_page_tables(ram, cpu, vma, old, new, pages)
    call_returns(ram, cpu, mm, change, old, old + pages, UNMAPPED)
    ram.cpu_site[cpu] = site
    unmap_range(ram, cpu, mm, old, old + pages)
    mmap_write_unlock(ram, cpu, mm)
    return new
