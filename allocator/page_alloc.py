"""Getting and giving pages (mm/page_alloc.c: get_page_from_freelist, rmqueue, free_unref_page).

Zones are tried in the order of the zonelist of a node, which is that of the asking CPU: the node's own first,
the higher zone before the lower, then nodes by distance. A zone is taken if it has more than its LOW
watermark free beside what it reserves (`lowmem_reserve`); pages in per-CPU lists do not count as free. What
to do if none has is direct_reclaim.py's.
A page that leaves the allocator is poisoned for the oracle and has passed the design's take-off hooks. With
init_on_free, or KASAN's poison, it is poisoned when it is freed already: who still has a translation then
reads other bytes at once.
Left out: orders above 0 (but for folio.py), highatomic reserves, dirty limits, cpusets, per-CPU drift of
NR_FREE_PAGES.
"""

from allocator.hooks import HOOK_KEEP
from allocator.page import PG_BUDDY, PG_KEPT, PG_LOCKED, PG_LRU, PG_PCP, put_page_testzero, zone_of
from allocator.page_list import NONE
from allocator.panic import BAD_MAPCOUNT, BAD_REFCOUNT, DOUBLE_FREE, panic
from allocator.pcp import free_to_pcp, lock_pcp, refill, take_from_pcp, unlock_pcp, zone_watermark_ok
from cpus.compiled import apart, call, inlined, kernel, later
from cpus.declare import CONFIG, VMSTAT, Constant, Cost, Counter, Field, Struct
from cpus.events import EV_FREE, EV_TAKE, record
from cpus.exposed import CLEARED, HANDED_OUT, frame_changes_hands
from cpus.oracle import poison

FIELDS = (
    Constant("init_on_free", "1: pages are cleared when they are freed"),
    Constant("kasan_poison", "1: pages are poisoned when they are freed"),
    Struct("nr_cpus", "lease", (Field("cpu_node", CONFIG,
                                      "node that it belongs to, from which it allocates first"),)),
    Field("zonelist", CONFIG,
          "zones by distance of their node, a node's higher ones first, -1 behind the last",
          ("nr_nodes", "nr_zones")),
)  # fmt: skip

COUNTERS = (
    Counter("pgalloc_normal", VMSTAT, "pages handed out", "pages"),
    Counter("pgfree", VMSTAT, "pages given back", "pages"),
    Counter("numa_hit", VMSTAT, "pages handed out of the node that was asked for", "pages"),
    Counter("numa_miss", VMSTAT, "pages handed out of another node than was asked for", "pages"),
)
COSTS = (
    Cost("page_alloc", "handing out a page"),
    Cost("page_free", "taking a page back"),
)

GFP_RECLAIM, GFP_KSWAPD, GFP_THISNODE, GFP_NORETRY = 1, 2, 4, 8
GFP_USER = GFP_RECLAIM | GFP_KSWAPD

alloc_slow = later("alloc_slow", 3)


@inlined
def prepare_new_page(ram, cpu, pfn, zone):
    """Give a page that leaves the allocator to its new owner, with one reference (prep_new_page)."""
    if ram.page_refcount[pfn] != 0:
        panic(ram, cpu, BAD_REFCOUNT, pfn, ram.page_refcount[pfn])
    if ram.page_mapcount[pfn] != 0:
        panic(ram, cpu, BAD_MAPCOUNT, pfn, ram.page_mapcount[pfn])
    record(ram, cpu, EV_TAKE, pfn, zone, 0, 0)
    frame_changes_hands(ram, cpu, pfn, HANDED_OUT)
    poison(ram, pfn)  # from here on whoever reads it through an old translation reads what is not his
    ram.page_flags[pfn] = 0
    ram.page_object[pfn] = 0
    ram.page_refcount[pfn] = 1
    ram.pgalloc_normal[cpu] += 1


@inlined
def take_page(ram, cpu, zone):
    """Take one page of the zone, from the CPU's list or the buddy (rmqueue); -1 if there is none."""
    pfn = take_from_pcp(ram, cpu, zone)
    if pfn == NONE:
        pfn = refill(ram, cpu, zone)
    if pfn == NONE:
        return NONE
    prepare_new_page(ram, cpu, pfn, zone)
    ram.cpu_clock[cpu] += ram.cost_page_alloc
    return pfn


