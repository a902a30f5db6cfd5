"""LUF's ways to synchronise: who flushes, who waits, what is counted. And nobody uses a page before it is
flushed, in any of them.
"""

import pytest

from allocator.sched import TICK_NS
from cpus.abi.numbers import LOAD, STORE
from cpus.cpumask import cpus_of
from cpus.ipi import serve_interrupts
from designs import design
from designs.luf.records import of_key
from designs.luf.sync.answers import SYNC
from designs.measure import FLUSHES, HELPED, KICKED, SELF_FLUSHED, SKIPPED, bucket_end, bucket_of
from emulator.experiment import run_design
from emulator.machine import load_machine
from emulator.small_machine import ANON_VPN, FILE_VPN
from tests.designs.test_luf import (
    pend_all,
    reclaim,
    release_all,
    release_taken,
    take,
    take_blocks_until,
    take_until_flushed,
)

ZONE = 0


@pytest.fixture
def machine_of(small_machine):
    """Build a machine with a way to synchronise: process 1 on CPUs 0 and 1, CPU 3 runs none."""

    def build(sync, **wanted):
        machine = small_machine(cpus=4, mms=2, design=f"luf:sync={sync}", **wanted)
        machine.run(1, cpu=0)
        machine.run(1, cpu=1)
        return machine

    return build


def pending_and_short(machine):
    """Reclaim pages into the buddy, and let clean pages be few: pending ones are taken first."""
    reclaim(machine)
    pend_all(machine)
    machine.ram.wmark_min[ZONE] = 512


def stat(machine, column):
    return int(machine.ram.design["stat"][:, column].sum())


def in_flight(machine):
    """CPU 0 has taken a pending block, and owes the flush."""
    pending_and_short(machine)
    ram = machine.ram
    machine.enter("hook_take_begin", 0, ZONE)
    take_blocks_until(machine, 0, lambda: ram.zone_key_claimed[ZONE] > ram.zone_key_done[ZONE])


@pytest.mark.parametrize("sync", SYNC)
def test_a_pending_page_is_flushed_before_it_is_used(machine_of, sync):
    """CPU 1 may read its old frame until CPU 0 has it; then CPU 1 has been interrupted, or has flushed
    itself.
    """
    machine = machine_of(sync)
    pending_and_short(machine)
    pages = take_until_flushed(machine, cpu=0)
    assert machine.asked() == [[1]]
    assert stat(machine, FLUSHES) == 1
    others = [take(machine, cpu=0) for _ in range(40)]
    assert machine.asked() == []
    assert len({*pages, *others}) == len(pages) + 40
    machine.ram.wmark_min[ZONE] = 16
    release_all(machine)


@pytest.mark.parametrize("sync", SYNC)
def test_nobody_reads_what_belongs_to_another(machine_of, sync):
    """The whole way, judged by the oracle at the end of the test: CPU 1 reads old pages while CPU 0 takes all
    memory.
    """
    machine = machine_of(sync)
    reclaim(machine, pages=64)
    machine.touch(FILE_VPN, pages=16, cpu=1)
    machine.ram.wmark_min[ZONE] = machine.ram.wmark_low[ZONE] = 0
    for page in range(190):
        machine.touch(ANON_VPN + page, STORE, cpu=0)
        machine.touch(FILE_VPN + page % 16, LOAD, cpu=1)
        if page % 50 == 0:
            machine.enter("hook_tick", 1)
    machine.ram.wmark_min[ZONE], machine.ram.wmark_low[ZONE] = 16, 24
    machine.forget_wakeups()


@pytest.mark.parametrize("sync", ["owner", "skip", "kicker", "tick"])
def test_the_second_taker_waits_for_the_owner(machine_of, sync):
    """Nobody is interrupted twice. (skip: there is no clean block left to take instead.)"""
    machine = machine_of(sync)
    in_flight(machine)
    machine.ram.free_count[ZONE], saved = 0, machine.ram.free_count[ZONE].copy()
    slept = []

    def owner_goes_on(cpu):
        slept.append(cpu)
        machine.enter("hook_take_done", 0)

    machine.on_wait = owner_goes_on
    machine.enter("hook_take_begin", 3, ZONE)
    machine.enter("hook_take", 3, ZONE, 0, int(machine.ram.zone_key_claimed[ZONE]))
    machine.enter("hook_take_done", 3)
    assert slept == [3]
    assert machine.asked() == [[1]]
    machine.ram.free_count[ZONE] = saved
    machine.ram.wmark_min[ZONE] = 16
    release_taken(machine)


