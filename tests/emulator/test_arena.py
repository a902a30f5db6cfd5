"""Runs that use their processes again do what they do alone, whatever ran there before; and however one ends,
the next one runs, and nothing is left behind.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from cpus.ram import Segment
from emulator.ending import Interrupted
from emulator.experiment import Experiment
from emulator.machine import load_machine
from emulator.schedule import Schedule
from emulator.stopped import CpuDied
from emulator.stress import arena as the_arena
from emulator.stress.arena import Arena, Arenas
from emulator.stress.outcome import ENDLESS, FAULTY, FINISHED, PANICKED, STUCK, VIOLATED
from tests.emulator import faulty_designs
from tests.emulator.faulty_designs import faulty
from tests.emulator.test_supervisor import _left_here
from workloads.rows import Region
from workloads.script import Script

MACHINE = load_machine("guest-8cpu", cpus=4, scale=32)
SMALLER = load_machine("guest-8cpu", cpus=3, scale=20)
STORM = "munmap-storm:threads=3,pages=4"
LARGER = load_machine("guest-8cpu", cpus=5, scale=32)


def script(pages=16, rounds=20, uses_what_is_gone=False):
    """Two threads read what a third maps and unmaps; in the end one may read what was unmapped."""

    def unmaps(t):
        for _ in range(rounds):
            yield t.meet("go", 3)
            yield t.munmap("m")
            yield t.mmap("m")
            yield t.meet("end", 3)
        yield t.munmap("m")
        yield t.post("gone")

    def reads(t):
        for _ in range(rounds):
            yield t.load("m")
            yield t.meet("go", 3)
            yield t.meet("end", 3)
        if uses_what_is_gone:
            yield t.spin("gone")
            yield t.load("m")

    made = Script("used", regions=[Region("m", pages, writable=True)])
    return made.process("p", [unmaps, reads, reads], cpus=[0, 1, 2]).workload()


CLEAN = Experiment("luf", MACHINE, script(), leases=1)
OTHERS = {
    "another machine and workload": replace(CLEAN, machine=SMALLER, workload=script(pages=70)),
    "more CPUs": replace(CLEAN, machine=LARGER),
    "another design": replace(CLEAN, design="linux"),
    "a violation": replace(CLEAN, design="none:what=user", workload=script(uses_what_is_gone=True)),
    "a panic": replace(CLEAN, design="linux", workload=script(uses_what_is_gone=True)),
    "two leases": replace(CLEAN, leases=2),
}


@pytest.fixture(scope="module")
def alone():
    """What the experiment does in processes of its own."""
    return CLEAN.run()


def test_the_nth_run_of_an_arena_does_what_the_same_experiment_does_alone(alone):
    """Clean ones, other sizes and designs, violations and panics before it change nothing."""
    before = _left_here()
    with Arena() as arena:
        first = arena.run(CLEAN)
        assert (first.ended, first.fingerprint) == (FINISHED, alone.fingerprint)
        assert first.counters["pgfault"] == alone.vmstat["pgfault"] > 0
        assert first.is_clean
        seen = {name: arena.run(other) for name, other in OTHERS.items()}
        assert [one.ended for one in seen.values()] == [
            FINISHED, FINISHED, FINISHED, VIOLATED, PANICKED, FINISHED,
        ]  # fmt: skip
        for name, other in OTHERS.items():
            again = arena.run(other)
            if name != "two leases":
                assert again.fingerprint == seen[name].fingerprint, name
            assert arena.run(CLEAN).fingerprint == alone.fingerprint, f"after {name}"
        assert len({one.fingerprint for one in seen.values()}) == len(OTHERS)
    assert not _left_here() - before


def test_runs_with_a_schedule_do_what_they_do_alone():
    """Between them runs of the plain engine, and of several leases: each has the processes that it needs."""
    walk = replace(CLEAN, schedule=Schedule(distance=50))
    result, plain = walk.run(), CLEAN.run()
    with Arena() as arena:
        for _ in range(2):
            outcome = arena.run(walk)
            assert (outcome.fingerprint, outcome.switches) == (result.fingerprint, result.switches)
            assert (outcome.points, outcome.cpu_points) == (result.points, result.cpu_points)
            listed = arena.run(replace(walk, schedule=Schedule("listed", switches=outcome.switches)))
            assert (listed.fingerprint, listed.points) == (result.fingerprint, result.points)
            assert arena.run(CLEAN).fingerprint == plain.fingerprint
            assert arena.run(replace(walk, leases=2)).is_clean


def test_runs_with_scheduling_points_repeat_too():
    """In processes of their own, as the nth run, after a violation; and their log of hand-overs repeats
    them.
    """
    points = replace(CLEAN, schedule=Schedule(distance=30, seed=7))
    alone = points.run()
    violated = replace(OTHERS["a violation"], schedule=Schedule("pct", depth=2, points=5000))
    with Arenas() as arenas:
        first = arenas.run(points)
        assert first.fingerprint == alone.fingerprint
        assert first.points == alone.points > 1000
        seen = [arenas.run(one) for one in (violated, OTHERS["more CPUs"], violated)]
        assert [one.ended for one in seen] == [VIOLATED, FINISHED, VIOLATED]
        assert seen[0].fingerprint == seen[2].fingerprint
        assert arenas.run(points).fingerprint == alone.fingerprint
        listed = Schedule("listed", switches=tuple(seen[0].switches))
        assert arenas.run(replace(violated, schedule=listed)).violations == seen[0].violations
        assert arenas.run(replace(points, schedule=Schedule(distance=30, seed=8))).fingerprint != (
            alone.fingerprint
        )


def test_a_violation_comes_with_its_witness_and_repeats():
    """As in a run of its own; the panic of the right design says what its program did."""
    with Arena() as arena:
        found = arena.run(OTHERS["a violation"])
        assert found.violations == OTHERS["a violation"].run().violations
        assert found.violations[0]["kind"] == "access after completion"
        assert not found.is_clean
        assert arena.run(OTHERS["a violation"]).violations == found.violations
        panicked = arena.run(OTHERS["a panic"])
        assert "no mapping there (SIGSEGV)" in panicked.sentence
        assert not panicked.is_void


def test_processes_are_used_again_while_runs_end_well():
    """The same pids, for fewer CPUs too, and after a violation or a panic under one lease; new ones after a
    violation under several, where somebody may be at anything.
    """
    with Arena() as arena:
        arena.run(OTHERS["a violation"])  # another design's first run has new ones
        arena.run(CLEAN)
        pids = [process.pid for process in arena.processes.processes]
        arena.run(OTHERS["another machine and workload"])
        arena.run(CLEAN)
        assert [process.pid for process in arena.processes.processes] == pids
        assert arena.run(OTHERS["a violation"]).ended == VIOLATED
        assert arena.run(replace(OTHERS["a panic"], design=CLEAN.design)).ended == PANICKED
        first = arena.run(CLEAN)
        assert [process.pid for process in arena.processes.processes] == pids
        assert first.fingerprint == CLEAN.run().fingerprint
        assert arena.run(replace(OTHERS["a violation"], leases=3)).ended == VIOLATED
        arena.run(CLEAN)
        assert not set(pids) & {process.pid for process in arena.processes.processes}


def test_a_run_that_was_left_in_the_midst_of_anything_leaves_nothing_to_the_next():
    """Locks held, messages on their way, other CPUs in the kernel: violations under preemption repeat one
    after the other in the same processes, and the clean run behind them is what it is alone.
    """
    walk = Schedule(distance=20)
    clean = replace(CLEAN, schedule=walk)
    alone = clean.run().fingerprint
    wrong = [replace(OTHERS["a violation"], schedule=replace(walk, seed=seed)) for seed in range(6)]
    with Arena() as arena:
        seen = [arena.run(one) for one in wrong]
        pids = [process.pid for process in arena.processes.processes]
        for one, first in zip(wrong, seen, strict=True):
            again = arena.run(one)
            assert (again.ended, again.fingerprint) == (VIOLATED, first.fingerprint)
            assert (again.points, again.cpu_points) == (first.points, first.cpu_points)
        assert [process.pid for process in arena.processes.processes] == pids
        assert arena.run(clean).fingerprint == alone


def test_a_run_over_its_bound_is_cut_short_and_void():
    """At the same point each time, and never called clean; one below the bound is what it is without."""
    walk = Schedule(distance=50)
    with Arena() as arena:
        whole = arena.run(replace(CLEAN, schedule=walk))
        more = replace(walk, points_max=10 * whole.points)
        assert arena.run(replace(CLEAN, schedule=more)).fingerprint == whole.fingerprint
        cut = [arena.run(replace(CLEAN, schedule=replace(walk, points_max=whole.points // 3))) for _ in "ab"]
    assert [one.ended for one in cut] == [PANICKED] * 2
    assert cut[0].is_void
    assert cut[0].is_cut_short
    assert "cut short: " in cut[0].sentence
    assert (cut[0].fingerprint, cut[0].points) == (cut[1].fingerprint, cut[1].points)
    assert whole.points // 3 <= cut[0].points < whole.points


def test_memory_that_is_not_cleared_is_noticed(alone, monkeypatch):
    """A run that found words of the one before would not be the same: so the tests above say something."""

    def leaves(ram, segment_type):
        ram.forget_views()
        ram.design.clear()
        ram._type = segment_type

    monkeypatch.setattr(Segment, "clear", leaves)
    with Arena(run_bound_s=5) as arena:
        arena.run(OTHERS["another machine and workload"])
        try:
            again = arena.run(CLEAN)
        except CpuDied:
            return
        assert again.fingerprint != alone.fingerprint


def test_a_process_that_is_killed_is_a_sentence_and_the_next_run_has_new_ones(alone):
    """While it is parked between two runs, of which nobody looks at it."""
    with Arena() as arena:
        arena.run(CLEAN)
        os.kill(arena.processes.processes[2].pid, signal.SIGKILL)
        with pytest.raises(CpuDied, match=r"cpu2 \(pid \d+\) was killed by SIGKILL"):
            arena.run(CLEAN)
        assert arena.run(CLEAN).fingerprint == alone.fingerprint


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_two_runs_ends_the_next_one(number):
    """It is not lost, and nothing is left."""

    def interrupted():
        with Arena() as arena:
            arena.run(CLEAN)
            os.kill(os.getpid(), number)
            arena.run(CLEAN)

    before = _left_here()
    with pytest.raises(Interrupted, match=number.name):
        interrupted()
    assert not _left_here() - before


def test_a_fault_of_a_hook_and_a_run_without_end_are_outcomes(alone, monkeypatch):
    """With their sentences; the next run is none the worse."""
    with Arena() as arena:
        fault = arena.run(replace(CLEAN, design=faulty(faulty_designs.raising), workload=STORM, tokens=4))
        assert fault.ended == FAULTY
        assert "in hook tick" in fault.sentence
        monkeypatch.setattr(arena, "run_bound_s", 0.0)
        endless = arena.run(replace(CLEAN, workload=script(rounds=2000)))
        assert endless.ended == ENDLESS
        assert endless.is_void
        monkeypatch.undo()
        assert arena.run(CLEAN).fingerprint == alone.fingerprint


def test_a_deadlock_is_an_outcome_with_its_graph(monkeypatch):
    """Two CPUs that nobody wakes any more."""
    monkeypatch.setattr(the_arena, "WAIT_BOUND_MS", 300)
    with Arena() as arena:
        stuck = arena.run(replace(CLEAN, design=faulty(faulty_designs.waiting), workload=STORM, tokens=4))
        assert stuck.ended == STUCK
        assert "nothing moved for 0.3 s" in stuck.sentence


def test_a_machine_that_does_not_fit_is_refused():
    """In one sentence, before anything of it is written."""
    with (
        Arena(capacity=1 << 22) as arena,
        pytest.raises(ValueError, match="'RAM segment' must hold the whole"),
    ):
        arena.run(CLEAN)


def test_the_janitor_forgets_processes_that_were_waited_for():
    """Else it would run out of file descriptors in an hour of violations."""
    with Arena() as arena:
        arena.run(CLEAN)
        held = Path(f"/proc/{arena.processes.janitor.pid}/fd")
        once = sum("pidfd" in os.readlink(fd) for fd in held.iterdir())
        for _ in range(4):
            arena.run(replace(CLEAN, schedule=Schedule()))  # in the other engine's processes
            arena.run(CLEAN)
        assert MACHINE.cpus < sum("pidfd" in os.readlink(fd) for fd in held.iterdir()) <= once


def test_runs_of_a_block_have_less_time():
    """Never more than they would have, and what they had behind it."""
    with Arenas(run_bound_s=10.0) as arenas:
        with arenas.bounded(0.0):
            assert arenas.run(replace(CLEAN, workload=script(rounds=2000))).ended == ENDLESS
        with arenas.bounded(60.0):
            assert arenas.plain.run_bound_s == 10.0
        assert arenas.run(CLEAN).ended == FINISHED
