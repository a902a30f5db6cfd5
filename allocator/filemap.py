"""Changing files through the page cache: buffered write, truncate, fdatasync (mm/filemap.c, mm/truncate.c,
mm/rmap.c: folio_mkclean).

Each asks the design first: before new bytes are visible at a file offset, what other CPUs may still read
there through translations that reclaim left pending must be flushed. Past the page cache: direct_io.py.
The writer's own copy is not a mapped access: the oracle sees it as the next version of the page, published
when it is complete. Buffered write and truncate of one file exclude each other (inode_lock.py). Left out:
sizes (a file keeps its pages; truncate drops contents), throttling of writers.
"""

from allocator.flush_sites import SITE_FILE
from allocator.hooks import HOOK_FILE_WRITE, HOOK_MKCLEAN, HOOK_TRUNCATE, HOOK_TRUNCATED, HOOK_WRITE_BEGINS
from allocator.kmap import KMAP_WRITE, kmap
from allocator.lru import drop_page, lru_add_drain, unlock_and_drop
from allocator.page import PG_DIRTY, lock_page, mark_dirty, try_lock_page, unlock_page
from allocator.page_cache import (
    delete_from_page_cache,
    filemap_invalidate_lock,
    filemap_invalidate_unlock,
    find_page,
    write_page,
)
from allocator.page_list import NONE
from allocator.readahead import read_pages
from allocator.rmap import address_in, lock_pte, unlock_pte
from allocator.tlb_flush import flush_tlb_page
from allocator.unmap import unmap_mapping_range
from allocator.vma import lock_object, next_vma_of, unlock_object
from cpus.atomics import compare_exchange, exchange, fetch_and, load_acquire
from cpus.compiled import apart, call, kernel
from cpus.completion import WRITE_PROTECTED, change_begins
from cpus.events import EV_WRITE, record
from cpus.exposed_changes import call_returns
from cpus.exposed_pages import NO_FRAME, TRUNCATED, WRITTEN, page_changes
from cpus.ipi import serve_interrupts
from cpus.oracle import VERSION_MASK, leaves_as_clean, publish
from cpus.page_table import (
    LEVEL_MASK,
    PTE_DIRTY,
    PTE_PRESENT,
    PTE_WRITE,
    find_table,
    pte_pfn,
    pte_present,
    ptep_get,
)
from cpus.steal import pass_until


@kernel
def _lock_if_cached(ram, cpu, object, index):
    """Find a page of a file and lock it, the caller gets a reference; NONE if it is not cached."""
    while True:
        pfn = find_page(ram, cpu, object, index)
        if pfn == NONE:
            return NONE
        lock_page(ram, cpu, pfn)
        if ram.page_object[pfn] == object + 1 and ram.page_index[pfn] == index:
            return pfn
        unlock_and_drop(ram, cpu, pfn)  # reclaimed meanwhile


@kernel
def _locked_page(ram, cpu, object, index):
    """The same; a page that is not cached is read."""
    while True:
        pfn = _lock_if_cached(ram, cpu, object, index)
        if pfn != NONE:
            return pfn
        read_pages(ram, cpu, object, index, 1, NONE)


@apart
def write_to_file(ram, cpu, object, index):
    """write(2) of one whole page (generic_perform_write): ask the design, change the page, mark it dirty."""
    ram.cpu_clock[cpu] += ram.cost_syscall + ram.cost_page_copy
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_FILE
    pfn = _locked_page(ram, cpu, object, index)
    pass_until(ram, cpu, ram.page_io_ns[pfn])  # a partial write would wait for the read; so do we
    call(ram, HOOK_WRITE_BEGINS, cpu, object, index, 0, 0)
    call(ram, HOOK_FILE_WRITE, cpu, object, index, 0, 0)
    kmap(ram, cpu, pfn, KMAP_WRITE, object, index)
    word = load_acquire(ram.content, pfn)
    logical = ram.object_logical[object] + index
    page_changes(ram, cpu, logical, pfn, (word & VERSION_MASK) + 1, WRITTEN)
    while True:
        seen = compare_exchange(ram.content, pfn, word, word + 1)
        if seen == word:
            break
        word = seen  # somebody stores through a shared mapping
    mark_dirty(ram, pfn)
    record(ram, cpu, EV_WRITE, pfn, object, index, (word + 1) & VERSION_MASK)
    publish(ram, logical, (word + 1) & VERSION_MASK)
    unlock_and_drop(ram, cpu, pfn)
    ram.cpu_site[cpu] = site
    return 0


