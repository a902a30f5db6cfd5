"""Per-CPU lists of free pages (mm/page_alloc.c: rmqueue_pcplist, nr_pcp_alloc, free_unref_page_commit,
nr_pcp_high, nr_pcp_free).

A CPU has one list for each zone. It is filled and emptied in batches under the zone lock. How long it may
grow is tuned between `pcp_high_min` and `pcp_high_max`: up while a CPU allocates or frees in a row, down
while kswapd is at work on the node or the zone is short; refills double while a CPU only allocates.
Pages with something pending (a design's key) stand at the tail: used last, given back first.
Left out: a list for each migratetype (one holds all), orders above 0, decay_pcp_high of the vmstat worker,
draining by it.
"""

from allocator.buddy import free_one_page, take_block
from allocator.hooks import HOOK_TAKE, HOOK_TAKE_BEGIN, HOOK_TAKE_CHECK, HOOK_TAKE_DONE
from allocator.page import PG_PCP
from allocator.page_list import NONE, list_add, list_add_tail, list_del
from cpus.compiled import apart, call, inlined, kernel
from cpus.declare import ANY, CONFIG, OWNER, Field, Held, Lock, Racy, Struct
from cpus.locks import spin_lock, spin_lock_irq, spin_unlock, spin_unlock_irq

PCP, PCP_LOCK = ("nr_cpus", "nr_zones"), Held("pcp_lock")
FIELDS = (
    Struct("nr_zones", "config", (
        Field("zone_reserve", CONFIG,
              "kept from allocations that could use a higher zone of the node (lowmem_reserve)",
              unit="pages"),
        *(Field(f"wmark_{name}", CONFIG, f"WMARK_{name.upper()}",
                unit="pages") for name in ("min", "low", "high", "promo")),
        Field("pcp_batch", CONFIG, "moved between a list and the buddy at a time", unit="pages"),
        Field("pcp_high_min", CONFIG, "least that pcp->high may be tuned to", unit="pages"),
        Field("pcp_high_max", CONFIG, "most that pcp->high may be tuned to", unit="pages"),
    )),
    Struct("nr_zones", "state", (
        Field("zone_below_high", Racy("as in Linux: a hint to tune by"),
              "an allocation found it below HIGH (ZONE_BELOW_HIGH)"),
    )),
    Lock("pcp_lock", "pcp.lock", "a CPU's free pages of a zone: its own, and whoever drains all lists", PCP),
    Field("pcp_count", PCP_LOCK, "pages in the list", PCP, reads=ANY),
    Field("pcp_first", PCP_LOCK, "first page of the list, -1 none", PCP),
    Field("pcp_last", PCP_LOCK, "last one", PCP),
    Field("pcp_tuned", OWNER, "pcp->high as tuned so far", PCP, reads=ANY, unit="pages"),
    Field("pcp_alloc_factor", OWNER, "refills in a row without a free", PCP),
    Field("pcp_free_count", OWNER, "frees in a row, halved by each allocation", PCP, unit="pages"),
)  # fmt: skip

PCP_TRIES = 3  # luf_v12 looks at three pending pages of a pcp list, then goes to the buddy
PCP_BATCH_SCALE_MAX = 5  # CONFIG_PCP_BATCH_SCALE_MAX, its default


@kernel
def zone_watermark_ok(ram, zone, mark):
    """Has the zone more than `mark` pages free, apart from what it keeps from higher zones' allocations
    (order 0)?
    """
    return ram.zone_free[zone] > mark + ram.zone_reserve[zone]


@inlined
def pcp_add(ram, owner, zone, pfn, tail):
    """Put a page on a CPU's list; pcp lock held."""
    ram.page_flags[pfn] = PG_PCP
    if tail:
        list_add_tail(ram, ram.pcp_first, ram.pcp_last, (owner, zone), pfn)
    else:
        list_add(ram, ram.pcp_first, ram.pcp_last, (owner, zone), pfn)
    ram.pcp_count[owner, zone] += 1


