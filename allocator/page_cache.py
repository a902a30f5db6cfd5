"""The page cache of files (mm/filemap.c) and the disk behind it.

A file's XArray is a flat run of slots: 0 empty, pfn + 1, or a negative shadow that remembers when the page
was evicted. Look-ups take no lock: they take a reference and look again. Data arrive from one disk of given
latency and bandwidth; until the virtual time `page_io_ns` a page counts as locked for reading.
Left out: write-back threads (dirty file pages are written when reclaimed or synced), per-file errors.
"""

from allocator.folio import split_folio
from allocator.lru import drop_page, lru_add_held
from allocator.page import (
    PG_DIRTY,
    clear_flag,
    folio_pages,
    freeze_refs,
    get_page,
    put_page_testzero,
    try_get_page,
)
from allocator.page_list import NONE
from allocator.panic import BUS_ERROR, panic
from allocator.workingset import workingset_eviction, workingset_refault
from cpus.atomics import compare_exchange, fetch_add, load_acquire, pause, store_release
from cpus.compiled import apart, inlined, kernel
from cpus.declare import (
    ANY,
    CONFIG,
    EXERCISED,
    RWSEM,
    VMSTAT,
    Atomic,
    Cost,
    Counter,
    Field,
    Held,
    Lock,
    OneOf,
    Struct,
)
from cpus.exposed_pages import page_leaves
from cpus.exposed_writes import page_becomes_clean
from cpus.lease import WAIT_INVALIDATE, sched_yield
from cpus.locks import down_read, down_write, spin_lock_irq, spin_unlock_irq, up_read, up_write
from cpus.oracle import VERSION_MASK, leaves_as_clean
from cpus.points import gives_way
from cpus.steal import wakeup_turn_ns

FIELDS = (
    Struct("one", "disk", (Field("run_disk_free_ns", Atomic("compare_exchange"),
                                 "when the disk has done what is queued", unit="ns"),)),
    Struct("nr_objects", "config", (
        Field("object_kind", CONFIG, "OBJECT_FILE or OBJECT_ANON"),
        Field("object_cache", CONFIG, "first slot in cache_slot (files)"),
        Field("object_pages", CONFIG, "size", unit="pages"),
        Field("object_logical", CONFIG, "first logical page (files)"),
        Field("object_order", CONFIG, "order of the folios that cache it (files)"),
    )),
    Struct("nr_objects", "cache", (
        Lock("object_cache_lock", "mapping.i_pages.xa_lock", "the file's page cache", irq_safe=True),
        Field("object_nrpages", Held("object_cache_lock"), "pages cached"),
    )),
    Struct("nr_objects", "invalidate", (
        Lock("invalidate_lock", "mapping.invalidate_lock", "pages come into the cache; alone: they must not",
             kind=RWSEM),
        Field("invalidate_waiters", Atomic("exchange"), "somebody sleeps for invalidate_lock"),
    )),
    Field("cache_slot", Held("object_cache_lock", at="any"), "pfn + 1, 0 empty, negative shadow",
          ("nr_cache_slots",), reads=ANY),
    Field("page_io_ns", Held("page_lock"), "virtual time at which the read of it is done", ("nr_frames",),
          reads=ANY, unit="ns"),
    Field("disk_version",
          OneOf(Held("page_lock", at="any"),
                Atomic("exchange", "compare_exchange", why="a device has written, or nothing is cached")),
          "version on disk of a file page", ("nr_logical",), reads=ANY, oracle=True),
)  # fmt: skip

COUNTERS = (
    Counter("pgpgout", VMSTAT, "written to disk", "KiB"),
    Counter("lookups_too_late", EXERCISED, "look-ups left with the last reference of a page that went away"),
    Counter("removals_refused", EXERCISED, "unmapped pages that stay cached: somebody holds or wrote them"),
)
COSTS = (
    Cost("page_cache_add", "adding a page to a file's cache"),
    Cost("disk_latency", "a request to the disk"),
    Cost("disk_page", "one 4 KiB page at the disk's bandwidth"),
)