@apart
def get_page_from_freelist(ram, cpu, node, gfp, low):
    """Try the zonelist of `node` against watermark LOW (or MIN); -1 if no zone is above it.

    A zone that was found below HIGH is marked: per-CPU lists give pages back sooner until it is above again.
    """
    for i in range(ram.nr_zones):
        zone = ram.zonelist[node, i]
        if zone < 0 or (gfp & GFP_THISNODE and ram.zone_node[zone] != node):
            return NONE
        enough = not ram.zone_below_high[zone] and zone_watermark_ok(ram, zone, ram.wmark_high[zone])
        if not enough:
            ram.zone_below_high[zone] = 1
            enough = zone_watermark_ok(ram, zone, ram.wmark_low[zone] if low else ram.wmark_min[zone])
        if enough:
            pfn = take_page(ram, cpu, zone)
            if pfn != NONE:
                if ram.zone_node[zone] == node:
                    ram.numa_hit[cpu] += 1
                else:
                    ram.numa_miss[cpu] += 1
                return pfn
    return NONE


@apart
def alloc_page(ram, cpu, node, gfp):
    """Allocate one page, from `node` if it can be; -1 only if `gfp` does not allow reclaim or retries.
    Reference count 1, poisoned.
    """
    pfn = get_page_from_freelist(ram, cpu, node, gfp, True)
    if pfn != NONE:
        return pfn
    return alloc_slow(ram, cpu, node, gfp)


@kernel
def free_changes_bytes(ram):
    """Does this kernel write to the pages that it frees (want_init_on_free; KASAN poisoning them)? Then no
    flush may wait for later.
    """
    return ram.init_on_free != 0 or ram.kasan_poison != 0


@inlined
def check_unused(ram, cpu, pfn):
    """Stop the run if somebody still uses a page that is to be freed (free_page_is_bad)."""
    flags = ram.page_flags[pfn]
    if ram.page_mapcount[pfn] != 0:
        panic(ram, cpu, BAD_MAPCOUNT, pfn, ram.page_mapcount[pfn])
    if flags & (PG_LRU | PG_PCP | PG_BUDDY | PG_LOCKED | PG_KEPT):
        panic(ram, cpu, DOUBLE_FREE, pfn, flags)


@inlined
def take_from_owner(ram, cpu, pfn, key):
    """Make a page nobody's, with the key of what is pending for it (free_pages_prepare)."""
    record(ram, cpu, EV_FREE, pfn, ram.page_object[pfn], ram.page_index[pfn], key)
    if free_changes_bytes(ram):
        frame_changes_hands(ram, cpu, pfn, CLEARED)
        poison(ram, pfn)
    ram.page_object[pfn] = 0
    ram.page_refcount[pfn] = 0
    ram.page_key[pfn] = key
    ram.pgfree[cpu] += 1


@inlined
def _free_prepare(ram, cpu, pfn, key):
    """Check and account for a page without references that goes back; False if the design keeps it."""
    check_unused(ram, cpu, pfn)
    if key != 0 and call(ram, HOOK_KEEP, cpu, pfn, key, 0, 0) != 0:
        return False
    take_from_owner(ram, cpu, pfn, key)
    ram.cpu_clock[cpu] += ram.cost_page_free
    return True


@apart
def free_page(ram, cpu, pfn, key):
    """Give a page without references back, with the key of what is pending for it (0: nothing)
    (free_unref_page).

    A gather may have left a key in the page (tlb_flush_mmu) before it dropped its own reference: then that is
    pending too.
    """
    key = max(key, ram.page_key[pfn])
    if _free_prepare(ram, cpu, pfn, key):
        zone = zone_of(ram, pfn)
        lock_pcp(ram, cpu, zone)
        free_to_pcp(ram, cpu, zone, pfn, key != 0)
        unlock_pcp(ram, cpu, zone)
    return 0


@inlined
def free_with_others(ram, cpu, pfn, locked):
    """Give one of many pages back, with nothing pending, nor a key in it (free_unref_folios).

    `locked` is the zone whose pcp lock the caller holds, or -1. Returns the zone whose pcp lock is held now:
    the lock is taken once for all pages of a zone in a row.
    """
    zone = zone_of(ram, pfn)
    if zone != locked:
        if locked != NONE:
            unlock_pcp(ram, cpu, locked)
        lock_pcp(ram, cpu, zone)
    _free_prepare(ram, cpu, pfn, 0)
    free_to_pcp(ram, cpu, zone, pfn, False)
    return zone


@kernel
def put_page(ram, cpu, pfn):
    """Drop a reference; the last one frees the page (which must be off the LRU by then)."""
    if put_page_testzero(ram, pfn):
        free_page(ram, cpu, pfn, 0)
