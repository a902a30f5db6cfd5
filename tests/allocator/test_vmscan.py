"""Reclaim: the cold go and the hot stay, demotion moves what can be moved, kswapd knows when to stop."""

import pytest

from allocator.direct_reclaim import memory_reclaim, try_to_free_pages
from allocator.kswapd import ASLEEP, AWAKE, NAP_NS, NAPS, end_naps, kswapd_falls_asleep, wakeup_kswapd
from allocator.lru import LRU_ACTIVE_ANON, LRU_ACTIVE_FILE, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE
from allocator.page import PG_ACTIVE, node_of
from allocator.page_alloc import GFP_NORETRY, GFP_USER, alloc_page
from allocator.shrink_lruvec import get_scan_count, prepare_scan_control
from allocator.vmscan import (
    BY_DIRECT,
    SC_CACHE_TRIM,
    SC_DEACTIVATE_FILE,
    SC_FILE_IS_TINY,
    SC_FS,
    SC_NO_CACHE_TRIM,
    shrink_inactive_list,
)
from cpus.abi.numbers import LOAD, STORE
from cpus.page_table import PTE_DIRTY, PTE_WRITE
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN, LATER, SHARED, SHARED_VPN

CPU, NODE, SLOW = 0, 0, 1


@pytest.fixture
def machine(small_machine):
    """One process on CPUs 0 and 1; one node."""
    machine = small_machine(mms=1)
    machine.run(1, cpu=0)
    machine.run(1, cpu=1)
    return machine


@pytest.fixture
def tiered(small_machine):
    """The same with a slow node below the fast one."""
    machine = small_machine(pages=(512, 512), mms=1, demotion=True)
    machine.run(1, cpu=0)
    machine.run(1, cpu=1)
    return machine


def cached(machine, object=FILE):
    return {index for index in range(256) if machine.cached(object, index) >= 0}


def test_the_cold_go_and_the_hot_stay(machine):
    """
    64 pages are read                       first look: all used, all stay, their accessed bits are cleared
    pages 0-31 are used again               second look: 0-31 become active, 32-63 go
    """
    machine.use(FILE_VPN, 64)
    read = len(cached(machine))
    assert machine.scan(read) == read - 64, "pages that only readahead brought have no PTE: they go at once"
    machine.use(FILE_VPN, 32)
    assert machine.scan(64) == 32
    assert cached(machine) == set(range(32))
    assert all(machine.flags(machine.cached(FILE, i)) & PG_ACTIVE for i in range(32))
    assert machine.count("pgsteal_file") == read - 32


def test_what_was_reclaimed_comes_back_from_disk(machine):
    machine.use(FILE_VPN, 16)
    while cached(machine):
        machine.scan(64)
    assert machine.touch(FILE_VPN) == 1
    assert machine.count("workingset_refault_file") > 0


def test_one_round_of_interrupts_serves_a_batch(machine):
    """32 pages that CPU 1 also has mapped: one broadcast when 31 are gathered, one for the rest."""
    machine.use(FILE_VPN, 32)
    machine.use(FILE_VPN, 32, cpu=1)
    machine.scan(len(cached(machine)))
    assert cached(machine) == set(range(32))
    machine.asked()
    assert machine.scan(32) == 32
    assert machine.asked() == [[1], [1]]


def test_anonymous_pages_stay_without_swap(machine):
    machine.use(ANON_VPN, 32, STORE)
    assert [machine.scan(32, LRU_INACTIVE_ANON) for _ in range(3)] == [0, 0, 0]
    assert machine.ram.mm_rss[:, 1].sum() == 32


@pytest.mark.parametrize(
    "vpn, kind, which",
    [(FILE_VPN, LOAD, LRU_INACTIVE_FILE), (ANON_VPN, STORE, LRU_INACTIVE_ANON)],
    ids=["file", "anonymous"],
)
def test_demotion_moves_content_and_mappings(tiered, vpn, kind, which):
    """The page lies on the slow node afterwards, with the same content and rights; who used the old frame is
    flushed.
    """
    tiered.use(vpn, 16, kind)
    tiered.use(vpn, 16, kind, cpu=1)
    before = [
        (tiered.content(tiered.pfn(1, vpn + i)), tiered.pte(1, vpn + i) & (PTE_WRITE | PTE_DIRTY))
        for i in range(16)
    ]
    while tiered.count("pgdemote_kswapd") < 16:
        assert node_of(tiered.ram, tiered.pfn(1, vpn + 15)) == NODE
        tiered.scan(16, which)
    tiered.scan(32, which)
    after = [
        (tiered.content(tiered.pfn(1, vpn + i)), tiered.pte(1, vpn + i) & (PTE_WRITE | PTE_DIRTY))
        for i in range(16)
    ]
    assert after == before
    assert [node_of(tiered.ram, tiered.pfn(1, vpn + i)) for i in range(16)] == [SLOW] * 16
    assert [1] in tiered.asked()
    assert tiered.touch(vpn, kind, pages=16, cpu=1) == 0


