"""The page cache of files (mm/filemap.c), readahead for mapped files (mm/readahead.c), refault distances (mm/workingset.c).

A file's XArray is a flat run of slots: 0 empty, pfn + 1, or a negative shadow that remembers when the page was evicted.
Look-ups take no lock: they take a reference and look again. Data arrive from one disk of given latency and bandwidth;
until the virtual time `page_io_ns` a page counts as locked for reading.
Left out: folios of several pages, write-back threads (dirty file pages are written when reclaimed or synced), per-file errors.
"""

from allocator.buddy import NONE
from allocator.lru import LRU_ACTIVE_FILE, drop_page, lru_add
from allocator.page import (
    PG_ACTIVE,
    PG_DIRTY,
    PG_LOCKED,
    PG_READAHEAD,
    PG_UPTODATE,
    PG_WORKINGSET,
    clear_flag,
    freeze_refs,
    get_page,
    node_of,
    put_page_testzero,
    set_flag,
    try_get_page,
    unlock_page,
)
from allocator.page_alloc import GFP_KSWAPD, GFP_RECLAIM, alloc_page
from allocator.panic import BUS_ERROR, panic
from allocator.vma import VM_SEQ_READ
from cpus.atomics import compare_exchange, fetch_add, load_acquire, pause, store_release
from cpus.compiled import apart, kernel
from cpus.costs import DISK_LATENCY, DISK_PAGE, PAGE_CACHE_ADD
from cpus.events import EV_FILL, record
from cpus.layout import COUNTER
from cpus.lease import sched_yield
from cpus.locks import LOCK_CACHE, spin_lock_irq, spin_unlock_irq
from cpus.oracle import set_content

OBJECT_FILE, OBJECT_ANON = 1, 2
MMAP_LOTSAMISS = 100
C_REFAULT, C_REACTIVATE, C_PGPGIN, C_PGPGOUT = (
    COUNTER["workingset_refault_file"], COUNTER["workingset_activate_file"], COUNTER["pgpgin"], COUNTER["pgpgout"],
)  # fmt: skip
SHADOW_NODE_BITS = 4


@kernel
def lookup(ram, thing, index):
    """Find a page of a file and take a reference; -1 if it is not cached (filemap_get_folio)."""
    slot = ram.object_cache[thing] + index
    spins = 0
    while True:
        seen = load_acquire(ram.cache_slot, slot)
        if seen <= 0:
            return NONE
        if try_get_page(ram, seen - 1):
            if load_acquire(ram.cache_slot, slot) == seen:
                return seen - 1
            if put_page_testzero(ram, seen - 1):  # we were the last to hold what it was before
                return -2 - (seen - 1)
        pause()
        spins += 1
        if spins % 64 == 0:  # it is frozen: whoever removes it may have lost its host core
            sched_yield()


@kernel
def find_page(ram, cpu, thing, index):
    """`lookup` for callers that may free: a page whose last reference a failed look-up held is freed here."""
    while True:
        pfn = lookup(ram, thing, index)
        if pfn >= NONE:
            return pfn
        drop_failed_lookup(ram, cpu, pfn)


@kernel
def drop_failed_lookup(ram, cpu, answer):
    """Free the page whose last reference a failed look-up was left with (`answer` below -1)."""
    pfn = -2 - answer
    get_page(ram, pfn)
    drop_page(ram, cpu, pfn)


# --- workingset ---------------------------------------------------------------------------------------------------------


@kernel
def _shadow(ram, pfn):
    """Pack what a refault must know: the node's age at eviction, the node, and whether the page was part of the workingset."""
    node = node_of(ram, pfn)
    age = fetch_add(ram.node_refaults, node, 1) + 1
    workingset = 1 if ram.page_flags[pfn] & PG_WORKINGSET else 0
    return -1 - ((age << (SHADOW_NODE_BITS + 1)) | (node << 1) | workingset)


