"""Which accesses are scheduling points, and what the end of a countdown does to the lease table."""

import pytest

from cpus.compiled import kernel
from cpus.install import install
from cpus.ipi import wait_for_acks
from cpus.layout import Sizes
from cpus.ram import LEFT, POINTS, seen
from cpus.segment import build_ram
from cpus.strategies import ARMED, NEVER, UNIT_BITS, distance_of
from designs.memory_map import MACHINE

SEEN_BY_OTHERS = (
    "page_flags",
    "frame_word",
    "mm_tlb_gen",
    "cpu_lazy",
    "cpu_bell",
    "queue_lock",
    "mm_cpumask",
)
NOBODY_ELSES = ("tlb_tag", "task_row", "row_op", "content", "cpu_state", "cpu_clock", "pgfault", "event")


@pytest.mark.parametrize("name", SEEN_BY_OTHERS)
def test_what_others_may_see_is_a_point(name):
    """Locks, page flags, PTEs, generations, who is lazy."""
    assert seen(MACHINE.type, POINTS).field_type(name).points
    assert not MACHINE.type.field_type(name).points


@pytest.mark.parametrize("name", NOBODY_ELSES)
def test_what_is_a_cpus_own_or_the_benchs_is_none(name):
    """The TLB, a task's row, programs, the oracle, leases, counters, events."""
    assert not seen(MACHINE.type, POINTS).field_type(name).points


def test_distances_have_the_mean_that_was_asked_for():
    """Geometric: at least 1, often short, and on average what was asked for."""
    count = 4096
    numbers = range(1 << (UNIT_BITS - 13), 1 << UNIT_BITS, 1 << (UNIT_BITS - 12))
    distances = [distance_of(number, 300) for number in numbers]
    assert len(distances) == count
    assert min(distances) == 1
    assert sum(distances) / count == pytest.approx(300, rel=0.02)
    assert sum(distance < 30 for distance in distances) / count == pytest.approx(0.09, abs=0.02)
    assert {distance_of(number, 1) for number in numbers} == {1}


@kernel
def _touch(ram, index):
    """Make three accesses that count, and some that do not."""
    ram.page_flags[index] = ram.page_flags[index] + ram.row_op[0]
    ram.cpu_clock[0] += 1
    return ram.page_flags[index]


def test_each_access_counts_once(points_ram):
    """A load, a store and a load of page flags: three; a CPU's own clock and a program's row: none."""
    points_ram.point[LEFT] = points_ram.point[ARMED] = NEVER
    _touch(points_ram, 3)
    assert points_ram.point[ARMED] - points_ram.point[LEFT] == 3


@pytest.mark.parametrize(("irq_off", "asked", "found"), [(1, 1, 1), (0, 1, 0), (1, 0, 0)])
def test_waiting_for_acks_with_interrupts_off_breaks_a_rule(points_ram, irq_off, asked, found):
    """Though they are there already: another time they would not be."""
    install(points_ram, [wait_for_acks.entry])
    points_ram.point[LEFT] = NEVER
    points_ram.cpu_irq_off[1] = irq_off
    _wait(points_ram, 1, asked)
    assert points_ram.run_broken_rules[0] == found


@kernel
def _wait(ram, cpu, asked):
    wait_for_acks(ram, cpu, asked)


@pytest.fixture
def points_ram():
    """A machine without processes, seen with points."""
    sizes = Sizes(
        nr_cpus=2, nr_nodes=1, nr_zones=1, nr_frames=64, nr_mms=2, nr_tasks=1, nr_vmas=1, nr_objects=1,
        nr_cache_slots=64, nr_logical=64, nr_rows=1, nr_sections=1, nr_chunks=1, tlb_entries=8,
        series_length=8,
    )  # fmt: skip
    ram = build_ram(MACHINE, sizes, {"controlled": 1, "rules": 1}, kind=POINTS)
    yield ram
    ram.close()
