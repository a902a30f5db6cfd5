"""Leases: so many CPUs run, those that are behind in virtual time; no wake-up is lost; one lease and a seed
repeat a run.
"""

import os

import numpy as np
import pytest

from benchmarks.storm import VISIT_NS, set_storm, shots_done, small_ram, storm, visit_pages
from cpus.all_cpus import all_idle, start_all
from cpus.atomics import compare_exchange, fetch_add, load_acquire, pause, store_release
from cpus.compiled import kernel
from cpus.host import pollfd, ring
from cpus.lease import (
    BLOCKED,
    READY,
    RUN,
    RUNNING,
    WAIT_ACKS,
    WAIT_BARRIER,
    WAIT_IDLE,
    WAIT_PAGE,
    begin_wait,
    block,
    cancel_wait,
    idle_until,
    new_slice,
    random_next,
    wake,
    wake_all_waiting_for,
)
from emulator.supervisor import Stuck, Supervisor

SOON = 2000  # ms without any progress: a wake-up was lost


@pytest.fixture
def ram():
    """Four CPUs and two leases, without processes: each has an eventfd that says whether it was roused."""
    ram = small_ram(4, leases=2)
    fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(4)]
    ram.poll_set[:, 0] = [pollfd(fd) for fd in fds]
    ram.lease_core[:] = min(os.sched_getaffinity(0))
    ram.cpu_host_core[:] = min(os.sched_getaffinity(0)) + 1  # so that nobody is moved
    yield ram
    ram.close()
    for fd in fds:
        os.close(fd)


def _roused(ram):
    """Give the CPUs that were roused since the last question."""
    found = []
    for cpu in range(ram.nr_cpus):
        try:
            os.eventfd_read(int(ram.poll_set[cpu, 0]) & 0xFFFFFFFF)
            found.append(cpu)
        except BlockingIOError:
            continue
    return found


def _run(main, nr_cpus, shots=0, targets=0, gap=100, done=shots_done, prepare=None, **constants):
    """Run a machine to its end; returns its RAM."""
    ram = small_ram(nr_cpus, **({"wait_bound_ms": SOON} | constants))
    set_storm(ram, shots=shots, targets=targets, gap=gap)
    if prepare:
        prepare(ram)
    with Supervisor(ram, main, label="lease") as run:
        run.start()
        run.watch(done, tick_s=0.005)
        run.quiesce()
        run.finish()
    return ram


# -- the table, step by step ---------------------------------------------------------------------------------


def test_start_gives_leases_to_the_smallest_clocks(ram):
    """cpu2 and cpu3 are behind: they run and are roused; the others are READY."""
    ram.cpu_clock[:] = [30, 40, 10, 20]
    start_all(ram)
    assert ram.cpu_state.tolist() == [READY, READY, RUNNING, RUNNING]
    assert sorted(ram.cpu_lease[2:].tolist()) == [0, 1]
    assert _roused(ram) == [2, 3]


def test_without_a_gate_all_run():
    """Leases 0: everybody runs."""
    ungated = small_ram(4, leases=0)
    start_all(ungated)
    assert ungated.cpu_state.tolist() == [RUNNING] * 4


def test_more_leases_than_cpus_lie_free():
    """What nobody needs is kept for whoever wakes."""
    wide = small_ram(2, leases=4)
    start_all(wide)
    assert wide.cpu_state.tolist() == [RUNNING] * 2
    assert bin(int(wide.run_lease_free[0])).count("1") == 2


def test_a_wake_up_takes_a_free_lease_or_makes_ready(ram):
    """A BLOCKED CPU gets a free lease and is roused; when there is none it becomes READY and sleeps on."""
    ram.cpu_state[:] = BLOCKED
    ram.run_lease_free[0] = 0b10
    wake(ram, 3, 500)
    wake(ram, 1, 700)
    assert ram.cpu_state.tolist() == [BLOCKED, READY, BLOCKED, RUNNING]
    assert ram.cpu_lease[3] == 1
    assert ram.run_lease_free[0] == 0
    assert ram.cpu_ready_ns[1] == 700
    assert _roused(ram) == [3]


@pytest.fixture
def asking(ram):
    """cpu0 has waited for acks since its clock's 0; nobody runs, both leases are free."""
    ram.cpu_state[:] = BLOCKED
    ram.cpu_wait_kind[0] = WAIT_ACKS
    ram.run_lease_free[0] = 0b11
    return ram


