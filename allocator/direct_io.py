"""read(2) and write(2) with O_DIRECT: between a file and user memory, past the page cache
(fs/iomap/direct-io.c, mm/filemap.c).

The device works on frames, not on addresses: user pages are pinned (gup.py), up to PIN_PAGES at a time, and
the task sleeps until the disk is done. What a read brings counts as a store to each page, made and published
when the device is done. What is dirty in the page cache is written to disk first. A write takes the pages out
of the cache and out of all address spaces, before and once more after the device: what readers bring in
meanwhile is old. Both times the design is asked, last of all: pages that reclaim has taken out of the cache,
without a flush, may still be read through old translations, and from the return of the call on nobody may
read them. Whoever stores to the range through a mapping meanwhile has a dirty page that stays: its content is
the file's then. The inode's lock is shared by direct calls: two may write one page at once, and the disk
orders them. Left out: asynchronous calls, partial blocks, blocks that are not there yet, the CPU time of
building requests.
"""

from allocator.filemap import sync_file_page, write_to_file
from allocator.flush_sites import SITE_FILE
from allocator.gup import MUST_SLEEP, pin_user_page, unpin_page
from allocator.hooks import HOOK_TRUNCATE, HOOK_TRUNCATED
from allocator.inode_lock import EXCLUSIVE, SHARED, inode_lock, inode_unlock
from allocator.lru import drop_page
from allocator.outcome import BLOCKED, NEXT, SLEEP
from allocator.page import PG_DIRTY, lock_page, mark_dirty, unlock_page
from allocator.page_cache import delete_from_page_cache, find_page, queue_disk
from allocator.page_list import NONE
from allocator.unmap import unmap_mapping_range
from cpus.abi.row_kinds import DIRECT_READ
from cpus.atomics import compare_exchange, fetch_add, load_acquire
from cpus.compiled import apart, call, kernel
from cpus.declare import Field, OwnerOf, Struct
from cpus.events import EV_WRITE, record
from cpus.exposed_pages import WRITTEN_DIRECTLY, page_changes
from cpus.ipi import serve_interrupts
from cpus.lost_data import device_stores
from cpus.oracle import VERSION_BITS, VERSION_MASK, publish

PIN_PAGES = 32  # pages of a task that a device writes into, or reads, at a time
FIELDS = (
    Struct("nr_tasks", "task", (
        Field("task_step", OwnerOf("task_cpu"),
              "how far a system call is that sleeps in the middle, 0 not begun"),
        Field("task_pins", OwnerOf("task_cpu"), "entries of task_pin"),
    )),
    Field("task_pin", OwnerOf("task_cpu"), "frames that a device works on for it, -1 the zero page",
          ("nr_tasks", PIN_PAGES)),
    Field("task_written", OwnerOf("task_cpu"), "versions that a device has written for it",
          ("nr_tasks", PIN_PAGES), oracle=True),
)  # fmt: skip

BEGUN, PREPARED, UNDER_WAY, BUFFERED = range(4)  # task_step


@kernel
def _invalidate_page(ram, cpu, object, index, pfn):
    """Take one page out of the cache, and out of all address spaces; False if it is dirty and stays
    (invalidate_complete_folio2).
    """
    lock_page(ram, cpu, pfn)
    gone = True
    if ram.page_object[pfn] == object + 1 and ram.page_index[pfn] == index:
        if load_acquire(ram.page_mapcount, pfn) > 0:
            unmap_mapping_range(ram, cpu, object, index, index + 1, False)
        gone = ram.page_flags[pfn] & PG_DIRTY == 0
        if gone:
            delete_from_page_cache(ram, cpu, pfn, object)
    unlock_page(ram, cpu, pfn)
    return gone


