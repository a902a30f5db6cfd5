"""The buddy allocator (mm/page_alloc.c: __free_one_page, __rmqueue_smallest) of one zone.

Beside the free list of each order stands a *pend list* of blocks that carry a design's key: something about
their old translations is still to be done before they are used again. Without such a design it stays empty
and costs nothing. Keys of one zone grow; a merged block carries the newer key. When everything up to a list's
newest key is done, the whole pend list joins the free list at once.
Left out: migratetypes and pageblocks (all pages here are movable but for page tables), higher-order reserves.
"""

from allocator.hooks import HOOK_PAGE_FREED, HOOK_PEND_FIRST, HOOK_TAKE, HOOK_TAKE_CHECK
from allocator.page import ALONE, PG_BUDDY
from allocator.page_list import NONE, list_add, list_add_tail, list_del, list_splice_tail
from allocator.panic import DOUBLE_FREE, FOREIGN_FRAME, panic
from cpus.compiled import call, inlined, kernel
from cpus.declare import ANY, DEFERRED, Atomic, Constant, Counter, Field, Held, Lock, OneOf, Struct

NR_ORDERS = 11  # MAX_PAGE_ORDER + 1
LISTS, ZONE_LOCK = ("nr_zones", NR_ORDERS), Held("zone_lock")
FIELDS = (
    Constant("pend_apart", "1: free blocks with a key that is not done lie in lists of their own"),
    Struct("nr_zones", "lock", (
        Lock("zone_lock", "zone.lock", "the zone's free blocks", irq_safe=True),
        Field("zone_free", ZONE_LOCK, "NR_FREE_PAGES", reads=ANY, unit="pages"),
        Field("zone_pending", ZONE_LOCK, "free pages with a key above zone_key_claimed (LUF: nr_luf_pages)",
              reads=ANY, unit="pages"),
        Field("zone_key_claimed", ZONE_LOCK, "keys up to this one are being flushed by somebody, or done",
              reads=ANY),
        Field("zone_key_done", Atomic("store_release", "exchange", "fetch_max"),
              "keys up to this one have nothing pending: whoever flushed, in order"),
    )),
    Field("page_key", OneOf(Held("zone_lock", at="zone"), Held("pcp_lock", at="any"), ALONE),
          "the design's word for a free block, 0 nothing pending", ("nr_frames",)),
    Field("free_first", ZONE_LOCK, "first free block of [zone, order], -1 none", LISTS, reads=ANY),
    Field("free_last", ZONE_LOCK, "last one", LISTS),
    Field("free_count", ZONE_LOCK, "blocks", LISTS, reads=ANY),
    Field("pend_first", ZONE_LOCK, "first free block whose key is not 0", LISTS, reads=ANY),
    Field("pend_last", ZONE_LOCK, "last one", LISTS),
    Field("pend_count", ZONE_LOCK, "blocks", LISTS, reads=ANY),
    Field("pend_key", ZONE_LOCK, "newest key on the list", LISTS, reads=ANY),
    Field("pend_joined", ZONE_LOCK, "newest key of the list when it last joined the free list", LISTS),
)  # fmt: skip

COUNTERS = (
    Counter("taken_pending", DEFERRED, "pages and blocks taken off the allocator that bear a design's key"),
    Counter("merged_pending", DEFERRED, "free blocks merged with one that has another key"),
)

# answers of HOOK_PEND_FIRST: within an order, within an order, over all orders
CLEAN_FIRST, PEND_FIRST, CLEAN_ONLY = 0, 1, 2


@inlined
def _insert(ram, zone, pfn, order, key):
    """Put a free block on the list that its key asks for; clean ones to the head, pending ones to the tail
    (taken last).
    """
    ram.page_private[pfn] = order
    ram.page_flags[pfn] = PG_BUDDY
    if key > ram.zone_key_done[zone]:
        ram.page_key[pfn] = key
        # a half of a block that was taken: the list stays in the order of keys, or nearly
        if key < ram.pend_key[zone, order]:
            list_add(ram, ram.pend_first, ram.pend_last, (zone, order), pfn)
        else:
            list_add_tail(ram, ram.pend_first, ram.pend_last, (zone, order), pfn)
        ram.pend_count[zone, order] += 1
        ram.pend_key[zone, order] = max(key, ram.pend_key[zone, order])
        if key > ram.zone_key_claimed[zone]:
            ram.zone_pending[zone] += 1 << order
    else:
        ram.page_key[pfn] = 0
        list_add(ram, ram.free_first, ram.free_last, (zone, order), pfn)
        ram.free_count[zone, order] += 1


