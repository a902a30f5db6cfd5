"""Pinning user pages for a device (mm/gup.c: pin_user_pages_fast, unpin_user_page).

A pin is PIN_BIAS references at once (page.py): whoever needs a page's only references (reclaim, migration)
fails while it is pinned, and whoever must know that a device may write to it sees it in the count.
First without a lock: read the PTE, pin the page, read the PTE again. Who takes a mapping (or its right to
write) away changes the PTE first and looks at the references then, so one of the two notices. The walk itself
is safe because page tables are freed only after this CPU has served the interrupt of their flush, and it
serves none on the way. Else the page is faulted in under mmap_lock. Left out: long-term pins, pins that
outlive the call, unsharing before a page is pinned for reading only.
"""

from allocator.lru import release_page
from allocator.memory import fault_in_vma
from allocator.page import PIN_BIAS, try_pin_page
from allocator.page_list import NONE
from allocator.panic import SEGV_MAPERR, panic
from allocator.vma import find_vma
from cpus.abi.numbers import LOAD, STORE
from cpus.atomics import fetch_add, load_acquire
from cpus.compiled import apart, kernel
from cpus.locks import mmap_read_lock, mmap_read_unlock
from cpus.page_table import LEVEL_MASK, PTE_PRESENT, PTE_SPECIAL, PTE_WRITE, find_table, pte_pfn, ptep_get
from cpus.tlb import WAIT

# beside a frame: nothing that must be pinned; its data are on their way from disk
ZERO_PAGE, MUST_SLEEP = -2, -3


@kernel
def _usable(pte, store):
    """May a device read the page behind this PTE, or with `store` write to it?"""
    return pte & PTE_PRESENT != 0 and (not store or pte & PTE_WRITE != 0)


@kernel
def pin_if_still_there(ram, cpu, table, index, pfn, store):
    """Pin the frame that a PTE showed, unless it is being freed or the PTE has changed; the frame or NONE."""
    if not try_pin_page(ram, pfn):
        return NONE
    now = load_acquire(ram.frame_word, (table, index))
    if _usable(now, store) and pte_pfn(now) == pfn:
        return pfn
    unpin_page(ram, cpu, pfn)
    return NONE


@kernel
def _pin_fast(ram, cpu, mm, vpn, store):
    """Pin what a PTE shows, without a lock; NONE if it must be faulted in (gup_fast_pte_range)."""
    table = find_table(ram, ram.mm_pgd[mm], vpn)
    if table < 0:
        return NONE
    pte = ptep_get(ram, table, vpn)
    if not _usable(pte, store):
        return NONE
    return (
        ZERO_PAGE
        if pte & PTE_SPECIAL
        else pin_if_still_there(ram, cpu, table, vpn & LEVEL_MASK, pte_pfn(pte), store)
    )


@apart
def pin_user_page(ram, cpu, mm, vpn, store):
    """Pin one page of an address space; returns its frame, ZERO_PAGE, or MUST_SLEEP: the task must wait until
    task_wait_ns.
    """
    while True:
        pfn = _pin_fast(ram, cpu, mm, vpn, store)
        if pfn != NONE:
            return pfn
        mmap_read_lock(ram, cpu, mm)
        vma = find_vma(ram, mm, vpn)
        if vma == NONE:
            panic(ram, cpu, SEGV_MAPERR, vpn, mm)
        result = fault_in_vma(ram, cpu, mm, vma, vpn, STORE if store else LOAD)
        mmap_read_unlock(ram, cpu, mm)
        if result == WAIT:
            return MUST_SLEEP


@kernel
def unpin_page(ram, cpu, pfn):
    """Let go of a pin; the last reference frees the page."""
    if fetch_add(ram.page_refcount, pfn, -PIN_BIAS) == PIN_BIAS:
        release_page(ram, cpu, pfn)