def test_each_flushes_for_itself(machine_of):
    """Two CPUs have taken pages of one batch: neither waits. The second finds CPU 1 up to date if the first
    was done before.
    """
    machine = machine_of("each")
    pending_and_short(machine)
    key = int(machine.ram.pend_key[ZONE].max())
    for cpu in (0, 3):
        machine.enter("hook_take", cpu, ZONE, 0, key)
    # the second request finds CPU 1's queue occupied
    machine.on_wait = lambda _: serve_interrupts(machine.ram, 1)
    # at the same moment
    machine.on_send = lambda cpu, _: machine.enter("hook_take_done", 3) if cpu == 0 else None
    before = machine.count("ipi_requests")
    machine.enter("hook_take_done", 0)
    assert machine.count("ipi_requests") == before + 3, "CPU 0 asks 1, CPU 3 asks 0 and 1"
    machine.asked()
    machine.enter("hook_take", 3, ZONE, 0, key)
    machine.enter("hook_take_done", 3)
    assert machine.asked() == []
    machine.ram.wmark_min[ZONE] = 16


def test_each_remembers_the_cpus_of_older_batches(machine_of):
    """A block merged from two batches is taken with the newer's generation: the older's CPUs are in it,
    unless they have flushed.
    """
    machine = machine_of("each")
    ram = machine.ram
    ram.design["ugen"][0] = 100
    for key, cpu in ((1, 1), (2, 3)):
        record = of_key(ram, key)
        ram.design["record_mask"][record, 0], ram.design["record_ugen"][record] = 1 << cpu, 10 + key
    newer = [machine.enter("hook_page_freed", 0, ZONE, 0, key) for key in (1, 2)][1]
    machine.enter("hook_take", 0, ZONE, 0, newer)
    assert cpus_of(ram.design["take_mask"][0]) == [1, 3]
    machine.enter("hook_take_done", 0)
    record = of_key(ram, 3)
    ram.design["record_mask"][record, 0], ram.design["record_ugen"][record] = 1 << 0, 1000
    newest = machine.enter("hook_page_freed", 0, ZONE, 0, 3)
    machine.enter("hook_take", 0, ZONE, 0, newest)
    assert cpus_of(ram.design["take_mask"][0]) == [0]
    machine.enter("hook_take_done", 0)


def test_global_has_one_flusher(machine_of):
    """While CPU 0 flushes, CPU 3 sleeps, looks again, and finds its pages done."""
    machine = machine_of("global")
    pending_and_short(machine)
    ram = machine.ram
    key = int(ram.pend_key[ZONE].max())
    for cpu in (0, 3):
        machine.enter("hook_take", cpu, ZONE, 0, key)
    ram.design["flusher"][0] = 1
    slept = []

    def flusher_goes_on(cpu):
        slept.append(cpu)
        ram.design["flusher"][0] = 0
        machine.enter("hook_take_done", 0)

    machine.on_wait = flusher_goes_on
    machine.enter("hook_take_done", 3)
    assert slept == [3]
    assert machine.asked() == [[1]]
    assert (ram.zone_key_done[ZONE], ram.design["flusher"][0]) == (key, 0)
    ram.wmark_min[ZONE] = 16


def test_help_does_not_wait(machine_of):
    """CPU 0 owns the generation and is slow; CPU 3 interrupts who may read the pages, and publishes. CPU 0
    then has nobody left to ask.
    """
    machine = machine_of("help")
    in_flight(machine)
    claimed = int(machine.ram.zone_key_claimed[ZONE])
    machine.enter("hook_take", 3, ZONE, 0, claimed)
    machine.enter("hook_take_done", 3)
    assert machine.asked() == [[0, 1]]
    assert machine.ram.zone_key_done[ZONE] == claimed
    assert stat(machine, HELPED) == 1
    machine.enter("hook_take_done", 0)
    assert machine.asked() == []
    assert machine.ram.zone_key_done[ZONE] == claimed
    machine.ram.wmark_min[ZONE] = 16
    release_taken(machine)


