"""struct page: flags, reference counts, the page lock.

References are counted as in Linux: one for the allocation, one for the page cache, one for each PTE, one for
whoever holds it for a moment (a batch, an isolation). The page lock is a bit; waiters sleep and are woken by
the unlocker.
A folio of several pages (folio.py) keeps a struct page for each; a pin (gup.py) is many references at once.
Left out: compound pages, writeback as a state of its own.
"""

from allocator.panic import BAD_REFCOUNT, panic
from cpus.atomics import compare_exchange, fetch_add, fetch_and, fetch_or, load_acquire
from cpus.compiled import kernel
from cpus.declare import ANY, BIT, CONFIG, Atomic, Exclusive, Field, Held, Lock, OneOf, Struct
from cpus.ipi import serve_interrupts
from cpus.lease import WAIT_PAGE, begin_wait, cancel_wait, finish_wait, wake_all_waiting_for

ALONE = Exclusive("who has the only reference, or has it out of the allocator without one", references=1)
ON_A_LIST = OneOf(
    Held("zone_lock", at="zone"), Held("lru_lock", at="node"), Held("pcp_lock", at="any"), ALONE
)
FLAGS = OneOf(Atomic("fetch_or", "fetch_and", "compare_exchange"), ALONE)
FIELDS = (
    Struct("nr_zones", "config", (
        Field("zone_start", CONFIG, "first pfn"),
        Field("zone_end", CONFIG, "behind the last pfn"),
        Field("zone_node", CONFIG, "node"),
    )),
    Struct("nr_nodes", "config", (
        Field("node_end", CONFIG, "behind the last pfn"),
        Field("node_first_zone", CONFIG, "its first zone"),
        Field("node_end_zone", CONFIG, "behind its last zone"),
    )),
    Struct("nr_frames", "page", (  # one cache line
        Field("page_flags", FLAGS, "PG_*", reads=ANY),
        Field("page_refcount", OneOf(Atomic("fetch_add", "compare_exchange"), ALONE),
              "references; 0 free, or frozen", reads=ANY),
        Field("page_mapcount", OneOf(Atomic("fetch_add"), ALONE), "PTEs that map it", reads=ANY),
        Field("page_object", OneOf(Held("page_lock"), ALONE), "object + 1, 0 none", reads=ANY),
        Field("page_index", OneOf(Held("page_lock"), ALONE), "page of the object", reads=ANY),
        Field("page_next", ON_A_LIST, "next pfn of its list, -1 end"),
        Field("page_prev", ON_A_LIST, "previous pfn of its list"),
        Field("page_private", ON_A_LIST, "order of a free block, or of the large folio that it is in",
              reads=ANY),
    )),
    Lock("page_lock", "folio lock", "the page's identity and content", kind=BIT, word="page_flags", bit=0),
)  # fmt: skip

PG_LOCKED, PG_WAITERS, PG_UPTODATE, PG_DIRTY = 1, 2, 4, 8
PG_LRU, PG_ACTIVE, PG_REFERENCED, PG_WORKINGSET = 16, 32, 64, 128
PG_SWAPBACKED, PG_READAHEAD, PG_BUDDY, PG_TABLE = 256, 512, 1024, 2048
PG_PCP = 4096
PG_EXCLUSIVE = 131072  # PageAnonExclusive: no other process shares it
PG_KEPT = 262144  # freed, but a design still keeps it from the allocator (HOOK_KEEP)
PG_LARGE = 524288  # one of the pages of a large folio (folio.py)
PG_RECLAIM = 1048576  # reclaim has met it dirty: once written, it goes first

PIN_BIAS = 1024  # references that a pin is (GUP_PIN_COUNTING_BIAS)


@kernel
def _first_beyond(ends, pfn):
    i = 0
    while pfn >= ends[i]:
        i += 1
    return i


@kernel
def node_of(ram, pfn):
    """Node of a frame."""
    return _first_beyond(ram.node_end, pfn)


@kernel
def zone_of(ram, pfn):
    """Zone of a frame."""
    return _first_beyond(ram.zone_end, pfn)


@kernel
def folio_pages(ram, pfn):
    """Pages of the folio that a page belongs to: 1, or those of a large folio (folio_nr_pages)."""
    return 1 << ram.page_private[pfn] if ram.page_flags[pfn] & PG_LARGE else 1


@kernel
def is_large(ram, pfn):
    """Is it a page of a large folio (folio_test_large)?"""
    return ram.page_flags[pfn] & PG_LARGE != 0


