"""When shootdowns were made: none is lost however long the run is, and each stays in its time."""

from __future__ import annotations

import numpy as np
import pytest

from allocator.flush_sites import NR_SITES
from allocator.flush_times import FIRST_SHIFT, TIME_PIECES, note_time
from cpus.compiled import kernel
from emulator.report.timeline import timeline
from emulator.small_machine import SmallMachine

SECOND = 10**9


@kernel
def _note(ram, cpu, site, asked):
    note_time(ram, cpu, site, asked)


@pytest.fixture
def ram():
    machine = SmallMachine(cpus=3)
    machine.ram.site_time[:] = 0
    machine.ram.cpu_clock[:] = 0
    yield machine.ram
    machine.ram.close()


def note(ram, events):
    """Make shootdowns: (CPU, time, site, CPUs asked)."""
    for cpu, ns, site, asked in events:
        ram.cpu_clock[cpu] = ns
        _note(ram, cpu, site, asked)


def drawn(seed, count, longest_ns):
    """Draw shootdowns of three CPUs, each with a clock that rises."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, longest_ns, count))
    columns = (rng.integers(0, 3, count), times, rng.integers(0, NR_SITES, count), rng.integers(0, 60, count))
    return list(zip(*(column.tolist() for column in columns), strict=True))


def by_hand(events, piece_ns):
    """The slow way: keep everything, and sort it in at the end."""
    found = np.zeros((NR_SITES, TIME_PIECES), np.int64)
    for _, ns, site, asked in events:
        found[site, ns // piece_ns] += asked
    return found


def as_table(line):
    from allocator.flush_sites import SITE_NAMES

    found = np.zeros((NR_SITES, TIME_PIECES), np.int64)
    for name, counts in line.sites.items():
        found[SITE_NAMES.index(name), : len(counts)] = counts
    return found


@pytest.mark.parametrize("longest_ns", [1000, TIME_PIECES << FIRST_SHIFT, 3 * SECOND, 5000 * SECOND])
def test_it_is_what_keeping_everything_would_have_given(ram, longest_ns):
    """From runs shorter than a piece to runs of an hour and more; CPUs whose clocks end far apart."""
    events = drawn(7, 400, longest_ns)
    events += [(0, longest_ns * 3, 1, 5)]
    note(ram, events)
    line = timeline(ram)
    assert (as_table(line) == by_hand(events, line.piece_ns)).all()
    assert line.piece_ns * TIME_PIECES // 2 <= max(longest_ns * 3, TIME_PIECES << FIRST_SHIFT)


def test_pieces_are_joined_for_each_cpu_alone(ram):
    """One that is done early keeps its short pieces until they are added up."""
    note(ram, [(0, 5000, 1, 2), (1, 10 * SECOND, 1, 3)])
    assert ram.site_time_joined.tolist() == [0, 13, 0]
    assert timeline(ram).sites["kswapd"][0] == 2


@pytest.mark.parametrize("fault", ["omitted", "wrapped", "later"])
def test_planted_faults_are_noticed(ram, fault):
    """A shootdown that is not counted, a piece that is overwritten instead of joined, one in a wrong time."""
    events = drawn(3, 200, SECOND)
    note(ram, events[:-1] if fault == "omitted" else events)
    if fault == "wrapped":
        ram.site_time[0, ram.site_time[0].argmax()] = 0
    elif fault == "later":
        ram.site_time[1] = np.roll(ram.site_time[1], 1)
    line = timeline(ram)
    assert not (as_table(line) == by_hand(events, line.piece_ns)).all()
