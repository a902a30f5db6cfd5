"""Reading files before they are asked for (mm/readahead.c; mm/filemap.c: do_sync_mmap_readahead,
do_async_mmap_readahead).

A fault on a page that is not cached reads the `readahead_pages` around it, unless misses have far outnumbered
hits; the page at three quarters of them is marked, and who finds the mark reads the next window. A window's
state belongs to the open file, here to the VMA (each process of a workload opens its file once).
Memory for it may be reclaimed but is not fought for (__GFP_NORETRY): a window may end early.
A file in large folios is read by whole folios, of one order.
Left out: MADV_RANDOM and MADV_HUGEPAGE, reads by system call, congestion, limits of the device.
"""

from allocator.folio import alloc_folio
from allocator.kmap import KMAP_READ, kmap
from allocator.lru import drop_page
from allocator.page import PG_LARGE, PG_LOCKED, PG_READAHEAD, clear_flag, end_read, set_flag
from allocator.page_alloc import GFP_KSWAPD, GFP_NORETRY, GFP_RECLAIM, GFP_USER, alloc_page
from allocator.page_cache import (
    add_to_page_cache,
    filemap_invalidate_lock_shared,
    filemap_invalidate_unlock_shared,
    queue_disk,
)
from allocator.page_list import NONE
from allocator.vma import VM_SEQ_READ
from cpus.atomics import load_acquire
from cpus.compiled import apart, inlined, kernel
from cpus.declare import VMSTAT, Constant, Cost, Counter, Field, Racy, Struct
from cpus.events import EV_FILL, record
from cpus.oracle import VERSION_BITS, set_content

READAHEAD = Racy("as in Linux: readahead state, a guess")
FIELDS = (
    Constant("readahead_pages", "window of readahead", "pages"),
    Struct(
        "nr_vmas",
        "readahead",
        (
            Field("vma_ra_start", READAHEAD, "file_ra_state: start of the window"),
            Field("vma_ra_size", READAHEAD, "its size"),
            Field("vma_ra_async", READAHEAD, "its part that is read ahead of need"),
            Field("vma_ra_miss", READAHEAD, "mmap_miss"),
            Field("vma_ra_prev", READAHEAD, "page read last"),
        ),
    ),
)

COUNTERS = (Counter("pgpgin", VMSTAT, "read from disk", "KiB"),)
COSTS = (Cost("read_page", "file system and block layer: submitting and completing one page of a read"),)

MMAP_LOTSAMISS = 100
GFP_READAHEAD = GFP_RECLAIM | GFP_KSWAPD | GFP_NORETRY


@kernel
def _cached(ram, object, index):
    return load_acquire(ram.cache_slot, ram.object_cache[object] + index) > 0


@inlined
def _fill(ram, cpu, object, first, count):
    """Read `count` new pages, locked in the cache, in one transfer (read_pages): uptodate from when their
    data are there on.
    """
    ram.cpu_clock[cpu] += count * ram.cost_read_page
    done = queue_disk(ram, cpu, count)
    for index in range(first, first + count):
        # Nobody can have removed it: it is locked. Filled only now, so whoever truncates or writes the page
        # finds it, and waits.
        pfn = ram.cache_slot[ram.object_cache[object] + index] - 1
        logical = ram.object_logical[object] + index
        ram.page_io_ns[pfn] = done
        kmap(ram, cpu, pfn, KMAP_READ, object, index)
        version = ram.disk_version[logical]
        record(ram, cpu, EV_FILL, pfn, object, index, (logical << VERSION_BITS) | version)
        set_content(ram, pfn, logical, version)
        end_read(ram, cpu, pfn)
        drop_page(ram, cpu, pfn)
    ram.pgpgin[cpu] += 4 * count


@inlined
def _add_new_page(ram, cpu, object, index, mark, gfp):
    """Enter a new page, locked, with the allocation's reference (ra_alloc_folio); 0 entered, 1 somebody else
    did, -1 no memory.
    """
    pfn = alloc_page(ram, cpu, ram.cpu_node[cpu], gfp)
    if pfn == NONE:
        return -1
    # nobody else can reach it yet (__folio_set_locked)
    ram.page_flags[pfn] = PG_LOCKED | PG_READAHEAD if mark else PG_LOCKED
    if add_to_page_cache(ram, cpu, pfn, object, index):
        return 0
    clear_flag(ram, pfn, PG_LOCKED)
    drop_page(ram, cpu, pfn)
    return 1


