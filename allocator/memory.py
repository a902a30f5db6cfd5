"""Page faults (mm/memory.c: handle_mm_fault, do_anonymous_page, do_fault; mm/filemap.c: filemap_fault).

A fault returns 0 (try the access again) or 1: the task must sleep until `task_wait_ns`, when the page's data
have come from disk (Linux drops mmap_lock and retries just so). Read faults on files map up to 16 pages
around at once.
Anonymous memory that is read before it is written shows the zero page. Stores through read-only PTEs are in
copy_on_write.py. Left out: swap-in, userfaultfd, huge pages.
"""

from allocator.copy_on_write import ask_design, copy_file_page, do_wp_page, new_anonymous_page
from allocator.flush_sites import SITE_WRITE_FAULT
from allocator.hooks import HOOK_FAULT_BEGINS, HOOK_FAULT_DONE
from allocator.kmap import KMAP_ZERO, MKWRITE_ANON, MKWRITE_SHARED, mkwrite
from allocator.lru import drop_page, lru_add, unlock_and_drop
from allocator.numa_balancing import do_numa_page
from allocator.page import (
    PG_LOCKED,
    PG_READAHEAD,
    PG_UPTODATE,
    PG_WAITERS,
    PG_WORKINGSET,
    lock_page,
    mark_dirty,
    try_lock_page,
    unlock_page,
    wait_for_unlock,
)
from allocator.page_cache import check_in_file, drop_failed_lookup, find_page, lookup
from allocator.page_list import NONE
from allocator.panic import SEGV_ACCERR, SEGV_MAPERR, panic
from allocator.pgtables import ensure_table
from allocator.readahead import async_readahead, mmap_readahead
from allocator.rmap import lock_pte, set_pte, unlock_pte
from allocator.vma import VM_ANON, VM_RIGHTS, VM_SHARED, VM_WRITE, find_vma
from cpus.abi.numbers import STORE
from cpus.atomics import fetch_or, store_release
from cpus.compiled import apart, call, inlined, kernel
from cpus.declare import EXERCISED, VMSTAT, Constant, Cost, Counter, Field, OwnerOf, Struct
from cpus.events import EV_FAULT, record
from cpus.live import REFUSED
from cpus.locks import mmap_read_lock, mmap_read_unlock
from cpus.lost_data import now_shows
from cpus.page_table import (
    LEVEL_MASK,
    PTE_ACCESSED,
    PTE_MIGRATION,
    PTE_WRITE,
    PTE_WRITTEN,
    find_table,
    pte_pfn,
    pte_protnone,
    ptep_get,
    zero_pte,
)
from cpus.spans import SPAN_FAULT, end_span, span
from cpus.tlb import AGAIN, WAIT

FIELDS = (
    Constant("fault_around_pages", "PTEs set around a read fault", "pages"),
    Struct("nr_tasks", "task", (
        Field("task_tried", OwnerOf("task_cpu"), "page + 1 whose fault it sleeps for (FAULT_FLAG_TRIED)"),
    )),
)  # fmt: skip

COUNTERS = (
    Counter("pgfault", VMSTAT, "page faults"),
    Counter("pgmajfault", VMSTAT, "page faults that had to read from disk"),
    Counter("faults_too_late", EXERCISED, "faults that found the page mapped by another thread meanwhile"),
    Counter("faults_on_a_lost_page", EXERCISED, "faults whose page was reclaimed or truncated meanwhile"),
    Counter("faults_on_a_moving_page", EXERCISED, "faults that waited for a page to be moved"),
)
COSTS = (
    Cost("fault_entry", "exception, entry and return"),
    Cost("fault_minor", "handle_mm_fault of a page that is there, without allocation"),
    Cost("map_page", "one more PTE set by fault-around"),
    Cost("page_zero", "clearing a page"),
)


@apart
def do_anonymous_page(ram, cpu, mm, vma, vpn, store):
    """First touch of anonymous memory: the zero page for a load, a zeroed page for a store
    (do_anonymous_page).
    """
    table = ensure_table(ram, cpu, mm, vpn)
    if not store:
        lock_pte(ram, cpu, table)
        if ptep_get(ram, table, vpn) == 0:
            store_release(ram.frame_word, (table, vpn & LEVEL_MASK), zero_pte(ram))
        unlock_pte(ram, cpu, table)
        return AGAIN
    pfn = new_anonymous_page(ram, cpu, vma, vpn, KMAP_ZERO)
    ram.cpu_clock[cpu] += ram.cost_page_zero
    ask_design(ram, cpu, mm, vma, vpn)
    lock_pte(ram, cpu, table)
    if ptep_get(ram, table, vpn) != 0:  # another thread was faster
        ram.faults_too_late[cpu] += 1
        unlock_pte(ram, cpu, table)
        drop_page(ram, cpu, pfn)
        return AGAIN
    mkwrite(ram, cpu, pfn, MKWRITE_ANON, mm, vpn)
    now_shows(ram, cpu, mm, vpn, table, pfn)
    lru_add(ram, cpu, pfn)  # before others can reach it, and drop its last reference
    # the allocation's reference becomes the PTE's
    set_pte(ram, cpu, mm, vpn, table, pfn, PTE_WRITTEN)
    unlock_pte(ram, cpu, table)
    return AGAIN