OBJECT_FILE, OBJECT_ANON = 1, 2


@inlined
def lookup(ram, object, index):
    """Find a page of a file and take a reference; -1 if it is not cached (filemap_get_folio)."""
    slot = ram.object_cache[object] + index
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
        gives_way(ram)
        spins += 1
        if spins % 64 == 0:  # it is frozen: whoever removes it may have lost its host core
            sched_yield()


@kernel
def find_page(ram, cpu, object, index):
    """`lookup` for callers that may free: a page whose last reference a failed look-up held is freed here."""
    while True:
        pfn = lookup(ram, object, index)
        if pfn >= NONE:
            return pfn
        drop_failed_lookup(ram, cpu, pfn)


@kernel
def drop_failed_lookup(ram, cpu, answer):
    """Free the page whose last reference a failed look-up was left with (`answer` below -1)."""
    pfn = -2 - answer
    ram.lookups_too_late[cpu] += 1
    get_page(ram, pfn)
    drop_page(ram, cpu, pfn)


# --- who brings pages in, and who wants them to stay out (a miss takes the lock, a hit does not) ------------


@kernel
def filemap_invalidate_lock_shared(ram, cpu, object):
    """Bring pages in, while nobody truncates the file."""
    down_read(ram, cpu, ram.invalidate_lock, ram.invalidate_waiters, object, WAIT_INVALIDATE)


@kernel
def filemap_invalidate_unlock_shared(ram, cpu, object):
    """Let truncation go on."""
    up_read(ram, cpu, ram.invalidate_lock, ram.invalidate_waiters, object, WAIT_INVALIDATE)


@kernel
def filemap_invalidate_lock(ram, cpu, object):
    """Keep everybody from bringing pages of a file in. Inside the inode's lock, outside page locks."""
    down_write(ram, cpu, ram.invalidate_lock, ram.invalidate_waiters, object, WAIT_INVALIDATE)


@kernel
def filemap_invalidate_unlock(ram, cpu, object):
    """Let them again."""
    up_write(ram, cpu, ram.invalidate_lock, ram.invalidate_waiters, object, WAIT_INVALIDATE)


# --- adding and removing ------------------------------------------------------------------------------------


@inlined
def add_to_page_cache(ram, cpu, pfn, object, index):
    """Enter the pages of a new folio (one more reference each) and queue it for the LRU; False if a slot is
    taken (filemap_add_folio).
    """
    slot, size = ram.object_cache[object] + index, folio_pages(ram, pfn)
    for i in range(size):
        ram.page_object[pfn + i] = object + 1
        ram.page_index[pfn + i] = index + i
    spin_lock_irq(ram, cpu, ram.object_cache_lock, object)
    shadow, taken = 0, False
    for i in range(size):
        taken = taken or ram.cache_slot[slot + i] > 0
        shadow = min(shadow, ram.cache_slot[slot + i])
    if not taken:
        for i in range(size):
            # the cache's, and the LRU batch's for the folio
            fetch_add(ram.page_refcount, pfn + i, 1 if i else 2)
            store_release(ram.cache_slot, slot + i, pfn + i + 1)
        ram.object_nrpages[object] += size
    spin_unlock_irq(ram, cpu, ram.object_cache_lock, object)
    if taken:
        for i in range(size):
            ram.page_object[pfn + i] = 0
        return False
    if shadow < 0:
        workingset_refault(ram, cpu, pfn, shadow)
    ram.cpu_clock[cpu] += ram.cost_page_cache_add
    lru_add_held(ram, cpu, pfn)
    return True