@kernel
def _add_folio(ram, cpu, object, index, order, mark):
    """Enter the pages of a new large folio, locked, with the allocation's references (page_cache_ra_order).

    False if there is no block for them, or some are cached already: then they go in one by one.
    """
    size = 1 << order
    for page in range(index, index + size):
        if _cached(ram, object, page):
            return False
    head = alloc_folio(ram, cpu, ram.cpu_node[cpu], order)
    if head == NONE:
        return False
    for i in range(size):
        ram.page_private[head + i] = order
        set_flag(
            ram, head + i, PG_LOCKED | PG_LARGE | PG_READAHEAD if index + i == mark else PG_LOCKED | PG_LARGE
        )
    if add_to_page_cache(ram, cpu, head, object, index):
        return True
    for pfn in range(head, head + size):
        clear_flag(ram, pfn, PG_LOCKED | PG_LARGE | PG_READAHEAD)
        drop_page(ram, cpu, pfn)
    return False


@apart
def read_pages(ram, cpu, object, first, count, mark):
    """Bring pages first .. first+count-1 in as far as they are missing (page_cache_ra_unbounded), by whole
    folios if these are large.

    The page `mark` gets PG_readahead: reaching it starts the next window. Runs of missing pages are one
    transfer each. With `count` 1 the page is wanted now, so memory for it is fought for.
    """
    order = ram.object_order[object]
    size = 1 << order
    end = first + count
    if order:  # whole folios (mapping_align_index)
        first, end = first & ~(size - 1), (end + size - 1) & ~(size - 1)
    end = min(end, ram.object_pages[object])
    gfp = GFP_READAHEAD if count > 1 else GFP_USER
    run, index, outcome = first, first, 0
    filemap_invalidate_lock_shared(ram, cpu, object)
    while index < end and outcome >= 0:
        if (
            order
            and index & (size - 1) == 0
            and index + size <= end
            and _add_folio(ram, cpu, object, index, order, mark)
        ):
            index += size
            continue
        outcome = (
            1 if _cached(ram, object, index) else _add_new_page(ram, cpu, object, index, index == mark, gfp)
        )
        if outcome != 0:
            if index > run:
                _fill(ram, cpu, object, run, index - run)
            run = index + 1
        index += 1
    if index > run:
        _fill(ram, cpu, object, run, index - run)
    filemap_invalidate_unlock_shared(ram, cpu, object)
    return 0


@apart
def mmap_readahead(ram, cpu, vma, object, index):
    """A mapped access misses the cache: read around it (do_sync_mmap_readahead), at least the page itself."""
    pages = ram.readahead_pages
    if ram.vma_flags[vma] & VM_SEQ_READ:
        size = 2 * pages  # POSIX_FADV_SEQUENTIAL doubles the file's window
        ram.vma_ra_start[vma], ram.vma_ra_size[vma], ram.vma_ra_async[vma] = index, size, size // 2
        read_pages(ram, cpu, object, index, size, index + size - size // 2)
    else:
        if ram.vma_ra_miss[vma] < MMAP_LOTSAMISS * 10:
            ram.vma_ra_miss[vma] += 1
        if ram.vma_ra_miss[vma] <= MMAP_LOTSAMISS:
            start = max(0, index - pages // 2)
            ram.vma_ra_start[vma], ram.vma_ra_size[vma], ram.vma_ra_async[vma] = start, pages, pages // 4
            read_pages(ram, cpu, object, start, pages, start + pages - pages // 4)
    if not _cached(ram, object, index):
        read_pages(ram, cpu, object, index, 1, NONE)
    return 0


@kernel
def _next_miss(ram, object, first, most):
    """Find the first page from `first` on that is not cached, `first + most` if there is none
    (page_cache_next_miss).
    """
    index = first
    while index < first + most and index < ram.object_pages[object] and _cached(ram, object, index):
        index += 1
    return index


@kernel
def _next_size(size, most):
    """Ramp a window up (get_next_ra_size)."""
    if size < most // 16:
        return 4 * size
    return 2 * size if size <= most // 2 else most


@apart
def async_readahead(ram, cpu, vma, object, index, pfn):
    """A mapped access found the page in the cache (do_async_mmap_readahead): one hit more; at the mark, read
    the next window.
    """
    if ram.vma_ra_miss[vma] > 0:
        ram.vma_ra_miss[vma] -= 1
    if not clear_flag(ram, pfn, PG_READAHEAD):
        return 0
    pages = ram.readahead_pages * (2 if ram.vma_flags[vma] & VM_SEQ_READ else 1)
    start, size = ram.vma_ra_start[vma], ram.vma_ra_size[vma]
    if index == start + size - ram.vma_ra_async[vma]:
        start += size
        size = max(size, _next_size(size, pages))
    else:  # a mark without its state: another thread's window came between
        start = _next_miss(ram, object, index + 1, pages)
        if start - index > pages:
            return 0
        size = _next_size(start - index + pages, pages)
    ram.vma_ra_start[vma], ram.vma_ra_size[vma], ram.vma_ra_async[vma] = start, size, size
    if start < ram.object_pages[object]:
        read_pages(ram, cpu, object, start, size, start)
    return 0