def test_nobody_runs_ahead_of_one_that_waits_for_acks(asking):
    """Who is more than a slice ahead of it has to wait, who is not may run."""
    too_far = int(asking.slice_ns) + 1
    wake(asking, 1, too_far)
    wake(asking, 2, too_far - 1)
    assert asking.cpu_state.tolist() == [BLOCKED, READY, RUNNING, BLOCKED]


@pytest.mark.parametrize("held", ["cpu_no_resched", "cpu_irq_off", "cpu_in_irq"])
def test_but_who_may_hold_up_a_target_runs(asking, held):
    """A holder of a spin lock, or one with interrupts off or in an interrupt: the ack may wait for it."""
    getattr(asking, held)[1] = 1
    wake(asking, 1, 2 * int(asking.slice_ns))
    assert asking.cpu_state.tolist() == [BLOCKED, RUNNING, BLOCKED, BLOCKED]


def test_a_wake_up_of_a_running_cpu_is_kept(ram):
    """It makes the next `begin_wait` fail, once."""
    ram.cpu_state[:] = RUNNING
    wake(ram, 0, 0)
    assert _roused(ram) == []
    assert not begin_wait(ram, 0, WAIT_PAGE, 7)
    assert ram.run_lease_lock[0] == 0
    assert begin_wait(ram, 0, WAIT_PAGE, 7)
    assert ram.cpu_state[0] == BLOCKED
    cancel_wait(ram, 0)
    assert ram.cpu_state[0] == RUNNING
    assert ram.run_lease_lock[0] == 0


def test_only_those_who_wait_for_the_thing_are_woken(ram):
    """Kind and object must both match."""
    ram.cpu_state[:] = [RUNNING, BLOCKED, BLOCKED, BLOCKED]
    ram.cpu_wait_kind[:] = [0, WAIT_PAGE, WAIT_PAGE, WAIT_BARRIER]
    ram.cpu_wait_object[:] = [0, 7, 8, 7]
    wake_all_waiting_for(ram, WAIT_PAGE, 7, 100)
    assert ram.cpu_state.tolist() == [RUNNING, READY, BLOCKED, BLOCKED]


def test_a_cpu_that_waited_in_its_slice_goes_first(ram):
    """cpu0 was woken within its slice, cpu1's slice was over: cpu0's order is the start of its slice, not its
    clock.
    """
    ram.cpu_state[:] = RUNNING
    ram.cpu_clock[:2] = 1_000_000
    new_slice(ram, 0)
    new_slice(ram, 1)
    ram.cpu_clock[0] = 1_300_000
    ram.cpu_clock[1] = 1_600_000
    for cpu in (0, 1):
        assert begin_wait(ram, cpu, WAIT_PAGE, cpu)
        ram.run_lease_lock[0] = 0
        wake(ram, cpu, int(ram.cpu_clock[cpu]) + 10)
    assert ram.cpu_order_ns[0] == 1_000_000
    assert ram.cpu_order_ns[1] == 1_600_010
    assert ram.cpu_ready_ns[:2].tolist() == [1_300_010, 1_600_010]


@pytest.mark.parametrize(
    "field, value",
    [
        ("cpu_state", READY),
        ("cpu_wait_kind", WAIT_PAGE),
        ("queue_count", 1),
        ("cpu_bell", 1),
        ("cpu_in_irq", 1),
    ],
)
def test_one_cpu_that_is_not_idle_keeps_the_machine_from_being_idle(ram, field, value):
    """All must be asleep for want of work, with nothing queued and no interrupt on its way."""
    ram.cpu_state[:] = BLOCKED
    ram.cpu_wait_kind[:] = WAIT_IDLE
    assert all_idle(ram) == 1
    getattr(ram, field)[2] = value
    assert all_idle(ram) == 0


def test_an_observer_does_not_hang_on_a_lease_table_that_stays_locked(ram):
    """Its holder was killed: the answer is -1, in bounded time."""
    ram.run_lease_lock[0] = 1
    assert all_idle(ram) == -1


# -- with processes ------------------------------------------------------------------------------------------


@kernel
def _count_running(ram):
    """Count the CPUs that are RUNNING, under the lock under which they become so: word by word, a hand-over
    in between counts twice.
    """
    while compare_exchange(ram.run_lease_lock, 0, 0, 1) != 0:
        pause()
    running = 0
    for c in range(ram.nr_cpus):
        running += ram.cpu_state[c] == RUNNING
    store_release(ram.run_lease_lock, 0, 0)
    return running


