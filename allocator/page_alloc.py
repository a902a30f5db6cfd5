"""Getting and giving pages (mm/page_alloc.c: get_page_from_freelist, rmqueue_pcplist, __alloc_pages_slowpath, free_unref_page).

Order-0 pages go through per-CPU lists (pcp) that are refilled and drained in batches under the zone lock. Watermarks are per
node: below LOW an allocation wakes kswapd, below MIN it reclaims by itself. Pages in pcp lists are not counted as free.
A page that leaves the allocator is poisoned for the oracle and has passed the design's take-off hooks.
Left out: orders above 0 for users, highatomic reserves, lowmem_reserve and fair zones (one zone per node), OOM killer (the
run stops with a sentence).
"""

from allocator.buddy import NONE, free_one_page, take_block
from allocator.hooks import HOOK_TAKE, HOOK_TAKE_CHECK, HOOK_TAKE_DONE
from allocator.page import PG_BUDDY, PG_LOCKED, PG_LRU, PG_PCP, node_of, put_page_testzero
from allocator.panic import BAD_MAPCOUNT, BAD_REFCOUNT, DOUBLE_FREE, panic
from cpus.compiled import apart, call, kernel
from cpus.costs import PAGE_ALLOC, PAGE_FREE
from cpus.events import EV_FREE, EV_TAKE, record
from cpus.layout import COUNTER, TEXT
from cpus.locks import LOCK_PCP, LOCK_ZONE, spin_lock, spin_lock_irq, spin_unlock, spin_unlock_irq
from cpus.oracle import poison

GFP_RECLAIM, GFP_KSWAPD, GFP_THISNODE = 1, 2, 4
GFP_USER = GFP_RECLAIM | GFP_KSWAPD
PCP_TRIES = 3  # luf_v12 looks at three pending pages of a pcp list, then goes to the buddy

ALLOC_SLOW = TEXT["alloc_slow"]
C_ALLOC, C_FREE = COUNTER["pgalloc_normal"], COUNTER["pgfree"]


# --- per-CPU lists ------------------------------------------------------------------------------------------------------


@kernel
def _pcp_add(ram, owner, zone, pfn, tail):
    """Put a page on a CPU's list; pcp lock held."""
    first, last = ram.pcp_first[owner, zone], ram.pcp_last[owner, zone]
    ram.page_flags[pfn] = PG_PCP
    if tail:
        ram.page_prev[pfn], ram.page_next[pfn] = last, NONE
        ram.pcp_last[owner, zone] = pfn
        if last == NONE:
            ram.pcp_first[owner, zone] = pfn
        else:
            ram.page_next[last] = pfn
    else:
        ram.page_prev[pfn], ram.page_next[pfn] = NONE, first
        ram.pcp_first[owner, zone] = pfn
        if first == NONE:
            ram.pcp_last[owner, zone] = pfn
        else:
            ram.page_prev[first] = pfn
    ram.pcp_count[owner, zone] += 1


@kernel
def _pcp_remove(ram, owner, zone, pfn):
    """Take a page off a CPU's list; pcp lock held."""
    before, after = ram.page_prev[pfn], ram.page_next[pfn]
    if before == NONE:
        ram.pcp_first[owner, zone] = after
    else:
        ram.page_next[before] = after
    if after == NONE:
        ram.pcp_last[owner, zone] = before
    else:
        ram.page_prev[after] = before
    ram.pcp_count[owner, zone] -= 1
    ram.page_flags[pfn] = 0


@kernel
def _pcp_drain(ram, cpu, owner, zone, pages):
    """Move `pages` pages from the tail of a list to the buddy (free_pcppages_bulk); pcp lock held."""
    spin_lock_irq(ram, cpu, ram.zone_lock, zone, LOCK_ZONE | zone)
    while pages > 0 and ram.pcp_count[owner, zone] > 0:
        pfn = ram.pcp_last[owner, zone]
        _pcp_remove(ram, owner, zone, pfn)
        key = ram.page_key[pfn]
        ram.page_key[pfn] = 0
        free_one_page(ram, cpu, zone, pfn, 0, key)
        pages -= 1
    spin_unlock_irq(ram, cpu, ram.zone_lock, zone, LOCK_ZONE | zone)


@apart
def drain_all_pages(ram, cpu, zone):
    """Give every CPU's list of the zone back to the buddy."""
    for owner in range(ram.nr_cpus):
        if ram.pcp_count[owner, zone] > 0:
            number = LOCK_PCP | (owner * ram.nr_nodes + zone)
            spin_lock(ram, cpu, ram.pcp_lock, (owner, zone), number)
            _pcp_drain(ram, cpu, owner, zone, ram.pcp_count[owner, zone])
            spin_unlock(ram, cpu, ram.pcp_lock, (owner, zone), number)
    return 0