@inlined
def _mappable(ram, cpu, pfn):
    """May fault-around map this page without waiting (next_uptodate_folio)?"""
    flags = ram.page_flags[pfn]
    return (
        flags & PG_UPTODATE != 0
        and flags & (PG_READAHEAD | PG_LOCKED) == 0
        and ram.page_io_ns[pfn] <= ram.cpu_clock[cpu]
    )


@inlined
def map_pages_around(ram, cpu, mm, vma, vpn, table):
    """Map what is cached in the aligned window around `vpn` (filemap_map_pages); True if `vpn` itself got
    mapped.
    """
    around = ram.fault_around_pages
    first = max(vpn & ~(around - 1), ram.vma_start[vma], vpn & ~LEVEL_MASK)
    last = min((vpn | (around - 1)) + 1, ram.vma_end[vma], (vpn | LEVEL_MASK) + 1)
    object = ram.vma_object[vma]
    skew = ram.vma_pgoff[vma] - ram.vma_start[vma]
    hit, mapped, hits = False, 0, 0
    lock_pte(ram, cpu, table)
    for page in range(first, last):
        if ptep_get(ram, table, page) != 0:
            continue
        pfn = lookup(ram, object, page + skew)
        if pfn < 0:
            if pfn < NONE:  # a failed look-up holds the last reference: hand it on after the lock
                unlock_pte(ram, cpu, table)
                drop_failed_lookup(ram, cpu, pfn)
                lock_pte(ram, cpu, table)
            continue
        taken = _mappable(ram, cpu, pfn) and try_lock_page(ram, pfn)
        if taken and ram.page_object[pfn] == object + 1:
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
    ram.cpu_clock[cpu] += mapped * ram.cost_map_page
    ram.vma_ra_miss[vma] = max(0, ram.vma_ra_miss[vma] - hits)
    return hit


@inlined
def _file_page(ram, cpu, vma, object, index, tried):
    """Find the page of a file fault, reading it if need be; returns it with a reference, or -1 if the task
    must wait.
    """
    major = False
    while True:
        pfn = find_page(ram, cpu, object, index)
        if pfn != NONE:
            break
        major = True
        mmap_readahead(ram, cpu, vma, object, index)
    if major:
        ram.pgmajfault[cpu] += 1
    elif not tried:
        async_readahead(ram, cpu, vma, object, index, pfn)
    if ram.page_io_ns[pfn] > ram.cpu_clock[cpu]:
        ram.task_wait_ns[ram.cpu_task[cpu]] = ram.page_io_ns[pfn]
        drop_page(ram, cpu, pfn)
        return NONE
    return pfn


@apart
def do_file_fault(ram, cpu, mm, vma, vpn, store):
    """Map a page of a file (do_read_fault, do_shared_fault)."""
    object = ram.vma_object[vma]
    index = vpn - ram.vma_start[vma] + ram.vma_pgoff[vma]
    check_in_file(ram, cpu, object, index)
    table = ensure_table(ram, cpu, mm, vpn)
    if not store and ram.fault_around_pages > 1 and map_pages_around(ram, cpu, mm, vma, vpn, table):
        return AGAIN
    pfn = _file_page(ram, cpu, vma, object, index, ram.task_tried[ram.cpu_task[cpu]] == vpn + 1)
    if pfn == NONE:
        return WAIT
    lock_page(ram, cpu, pfn)
    if ram.page_io_ns[pfn] > ram.cpu_clock[cpu]:  # its reader had not asked the disk for it yet
        ram.task_wait_ns[ram.cpu_task[cpu]] = ram.page_io_ns[pfn]
        unlock_and_drop(ram, cpu, pfn)
        return WAIT
    if ram.page_object[pfn] != object + 1 or ram.page_index[pfn] != index:  # truncated or reclaimed meanwhile
        ram.faults_on_a_lost_page[cpu] += 1
        unlock_and_drop(ram, cpu, pfn)
        return AGAIN
    if store and ram.vma_flags[vma] & VM_SHARED == 0:
        return copy_file_page(ram, cpu, mm, vma, vpn, table, pfn)
    if store:
        ask_design(ram, cpu, mm, vma, vpn)
        mark_dirty(ram, pfn)
    lock_pte(ram, cpu, table)
    if ptep_get(ram, table, vpn) == 0:
        if store:
            mkwrite(ram, cpu, pfn, MKWRITE_SHARED, mm, vpn)
        set_pte(ram, cpu, mm, vpn, table, pfn, PTE_WRITTEN if store else PTE_ACCESSED)
        unlock_pte(ram, cpu, table)
        unlock_page(ram, cpu, pfn)
    else:
        ram.faults_too_late[cpu] += 1
        unlock_pte(ram, cpu, table)
        unlock_and_drop(ram, cpu, pfn)
    return AGAIN


