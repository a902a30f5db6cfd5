"""fork: a copy of an address space whose private pages are shared until somebody writes.

kernel/fork.c: dup_mmap; mm/memory.c: copy_page_range, copy_present_ptes.

Private mappings are copied PTE by PTE, write-protected on both sides; shared ones are left to page faults.
Then the parent's TLBs are flushed once, everywhere, for the rights that were taken. A child's VMA comes
behind its parent's on the lists of reverse mapping, so that a walk which has passed it while we copy cannot
miss a PTE that it should have seen at the parent.
A page that a device writes to stays the parent's, and the child gets a copy at once.
Left out: threads of the child (it starts with its main thread), vfork, VM_DONTCOPY.
"""

from allocator.copy_on_write import new_anonymous_page
from allocator.flush_sites import SITE_USER
from allocator.kmap import KMAP_COPY
from allocator.lru import drop_page, lru_add
from allocator.mmap import MAX_REGIONS, new_mm
from allocator.page import PG_EXCLUSIVE, clear_flag, get_page, maybe_dma_pinned
from allocator.page_list import NONE
from allocator.panic import STILL_ALIVE, panic
from allocator.pgtables import ensure_table
from allocator.rmap import lock_pte, mod_rss, set_pte, unlock_pte
from allocator.tlb_flush import flush_tlb_mm
from allocator.vma import VM_HAS_ANON, insert_vma, link_rmap, new_vma
from cpus.atomics import compare_exchange, fetch_add, fetch_or, load_acquire, store_release
from cpus.compiled import apart, kernel
from cpus.completion import WRITE_PROTECTED, change_begins
from cpus.declare import EXERCISED, Counter
from cpus.exposed_changes import call_returns
from cpus.locks import mmap_write_lock, mmap_write_unlock
from cpus.lost_data import shows_copy, shows_the_same
from cpus.page_table import (
    LEVEL_MASK,
    PTE_ACCESSED,
    PTE_MIGRATION,
    PTE_SPECIAL,
    PTE_WRITE,
    PTE_WRITTEN,
    next_table,
    pte_pfn,
)

COUNTERS = (
    Counter("fork_copied_pinned", EXERCISED, "pages copied at once, since a device writes to the parent's"),
)


@kernel
def _copy_pte(ram, cpu, mm, child, source, target, index):
    """Share one page: take the right to write from the parent, give the child the same PTE, made old
    (copy_present_ptes).

    False if a device writes to it: then it stays the parent's alone, and the child must have a copy at once.
    The right is taken before the look at the pins, as gup.py pins before it looks at the right again.
    """
    while True:
        pte = load_acquire(ram.frame_word, (source, index))
        if pte == 0:
            shows_the_same(ram, source, index, target, index)
            return True
        shared = pte & ~PTE_WRITE
        if compare_exchange(ram.frame_word, (source, index), pte, shared) == pte:  # else a walk set a bit
            break
    pfn = pte_pfn(pte)
    if pte & PTE_MIGRATION:
        # whoever moves the page asks for it under our pte lock (copy_nonpresent_pte)
        clear_flag(ram, pfn, PG_EXCLUSIVE)
    elif pte & PTE_SPECIAL == 0:
        if ram.page_flags[pfn] & PG_EXCLUSIVE and maybe_dma_pinned(ram, pfn):  # folio_needs_cow_for_dma
            fetch_or(ram.frame_word, (source, index), pte & PTE_WRITE)
            return False
        clear_flag(ram, pfn, PG_EXCLUSIVE)
        get_page(ram, pfn)
        fetch_add(ram.page_mapcount, pfn, 1)
        mod_rss(ram, cpu, child, 1)
    shows_the_same(ram, source, index, target, index)
    # old: it used nothing yet
    store_release(ram.frame_word, (target, index), shared if pte & PTE_MIGRATION else shared & ~PTE_ACCESSED)
    return True


