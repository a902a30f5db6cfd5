"""Page faults (mm/memory.c: handle_mm_fault, do_anonymous_page, do_fault, do_numa_page; mm/filemap.c: filemap_fault).

A fault returns 0 (try the access again) or 1: the task must sleep until `task_wait_ns`, when the page's data have come from disk
(Linux drops mmap_lock and retries just so). Read faults on files map up to 16 pages around at once.
A mapping becomes writable only after the design has been asked (HOOK_WRITE_FAULT), never before.
Left out: copy-on-write after fork, the zero page, swap-in, userfaultfd, huge pages.
"""

from allocator.buddy import NONE
from allocator.hooks import HOOK_WRITE_FAULT
from allocator.lru import drop_page, lru_add
from allocator.mmap import ensure_table, find_vma
from allocator.numa_balancing import do_numa_page
from allocator.page import (
    PG_DIRTY,
    PG_LOCKED,
    PG_READAHEAD,
    PG_SWAPBACKED,
    PG_UPTODATE,
    PG_WAITERS,
    PG_WORKINGSET,
    lock_page,
    set_flag,
    try_lock_page,
    unlock_page,
    wait_for_unlock,
)
from allocator.page_alloc import GFP_USER, alloc_page
from allocator.page_cache import (
    VM_ANON,
    VM_SHARED,
    VM_WRITE,
    check_in_file,
    drop_failed_lookup,
    find_page,
    lookup,
)
from allocator.panic import SEGV_ACCERR, SEGV_MAPERR, panic
from allocator.readahead import async_readahead, mmap_readahead
from allocator.rmap import lock_pte, set_pte, unlock_pte
from allocator.tlb_flush import SITE_WRITE_FAULT
from cpus.atomics import fetch_or, load_acquire
from cpus.compiled import apart, call, entry, kernel
from cpus.costs import FAULT_ENTRY, FAULT_MINOR, MAP_PAGE, PAGE_ZERO
from cpus.events import EV_FAULT, record
from cpus.layout import COUNTER, TEXT
from cpus.locks import mmap_read_lock, mmap_read_unlock
from cpus.oracle import publish, set_content
from cpus.page_table import (
    LEVEL_MASK,
    PTE_ACCESSED,
    PTE_DIRTY,
    PTE_MIGRATION,
    PTE_PFN_SHIFT,
    PTE_PRESENT,
    PTE_PROTNONE,
    PTE_WRITE,
    find_table,
)
from cpus.tlb import STORE

PAGE_FAULT = TEXT["page_fault"]
AGAIN, WAIT = 0, 1
C_FAULT, C_MAJOR = COUNTER["pgfault"], COUNTER["pgmajfault"]


@kernel
def _ask_design(ram, cpu, mm, vma, vpn):
    """Let the design finish what is pending before a writable mapping of this mm or file is seen."""
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_WRITE_FAULT
    call(ram, HOOK_WRITE_FAULT, cpu, mm, vma, vpn, ram.vma_object[vma])
    ram.cpu_site[cpu] = site


@apart
def do_anonymous_page(ram, cpu, mm, vma, vpn, store):
    """First touch of anonymous memory: a zeroed page (do_anonymous_page)."""
    table = ensure_table(ram, cpu, mm, vpn)
    pfn = alloc_page(ram, cpu, 0, GFP_USER)
    index = vpn - ram.vma_start[vma] + ram.vma_pgoff[vma]
    logical = ram.vma_logical[vma] + index
    version = load_acquire(ram.version, logical) + 1  # zeros are newer than anything that was here before
    set_content(ram, pfn, logical, version)
    ram.page_object[pfn] = ram.vma_object[vma] + 1
    ram.page_index[pfn] = index
    set_flag(ram, pfn, PG_SWAPBACKED | PG_UPTODATE)
    ram.cpu_clock[cpu] += ram.cost[PAGE_ZERO]
    writable = ram.vma_flags[vma] & VM_WRITE
    if writable:
        _ask_design(ram, cpu, mm, vma, vpn)
    lock_pte(ram, cpu, table)
    if load_acquire(ram.frame_word, (table, vpn & LEVEL_MASK)) != 0:  # another thread was faster
        unlock_pte(ram, cpu, table)
        drop_page(ram, cpu, pfn)
        return AGAIN
    publish(ram, logical, version)
    bits = PTE_ACCESSED | (PTE_WRITE if writable else 0) | (PTE_DIRTY if store else 0)
    set_pte(ram, cpu, mm, vpn, table, pfn, bits)  # the allocation's reference becomes the PTE's
    unlock_pte(ram, cpu, table)
    lru_add(ram, cpu, pfn)
    return AGAIN