@inlined
def _pcp_remove(ram, owner, zone, pfn):
    """Take a page off a CPU's list; pcp lock held."""
    list_del(ram, ram.pcp_first, ram.pcp_last, (owner, zone), pfn)
    ram.pcp_count[owner, zone] -= 1
    ram.page_flags[pfn] = 0


@kernel
def free_pcppages_bulk(ram, cpu, owner, zone, pages):
    """Move `pages` pages from the tail of a list to the buddy; pcp lock held."""
    spin_lock_irq(ram, cpu, ram.zone_lock, zone)
    while pages > 0 and ram.pcp_count[owner, zone] > 0:
        pfn = ram.pcp_last[owner, zone]
        _pcp_remove(ram, owner, zone, pfn)
        key = ram.page_key[pfn]
        ram.page_key[pfn] = 0
        free_one_page(ram, cpu, zone, pfn, 0, key)
        pages -= 1
    spin_unlock_irq(ram, cpu, ram.zone_lock, zone)


@apart
def drain_all_pages(ram, cpu, zone):
    """Give every CPU's list of the zone back to the buddy."""
    for owner in range(ram.nr_cpus):
        if ram.pcp_count[owner, zone] > 0:
            spin_lock(ram, cpu, ram.pcp_lock, (owner, zone))
            free_pcppages_bulk(ram, cpu, owner, zone, ram.pcp_count[owner, zone])
            spin_unlock(ram, cpu, ram.pcp_lock, (owner, zone))
    return 0


# --- how much at a time -------------------------------------------------------------------------------------


@kernel
def _clamped_high(ram, owner, zone):
    return min(max(ram.pcp_tuned[owner, zone], ram.pcp_high_min[zone]), ram.pcp_high_max[zone])


@kernel
def nr_pcp_alloc(ram, owner, zone):
    """How many pages the next refill takes: twice the last one's while nothing is freed in between."""
    base = ram.pcp_batch[zone]
    high = _clamped_high(ram, owner, zone)
    batch = base << ram.pcp_alloc_factor[owner, zone]
    if ram.pcp_high_min[zone] != ram.pcp_high_max[zone] and not ram.zone_below_high[zone]:
        high = min(high + batch, ram.pcp_high_max[zone])
    ram.pcp_tuned[owner, zone] = high
    most = max(high - ram.pcp_count[owner, zone] - base, base)
    if batch <= most and ram.pcp_alloc_factor[owner, zone] < PCP_BATCH_SCALE_MAX:
        ram.pcp_alloc_factor[owner, zone] += 1
    batch = min(batch, most)
    return max(batch, 2) if batch > 1 else batch


@inlined
def _nr_pcp_high(ram, owner, zone):
    """How long the list may be now; lowers or raises what is tuned."""
    low, most = ram.pcp_high_min[zone], ram.pcp_high_max[zone]
    batch, freed = ram.pcp_batch[zone], ram.pcp_free_count[owner, zone]
    high = _clamped_high(ram, owner, zone)
    tuned = high
    count = ram.pcp_count[owner, zone]
    if ram.zone_reclaim_active[zone]:
        tuned = max(high - max(freed, batch), low)
        high = min(batch << 2, tuned)
    elif low != most:
        if ram.zone_below_high[zone]:
            tuned = max(high - max(freed, batch), low)
            high = max(count, low)
        elif count >= high and high < freed + batch:
            tuned = min(max(freed + batch, low), most)
    ram.pcp_tuned[owner, zone] = tuned
    return high


@kernel
def lock_pcp(ram, cpu, zone):
    """Take the lock of this CPU's list."""
    spin_lock(ram, cpu, ram.pcp_lock, (cpu, zone))


@kernel
def unlock_pcp(ram, cpu, zone):
    """Let go of it."""
    spin_unlock(ram, cpu, ram.pcp_lock, (cpu, zone))


