"""Reclaim: the cold go and the hot stay, dirty pages are written first, demotion moves what can be moved, kswapd knows when to stop."""

import pytest

from allocator.lru import LRU_ACTIVE_FILE, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE
from allocator.page import PG_ACTIVE, node_of
from cpus.page_table import PTE_DIRTY, PTE_WRITE
from cpus.tlb import LOAD, STORE
from tests.allocator.small_machine import ANON_VPN, FILE, FILE_VPN, LATER, SHARED, SHARED_VPN

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


def cached(machine, thing=FILE):
    return {index for index in range(256) if machine.cached(thing, index) >= 0}


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


def test_a_dirty_page_is_written_before_it_goes(machine):
    """Nobody can write it any more when the disk gets it: CPU 1 is flushed first, and its store is on the disk."""
    machine.use(SHARED_VPN, 1, STORE)
    machine.use(SHARED_VPN, 1, STORE, cpu=1)
    pfn = machine.cached(SHARED, 0)
    logical, version = machine.content(pfn)
    flushed_at = []
    machine.on_hook("unmap_flush_dirty", lambda *_: flushed_at.append(int(machine.ram.disk_version[logical])))
    while machine.cached(SHARED, 0) == pfn:
        machine.scan(32)
    assert flushed_at == [0], "the design was asked to flush, once, and the disk had nothing yet"
    assert machine.ram.disk_version[logical] == version
    assert machine.count("pgpgout") == 4


def test_a_written_page_comes_back_as_it_was_written(machine):
    """Under linux: the flush goes to CPU 1, the page to the disk and back."""
    machine.use(SHARED_VPN, 1, STORE)
    machine.use(SHARED_VPN, 1, STORE, cpu=1)
    version = machine.content(machine.cached(SHARED, 0))[1]
    while machine.cached(SHARED, 0) >= 0:
        machine.scan(32)
    assert [1] in machine.asked()
    machine.touch(SHARED_VPN, cpu=1)
    assert machine.content(machine.cached(SHARED, 0)) == (machine.ram.object_logical[SHARED], version)


def test_anonymous_pages_stay_without_swap(machine):
    machine.use(ANON_VPN, 32, STORE)
    assert [machine.scan(32, LRU_INACTIVE_ANON) for _ in range(3)] == [0, 0, 0]
    assert machine.ram.mm_rss[1] == 32


@pytest.mark.parametrize(
    "vpn, kind, which", [(FILE_VPN, LOAD, LRU_INACTIVE_FILE), (ANON_VPN, STORE, LRU_INACTIVE_ANON)], ids=["file", "anonymous"]
)
def test_demotion_moves_content_and_mappings(tiered, vpn, kind, which):
    """The page lies on the slow node afterwards, with the same content and rights; who used the old frame is flushed."""
    tiered.use(vpn, 16, kind)
    tiered.use(vpn, 16, kind, cpu=1)
    before = [(tiered.content(tiered.pfn(1, vpn + i)), tiered.pte(1, vpn + i) & (PTE_WRITE | PTE_DIRTY)) for i in range(16)]
    while tiered.count("pgdemote_kswapd") < 16:
        assert node_of(tiered.ram, tiered.pfn(1, vpn + 15)) == NODE
        tiered.scan(16, which)
    tiered.scan(32, which)
    after = [(tiered.content(tiered.pfn(1, vpn + i)), tiered.pte(1, vpn + i) & (PTE_WRITE | PTE_DIRTY)) for i in range(16)]
    assert after == before
    assert [node_of(tiered.ram, tiered.pfn(1, vpn + i)) for i in range(16)] == [SLOW] * 16
    assert [1] in tiered.asked()
    assert tiered.touch(vpn, kind, pages=16, cpu=1) == 0


def test_without_room_below_file_pages_are_discarded(tiered):
    """do_demote_pass = false: reclaimed from the fast node, nothing of it on the slow one."""
    tiered.use(FILE_VPN, 32)
    tiered.ram.wmark_min[SLOW] = tiered.ram.wmark_low[SLOW] = 600
    tiered.scan(64)
    assert tiered.scan(64) == 32
    assert cached(tiered) == set()
    assert (tiered.count("pgdemote_kswapd"), tiered.count("pgdemote_fail") > 0) == (0, True)
    tiered.forget_wakeups()


def test_without_room_below_anonymous_pages_stay(tiered):
    """They are mapped again as they were."""
    tiered.use(ANON_VPN, 32, STORE)
    ptes = [tiered.pte(1, ANON_VPN + i) | 0x20 for i in range(32)]
    tiered.ram.wmark_min[SLOW] = tiered.ram.wmark_low[SLOW] = 600
    assert [tiered.scan(32, LRU_INACTIVE_ANON) for _ in range(2)] == [0, 0]
    assert [tiered.pte(1, ANON_VPN + i) | 0x20 for i in range(32)] == ptes
    assert tiered.count("pgdemote_fail") == 32
    tiered.forget_wakeups()


def test_kswapd_stops_above_high(machine):
    """It works until more than HIGH pages are free, and then sleeps at once."""
    machine.use(FILE_VPN, 200)
    machine.ram.cpu_clock[:] = LATER
    free = int(machine.ram.zone_free[NODE])
    machine.ram.wmark_high[NODE] = free + 50
    steps = 0
    while machine.enter("kswapd_step", CPU, NODE):
        steps += 1
        assert steps < 1000
    assert free + 50 < machine.ram.zone_free[NODE] <= free + 50 + 2 * 32 + 8
    assert machine.count("pageoutrun") == 1
    assert machine.enter("kswapd_step", CPU, NODE) == 0


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