@apart
def invalidate_inode_pages2_range(ram, cpu, object, first, last):
    """Take pages first..last-1 of a file out of the cache and out of all address spaces; False if a dirty one
    stays.

    The design is asked when all old pages are out, before anybody can see that there are newer ones.
    """
    complete, unmapped = True, False
    for index in range(first, last):
        pfn = find_page(ram, cpu, object, index)
        if pfn == NONE:
            continue
        if not unmapped and load_acquire(ram.page_mapcount, pfn) > 0:  # the rest of the range in one go
            unmap_mapping_range(ram, cpu, object, index, last, False)
            unmapped = True
        complete = _invalidate_page(ram, cpu, object, index, pfn) and complete
        drop_page(ram, cpu, pfn)
    call(ram, HOOK_TRUNCATE, cpu, object, first, 0, 0)
    call(ram, HOOK_TRUNCATED, cpu, object, first, 0, 0)
    return complete


@kernel
def _device_writes(ram, cpu, pfn):
    """The device has written to a pinned page: a new version of whatever page it is; nobody's any more if it
    was truncated.
    """
    lock_page(ram, cpu, pfn)  # set_page_dirty_lock
    if ram.page_object[pfn]:
        device_stores(ram, cpu, pfn)
        word = load_acquire(ram.content, pfn)
        while True:
            seen = compare_exchange(ram.content, pfn, word, word + 1)
            if seen == word:
                break
            word = seen  # somebody stores to the page
        mark_dirty(ram, pfn)
        object, index, version = ram.page_object[pfn] - 1, ram.page_index[pfn], (word + 1) & VERSION_MASK
        record(ram, cpu, EV_WRITE, pfn, object, index, version)
        publish(ram, word >> VERSION_BITS, version)
    unlock_page(ram, cpu, pfn)


@kernel
def _write_on_disk(ram, logical):
    """The device writes a page: the newest version there is, and one more. Returns it."""
    while True:
        seen = load_acquire(ram.disk_version, logical)
        fresh = max(load_acquire(ram.version, logical), seen) + 1
        if compare_exchange(ram.disk_version, logical, seen, fresh) == seen:
            return fresh


@kernel
def _publish_written(ram, cpu, object, index, version):
    """What the device wrote to page `index` is the file's content, unless an older one is cached, or has been
    written to disk since.
    """
    logical = ram.object_logical[object] + index
    pfn = find_page(ram, cpu, object, index)
    old = pfn != NONE and load_acquire(ram.content, pfn) & VERSION_MASK < version
    if pfn != NONE:
        drop_page(ram, cpu, pfn)
    # looked at in this order: who writes back drops his page later
    if not old and load_acquire(ram.disk_version, logical) >= version:
        page_changes(ram, cpu, logical, pfn, version, WRITTEN_DIRECTLY)
        record(ram, cpu, EV_WRITE, -1, object, index, version)
        publish(ram, logical, version)


@kernel
def _end_write(ram, cpu, task, object, first, count):
    """The device has written `count` pages: drop what was cached meanwhile; they are the content now."""
    for i in range(count):
        ram.task_written[task, i] = _write_on_disk(ram, ram.object_logical[object] + first + i)
    invalidate_inode_pages2_range(ram, cpu, object, first, first + count)
    for i in range(count):
        _publish_written(ram, cpu, object, first + i, ram.task_written[task, i])


@kernel
def _end_transfer(ram, cpu, task, reads, object, first):
    """The device is done with the pages that the task has pinned."""
    count = ram.task_pins[task]
    if not reads:
        _end_write(ram, cpu, task, object, first, count)
    for i in range(count):
        pfn = ram.task_pin[task, i]
        if pfn >= 0:
            if reads:
                _device_writes(ram, cpu, pfn)
                fetch_add(ram.frame_devices, pfn, -1)
            unpin_page(ram, cpu, pfn)
    if reads:
        ram.pgpgin[cpu] += 4 * count
    else:
        ram.pgpgout[cpu] += 4 * count
    ram.task_visit[task] += count
    ram.task_pins[task], ram.task_step[task] = 0, BEGUN