def test_without_room_below_file_pages_are_discarded(tiered):
    """do_demote_pass = false: reclaimed from the fast node, nothing of it on the slow one."""
    tiered.use(FILE_VPN, 32)
    tiered.ram.wmark_min[SLOW] = tiered.ram.wmark_low[SLOW] = tiered.ram.wmark_high[SLOW] = 600
    tiered.scan(64)
    assert tiered.scan(64) == 32
    assert cached(tiered) == set()
    assert (tiered.count("pgdemote_kswapd"), tiered.count("pgdemote_fail") > 0) == (0, True)
    tiered.forget_wakeups()


def test_without_room_below_anonymous_pages_stay(tiered):
    """They are mapped again as they were."""
    tiered.use(ANON_VPN, 32, STORE)
    ptes = [tiered.pte(1, ANON_VPN + i) | 0x20 for i in range(32)]
    tiered.ram.wmark_min[SLOW] = tiered.ram.wmark_low[SLOW] = tiered.ram.wmark_high[SLOW] = 600
    assert [tiered.scan(32, LRU_INACTIVE_ANON) for _ in range(2)] == [0, 0]
    assert [tiered.pte(1, ANON_VPN + i) | 0x20 for i in range(32)] == ptes
    assert tiered.count("pgdemote_fail") == 32
    tiered.forget_wakeups()


def run_kswapd(machine, node=NODE):
    """Let a node's kswapd do a run; returns its steps."""
    steps = 1
    while machine.enter("kswapd_step", CPU, node):
        steps += 1
        assert steps < 1000
    return steps


def test_kswapd_stops_above_high(machine):
    """Run by run until more than HIGH pages are free; a run after that ends at once."""
    machine.use(FILE_VPN, 200)
    machine.ram.cpu_clock[:] = LATER
    machine.ram.wmark_high[NODE] = int(machine.ram.zone_free[NODE]) + 50
    runs = 0
    while machine.ram.zone_free[NODE] <= machine.ram.wmark_high[NODE]:
        run_kswapd(machine)
        runs += 1
    assert 1 < runs < 5, "in the first, all pages have just been used"
    scanned = machine.count("pgscan_kswapd")
    assert run_kswapd(machine) == 1
    assert (machine.count("pgscan_kswapd"), machine.count("pageoutrun")) == (scanned, runs + 1)


def test_kswapd_works_harder_until_a_round_looks_at_enough(machine):
    """200 pages, HIGH 40 above what is free: a round of priority 12 looks at 200 >> 12 = 0 of them, and each
    that looks at fewer than HIGH asks for the next; per-CPU lists stay short meanwhile (ZONE_RECLAIM_ACTIVE)
    """
    machine.use(FILE_VPN, 200)
    machine.ram.cpu_clock[:] = LATER
    machine.ram.wmark_high[NODE] = int(machine.ram.zone_free[NODE]) + 40
    sc = machine.ram.nr_cpus + NODE
    seen = set()
    while machine.enter("kswapd_step", CPU, NODE):
        seen.add(int(machine.ram.sc_priority[sc]))
        assert machine.ram.zone_reclaim_active[NODE] == 1
    assert seen >= set(range(1, 12))
    assert machine.ram.zone_reclaim_active[NODE] == 0