@kernel
def _refault(ram, cpu, pfn, shadow):
    """Judge a page that comes back (workingset_refault): activate it if it would have stayed in a larger inactive list."""
    packed = -1 - shadow
    node = (packed >> 1) & ((1 << SHADOW_NODE_BITS) - 1)
    distance = load_acquire(ram.node_refaults, node) - (packed >> (SHADOW_NODE_BITS + 1))
    workingset_size = ram.lru_size[node, LRU_ACTIVE_FILE]  # without swap, anonymous pages cannot make room
    ram.counter[cpu, C_REFAULT] += 1
    if distance <= workingset_size:
        set_flag(ram, pfn, PG_ACTIVE)
        fetch_add(ram.node_refaults, node_of(ram, pfn), 1)
        ram.counter[cpu, C_REACTIVATE] += 1
        if packed & 1:
            set_flag(ram, pfn, PG_WORKINGSET)


# --- adding and removing ------------------------------------------------------------------------------------------------


@apart
def add_to_page_cache(ram, cpu, pfn, thing, index):
    """Enter a new page (one more reference) and queue it for the LRU; False if the slot is taken (filemap_add_folio)."""
    slot = ram.object_cache[thing] + index
    ram.page_object[pfn] = thing + 1
    ram.page_index[pfn] = index
    spin_lock_irq(ram, cpu, ram.object_cache_lock, thing, LOCK_CACHE | thing)
    seen = ram.cache_slot[slot]
    if seen > 0:
        spin_unlock_irq(ram, cpu, ram.object_cache_lock, thing, LOCK_CACHE | thing)
        ram.page_object[pfn] = 0
        return False
    get_page(ram, pfn)
    store_release(ram.cache_slot, slot, pfn + 1)
    ram.object_nrpages[thing] += 1
    spin_unlock_irq(ram, cpu, ram.object_cache_lock, thing, LOCK_CACHE | thing)
    if seen < 0:
        _refault(ram, cpu, pfn, seen)
    ram.cpu_clock[cpu] += ram.cost[PAGE_CACHE_ADD]
    lru_add(ram, cpu, pfn)
    return True


@apart
def remove_mapping(ram, cpu, pfn, thing, keep_shadow):
    """Remove a locked page that only the cache and the caller refer to; True if it is the caller's alone now (0 references)."""
    index = ram.page_index[pfn]
    spin_lock_irq(ram, cpu, ram.object_cache_lock, thing, LOCK_CACHE | thing)
    alone = freeze_refs(ram, pfn, 2)
    if alone and ram.page_flags[pfn] & PG_DIRTY:  # dirtied since it was looked at: the freeze came first, so this is certain
        store_release(ram.page_refcount, pfn, 2)
        alone = False
    if alone:
        store_release(ram.cache_slot, ram.object_cache[thing] + index, _shadow(ram, pfn) if keep_shadow else 0)
        ram.object_nrpages[thing] -= 1
    spin_unlock_irq(ram, cpu, ram.object_cache_lock, thing, LOCK_CACHE | thing)
    return alone


@kernel
def delete_from_page_cache(ram, cpu, pfn, thing):
    """Take a locked page out of its file whoever else refers to it, and drop the cache's reference (filemap_remove_folio)."""
    spin_lock_irq(ram, cpu, ram.object_cache_lock, thing, LOCK_CACHE | thing)
    store_release(ram.cache_slot, ram.object_cache[thing] + ram.page_index[pfn], 0)
    ram.object_nrpages[thing] -= 1
    spin_unlock_irq(ram, cpu, ram.object_cache_lock, thing, LOCK_CACHE | thing)
    ram.page_object[pfn] = 0
    drop_page(ram, cpu, pfn)  # the caller holds another


@kernel
def write_page(ram, cpu, pfn, thing):
    """Write a locked dirty page to disk: its version becomes the file's on disk; the disk is busy for it, nobody waits."""
    clear_flag(ram, pfn, PG_DIRTY)
    logical = ram.object_logical[thing] + ram.page_index[pfn]
    ram.disk_version[logical] = load_acquire(ram.content, pfn) & 0xFFFFFF
    queue_disk(ram, cpu, 1)
    ram.counter[cpu, C_PGPGOUT] += 4


# --- the disk -----------------------------------------------------------------------------------------------------------


@kernel
def queue_disk(ram, cpu, pages):
    """Queue a transfer of `pages` pages; returns the virtual time at which it is done."""
    now = ram.cpu_clock[cpu]
    while True:
        free = load_acquire(ram.run_disk_free_ns, 0)
        done = max(now, free) + pages * ram.cost[DISK_PAGE]
        if compare_exchange(ram.run_disk_free_ns, 0, free, done) == free:
            return done + ram.cost[DISK_LATENCY]


