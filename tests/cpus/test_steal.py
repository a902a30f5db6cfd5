"""Virtual CPUs on a host with fewer cores: what they do takes longer, what they wait for comes in turn;
without a host nothing changes.
"""

import heapq
import random

import pytest

from benchmarks.storm import small_ram
from cpus.steal import charge_stolen, pass_time, pass_until, turn_ns, wakeup_turn_ns

NOBODY = -1


@pytest.fixture
def guest():
    """Build a guest of four CPUs, the first `busy` with a task, on `cores` cores with turns of 1 ms."""
    built = []

    def build(busy, cores):
        ram = small_ram(4, host_cores=cores, host_turn_ns=1_000_000)
        built.append(ram)
        ram.cpu_task[:] = NOBODY
        ram.cpu_task[:busy] = range(busy)
        return ram

    yield build
    for ram in built:
        ram.close()


@pytest.mark.parametrize(
    "busy, cores, took", [(4, 1, 4000), (4, 2, 2000), (3, 2, 1500), (2, 2, 1000), (1, 1, 1000), (4, 0, 1000)]
)
def test_what_a_cpu_does_takes_as_long_as_there_are_busy_cpus_for_a_core(guest, busy, cores, took):
    """And not less than its cost: idle cores do not make it faster. No host: no change."""
    ram = guest(busy, cores)
    ram.cpu_clock[0] += 1000
    charge_stolen(ram, 0)
    assert ram.cpu_clock[0] == took


def test_time_is_charged_once(guest):
    """Twice in a row is as good as once; only what was done since is charged again."""
    ram = guest(4, 1)
    ram.cpu_clock[0] += 1000
    charge_stolen(ram, 0)
    charge_stolen(ram, 0)
    assert ram.cpu_clock[0] == 4000
    ram.cpu_clock[0] += 10
    charge_stolen(ram, 0)
    assert ram.cpu_clock[0] == 4040


def test_nobody_steals_from_waiting(guest):
    """1,000 ns of work take 4,000, then 5,000 ns of waiting take 5,000; waiting until a time that is past
    takes none.
    """
    ram = guest(4, 1)
    ram.cpu_clock[0] += 1000
    pass_time(ram, 0, 5000)
    charge_stolen(ram, 0)
    assert ram.cpu_clock[0] == 9000
    pass_until(ram, 0, 8000)
    assert ram.cpu_clock[0] == 9000
    pass_until(ram, 0, 12_000)
    charge_stolen(ram, 0)
    assert ram.cpu_clock[0] == 12_000


def played(busy, cores, others, rounds=20_000):
    """Play the turns: mean time, in turns, until `others` have had a core since somebody who has one asked,
    and it has one again.
    """
    dice, total = random.Random(1), 0.0
    for _ in range(rounds):
        cpus = list(range(busy))
        dice.shuffle(cpus)
        shift = dice.random()
        ends, queue, having = (
            [((shift + i) / cores, cpus[i]) for i in range(cores)],
            cpus[cores:],
            set(cpus[:cores]),
        )
        heapq.heapify(ends)
        asks, now = dice.choice(cpus[:cores]), 0.0
        missing = set(dice.sample([cpu for cpu in cpus if cpu != asks], others)) - having
        while missing or asks not in having:
            now, cpu = heapq.heappop(ends)
            queue.append(cpu)
            after = queue.pop(0)
            having = having - {cpu} | {after}
            missing.discard(after)
            heapq.heappush(ends, (now + 1, after))
        total += now
    return total / rounds


@pytest.mark.parametrize(
    "busy, cores, others",
    [(2, 1, 1), (4, 1, 1), (4, 1, 3), (3, 2, 1), (3, 2, 2), (4, 2, 1), (4, 2, 3), (4, 3, 1), (4, 3, 2)],
)
def test_who_spins_for_others_waits_as_long_as_when_it_is_played(guest, busy, cores, others):
    assert turn_ns(guest(busy, cores), others) / 1e6 == pytest.approx(played(busy, cores, others), rel=0.03)


@pytest.mark.parametrize("busy, cores, others", [(2, 2, 1), (1, 1, 1), (1, 2, 0), (4, 0, 3)])
def test_nobody_waits_for_a_turn_if_there_is_a_core_for_each(guest, busy, cores, others):
    assert turn_ns(guest(busy, cores), others) == 0


def test_more_targets_than_are_busy_are_those_that_are(guest):
    """A target may have gone idle since it acked."""
    assert turn_ns(guest(3, 2), 3) == turn_ns(guest(3, 2), 2) == 500_000


@pytest.mark.parametrize(
    "busy, cores, waited", [(4, 2, 1_000_000), (2, 2, 1_000_000), (4, 1, 2_000_000), (1, 2, 0), (4, 0, 0)]
)
def test_threads_of_the_host_that_wake_up_have_the_first_core_that_is_free(guest, busy, cores, waited):
    """Four for a request to the disk, each after half of what lies between two ends of turns."""
    assert wakeup_turn_ns(guest(busy, cores)) == waited