@kernel
def _mappable(ram, cpu, pfn):
    """May fault-around map this page without waiting (next_uptodate_folio)?"""
    flags = ram.page_flags[pfn]
    return flags & PG_UPTODATE != 0 and flags & (PG_READAHEAD | PG_LOCKED) == 0 and ram.page_io_ns[pfn] <= ram.cpu_clock[cpu]


@apart
def map_pages_around(ram, cpu, mm, vma, vpn, table):
    """Map what is cached in the aligned window around `vpn` (filemap_map_pages); True if `vpn` itself got mapped."""
    around = ram.fault_around_pages
    first = max(vpn & ~(around - 1), ram.vma_start[vma], vpn & ~LEVEL_MASK)
    last = min((vpn | (around - 1)) + 1, ram.vma_end[vma], (vpn | LEVEL_MASK) + 1)
    thing = ram.vma_object[vma]
    skew = ram.vma_pgoff[vma] - ram.vma_start[vma]
    hit, mapped, hits = False, 0, 0
    lock_pte(ram, cpu, table)
    for page in range(first, last):
        if load_acquire(ram.frame_word, (table, page & LEVEL_MASK)) != 0:
            continue
        pfn = lookup(ram, thing, page + skew)
        if pfn < 0:
            if pfn < NONE:  # a failed look-up holds the last reference: hand it on after the lock
                unlock_pte(ram, cpu, table)
                drop_failed_lookup(ram, cpu, pfn)
                lock_pte(ram, cpu, table)
            continue
        taken = _mappable(ram, cpu, pfn) and try_lock_page(ram, pfn)
        if taken and ram.page_object[pfn] == thing + 1:
            set_pte(ram, cpu, mm, page, table, pfn, PTE_ACCESSED)  # the look-up's reference becomes the PTE's
            unlock_page(ram, cpu, pfn)
            mapped += 1
            hits += 0 if ram.page_flags[pfn] & PG_WORKINGSET else 1
            hit = hit or page == vpn
        else:
            if taken:
                unlock_page(ram, cpu, pfn)
            drop_page(ram, cpu, pfn)
    unlock_pte(ram, cpu, table)
    ram.cpu_clock[cpu] += mapped * ram.cost[MAP_PAGE]
    ram.vma_ra_miss[vma] = max(0, ram.vma_ra_miss[vma] - hits)
    return hit


@kernel
def _file_page(ram, cpu, vma, thing, index, tried):
    """Find the page of a file fault, reading it if need be; returns it with a reference, or -1 if the task must wait."""
    major = False
    while True:
        pfn = find_page(ram, cpu, thing, index)
        if pfn != NONE:
            break
        major = True
        mmap_readahead(ram, cpu, vma, thing, index)
    if major:
        ram.counter[cpu, C_MAJOR] += 1
    elif not tried:
        async_readahead(ram, cpu, vma, thing, index, pfn)
    if ram.page_io_ns[pfn] > ram.cpu_clock[cpu]:
        ram.task_wait_ns[ram.cpu_task[cpu]] = ram.page_io_ns[pfn]
        drop_page(ram, cpu, pfn)
        return NONE
    return pfn


@apart
def do_file_fault(ram, cpu, mm, vma, vpn, store):
    """Map a page of a file (do_read_fault, do_shared_fault)."""
    thing = ram.vma_object[vma]
    index = vpn - ram.vma_start[vma] + ram.vma_pgoff[vma]
    check_in_file(ram, cpu, thing, index)
    table = ensure_table(ram, cpu, mm, vpn)
    if not store and ram.fault_around_pages > 1 and map_pages_around(ram, cpu, mm, vma, vpn, table):
        return AGAIN
    pfn = _file_page(ram, cpu, vma, thing, index, ram.task_tried[ram.cpu_task[cpu]] == vpn + 1)
    if pfn == NONE:
        return WAIT
    lock_page(ram, cpu, pfn)
    if ram.page_io_ns[pfn] > ram.cpu_clock[cpu]:  # its reader had not asked the disk for it yet
        ram.task_wait_ns[ram.cpu_task[cpu]] = ram.page_io_ns[pfn]
        unlock_page(ram, cpu, pfn)
        drop_page(ram, cpu, pfn)
        return WAIT
    if ram.page_object[pfn] != thing + 1 or ram.page_index[pfn] != index:  # truncated or reclaimed meanwhile
        unlock_page(ram, cpu, pfn)
        drop_page(ram, cpu, pfn)
        return AGAIN
    bits = PTE_ACCESSED
    if store:
        _ask_design(ram, cpu, mm, vma, vpn)
        set_flag(ram, pfn, PG_DIRTY)
        bits |= PTE_WRITE | PTE_DIRTY
    lock_pte(ram, cpu, table)
    if load_acquire(ram.frame_word, (table, vpn & LEVEL_MASK)) == 0:
        set_pte(ram, cpu, mm, vpn, table, pfn, bits)
        unlock_pte(ram, cpu, table)
        unlock_page(ram, cpu, pfn)
    else:
        unlock_pte(ram, cpu, table)
        unlock_page(ram, cpu, pfn)
        drop_page(ram, cpu, pfn)
    return AGAIN


