"""Per-CPU page lists: refilled and drained in batches, watermarks, where the next page comes from."""

import numpy as np
import pytest

from allocator.kswapd import ASLEEP, AWAKE, pgdat_balanced
from allocator.page_alloc import (
    GFP_KSWAPD,
    GFP_THISNODE,
    GFP_USER,
    alloc_page,
    free_page,
    free_with_others,
    put_page,
)
from allocator.page_list import NONE
from allocator.pcp import drain_all_pages, unlock_pcp

CPU, NODE, BATCH = 0, 0, 8


@pytest.fixture
def machine(small_machine):
    """One node of 512 pages, batch 8, high 32 and not tuned; no address space, so no page is taken yet."""
    return small_machine(mms=0)


def take(machine, count, cpu=CPU, node=NODE, gfp=GFP_USER):
    return [int(alloc_page(machine.ram, cpu, node, gfp)) for _ in range(count)]


def give(machine, pages, cpu=CPU, key=0):
    for pfn in pages:
        machine.ram.page_refcount[pfn] = 0
        free_page(machine.ram, cpu, pfn, key)


def test_the_first_page_brings_a_batch(machine):
    """One taking of the zone lock serves eight pages."""
    pages = take(machine, 1)
    assert (machine.ram.pcp_count[CPU, NODE], machine.ram.zone_free[NODE]) == (BATCH - 1, 512 - BATCH)
    pages += take(machine, BATCH - 1)
    assert (machine.ram.pcp_count[CPU, NODE], machine.ram.zone_free[NODE]) == (0, 512 - BATCH)
    assert len(set(pages)) == BATCH
    assert machine.ram.page_refcount[pages].tolist() == [1] * BATCH
    give(machine, pages)


def test_the_page_freed_last_is_taken_first(machine):
    """It is warm in the cache."""
    pages = take(machine, 3)
    give(machine, pages)
    assert take(machine, 3) == pages[::-1]
    give(machine, pages)


def test_at_high_the_cold_end_goes_back(machine):
    """As many as were freed in a row, but a batch stays."""
    pages = take(machine, 48)  # refills of 8, 16 and 24 (high - batch): none is left over
    assert machine.ram.zone_free[NODE] == 512 - 48
    give(machine, pages[:32])
    assert (machine.ram.pcp_count[CPU, NODE], machine.ram.zone_free[NODE]) == (BATCH, 512 - 48 + 24)
    assert take(machine, 8) == pages[24:32][::-1], "the twenty-four that were freed first have gone"
    give(machine, pages[24:])


def test_refills_double_while_nothing_is_freed(small_machine):
    """nr_pcp_alloc: 8, 16, 32 ... pages; a free halves the factor again."""
    machine = small_machine(mms=0)
    machine.ram.pcp_high_max[NODE] = 400
    free, steps = [512], []
    held = []
    for _ in range(56):
        held += take(machine, 1)
        if machine.ram.zone_free[NODE] != free[-1]:
            steps.append(free[-1] - int(machine.ram.zone_free[NODE]))
            free.append(int(machine.ram.zone_free[NODE]))
    assert steps == [8, 16, 32]
    assert machine.ram.pcp_alloc_factor[CPU, NODE] == 3
    give(machine, held)
    assert machine.ram.pcp_alloc_factor[CPU, NODE] == 0


def test_lists_stay_short_while_kswapd_works_on_the_node(small_machine):
    """ZONE_RECLAIM_ACTIVE: four batches at most, whatever was tuned."""
    machine = small_machine(mms=0)
    machine.ram.pcp_high_max[NODE], machine.ram.pcp_tuned[CPU, NODE] = 400, 200
    pages = take(machine, 100)
    machine.ram.zone_reclaim_active[NODE] = 1
    give(machine, pages)
    assert machine.ram.pcp_count[CPU, NODE] < 4 * BATCH
    assert machine.ram.pcp_tuned[CPU, NODE] < 200
    machine.ram.zone_reclaim_active[NODE] = 0