def test_kswapd_naps_before_it_sleeps(machine):
    """HZ/10: woken meanwhile it goes on at once and counts that; a nap that nobody ends becomes sleep at a
    tick.
    """
    ram = machine.ram
    ram.cpu_clock[CPU] = LATER
    ram.kswapd_state[NODE] = AWAKE
    kswapd_falls_asleep(ram, CPU, NODE)
    assert ram.kswapd_state[NODE] == NAPS
    end_naps(ram, CPU)
    assert ram.kswapd_state[NODE] == NAPS, "it is not over"
    ram.wmark_high[NODE] = 600
    wakeup_kswapd(ram, CPU, NODE)
    assert (ram.kswapd_state[NODE], machine.count("kswapd_low_wmark_hit_quickly")) == (AWAKE, 1)
    ram.wmark_high[NODE] = 32
    kswapd_falls_asleep(ram, CPU, NODE)
    ram.cpu_clock[CPU] += NAP_NS
    end_naps(ram, CPU)
    assert ram.kswapd_state[NODE] == ASLEEP
    machine.forget_wakeups()


def test_no_wakeup_is_lost_to_a_tick_that_ends_the_nap(machine):
    """CPU 0 sees a napping kswapd and wants to wake it; before it has the lock, CPU 1's tick makes the nap a
    sleep.
    """
    ram = machine.ram
    ram.kswapd_state[NODE], ram.wmark_high[NODE], ram.kswapd_lock[NODE] = NAPS, 600, 2  # held by CPU 1

    def tick_goes_on(_):
        ram.kswapd_state[NODE], ram.kswapd_lock[NODE] = ASLEEP, 0

    machine.on_wait = tick_goes_on
    wakeup_kswapd(ram, CPU, NODE)
    assert ram.kswapd_state[NODE] == AWAKE
    machine.forget_wakeups()


def test_after_a_nap_an_unbalanced_node_is_worked_on_again(machine):
    """Between LOW and HIGH nobody wakes kswapd: it looks itself (kswapd_high_wmark_hit_quickly)."""
    ram = machine.ram
    ram.kswapd_state[NODE] = AWAKE
    kswapd_falls_asleep(ram, CPU, NODE)
    ram.wmark_high[NODE] = 600
    ram.cpu_clock[CPU] += NAP_NS
    end_naps(ram, CPU)
    assert (ram.kswapd_state[NODE], machine.count("kswapd_high_wmark_hit_quickly")) == (AWAKE, 1)
    machine.forget_wakeups()


def test_kswapd_gives_up_when_nothing_can_be_reclaimed(machine):
    """Anonymous memory only, and no swap: after 16 runs in vain nobody wakes it any more."""
    machine.use(ANON_VPN, 64, STORE)
    machine.ram.wmark_high[NODE] = 500
    for _ in range(16):
        while machine.enter("kswapd_step", CPU, NODE):
            pass
    assert machine.ram.kswapd_failures[NODE] == 16
    assert machine.count("pgsteal_kswapd") == 0


def test_active_pages_come_down_when_the_inactive_list_is_short(machine):
    machine.use(FILE_VPN, 64)
    machine.scan(96)
    machine.use(FILE_VPN, 64)
    machine.scan(96)
    assert machine.ram.lru_size[NODE].tolist() == [0, 0, 0, 64, 0]
    machine.scan(32, LRU_ACTIVE_FILE)
    assert machine.ram.lru_size[NODE].tolist() == [0, 0, 32, 32, 0]
    machine.scan(32, LRU_ACTIVE_FILE)
    assert machine.ram.lru_size[NODE].tolist() == [0, 0, 32, 32, 0], "as long as the other: enough"


def test_code_that_is_used_stays_active(machine):
    machine.make_code(1)
    machine.use(FILE_VPN, 32)
    machine.scan(64)
    assert machine.ram.lru_size[NODE, LRU_ACTIVE_FILE] == 32, "one use is enough for code"
    machine.use(FILE_VPN, 16)
    machine.scan(32, LRU_ACTIVE_FILE)
    assert machine.ram.lru_size[NODE].tolist() == [0, 0, 16, 16, 0]


# --- what is scanned, and how much --------------------------------------------------------------------------


def goals(machine, priority, node=NODE):
    """Give (pages to scan per list, flags) of a round of direct reclaim."""
    ram = machine.ram
    ram.sc_by[CPU], ram.sc_flags[CPU], ram.sc_priority[CPU] = BY_DIRECT, 0, priority
    prepare_scan_control(ram, CPU, node)
    get_scan_count(ram, CPU, node)
    return ram.sc_left[CPU].tolist()[:4], int(ram.sc_flags[CPU])


@pytest.fixture
def mixed(tiered):
    """The fast node with 64 inactive pages of anonymous memory and 96 of a file."""
    tiered.use(ANON_VPN, 64, STORE)
    tiered.use(SHARED_VPN, 64)
    assert tiered.ram.lru_size[NODE].tolist() == [64, 0, 96, 0, 0]
    return tiered