@inlined
def free_to_pcp(ram, cpu, zone, pfn, pending):
    """Put a freed page on this CPU's list, and a batch back into the buddy if it got too long
    (free_unref_page_commit). pcp lock held.
    """
    batch = ram.pcp_batch[zone]
    ram.pcp_alloc_factor[cpu, zone] >>= 1
    pcp_add(ram, cpu, zone, pfn, pending)
    if ram.pcp_free_count[cpu, zone] < batch << PCP_BATCH_SCALE_MAX:
        ram.pcp_free_count[cpu, zone] += 1
    high = _nr_pcp_high(ram, cpu, zone)
    if ram.pcp_count[cpu, zone] >= high:
        pages = (
            1 if high < batch else min(max(ram.pcp_free_count[cpu, zone], batch), max(high - batch, batch))
        )
        free_pcppages_bulk(ram, cpu, cpu, zone, pages)
        if ram.zone_below_high[zone] and zone_watermark_ok(ram, zone, ram.wmark_high[zone]):
            ram.zone_below_high[zone] = 0


# --- taking -------------------------------------------------------------------------------------------------


@kernel
def refill(ram, cpu, zone):
    """Take a batch from the buddy and put all but one on the CPU's list (rmqueue_bulk); returns that one or
    -1.

    The take-off hook runs between: a page with something pending never reaches the list.
    """
    wanted = nr_pcp_alloc(ram, cpu, zone)
    call(ram, HOOK_TAKE_BEGIN, cpu, zone, 0, 0, 0)
    spin_lock_irq(ram, cpu, ram.zone_lock, zone)
    first = last = NONE
    for _ in range(wanted):
        pfn = take_block(ram, cpu, zone, 0)
        if pfn == NONE:
            break
        ram.page_next[pfn] = NONE
        if first == NONE:
            first = pfn
        else:
            ram.page_next[last] = pfn
        last = pfn
    spin_unlock_irq(ram, cpu, ram.zone_lock, zone)
    call(ram, HOOK_TAKE_DONE, cpu, 0, 0, 0, 0)
    if first == NONE:
        return NONE
    rest = ram.page_next[first]
    spin_lock(ram, cpu, ram.pcp_lock, (cpu, zone))
    while rest != NONE:
        after = ram.page_next[rest]
        pcp_add(ram, cpu, zone, rest, True)
        rest = after
    spin_unlock(ram, cpu, ram.pcp_lock, (cpu, zone))
    return first


@inlined
def take_from_pcp(ram, cpu, zone):
    """Take a page from the CPU's list, -1 if there is none that may be taken (rmqueue_pcplist)."""
    ram.pcp_free_count[cpu, zone] >>= 1
    if ram.pcp_count[cpu, zone] == 0:
        return NONE
    call(ram, HOOK_TAKE_BEGIN, cpu, -1, 0, 0, 0)
    spin_lock(ram, cpu, ram.pcp_lock, (cpu, zone))
    pfn = ram.pcp_first[cpu, zone]
    key = 0
    tries = 0
    while pfn != NONE:
        key = ram.page_key[pfn]
        if key == 0 or call(ram, HOOK_TAKE_CHECK, cpu, -1, pfn, key, 0) != 0:
            break
        tries += 1
        pfn = ram.page_next[pfn] if tries < PCP_TRIES else NONE
    if pfn != NONE:
        _pcp_remove(ram, cpu, zone, pfn)
        if key != 0:
            ram.taken_pending[cpu] += 1
            call(ram, HOOK_TAKE, cpu, -1, pfn, key, 0)
    spin_unlock(ram, cpu, ram.pcp_lock, (cpu, zone))
    call(ram, HOOK_TAKE_DONE, cpu, 0, 0, 0, 0)
    if pfn != NONE:
        ram.page_key[pfn] = 0
    return pfn