def test_skip_takes_another_block(machine_of):
    """A generation in flight is passed over while the zone has a clean block; an unclaimed one is not."""
    machine = machine_of("skip")
    in_flight(machine)
    claimed = int(machine.ram.zone_key_claimed[ZONE])
    assert machine.enter("hook_take_check", 3, ZONE, 0, claimed) == 0
    assert machine.enter("hook_take_check", 3, ZONE, 0, claimed + 1) == 1
    assert machine.enter("hook_take_check", 0, ZONE, 0, claimed) == 1, "its owner may take more"
    assert stat(machine, SKIPPED) == 1
    page = take(machine, cpu=3)
    assert machine.asked() == []
    machine.enter("hook_take_done", 0)
    assert machine.asked() == [[1]]
    machine.ram.wmark_min[ZONE] = 16
    assert page >= 0
    release_all(machine)
    release_taken(machine)


def test_the_kicker_flushes_from_low_to_high(machine_of):
    """
    clean   above half-way from HIGH to LOW: nothing    below: flush, again whenever there is a batch    >
            HIGH: asleep again
    """
    machine = machine_of("kicker")
    reclaim(machine)
    pend_all(machine)
    ram = machine.ram
    assert machine.enter("hook_kthread", 2) == 0
    assert machine.asked() == []
    clean = int(ram.zone_free[ZONE] - ram.zone_pending[ZONE])
    ram.wmark_low[ZONE], ram.wmark_high[ZONE] = clean - 101, clean + 99
    assert machine.enter("hook_kthread", 2) == 0
    assert machine.asked() == []
    ram.wmark_low[ZONE], ram.wmark_high[ZONE] = clean - 100, clean + 100
    assert machine.enter("hook_kthread", 2) == 1
    assert machine.asked() == [[0, 1]]
    assert machine.enter("hook_kthread", 2) == 0
    assert stat(machine, KICKED) == 1
    assert ram.zone_pending[ZONE] == 0
    ram.wmark_low[ZONE], ram.wmark_high[ZONE] = 24, 32
    reclaim(machine)
    pend_all(machine)
    assert machine.enter("hook_kthread", 2) == 0
    assert machine.asked() == []
    assert ram.design["kicking"][ZONE] == 0


def test_at_its_tick_a_cpu_flushes_itself(machine_of):
    """CPU 1 is pending: after its tick, and CPU 0's, the generation is clean and nobody was interrupted."""
    machine = machine_of("tick")
    reclaim(machine)
    pend_all(machine)
    ram = machine.ram
    ram.design["request_ns"][ZONE] = ram.cpu_clock[:] = int(ram.cpu_clock.max())
    machine.enter("hook_tick", 1)
    machine.enter("hook_tick", 0)
    assert machine.asked() == []
    assert stat(machine, SELF_FLUSHED) >= 1
    assert ram.zone_pending[ZONE] == 0
    faults = machine.count("pgfault")
    machine.touch(FILE_VPN, cpu=1)
    assert machine.count("pgfault") > faults


def test_who_does_not_tick_is_interrupted_in_the_end(machine_of):
    machine = machine_of("tick")
    reclaim(machine)
    pend_all(machine)
    machine.ram.cpu_clock[0] = int(machine.ram.design["request_ns"][ZONE]) + TICK_NS
    machine.enter("hook_tick", 0)
    assert machine.asked() == []
    machine.ram.cpu_clock[0] += 2 * TICK_NS
    machine.enter("hook_tick", 0)
    assert machine.asked() == [[1]]
    assert machine.ram.zone_pending[ZONE] == 0


def test_latencies_fall_into_buckets_a_quarter_wide():
    ends = [bucket_end(bucket_of(ns)) for ns in (0, 3, 4, 5, 1000, 1024, 123456)]
    assert ends[:4] == [0, 3, 4, 5]
    for ns, end in zip((1000, 1024, 123456), ends[4:], strict=True):
        assert ns <= end < ns * 1.25


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("sync", SYNC)
def test_clean_under_the_oracle(sync, seed):
    """4 CPUs, controlled mode; every CPU's take-offs are counted and the clean pages of each node are known
    over time.
    """
    name = f"luf:sync={sync}"
    result = run_design(
        design(name), load_machine("xeon6430-cxl", scale=4096, cpus=4), tokens=1, leases=1, seed=seed
    )
    assert result.design == name
    assert result.violations == []
    assert result.unaccounted == {}
    stats = result.design_stats
    assert stats["takeoff"]["count"] >= stats["takeoff_paid"]["count"] > 0
    assert stats["takeoff_paid"]["p50_ns"] <= stats["takeoff_paid"]["p99_ns"] <= stats["takeoff"]["max_ns"]
    free, clean = result.series.free_mib[0], stats["clean_pages"]["node0"]
    assert clean
    assert max(clean) <= max(free) * 256 + 1