@kernel
def _prepare(ram, cpu, reads, object, first, count):
    """Write what is dirty in the cache to disk; before a write, empty the cache. False: the write must go
    through the cache after all.
    """
    for index in range(first, first + count):
        sync_file_page(ram, cpu, object, index)
        if ram.cpu_bell[cpu] > 0:
            serve_interrupts(ram, cpu)
    return reads or invalidate_inode_pages2_range(ram, cpu, object, first, first + count)


@kernel
def _write_buffered(ram, cpu, object, first, count):
    """Somebody stored to the range just now: write through the cache, and that to disk (fall back of
    ext4_dio_write_iter).
    """
    for index in range(first, first + count):
        write_to_file(ram, cpu, object, index)
        sync_file_page(ram, cpu, object, index)


@kernel
def _pin_and_submit(ram, cpu, task, buffer, count, reads):
    """Pin the pages of memory that are not pinned yet, and ask the device; the task must sleep either way."""
    while ram.task_pins[task] < count:
        pfn = pin_user_page(ram, cpu, ram.task_mm[task], buffer + ram.task_pins[task], reads)
        if pfn == MUST_SLEEP:
            return SLEEP
        ram.task_pin[task, ram.task_pins[task]] = pfn
        if reads and pfn >= 0:
            fetch_add(ram.frame_devices, pfn, 1)
        ram.task_pins[task] += 1
    ram.task_step[task] = UNDER_WAY
    ram.task_wait_ns[task] = queue_disk(ram, cpu, count)
    return SLEEP


@kernel
def _transfer(ram, cpu, task, object, first, buffer, count, reads):
    """Go on with the pages that are next; NEXT when there is nothing to wait for."""
    how = EXCLUSIVE if ram.task_step[task] == BUFFERED else SHARED
    if not inode_lock(ram, cpu, task, object, how):
        return BLOCKED
    if ram.task_step[task] == BEGUN:
        prepared = _prepare(ram, cpu, reads, object, first, count)
        ram.task_step[task] = PREPARED if prepared else BUFFERED
    elif ram.task_step[task] == BUFFERED:
        _write_buffered(ram, cpu, object, first, count)
        ram.task_visit[task] += count
        ram.task_step[task] = BEGUN
    else:
        return _pin_and_submit(ram, cpu, task, buffer, count, reads)
    return NEXT


@apart
def direct_io(ram, cpu, task, row):
    """Do a DIRECT_READ or DIRECT_WRITE row from where the task left it. SLEEP: it must wait until
    task_wait_ns and come again. BLOCKED: it sleeps for the inode's lock.

    Pages `page` .. of the file that `region` shows, to or from page `count` .. of region `kind`.
    """
    process, site = ram.task_process[task], ram.cpu_site[cpu]
    object = ram.proc_file[process, ram.row_region[row]]
    first = ram.proc_offset[process, ram.row_region[row]] + ram.row_page[row]
    buffer = ram.proc_region[process, ram.row_kind[row]] + ram.row_count[row]
    reads = ram.row_op[row] == DIRECT_READ
    ram.cpu_site[cpu] = SITE_FILE
    if ram.task_step[task] == UNDER_WAY:
        _end_transfer(ram, cpu, task, reads, object, first + ram.task_visit[task])
    elif ram.task_step[task] == BEGUN and ram.task_visit[task] == 0:
        ram.cpu_clock[cpu] += ram.cost_syscall
    result = NEXT
    while ram.task_visit[task] < ram.row_pages[row] and result == NEXT:
        at = ram.task_visit[task]
        count = min(PIN_PAGES, ram.row_pages[row] - at)
        result = _transfer(ram, cpu, task, object, first + at, buffer + at, count, reads)
    ram.cpu_site[cpu] = site
    if result == NEXT:
        ram.task_visit[task] = 0
        inode_unlock(ram, cpu, task, object)
    return result