@kernel
def _copy_ptes(ram, cpu, mm, child, source, vpn, stop, copy):
    """Copy the PTEs of vpn..stop-1 in one table, up to the first page that needs a frame of its own; returns
    where it stopped.

    `copy` is such a frame for page `vpn`, NONE if there is none yet: it becomes the child's
    (copy_present_page).
    """
    target = ensure_table(ram, cpu, child, vpn)
    lock_pte(ram, cpu, source)
    lock_pte(ram, cpu, target)
    page = vpn
    while page < stop and _copy_pte(ram, cpu, mm, child, source, target, page & LEVEL_MASK):
        page += 1
    used = copy != NONE and page == vpn
    if used:
        shows_copy(ram, cpu, vpn, target, copy, copy)
        used_how = ram.frame_word[source, vpn & LEVEL_MASK] & PTE_WRITTEN
        lru_add(ram, cpu, copy)
        set_pte(ram, cpu, child, vpn, target, copy, used_how)
        page += 1
    unlock_pte(ram, cpu, target)
    unlock_pte(ram, cpu, source)
    if used:
        ram.fork_copied_pinned[cpu] += 1
    elif copy != NONE:
        drop_page(ram, cpu, copy)
    return page


@apart
def copy_range(ram, cpu, mm, child, vma, copy):
    """Copy the PTEs of a private mapping to VMA `copy` of the child (copy_pte_range)."""
    end, page = ram.vma_end[vma], NONE
    source, vpn, stop = next_table(ram, ram.mm_pgd[mm], ram.vma_start[vma], end)
    while source >= 0:
        vpn = _copy_ptes(ram, cpu, mm, child, source, vpn, stop, page)
        page = NONE
        if vpn < stop:
            page = new_anonymous_page(ram, cpu, copy, vpn, KMAP_COPY)
            ram.cpu_clock[cpu] += ram.cost_page_copy
        source, vpn, stop = next_table(ram, ram.mm_pgd[mm], vpn, end)
    return 0


@apart
def dup_mm(ram, cpu, mm, child):
    """Make `child` a copy of `mm` (dup_mmap)."""
    if ram.mm_users[child]:
        panic(ram, cpu, STILL_ALIVE, ram.mm_process[child], child)
    mmap_write_lock(ram, cpu, mm)
    mmap_write_lock(ram, cpu, child)
    change = change_begins(ram, mm)
    new_mm(ram, cpu, child)
    for region in range(MAX_REGIONS):
        ram.proc_region[ram.mm_process[child], region] = ram.proc_region[ram.mm_process[mm], region]
        ram.proc_anon[ram.mm_process[child], region] = ram.proc_anon[ram.mm_process[mm], region]
    for i in range(ram.mm_nr_vmas[mm]):
        vma = ram.mm_vma[mm, i]
        copy = new_vma(ram, cpu, child)
        ram.vma_start[copy], ram.vma_end[copy], ram.vma_flags[copy] = (
            ram.vma_start[vma],
            ram.vma_end[vma],
            ram.vma_flags[vma],
        )
        ram.vma_object[copy], ram.vma_anon[copy], ram.vma_pgoff[copy] = (
            ram.vma_object[vma],
            ram.vma_anon[vma],
            ram.vma_pgoff[vma],
        )
        link_rmap(ram, cpu, copy, vma)
        insert_vma(ram, cpu, child, copy)
        if ram.vma_flags[vma] & VM_HAS_ANON:  # vma_needs_copy
            copy_range(ram, cpu, mm, child, vma, copy)
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_USER
    flush_tlb_mm(ram, cpu, mm)
    for i in range(ram.mm_nr_vmas[mm]):
        vma = ram.mm_vma[mm, i]
        if ram.vma_flags[vma] & VM_HAS_ANON:
            call_returns(ram, cpu, mm, change, ram.vma_start[vma], ram.vma_end[vma], WRITE_PROTECTED)
    ram.cpu_site[cpu] = site
    mmap_write_unlock(ram, cpu, child)
    mmap_write_unlock(ram, cpu, mm)
    return 0