@apart
def read_pages(ram, cpu, thing, first, count, mark):
    """Bring pages first .. first+count-1 in as far as they are missing (page_cache_ra_unbounded); returns how many were.

    The page `mark` gets PG_readahead: reaching it starts the next window. Runs of missing pages are one transfer each.
    """
    count = min(count, ram.object_pages[thing] - first)
    run = 0
    for index in range(first, first + count + 1):
        missing = index < first + count and load_acquire(ram.cache_slot, ram.object_cache[thing] + index) <= 0
        if missing:
            run += 1
        elif run:
            done = queue_disk(ram, cpu, run)
            for i in range(index - run, index):
                _read_page(ram, cpu, thing, i, done, i == mark)
            ram.counter[cpu, C_PGPGIN] += 4 * run
            run = 0
    return count


@kernel
def _read_page(ram, cpu, thing, index, done, mark):
    """Allocate, fill and enter one page whose data arrive at virtual time `done`."""
    pfn = alloc_page(ram, cpu, 0, GFP_RECLAIM | GFP_KSWAPD)
    logical = ram.object_logical[thing] + index
    ram.page_io_ns[pfn] = done
    set_flag(ram, pfn, PG_LOCKED)
    if add_to_page_cache(ram, cpu, pfn, thing, index):
        # Filled only now that it is in the cache and locked: whoever truncates or writes the page finds it, and waits.
        set_content(ram, pfn, logical, ram.disk_version[logical])
        set_flag(ram, pfn, PG_UPTODATE | PG_READAHEAD if mark else PG_UPTODATE)
        record(ram, cpu, EV_FILL, pfn, thing, index, 0)
    unlock_page(ram, cpu, pfn)
    drop_page(ram, cpu, pfn)


@apart
def mmap_readahead(ram, cpu, vma, thing, index):
    """A mapped access misses the cache: read around it (do_sync_mmap_readahead)."""
    pages = ram.readahead_pages
    if ram.vma_flags[vma] & VM_SEQ_READ:
        size = 2 * pages  # POSIX_FADV_SEQUENTIAL doubles the file's window
        ram.vma_ra_start[vma], ram.vma_ra_size[vma], ram.vma_ra_async[vma] = index, size, size // 2
        read_pages(ram, cpu, thing, index, size, index + size - size // 2)
        return 0
    if ram.vma_ra_miss[vma] < MMAP_LOTSAMISS * 10:
        ram.vma_ra_miss[vma] += 1
    if ram.vma_ra_miss[vma] > MMAP_LOTSAMISS:
        read_pages(ram, cpu, thing, index, 1, NONE)
        return 0
    start = max(0, index - pages // 2)
    ram.vma_ra_start[vma], ram.vma_ra_size[vma], ram.vma_ra_async[vma] = start, pages, pages // 4
    read_pages(ram, cpu, thing, start, pages, start + pages - pages // 4)
    return 0


@apart
def async_readahead(ram, cpu, vma, thing, index, pfn):
    """A mapped access met the marked page: read the next window before it is asked for (page_cache_async_ra)."""
    if not clear_flag(ram, pfn, PG_READAHEAD):
        return 0
    if ram.vma_ra_miss[vma] > 0:
        ram.vma_ra_miss[vma] -= 1
    pages = ram.readahead_pages * (2 if ram.vma_flags[vma] & VM_SEQ_READ else 1)
    start = ram.vma_ra_start[vma] + ram.vma_ra_size[vma]
    if index != start - ram.vma_ra_async[vma]:  # another thread's window: carry on behind the mark
        start = index + 1
        end = min(ram.object_pages[thing], index + pages)
        while start < end and load_acquire(ram.cache_slot, ram.object_cache[thing] + start) > 0:
            start += 1
    size = min(2 * ram.vma_ra_size[vma] if ram.vma_ra_size[vma] else pages, pages)
    ram.vma_ra_start[vma], ram.vma_ra_size[vma], ram.vma_ra_async[vma] = start, size, size
    if start < ram.object_pages[thing]:
        read_pages(ram, cpu, thing, start, size, start)
    return 0


@kernel
def check_in_file(ram, cpu, thing, index):
    """Stop the run at an access behind the end of the file."""
    if index < 0 or index >= ram.object_pages[thing]:
        panic(ram, cpu, BUS_ERROR, index, thing)