@kernel
def _run_noting_others(ram, cpu):
    """Visit pages; note in `run_tokens` the largest number of CPUs that were seen RUNNING at a time."""
    new_slice(ram, cpu)
    for _ in range(400):
        visit_pages(ram, cpu, 50)
        running = _count_running(ram)
        while True:
            most = load_acquire(ram.run_tokens, 0)
            if running <= most or compare_exchange(ram.run_tokens, 0, most, running) == most:
                break
        slowest = ram.cpu_clock[0]
        for c in range(ram.nr_cpus):
            if load_acquire(ram.cpu_clock, c) < slowest:
                slowest = load_acquire(ram.cpu_clock, c)
        if ram.cpu_clock[cpu] - slowest > ram.event[cpu, 0]:
            ram.event[cpu, 0] = ram.cpu_clock[cpu] - slowest
    fetch_add(ram.run_tasks_left, 0, -1)
    while True:
        block(ram, cpu, WAIT_IDLE, 0)
    return 0


@pytest.mark.parametrize("leases", [1, 2, 3])
def test_no_more_cpus_run_than_there_are_leases_and_clocks_stay_together(leases):
    """Eight CPUs: at most L RUNNING at any look; clocks within one slice of each other, two with several
    leases, and a step.
    """
    ram = _run(_run_noting_others, 8, leases=leases, slice_ns=20_000)
    assert ram.run_tokens[0] == leases
    assert 0 < ram.event[:, 0].max() <= (40_000 if leases > 1 else 20_000) + 51 * VISIT_NS
    assert ram.run_handovers[0] > 8


@kernel
def _ping_pong(ram, cpu):
    """CPUs 2n and 2n+1 wait for each other, `series[0, 1]` times: word run_tokens of the pair is whose turn
    it is.
    """
    new_slice(ram, cpu)
    pair = cpu // 2
    for _ in range(ram.series[0, 1]):
        while load_acquire(ram.event, (pair, 0)) % 2 != cpu % 2:
            block(ram, cpu, WAIT_BARRIER, pair)
        ram.cpu_clock[cpu] += 100
        fetch_add(ram.event, (pair, 0), 1)
        wake(ram, cpu ^ 1, ram.cpu_clock[cpu])
    fetch_add(ram.run_tasks_left, 0, -1)
    while True:
        block(ram, cpu, WAIT_IDLE, 0)
    return 0


