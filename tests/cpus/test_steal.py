"""Virtual CPUs on a host with fewer cores: what they do takes longer, what they wait for comes in turn; without a host nothing changes."""

import pytest

from benchmarks.storm import small_ram
from cpus.steal import charge_stolen, pass_time, pass_until, turn_ns

NOBODY = -1


@pytest.fixture
def guest():
    """Build a guest of four CPUs, the first `busy` of which have a task, on `cores` cores with turns of 1 ms."""
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


@pytest.mark.parametrize("busy, cores, took", [(4, 1, 4000), (4, 2, 2000), (3, 2, 1500), (2, 2, 1000), (1, 1, 1000), (4, 0, 1000)])
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
    """1,000 ns of work take 4,000, then 5,000 ns of waiting take 5,000; waiting until a time that is past takes none."""
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


@pytest.mark.parametrize(
    "busy, cores, others, waited",
    [(4, 1, 1, 2_000_000), (4, 1, 3, 3_000_000), (4, 2, 1, 1_000_000), (2, 2, 1, 0), (1, 1, 1, 0), (4, 0, 3, 0)],
)
def test_the_last_of_others_comes_after_its_share_of_a_round(guest, busy, cores, others, waited):
    """n / (n + 1) of B turns on C cores; nothing if each busy CPU has a core."""
    assert turn_ns(guest(busy, cores), others) == waited