def test_a_zone_found_below_high_is_remembered_until_it_is_above_again(machine):
    """ZONE_BELOW_HIGH: set by the allocation that finds it, cleared by the free that brings it above."""
    pages = take(machine, 480)
    assert machine.ram.zone_below_high[NODE] == 1
    give(machine, pages)
    assert machine.ram.zone_below_high[NODE] == 0


def test_a_pending_page_is_used_last(machine):
    """Freed with a key it goes to the tail: maybe somebody flushes meanwhile."""
    pages = take(machine, BATCH)
    give(machine, pages[:1], key=9)
    give(machine, pages[1:])
    assert int(machine.ram.pcp_last[CPU, NODE]) == pages[0]


def test_drain_all_pages_empties_the_lists_of_all_cpus(machine):
    give(machine, take(machine, 3, cpu=0), cpu=0)
    give(machine, take(machine, 3, cpu=1), cpu=1)
    drain_all_pages(machine.ram, CPU, NODE)
    assert (machine.ram.pcp_count.sum(), machine.ram.zone_free[NODE]) == (0, 512)


def test_the_next_node_serves_when_the_first_is_below_low(small_machine):
    """Node 0 is emptied down to LOW; then pages come from node 1, and with GFP_THISNODE from nowhere."""
    machine = small_machine(pages=(128, 128), mms=0, marks=(16, 24, 32))
    pages = take(machine, 1)
    while pages[-1] < 128:
        pages += take(machine, 1)
    assert machine.ram.zone_free[0] <= 24 < machine.ram.zone_free[0] + BATCH << 1, (
        "pages in the CPU's list are not free"
    )
    assert (pages[-1] >= 1024, machine.count("numa_hit"), machine.count("numa_miss")) == (
        True,
        len(pages) - 1,
        1,
    )
    own = take(machine, 100, gfp=GFP_THISNODE | GFP_KSWAPD)
    got = sum(pfn >= 0 for pfn in own)
    assert [pfn >= 0 for pfn in own] == [True] * got + [False] * (100 - got), (
        "without direct reclaim down to MIN, then no further"
    )
    assert machine.ram.zone_free[0] <= 16
    assert (machine.ram.kswapd_state[0], machine.ram.kswapd_state[1]) == (AWAKE, ASLEEP), (
        "and its own kswapd is asked for help"
    )
    machine.forget_wakeups()
    give(machine, [*pages, *(pfn for pfn in own if pfn >= 0)])


def test_put_page_frees_at_the_last_reference(machine):
    (pfn,) = take(machine, 1)
    machine.ram.page_refcount[pfn] += 1
    put_page(machine.ram, CPU, pfn)
    assert machine.ram.page_refcount[pfn] == 1
    put_page(machine.ram, CPU, pfn)
    assert machine.ram.page_refcount[pfn] == 0
    assert machine.ram.pcp_first[CPU, NODE] == pfn


def test_no_page_is_lost_in_many_takes_and_gives(machine):
    """20 rounds on two CPUs, each giving back what the other took."""
    rng = np.random.default_rng(1)
    held = []
    for _ in range(20):
        held += take(machine, int(rng.integers(60)), cpu=int(rng.integers(2)))
        assert len(set(held)) == len(held)
        rng.shuffle(held)
        half = len(held) // 2
        give(machine, held[:half], cpu=int(rng.integers(2)))
        held = held[half:]
    give(machine, held)
    assert machine.count("pgalloc_normal") == machine.count("pgfree")


@pytest.mark.parametrize("where", ["pcp list", "head of a free block"])
def test_double_free_panics(broken_machine, where):
    machine = broken_machine(mms=0)
    (pfn,) = take(machine, 1)
    give(machine, [pfn])
    if where != "pcp list":
        drain_all_pages(machine.ram, CPU, NODE)
        pfn = int(machine.ram.free_first[NODE].max())
    assert machine.panic_of(free_page, CPU, pfn, 0).startswith(f"buddy: frame {pfn} is freed twice")


def test_dropping_a_reference_that_nobody_has_panics(broken_machine):
    """Frames inside a free block bear no flag: their double free shows in the reference count."""
    machine = broken_machine(mms=0)
    (pfn,) = take(machine, 1)
    give(machine, [pfn])
    drain_all_pages(machine.ram, CPU, NODE)
    assert machine.panic_of(put_page, CPU, pfn) == f"page {pfn}: reference count fell to -1"