@kernel
def _refill(ram, cpu, zone):
    """Take a batch from the buddy and put all but one on the CPU's list (rmqueue_bulk); returns that one or -1.

    The take-off hook runs between: a page with something pending never reaches the list.
    """
    spin_lock_irq(ram, cpu, ram.zone_lock, zone, LOCK_ZONE | zone)
    chain = NONE
    for _ in range(ram.pcp_batch):
        pfn = take_block(ram, cpu, zone, 0)
        if pfn == NONE:
            break
        ram.page_next[pfn] = chain
        chain = pfn
    spin_unlock_irq(ram, cpu, ram.zone_lock, zone, LOCK_ZONE | zone)
    call(ram, HOOK_TAKE_DONE, cpu, 0, 0, 0, 0)
    if chain == NONE:
        return NONE
    rest = ram.page_next[chain]
    number = LOCK_PCP | (cpu * ram.nr_nodes + zone)
    spin_lock(ram, cpu, ram.pcp_lock, (cpu, zone), number)
    while rest != NONE:
        after = ram.page_next[rest]
        _pcp_add(ram, cpu, zone, rest, False)
        rest = after
    spin_unlock(ram, cpu, ram.pcp_lock, (cpu, zone), number)
    return chain


@kernel
def _take_from_pcp(ram, cpu, zone):
    """Take a page from the CPU's list, -1 if there is none that may be taken (rmqueue_pcplist)."""
    if ram.pcp_count[cpu, zone] == 0:
        return NONE
    number = LOCK_PCP | (cpu * ram.nr_nodes + zone)
    spin_lock(ram, cpu, ram.pcp_lock, (cpu, zone), number)
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
            call(ram, HOOK_TAKE, cpu, -1, pfn, key, 0)
    spin_unlock(ram, cpu, ram.pcp_lock, (cpu, zone), number)
    if pfn != NONE and key != 0:
        call(ram, HOOK_TAKE_DONE, cpu, 0, 0, 0, 0)
        ram.page_key[pfn] = 0
    return pfn


# --- allocation ---------------------------------------------------------------------------------------------------------


@apart
def take_page(ram, cpu, zone):
    """Take one page of the zone, from the CPU's list or the buddy (rmqueue); -1 if there is none."""
    pfn = _take_from_pcp(ram, cpu, zone)
    if pfn == NONE:
        pfn = _refill(ram, cpu, zone)
    if pfn == NONE:
        return NONE
    if ram.page_refcount[pfn] != 0:
        panic(ram, cpu, BAD_REFCOUNT, pfn, ram.page_refcount[pfn])
    if ram.page_mapcount[pfn] != 0:
        panic(ram, cpu, BAD_MAPCOUNT, pfn, ram.page_mapcount[pfn])
    poison(ram, pfn)  # from here on whoever reads it through an old translation reads what is not his
    ram.page_flags[pfn] = 0
    ram.page_object[pfn] = 0
    ram.page_refcount[pfn] = 1
    ram.counter[cpu, C_ALLOC] += 1
    ram.cpu_clock[cpu] += ram.cost[PAGE_ALLOC]
    record(ram, cpu, EV_TAKE, pfn, zone, 0, 0)
    return pfn


@kernel
def get_page_from_freelist(ram, cpu, node, gfp, low):
    """Try the zonelist of `node` against watermark LOW (or MIN); -1 if no zone is above it."""
    for i in range(ram.nr_nodes):
        zone = ram.zonelist[node, i]
        if zone < 0 or (i > 0 and gfp & GFP_THISNODE):
            return NONE
        mark = ram.wmark_low[zone] if low else ram.wmark_min[zone]
        if ram.zone_free[zone] > mark or ram.pcp_count[cpu, zone] > 0:
            pfn = take_page(ram, cpu, zone)
            if pfn != NONE:
                return pfn
    return NONE


@apart
def alloc_page(ram, cpu, node, gfp):
    """Allocate one page, from `node` if it can be; -1 only if `gfp` does not allow reclaim. Reference count 1, poisoned."""
    pfn = get_page_from_freelist(ram, cpu, node, gfp, True)
    if pfn != NONE:
        return pfn
    return call(ram, ALLOC_SLOW, cpu, node, gfp, 0, 0)


# --- freeing ------------------------------------------------------------------------------------------------------------


@apart
def free_page(ram, cpu, pfn, key):
    """Give a page without references back, with the key of what is pending for it (0: nothing) (free_unref_page)."""
    flags = ram.page_flags[pfn]
    if ram.page_mapcount[pfn] != 0:
        panic(ram, cpu, BAD_MAPCOUNT, pfn, ram.page_mapcount[pfn])
    if flags & (PG_LRU | PG_PCP | PG_BUDDY | PG_LOCKED):
        panic(ram, cpu, DOUBLE_FREE, pfn, flags)
    zone = node_of(ram, pfn)
    record(ram, cpu, EV_FREE, pfn, ram.page_object[pfn], ram.page_index[pfn], key)
    ram.page_object[pfn] = 0
    ram.page_refcount[pfn] = 0
    ram.page_key[pfn] = key
    ram.counter[cpu, C_FREE] += 1
    ram.cpu_clock[cpu] += ram.cost[PAGE_FREE]
    number = LOCK_PCP | (cpu * ram.nr_nodes + zone)
    spin_lock(ram, cpu, ram.pcp_lock, (cpu, zone), number)
    _pcp_add(ram, cpu, zone, pfn, key != 0)  # pending pages to the tail: reused last, drained first
    if ram.pcp_count[cpu, zone] > ram.pcp_high[zone]:
        _pcp_drain(ram, cpu, cpu, zone, ram.pcp_batch)
    spin_unlock(ram, cpu, ram.pcp_lock, (cpu, zone), number)
    return 0


@kernel
def put_page(ram, cpu, pfn):
    """Drop a reference; the last one frees the page (which must be off the LRU by then)."""
    if put_page_testzero(ram, pfn):
        free_page(ram, cpu, pfn, 0)