def test_without_a_slower_node_anonymous_pages_are_not_looked_at(machine):
    machine.use(ANON_VPN, 64, STORE)
    machine.use(FILE_VPN, 64)
    assert goals(machine, 1)[0][:2] == [0, 0]


def test_plenty_of_inactive_cache_keeps_anonymous_memory_out_of_it(mixed):
    """cache_trim_mode: at priority 1 a half of the file list, nothing else; it ends when refaults were
    activated.
    """
    assert goals(mixed, 1) == ([0, 0, 48, 0], SC_CACHE_TRIM)
    mixed.ram.node_activated[NODE] += 1
    both, flags = goals(mixed, 1)
    assert both[0] > 0 < both[2]
    assert flags == SC_DEACTIVATE_FILE


def test_the_balance_follows_swappiness_and_cost(mixed):
    """60 of 200 to anonymous pages when both have cost the same; the kind that costs more is looked at less,
    at least a third.
    """
    mixed.ram.node_activated[NODE] += 1
    assert goals(mixed, 1)[0] == [9, 0, 33, 0]
    mixed.ram.node_file_cost[NODE] = 1000
    assert goals(mixed, 1)[0] == [14, 0, 25, 0]


def test_when_cache_is_tiny_anonymous_memory_pays(mixed):
    mixed.ram.wmark_high[NODE] = 600
    assert goals(mixed, 1) == ([32, 0, 0, 0], SC_CACHE_TRIM | SC_FILE_IS_TINY)
    mixed.ram.wmark_high[NODE] = 32


def test_direct_reclaim_takes_a_batch_from_every_node(tiered):
    """Rounds go on until 32 pages have come; each works on both nodes, though the first may have given
    enough.
    """
    tiered.use(FILE_VPN, 128)
    tiered.use(FILE_VPN + 128, 64)
    tiered.ram.cpu_clock[:] = LATER
    first = try_to_free_pages(tiered.ram, CPU, NODE, GFP_USER)
    assert (first >= 32, tiered.count("pgsteal_direct") == first, tiered.count("allocstall_normal") >= 1) == (
        True,
        True,
        True,
    )
    assert tiered.count("pgscan_direct") > first, "what was used is kept once"
    tiered.forget_wakeups()


def test_readahead_does_not_fight_for_memory(machine):
    """__GFP_NORETRY: one try at reclaim, then nothing; and while half of the reserve is gone it waits for
    kswapd first.
    """
    machine.use(ANON_VPN, 64, STORE)
    machine.ram.wmark_min[NODE] = machine.ram.wmark_low[NODE] = machine.ram.wmark_high[NODE] = 2000
    assert alloc_page(machine.ram, CPU, NODE, GFP_USER | GFP_NORETRY) == -1
    assert machine.count("allocstall_normal") >= 2, "in vain, so once more"
    assert machine.count("pgscan_direct_throttle") == 1
    assert machine.count("pageoutrun") > 0, "kswapd ran meanwhile"
    machine.forget_wakeups()


def test_kswapd_runs_on_the_cpu_that_waits_for_it(machine):
    """Every CPU may be waiting so: then nobody else would run it, and the wait would last a second
    (throttle_direct_reclaim).
    """
    ram = machine.ram
    machine.use(FILE_VPN, 128)
    ram.cpu_clock[:] = began = LATER
    ram.wmark_min[NODE], ram.wmark_high[NODE] = 2 * int(ram.zone_free[NODE]), int(ram.zone_free[NODE]) + 40
    assert try_to_free_pages(ram, CPU, NODE, GFP_USER) >= 32
    assert [machine.count(name) for name in ("pgscan_direct_throttle", "pageoutrun")] == [1, 1]
    assert machine.count("pgsteal_kswapd") > 0
    assert ram.cpu_clock[CPU] - began < 10_000_000
    assert (ram.cpu_task[CPU], ram.cpu_loaded_mm[CPU], ram.cpu_lazy[CPU]) == (CPU, 1, 0), (
        "its own task goes on"
    )
    machine.forget_wakeups()