@kernel
def wait_for_migration(ram, cpu, table, vpn):
    """Sleep until the page behind a migration entry has moved (migration_entry_wait)."""
    lock_pte(ram, cpu, table)
    pte = ptep_get(ram, table, vpn)
    waits = pte & PTE_MIGRATION != 0
    pfn = pte_pfn(pte)
    if waits:  # the page stays locked at least until its entries are gone, which takes this pte lock
        fetch_or(ram.page_flags, pfn, PG_WAITERS)
    unlock_pte(ram, cpu, table)
    if waits:
        ram.faults_on_a_moving_page[cpu] += 1
        wait_for_unlock(ram, cpu, pfn)
    return AGAIN


@apart
def handle_mm_fault(ram, cpu, mm, vma, vpn, kind):
    """Resolve one fault under mmap_lock; AGAIN or WAIT."""
    store = kind == STORE
    if (store and ram.vma_flags[vma] & VM_WRITE == 0) or ram.vma_flags[vma] & VM_RIGHTS == 0:
        if ram.cpu_probing[cpu]:
            ram.cpu_probing[cpu] = REFUSED
            return WAIT
        panic(ram, cpu, SEGV_ACCERR, vpn, mm)
    table = find_table(ram, ram.mm_pgd[mm], vpn)
    pte = ptep_get(ram, table, vpn) if table >= 0 else 0
    if pte == 0:
        if ram.vma_flags[vma] & VM_ANON:
            return do_anonymous_page(ram, cpu, mm, vma, vpn, store)
        return do_file_fault(ram, cpu, mm, vma, vpn, store)
    if pte & PTE_MIGRATION:
        return wait_for_migration(ram, cpu, table, vpn)
    if pte_protnone(pte):
        return do_numa_page(ram, cpu, mm, vpn, table)
    if store and pte & PTE_WRITE == 0:
        return do_wp_page(ram, cpu, mm, vma, vpn, pte)
    return AGAIN  # somebody else has resolved it


@kernel
def fault_in_vma(ram, cpu, mm, vma, vpn, kind):
    """Resolve one fault under mmap_lock, AGAIN or WAIT, and tell the design where it begins and ends. What
    the design flushes there is for a write fault.
    """
    site, store = ram.cpu_site[cpu], 1 if kind == STORE else 0
    ram.cpu_site[cpu] = SITE_WRITE_FAULT
    call(ram, HOOK_FAULT_BEGINS, cpu, mm, vma, vpn, store)
    ram.cpu_site[cpu] = site
    result = handle_mm_fault(ram, cpu, mm, vma, vpn, kind)
    ram.cpu_site[cpu] = SITE_WRITE_FAULT
    call(ram, HOOK_FAULT_DONE, cpu, mm, vma, vpn, store)
    ram.cpu_site[cpu] = site
    return result


@apart
def page_fault(ram, cpu, vpn, kind):
    """The exception: find the VMA and resolve the fault; AGAIN or WAIT."""
    if ram.cpu_in_irq[cpu]:
        return WAIT  # a spinning thread's page is gone (live.py): it faults when it looks itself
    mm = ram.cpu_loaded_mm[cpu]
    task = ram.cpu_task[cpu]
    # a fault that slept counts once (mm_account_fault), even if others have resolved it meanwhile
    if ram.task_tried[task] != vpn + 1:
        ram.pgfault[cpu] += 1
    span(ram, cpu, SPAN_FAULT, kind, vpn)
    ram.cpu_clock[cpu] += ram.cost_fault_entry + ram.cost_fault_minor
    record(ram, cpu, EV_FAULT, mm, vpn, kind, task)
    mmap_read_lock(ram, cpu, mm)
    vma = find_vma(ram, mm, vpn)
    if vma == NONE:
        if ram.cpu_probing[cpu]:
            ram.cpu_probing[cpu] = REFUSED
            mmap_read_unlock(ram, cpu, mm)
            end_span(ram, cpu, SPAN_FAULT)
            return WAIT
        panic(ram, cpu, SEGV_MAPERR, vpn, mm)
    result = fault_in_vma(ram, cpu, mm, vma, vpn, kind)
    mmap_read_unlock(ram, cpu, mm)
    ram.task_tried[task] = vpn + 1 if result == WAIT and ram.cpu_probing[cpu] != REFUSED else 0
    end_span(ram, cpu, SPAN_FAULT)
    return result