@inlined
def _remove(ram, zone, pfn, order):
    """Take a free block off its list."""
    key = ram.page_key[pfn]
    if key > ram.pend_joined[zone, order]:
        list_del(ram, ram.pend_first, ram.pend_last, (zone, order), pfn)
        ram.pend_count[zone, order] -= 1
        if key > ram.zone_key_claimed[zone]:
            ram.zone_pending[zone] -= 1 << order
    else:
        list_del(ram, ram.free_first, ram.free_last, (zone, order), pfn)
        ram.free_count[zone, order] -= 1
    ram.page_flags[pfn] = 0


@kernel
def _join_if_done(ram, zone, order):
    """Let the pend list join the free list when nothing on it is pending now (flush_pend_list_if_done)."""
    if ram.pend_count[zone, order] == 0 or ram.pend_key[zone, order] > ram.zone_key_done[zone]:
        return
    list_splice_tail(ram, ram.free_first, ram.free_last, (zone, order), ram.pend_first, ram.pend_last)
    ram.free_count[zone, order] += ram.pend_count[zone, order]
    ram.pend_count[zone, order] = 0
    # blocks keep their old keys; this tells what they mean
    ram.pend_joined[zone, order] = ram.pend_key[zone, order]


@inlined
def free_one_page(ram, cpu, zone, pfn, order, key):
    """Give a block back and merge it with its free buddies. Zone lock held. `key` 0: nothing pending."""
    if pfn < ram.zone_start[zone] or pfn + (1 << order) > ram.zone_end[zone]:
        panic(ram, cpu, FOREIGN_FRAME, pfn, zone)
    if ram.page_flags[pfn] & PG_BUDDY:
        panic(ram, cpu, DOUBLE_FREE, pfn, ram.page_flags[pfn])
    if key != 0:
        key = call(ram, HOOK_PAGE_FREED, cpu, zone, pfn, key, order)
    ram.zone_free[zone] += 1 << order
    while order < NR_ORDERS - 1:
        buddy = pfn ^ (1 << order)
        if buddy < ram.zone_start[zone] or buddy >= ram.zone_end[zone]:
            break
        if ram.page_flags[buddy] & PG_BUDDY == 0 or ram.page_private[buddy] != order:
            break
        if ram.pend_apart and (key > ram.zone_key_done[zone]) != (
            ram.page_key[buddy] > ram.zone_key_done[zone]
        ):
            # the design would rather have smaller blocks than clean pages that have to wait with pending ones
            break
        if key != ram.page_key[buddy]:
            ram.merged_pending[cpu] += 1
        key = max(key, ram.page_key[buddy])
        _remove(ram, zone, buddy, order)
        pfn = min(pfn, buddy)
        order += 1
    _insert(ram, zone, pfn, order, key)


@kernel
def _choose(ram, cpu, zone, order, preference):
    """Give the block to take from the lists of one order, -1 if there is none that may be taken
    (get_page_from_free_area).
    """
    clean = ram.free_first[zone, order]
    block = ram.pend_first[zone, order]
    if (
        block != NONE
        and ram.page_key[block] <= ram.zone_key_done[zone]
        and (clean == NONE or preference == PEND_FIRST)
    ):
        return block  # done, but newer blocks behind it keep the list from joining the free list
    if block == NONE or preference == CLEAN_ONLY or (clean != NONE and preference == CLEAN_FIRST):
        return clean
    if call(ram, HOOK_TAKE_CHECK, cpu, zone, block, ram.page_key[block], order) != 0:
        return block
    return clean


@kernel
def _find_block(ram, cpu, zone, order, preference):
    """Find the smallest block of at least 2^order frames: (pfn, its order), (NONE, 0) if there is none."""
    for larger in range(order, NR_ORDERS):
        _join_if_done(ram, zone, larger)
        pfn = _choose(ram, cpu, zone, larger, preference)
        if pfn != NONE:
            return pfn, larger
    return NONE, 0


@inlined
def take_block(ram, cpu, zone, order):
    """Take a block of 2^order frames, splitting larger ones (__rmqueue_smallest); -1 if there is none. Zone
    lock held.

    The caller must call HOOK_TAKE_DONE after letting go of the lock and before using the frames.
    """
    preference = CLEAN_FIRST
    if ram.zone_pending[zone] > 0:
        preference = call(ram, HOOK_PEND_FIRST, cpu, zone, 0, 0, 0)
    pfn, larger = _find_block(ram, cpu, zone, order, preference)
    if pfn == NONE and preference == CLEAN_ONLY:
        pfn, larger = _find_block(ram, cpu, zone, order, PEND_FIRST)
    if pfn == NONE:
        return NONE
    key = ram.page_key[pfn]
    _remove(ram, zone, pfn, larger)
    if key > ram.zone_key_done[zone]:
        call(ram, HOOK_TAKE, cpu, zone, pfn, key, larger)
        ram.taken_pending[cpu] += 1
    while larger > order:  # give the upper halves back, each with the key of the whole
        larger -= 1
        _insert(ram, zone, pfn + (1 << larger), larger, key)
    ram.zone_free[zone] -= 1 << order
    ram.page_key[pfn] = 0
    return pfn