def test_memory_reclaim_gives_what_was_asked_for(machine):
    """Counts the file's pages as stolen, and none for kswapd or direct reclaim, as a group's reclaim does."""
    machine.use(FILE_VPN, 128)
    machine.ram.cpu_clock[:] = LATER
    cached_before = len(cached(machine))
    got = memory_reclaim(machine.ram, CPU, 64)
    assert got >= 64
    assert len(cached(machine)) == cached_before - got
    assert [
        machine.count(name) for name in ("pgsteal_file", "pgsteal_direct", "pgsteal_kswapd", "pgscan_direct")
    ] == [got, 0, 0, 0]


def test_an_anonymous_page_without_swap_is_activated(machine):
    """add_to_swap fails: activate_locked_split. (The first look had found it used.)"""
    machine.use(ANON_VPN, 32, STORE)
    assert [machine.scan(32, LRU_INACTIVE_ANON) for _ in range(2)] == [0, 0]
    assert machine.ram.lru_size[NODE, LRU_ACTIVE_ANON] == 32


def test_a_demotion_without_memory_stops_at_the_first_page(tiered):
    """-ENOMEM: the others are not tried; one failure is counted."""
    tiered.use(ANON_VPN, 32, STORE)
    tiered.ram.wmark_min[SLOW] = tiered.ram.wmark_low[SLOW] = tiered.ram.wmark_high[SLOW] = 600
    for _ in range(2):
        tiered.scan(32, LRU_INACTIVE_ANON)
    assert tiered.count("pgmigrate_fail") == 1
    tiered.forget_wakeups()


def test_who_reclaims_for_itself_waits_while_others_hold_too_much(machine):
    """too_many_isolated: an eighth of the list, if IO is allowed; not for ever; of this kind only; summed
    over CPUs (one put back more).
    """
    machine.use(FILE_VPN, 64)
    ram = machine.ram
    ram.sc_by[CPU], ram.sc_flags[CPU], ram.sc_batch[CPU] = BY_DIRECT, SC_FS, 32
    for isolated, waits in (([100, 0], False), ([0, 100], True)):
        before = int(ram.cpu_clock[CPU])
        ram.isolated_anon[:, NODE], ram.isolated_file[:, NODE] = ([-50, pages + 50] for pages in isolated)
        shrink_inactive_list(ram, CPU, CPU, NODE, LRU_INACTIVE_FILE)
        ram.isolated_anon[:] = ram.isolated_file[:] = 0
        assert (ram.cpu_clock[CPU] - before >= 20_000_000) == waits


def hold(machine, object):
    """Let all cached pages of a file be under IO, so that reclaim passes them by."""
    for index in range(256):
        if machine.cached(object, index) >= 0:
            machine.ram.page_io_ns[machine.cached(object, index)] = 1 << 60


def test_a_run_that_only_looked_at_cache_in_vain_starts_again_with_everything(mixed):
    """cache_trim_mode_failed: the same run of kswapd then looks at anonymous pages too."""
    hold(mixed, SHARED)
    mixed.ram.cpu_clock[:] = LATER
    mixed.ram.wmark_high[NODE] = int(mixed.ram.zone_free[NODE]) + 60
    sc, seen = mixed.ram.nr_cpus + NODE, set()
    while mixed.enter("kswapd_step", CPU, NODE):
        seen.add(int(mixed.ram.sc_flags[sc]) & SC_NO_CACHE_TRIM)
    assert seen == {0, SC_NO_CACHE_TRIM}
    assert (mixed.count("pageoutrun"), mixed.count("pgscan_anon") > 0) == (1, True)
    mixed.forget_wakeups()


def test_direct_reclaim_in_vain_deactivates_by_force(machine):
    """
    inactive: 96 pages under IO      active: 32 that could go, but the inactive list is long enough
    two attempts find nothing        the third moves active pages down (force_deactivate)
    """
    machine.use(FILE_VPN, 64)
    machine.scan(96)
    machine.use(FILE_VPN, 32)
    machine.scan(64)
    machine.forget_tlb()
    machine.use(SHARED_VPN, 40)
    hold(machine, SHARED)
    assert machine.ram.lru_size[NODE].tolist() == [0, 0, 96, 32, 0]
    machine.ram.cpu_clock[:] = int(machine.ram.cpu_clock.max()) + LATER
    assert try_to_free_pages(machine.ram, CPU, NODE, GFP_USER) > 0
    assert machine.count("allocstall_normal") == 3
    assert machine.ram.lru_size[NODE, LRU_ACTIVE_FILE] < 32