@inlined
def remove_mapping(ram, cpu, pfn, object, keep_shadow):
    """Remove a locked page that only the cache and the caller refer to; True if it is the caller's alone now
    (0 references).
    """
    index = ram.page_index[pfn]
    spin_lock_irq(ram, cpu, ram.object_cache_lock, object)
    alone = freeze_refs(ram, pfn, 2)
    # dirtied since it was looked at: the freeze came first, so this is certain
    if alone and ram.page_flags[pfn] & PG_DIRTY:
        store_release(ram.page_refcount, pfn, 2)
        alone = False
    if alone:
        leaves_as_clean(ram, cpu, pfn, load_acquire(ram.disk_version, ram.object_logical[object] + index))
        page_leaves(ram, pfn)
        store_release(
            ram.cache_slot,
            ram.object_cache[object] + index,
            workingset_eviction(ram, pfn) if keep_shadow else 0,
        )
        ram.object_nrpages[object] -= 1
    else:
        ram.removals_refused[cpu] += 1
    spin_unlock_irq(ram, cpu, ram.object_cache_lock, object)
    return alone


@apart
def remove_folio(ram, cpu, head, object):
    """The same for a large folio, all of whose pages are locked; the caller refers to its head alone."""
    size = folio_pages(ram, head)
    slot, frozen, alone = ram.object_cache[object] + ram.page_index[head], 0, True
    spin_lock_irq(ram, cpu, ram.object_cache_lock, object)
    while frozen < size and alone:
        alone = freeze_refs(ram, head + frozen, 2 if frozen == 0 else 1)
        frozen += alone
        alone = alone and ram.page_flags[head + frozen - 1] & PG_DIRTY == 0
    if alone:
        logical = ram.object_logical[object] + ram.page_index[head]
        for i in range(size):
            leaves_as_clean(ram, cpu, head + i, load_acquire(ram.disk_version, logical + i))
            page_leaves(ram, head + i)
            store_release(ram.cache_slot, slot + i, workingset_eviction(ram, head + i))
        ram.object_nrpages[object] -= size
    else:
        for i in range(frozen):
            store_release(ram.page_refcount, head + i, 2 if i == 0 else 1)
    spin_unlock_irq(ram, cpu, ram.object_cache_lock, object)
    return alone


@kernel
def delete_from_page_cache(ram, cpu, pfn, object):
    """Take a locked page out of its file whoever else refers to it, and drop the cache's reference
    (filemap_remove_folio).

    Of a large folio the others stay, as pages by themselves (truncate_inode_partial_folio).
    """
    split_folio(ram, cpu, pfn)
    page_leaves(ram, pfn)
    spin_lock_irq(ram, cpu, ram.object_cache_lock, object)
    store_release(ram.cache_slot, ram.object_cache[object] + ram.page_index[pfn], 0)
    ram.object_nrpages[object] -= 1
    spin_unlock_irq(ram, cpu, ram.object_cache_lock, object)
    ram.page_object[pfn] = 0
    drop_page(ram, cpu, pfn)  # the caller holds another


@kernel
def write_page(ram, cpu, pfn, object):
    """Write a locked dirty page to disk: its version becomes the file's on disk; the disk is busy for it,
    nobody waits.
    """
    clear_flag(ram, pfn, PG_DIRTY)
    page_becomes_clean(ram, cpu, pfn)
    logical = ram.object_logical[object] + ram.page_index[pfn]
    ram.disk_version[logical] = load_acquire(ram.content, pfn) & VERSION_MASK
    queue_disk(ram, cpu, 1)
    ram.pgpgout[cpu] += 4


# --- the disk -----------------------------------------------------------------------------------------------


@kernel
def queue_disk(ram, cpu, pages):
    """Queue a transfer of `pages` pages; returns the virtual time at which it is done."""
    now = ram.cpu_clock[cpu]
    while True:
        free = load_acquire(ram.run_disk_free_ns, 0)
        done = max(now, free) + pages * ram.cost_disk_page
        if compare_exchange(ram.run_disk_free_ns, 0, free, done) == free:
            return done + ram.cost_disk_latency + wakeup_turn_ns(ram)


@kernel
def check_in_file(ram, cpu, object, index):
    """Stop the run at an access behind the end of the file."""
    if index < 0 or index >= ram.object_pages[object]:
        panic(ram, cpu, BUS_ERROR, index, object)