@kernel
def _clean_mappings(ram, cpu, pfn, object):
    """Write-protect and clean every PTE of a page, flushing each that was dirty (folio_mkclean); returns how
    many were.
    """
    cleaned = 0
    lock_object(ram, cpu, object)
    vma = ram.object_vmas[object] - 1
    while vma >= 0:
        vpn, mm = address_in(ram, vma, ram.page_index[pfn]), ram.vma_mm[vma]
        table = find_table(ram, ram.mm_pgd[mm], vpn) if vpn >= 0 else -1
        if table >= 0:
            lock_pte(ram, cpu, table)
            pte = ptep_get(ram, table, vpn)
            dirty = pte_present(pte) and pte_pfn(pte) == pfn and pte & (PTE_WRITE | PTE_DIRTY) != 0
            if dirty:
                change = change_begins(ram, mm)
                fetch_and(ram.frame_word, (table, vpn & LEVEL_MASK), ~(PTE_WRITE | PTE_DIRTY))
                # pte_accessible: what access was taken from is in TLBs until that was flushed
                if pte & PTE_PRESENT or load_acquire(ram.mm_flush_pending, mm) > 0:
                    flush_tlb_page(ram, cpu, mm, vpn)
                call_returns(ram, cpu, mm, change, vpn, vpn + 1, WRITE_PROTECTED)
                cleaned += 1
            unlock_pte(ram, cpu, table)
        vma = next_vma_of(ram, object, vma)
    unlock_object(ram, cpu, object)
    call(ram, HOOK_MKCLEAN, cpu, object, ram.page_index[pfn], 0, 0)
    return cleaned


@kernel
def clean_and_write(ram, cpu, pfn, object):
    """Write a locked page to disk if it is dirty, its mappings cleaned before that
    (folio_clear_dirty_for_io).
    """
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_FILE
    if _clean_mappings(ram, cpu, pfn, object):
        mark_dirty(ram, pfn)
    if ram.page_flags[pfn] & PG_DIRTY:
        write_page(ram, cpu, pfn, object)
    ram.cpu_site[cpu] = site


@apart
def sync_file_page(ram, cpu, object, index):
    """fdatasync of one page: clean its mappings, then write it if it was dirty."""
    pfn = find_page(ram, cpu, object, index)
    if pfn == NONE:
        return 0
    lock_page(ram, cpu, pfn)
    if ram.page_object[pfn] == object + 1:
        clean_and_write(ram, cpu, pfn, object)
    unlock_and_drop(ram, cpu, pfn)
    return 0


@apart
def truncate_file_page(ram, cpu, object, index):
    """Drop one page of a file, whose mappings are gone, with its contents (truncate_inode_folio): it reads as
    a new version after it. invalidate_lock held for writing: what is not cached stays so.
    """
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_FILE
    pfn = _lock_if_cached(ram, cpu, object, index)
    call(ram, HOOK_TRUNCATE, cpu, object, index, 0, 0)
    # mapped again since the range was unmapped (unmap_mapping_folio)
    if pfn != NONE and load_acquire(ram.page_mapcount, pfn) > 0:
        unmap_mapping_range(ram, cpu, object, index, index + 1, False)
    logical = ram.object_logical[object] + index
    version = load_acquire(ram.version, logical) + 1
    exchange(ram.disk_version, logical, version)
    if pfn != NONE:
        fetch_and(ram.page_flags, pfn, ~PG_DIRTY)
        delete_from_page_cache(ram, cpu, pfn, object)
    page_changes(ram, cpu, logical, NO_FRAME, version, TRUNCATED)
    record(ram, cpu, EV_WRITE, pfn, object, index, version)
    publish(ram, logical, version)
    call(ram, HOOK_TRUNCATED, cpu, object, index, 0, 0)
    if pfn != NONE:
        unlock_and_drop(ram, cpu, pfn)
    ram.cpu_site[cpu] = site
    return 0


@apart
def truncate_range(ram, cpu, object, first, last):
    """Drop pages first..last-1 of a file, their mappings and their contents. The inode's lock is held;
    invalidate_lock keeps readers from bringing pages in meanwhile.

    To the end of the file it is ftruncate(2): private copies go, too, and after the pages those that were
    made meanwhile (truncate_pagecache). Else it punches a hole, and copies stay (truncate_pagecache_range).
    """
    to_the_end = last == ram.object_pages[object]
    filemap_invalidate_lock(ram, cpu, object)
    unmap_mapping_range(ram, cpu, object, first, last, to_the_end)
    for index in range(first, last):
        truncate_file_page(ram, cpu, object, index)
        if ram.cpu_bell[cpu] > 0:
            serve_interrupts(ram, cpu)
    if to_the_end:
        unmap_mapping_range(ram, cpu, object, first, last, True)
    filemap_invalidate_unlock(ram, cpu, object)
    return 0


@apart
def fadvise(ram, cpu, object, first, last):
    """POSIX_FADV_DONTNEED: drop the clean pages first..last-1 that nobody maps or holds
    (mapping_try_invalidate).
    """
    lru_add_drain(ram, cpu)
    for index in range(first, last):
        pfn = find_page(ram, cpu, object, index)
        if pfn == NONE:
            continue
        if try_lock_page(ram, pfn):
            unused = load_acquire(ram.page_mapcount, pfn) == 0 and load_acquire(ram.page_refcount, pfn) == 2
            if ram.page_object[pfn] == object + 1 and unused and ram.page_flags[pfn] & PG_DIRTY == 0:
                leaves_as_clean(
                    ram, cpu, pfn, load_acquire(ram.disk_version, ram.object_logical[object] + index)
                )
                delete_from_page_cache(ram, cpu, pfn, object)
            unlock_page(ram, cpu, pfn)
        drop_page(ram, cpu, pfn)
    call(ram, HOOK_TRUNCATED, cpu, object, first, 0, 0)
    return 0