@pytest.mark.parametrize("leases, cpus", [(0, 2), (1, 2), (2, 2), (2, 6), (0, 6)])
def test_no_wake_up_is_lost(leases, cpus):
    """Thousands of rounds of block and wake between pairs; a lost one would end the run as stuck."""
    ram = _run(_ping_pong, cpus, shots=3000, leases=leases)
    assert ram.event[: cpus // 2, 0].tolist() == [6000] * (cpus // 2)


@kernel
def _careless_ping_pong(ram, cpu):
    """The same, but a waker looks whether the other sleeps before it wakes it: it may be too early."""
    new_slice(ram, cpu)
    for _ in range(ram.series[0, 1]):
        while load_acquire(ram.event, (0, 0)) % 2 != cpu % 2:
            for _ in range(ram.cpu_random[cpu] % 64):  # be late by different times
                ram.cpu_random[cpu] = random_next(ram.cpu_random[cpu])
            block(ram, cpu, WAIT_BARRIER, 0)
        fetch_add(ram.event, (0, 0), 1)
        if load_acquire(ram.cpu_state, cpu ^ 1) == BLOCKED:
            wake(ram, cpu ^ 1, 0)
    fetch_add(ram.run_tasks_left, 0, -1)
    while True:
        block(ram, cpu, WAIT_IDLE, 0)
    return 0


def test_planted_lost_wake_up_is_caught():
    """A waker that peeks loses a wake-up sooner or later; the watchdog says that both wait."""
    with pytest.raises(Stuck, match="waits for barrier 0"):
        _run(_careless_ping_pong, 2, shots=200_000, leases=0, wait_bound_ms=300)


# -- controlled mode -----------------------------------------------------------------------------------------


def _fingerprint(seed):
    ram = _run(storm, 8, shots=12, targets=5, leases=1, controlled=True, seed=seed, slice_ns=3_000)
    result = (
        int(ram.run_schedule_hash[0]),
        int(ram.run_handovers[0]),
        ram.counter.tobytes(),
        ram.cpu_clock.tobytes(),
        ram.event.shape,
    )
    ram.close()
    return result


def test_one_lease_and_a_seed_repeat_a_run_exactly():
    """Twenty runs of a storm of 8 CPUs: the same schedule, the same counters and clocks to the byte; other
    seeds, others.
    """
    first = _fingerprint(1)
    assert first[1] > 300
    for _ in range(19):
        assert _fingerprint(1) == first
    assert len({_fingerprint(seed)[0] for seed in range(1, 6)}) == 5


def test_planted_host_time_is_noticed(monkeypatch):
    """A schedule that depends on anything of the host does not repeat: here its stream is seeded from a
    clock.
    """
    import time

    def disturb(ram):
        ram.run_random[0] = time.perf_counter_ns() | 1

    def schedule():
        ram = _run(storm, 8, shots=3, targets=3, leases=1, controlled=True, slice_ns=3_000, prepare=disturb)
        return int(ram.run_schedule_hash[0])

    assert schedule() != schedule()


def test_the_random_stream_does_not_get_stuck():
    """No early repetition, never 0, and every bit changes."""
    state, seen, bits = 1, set(), 0
    for _ in range(5000):
        new = random_next(state)
        bits |= new ^ state
        state = new
        seen.add(state)
    assert len(seen) == 5000
    assert 0 not in seen
    assert bits == (1 << 63) - 1


def test_ring_reaches_the_eventfd(ram):
    """`ring` rouses the one that is meant."""
    ring(ram, 2)
    assert _roused(ram) == [2]
    assert np.count_nonzero(ram.cpu_state) == 0


assert RUN == 0  # run_stop's value while nothing has stopped a run: fresh memory is zeros


# -- idling until a time -------------------------------------------------------------------------------------


@kernel
def _idle_or_work(ram, cpu):
    """CPU 0 idles until `series[0, 1]`; CPU 1 works until `series[0, 2]` and then, if that is asked for,
    wakes CPU 0, and works on.
    """
    new_slice(ram, cpu)
    if cpu == 0:
        idle_until(ram, cpu, ram.series[0, 1])
        ram.event[0, 0] = ram.cpu_clock[0]
        ram.event[0, 1] = load_acquire(ram.cpu_clock, 1)
    else:
        visit_pages(ram, cpu, ram.series[0, 2] // VISIT_NS)
        if ram.series[0, 3]:
            wake(ram, 0, ram.cpu_clock[cpu])
        visit_pages(ram, cpu, ram.series[0, 2] // VISIT_NS)
    fetch_add(ram.run_tasks_left, 0, -1)
    while True:
        block(ram, cpu, WAIT_IDLE, 0)
    return 0


@pytest.mark.parametrize("leases", [1, 2])
@pytest.mark.parametrize("woken", [0, 1])
def test_a_cpu_idles_until_a_time_or_until_it_is_woken(leases, woken):
    """
    cpu0 idles until 20 slices; cpu1 works for 5, wakes it or does not, works for 5 more
    not woken: cpu0 goes on at 20 slices, when cpu1 is done; woken: at 5, with cpu1 at most two slices ahead
    """
    slice_ns = 20_000

    def prepare(ram):
        ram.series[0, 1:4] = 20 * slice_ns, 5 * slice_ns, woken
        ram.run_tasks_left[0] = 2

    ram = _run(_idle_or_work, 2, leases=leases, slice_ns=slice_ns, prepare=prepare)
    went_on, other = ram.event[0, :2].tolist()
    if woken:
        assert 5 * slice_ns - VISIT_NS < went_on <= 7 * slice_ns
        assert other <= went_on + 2 * slice_ns + VISIT_NS
    else:
        assert went_on == 20 * slice_ns
        assert other >= 10 * slice_ns - 2 * VISIT_NS


def test_a_wake_up_that_came_before_is_not_slept_over(ram):
    """It is taken, and the caller looks at its queue again."""
    ram.cpu_state[:] = RUNNING
    wake(ram, 0, 0)
    idle_until(ram, 0, 5_000)
    assert (ram.cpu_clock[0], ram.cpu_wake[0], ram.cpu_state[0]) == (0, 0, RUNNING)


def test_a_wake_up_for_later_does_not_hurry(ram):
    """Who idles until 5,000 is not moved by something at 6,000, but by something at 4,000."""
    ram.cpu_state[:] = [READY, RUNNING, RUNNING, BLOCKED]
    ram.cpu_wait_kind[0], ram.cpu_order_ns[0] = WAIT_IDLE, 5_000
    wake(ram, 0, 6_000)
    assert (ram.cpu_order_ns[0], ram.cpu_wake[0]) == (5_000, 0)
    wake(ram, 0, 4_000)
    assert (ram.cpu_order_ns[0], ram.cpu_wake[0]) == (4_000, 0)