@kernel
def set_flag(ram, pfn, flag):
    """Set; returns whether it was set before."""
    return fetch_or(ram.page_flags, pfn, flag) & flag != 0


@kernel
def clear_flag(ram, pfn, flag):
    """Clear; returns whether it was set before."""
    return fetch_and(ram.page_flags, pfn, ~flag) & flag != 0


@kernel
def mark_dirty(ram, pfn):
    """The page holds what the disk does not; whoever meant to reclaim it once it is written must think again
    (folio_mark_dirty).
    """
    if fetch_or(ram.page_flags, pfn, PG_DIRTY) & PG_RECLAIM:
        fetch_and(ram.page_flags, pfn, ~PG_RECLAIM)


@kernel
def get_page(ram, pfn):
    """Take a reference on a page that the caller knows to be in use."""
    fetch_add(ram.page_refcount, pfn, 1)


@kernel
def _add_refs_unless_free(ram, pfn, references):
    """Take references unless the count is 0: frozen or free (folio_ref_add_unless)."""
    count = load_acquire(ram.page_refcount, pfn)
    while count > 0:
        seen = compare_exchange(ram.page_refcount, pfn, count, count + references)
        if seen == count:
            return True
        count = seen
    return False


@kernel
def try_get_page(ram, pfn):
    """Take a reference unless the page is frozen or free (folio_try_get)."""
    return _add_refs_unless_free(ram, pfn, 1)


@kernel
def put_page_testzero(ram, pfn):
    """Drop a reference; True if it was the last and the caller must free the page."""
    before = fetch_add(ram.page_refcount, pfn, -1)
    if before < 1:
        panic(ram, 0, BAD_REFCOUNT, pfn, before - 1)
    return before == 1


@kernel
def try_pin_page(ram, pfn):
    """Pin a page for a device unless it is frozen or free (try_grab_folio_fast)."""
    return _add_refs_unless_free(ram, pfn, PIN_BIAS)


@kernel
def maybe_dma_pinned(ram, pfn):
    """May a device be at work on this page? Certain if not; very many other references would only look like
    it (folio_maybe_dma_pinned).
    """
    return load_acquire(ram.page_refcount, pfn) >= PIN_BIAS


@kernel
def freeze_refs(ram, pfn, expected):
    """Take the page out of everybody's reach if exactly `expected` references exist (folio_ref_freeze)."""
    return compare_exchange(ram.page_refcount, pfn, expected, 0) == expected


@kernel
def try_lock_page(ram, pfn):
    """Take the page lock if it is free."""
    return fetch_or(ram.page_flags, pfn, PG_LOCKED) & PG_LOCKED == 0


@kernel
def wait_for_unlock(ram, cpu, pfn):
    """Sleep until the page is unlocked. The caller has set PG_WAITERS while it knew the page to be locked;
    unlocking clears both.
    """
    if ram.cpu_bell[cpu] > 0:
        serve_interrupts(ram, cpu)
    if not begin_wait(ram, cpu, WAIT_PAGE, pfn):
        return
    both = PG_LOCKED | PG_WAITERS
    if load_acquire(ram.page_flags, pfn) & both == both:
        finish_wait(ram, cpu)
    else:
        cancel_wait(ram, cpu)


@kernel
def lock_page(ram, cpu, pfn):
    """Take the page lock, sleeping if need be, serving interrupts meanwhile."""
    while not try_lock_page(ram, pfn):
        fetch_or(ram.page_flags, pfn, PG_WAITERS)
        wait_for_unlock(ram, cpu, pfn)


@kernel
def end_read(ram, cpu, pfn):
    """The data of a locked page are there: mark it uptodate and unlock it in one go (folio_end_read)."""
    flags = load_acquire(ram.page_flags, pfn)
    while True:
        seen = compare_exchange(ram.page_flags, pfn, flags, (flags | PG_UPTODATE) & ~(PG_LOCKED | PG_WAITERS))
        if seen == flags:
            break
        flags = seen
    if flags & PG_WAITERS:
        wake_all_waiting_for(ram, WAIT_PAGE, pfn, ram.cpu_clock[cpu])


@kernel
def unlock_page(ram, cpu, pfn):
    """Let go of the page lock and wake who waits for it."""
    before = fetch_and(ram.page_flags, pfn, ~(PG_LOCKED | PG_WAITERS))
    if before & PG_WAITERS:
        wake_all_waiting_for(ram, WAIT_PAGE, pfn, ram.cpu_clock[cpu])