def test_a_page_in_use_that_lies_in_the_allocator_panics(broken_machine):
    """Somebody took a reference on a free page: whoever gets it must not have it."""
    machine = broken_machine(mms=0)
    pages = take(machine, 1)
    give(machine, pages)
    machine.ram.page_refcount[pages[0]] = 1
    assert machine.panic_of(alloc_page, CPU, NODE, GFP_USER) == f"page {pages[0]}: reference count fell to 1"


def test_out_of_memory_is_a_sentence(broken_machine):
    machine = broken_machine(pages=(64,), mms=0)
    while machine.ram.zone_free[NODE] > 16:
        take(machine, 1)
    said = machine.panic_of(alloc_page, CPU, NODE, GFP_USER)
    assert said.startswith("out of memory: no page of node 0 after 1 rounds of direct reclaim")


# --- zones of one node --------------------------------------------------------------------------------------


@pytest.fixture
def zoned(small_machine):
    """Node 0 with a small low zone 0 that keeps 20 pages from others' allocations, and zone 1; node 1 is zone
    2.
    """
    machine = small_machine(pages=(64, 128, 128), node_of=(0, 0, 1), mms=0)
    machine.ram.zone_reserve[0] = 20
    return machine


def zones_of(machine, pages):
    return [int(np.searchsorted(machine.ram.zone_start, pfn, "right")) - 1 for pfn in pages]


def test_the_higher_zone_is_used_first_then_the_lower_then_the_next_node(zoned):
    """Each down to LOW; the low zone's reserve comes on top."""
    pages = []
    while not pages or zones_of(zoned, pages[-1:]) != [2]:
        pages += take(zoned, 1)
    order = zones_of(zoned, pages)
    assert order == sorted(order, key=[1, 0, 2].index)
    assert zoned.ram.zone_free[0] <= 24 + 20 < zoned.ram.zone_free[0] + 4 * BATCH
    assert zoned.ram.zone_free[1] <= 24
    give(zoned, pages)


def test_a_freed_page_returns_to_its_own_zone(zoned):
    pages = take(zoned, 130)
    give(zoned, pages)
    for zone in range(3):
        drain_all_pages(zoned.ram, CPU, zone)
    assert zoned.ram.zone_free.tolist() == [64, 128, 128]


def test_pages_freed_together_return_to_their_own_zones(zoned):
    """The lock of the list changes with the zone, and is held by nobody afterwards."""
    pages = np.array(take(zoned, 130))
    zones = np.array(zones_of(zoned, pages))
    place = np.array([np.sum(zones[:i] == zone) for i, zone in enumerate(zones)])
    pages = pages[np.lexsort((zones, place))].tolist()  # in turn from each zone
    assert zones_of(zoned, pages[:6]) == [0, 1, 2] * 2
    zoned.ram.page_refcount[pages] = 0
    held = NONE
    for pfn in pages:
        held = int(free_with_others(zoned.ram, CPU, pfn, held))
        assert np.flatnonzero(zoned.ram.pcp_lock[CPU]).tolist() == [held] == zones_of(zoned, [pfn])
    unlock_pcp(zoned.ram, CPU, held)
    assert zoned.ram.pcp_lock[CPU].sum() == zoned.ram.cpu_no_resched[CPU] == 0
    assert zoned.count("pgfree") == 130
    for zone in range(3):
        drain_all_pages(zoned.ram, CPU, zone)
    assert zoned.ram.zone_free.tolist() == [64, 128, 128]


def test_a_node_is_balanced_when_one_of_its_zones_is(zoned):
    """pgdat_balanced: DMA alone is enough."""
    assert pgdat_balanced(zoned.ram, 0)
    zoned.ram.wmark_high[1] = 1000
    assert pgdat_balanced(zoned.ram, 0)
    zoned.ram.wmark_high[0] = 44  # and with the reserve of 20 that is all it has
    assert not pgdat_balanced(zoned.ram, 0)