@kernel
def do_write_protect(ram, cpu, mm, vma, vpn, table):
    """A store through a read-only PTE of a writable VMA (do_wp_page, wp_page_reuse): make it writable."""
    index = vpn & LEVEL_MASK
    _ask_design(ram, cpu, mm, vma, vpn)
    lock_pte(ram, cpu, table)
    pte = load_acquire(ram.frame_word, (table, index))
    if pte & PTE_PRESENT and pte & PTE_WRITE == 0:
        if ram.vma_flags[vma] & VM_SHARED:
            set_flag(ram, pte >> PTE_PFN_SHIFT, PG_DIRTY)
        fetch_or(ram.frame_word, (table, index), PTE_WRITE | PTE_ACCESSED | PTE_DIRTY)
    unlock_pte(ram, cpu, table)
    return AGAIN  # more rights need no flush: a CPU with the old entry walks again (ptep_set_access_flags on x86)


@kernel
def wait_for_migration(ram, cpu, table, vpn):
    """Sleep until the page behind a migration entry has moved (migration_entry_wait)."""
    lock_pte(ram, cpu, table)
    pte = load_acquire(ram.frame_word, (table, vpn & LEVEL_MASK))
    waits = pte & PTE_MIGRATION != 0
    pfn = pte >> PTE_PFN_SHIFT
    if waits:  # the page stays locked at least until its entries are gone, which takes this pte lock
        fetch_or(ram.page_flags, pfn, PG_WAITERS)
    unlock_pte(ram, cpu, table)
    if waits:
        wait_for_unlock(ram, cpu, pfn)
    return AGAIN


@apart
def handle_mm_fault(ram, cpu, mm, vma, vpn, kind):
    """Resolve one fault under mmap_lock; AGAIN or WAIT."""
    store = kind == STORE
    if store and ram.vma_flags[vma] & VM_WRITE == 0:
        panic(ram, cpu, SEGV_ACCERR, vpn, mm)
    table = find_table(ram, ram.mm_pgd[mm], vpn)
    pte = load_acquire(ram.frame_word, (table, vpn & LEVEL_MASK)) if table >= 0 else 0
    if pte == 0:
        if ram.vma_flags[vma] & VM_ANON:
            return do_anonymous_page(ram, cpu, mm, vma, vpn, store)
        return do_file_fault(ram, cpu, mm, vma, vpn, store)
    if pte & PTE_MIGRATION:
        return wait_for_migration(ram, cpu, table, vpn)
    if pte & PTE_PROTNONE:
        return do_numa_page(ram, cpu, mm, vpn, table)
    if store and pte & PTE_WRITE == 0:
        return do_write_protect(ram, cpu, mm, vma, vpn, table)
    return AGAIN  # somebody else has resolved it


@entry(PAGE_FAULT)
def page_fault(ram, cpu, vpn, kind, c, d):
    """The exception: find the VMA and resolve the fault; 0 try again, 1 sleep until task_wait_ns."""
    if ram.cpu_in_irq[cpu]:
        return WAIT  # a spinning thread's page is gone (live.py): it faults when it looks itself
    mm = ram.cpu_loaded_mm[cpu]
    task = ram.cpu_task[cpu]
    if ram.task_tried[task] != vpn + 1:  # a fault that slept counts once (mm_account_fault), even if others have resolved it meanwhile
        ram.counter[cpu, C_FAULT] += 1
    ram.cpu_clock[cpu] += ram.cost[FAULT_ENTRY] + ram.cost[FAULT_MINOR]
    record(ram, cpu, EV_FAULT, mm, vpn, kind, task)
    mmap_read_lock(ram, cpu, mm)
    vma = find_vma(ram, mm, vpn)
    if vma == NONE:
        panic(ram, cpu, SEGV_MAPERR, vpn, mm)
    result = handle_mm_fault(ram, cpu, mm, vma, vpn, kind)
    mmap_read_unlock(ram, cpu, mm)
    ram.task_tried[task] = vpn + 1 if result == WAIT else 0
    return result

