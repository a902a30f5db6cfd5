"""Shrinking, against planted bugs whose smallest case is known, and against a design that never flushes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from cpus.abi import row_kinds as k
from cpus.abi.numbers import LOAD
from designs import shelf
from emulator.replay.case import Case
from emulator.replay.seen import Seen, runner
from emulator.schedule import Schedule
from emulator.stress.arena import Arena
from emulator.stress.shrink import fewest, replays, shrink
from tests.emulator.test_schedule import Careless
from workloads.litmus.laid_out import text_of
from workloads.litmus.shelf import litmus_test

TEXT = """
about: much happens here, of which little matters
machine: cpus = 6, memory = 1024 + 512, tlb.pcid = false
region: m 64 writable
region: data 31 file=data shared
needs: pgfault > 3

p @0           | p @1        | q @last  | q @2
repeat 3       | repeat 3    | load m   | load data
  store m      |  load m 3 4 |          | store m count=100
  meet go      |  meet go    |          |
  munmap m 4 8 |             |          |
  mmap m 4 8   |             |          |
  post told    |  spin told  |          |
  meet end     |  meet end   |          |
end            | end         |          |
madvise data MADV_DONTNEED | until done | |
post done      |  try_load m | |
               | end | |
"""
WANTED = {(0, 50, 1), (1, 70, 0)}
LOGGED = tuple((cpu, at, 1 - cpu) for cpu in (0, 1) for at in range(0, 100, 10))


class Planted:
    """Stands in for the emulator: the bug shows if one thread unmaps and another reads, under a schedule with
    both of the hand-overs that matter, or drawn with a seed that the rest divides.
    """

    def __init__(self, signature="bug", seeds=3, needs=WANTED):
        self.signature, self.seeds, self.needs = signature, seeds, needs
        self.cases = []

    def __call__(self, case):
        self.cases.append(case)
        threads = [rows for process in case.litmus().workload.processes for rows in process.threads]
        unmaps = [bool((rows["op"] == k.MUNMAP).any()) for rows in threads]
        reads = [bool(((rows["op"] == k.VISIT) & (rows["kind"] == LOAD)).any()) for rows in threads]
        there = any(unmaps[i] and reads[j] for i, j in itertools.permutations(range(len(threads)), 2))
        schedule = case.schedule
        if schedule is None:
            there, switches = there and case.seed % self.seeds == 0, ()
        elif schedule.strategy == "listed":
            there, switches = there and set(schedule.switches) >= self.needs, schedule.switches
        else:
            there, switches = there and schedule.seed % self.seeds == 0, LOGGED
        return Seen(self.signature if there else "", "f", switches=tuple(switches))


CASE = Case("none", test=TEXT, schedule=Schedule(seed=3))


def shrunk(case=CASE, run=None, **options):
    return shrink(case, run or Planted(), "bug", **options)


def test_what_matters_is_left():
    """Two threads, two calls, two hand-overs, one page, the machine as it is by default."""
    found = shrunk()
    assert found.size == {"switches": 2, "calls": 2, "threads": 2, "pages": 1}
    assert set(found.case.schedule.switches) == WANTED
    assert found.case.test.splitlines()[:2] == ["about:    bug", "region:   m 1"]
    calls = found.case.test.split("\n\n")[1].splitlines()[1]
    assert sorted(cell.strip() for cell in calls.split("|")) == ["load m", "munmap m"]
    assert found.complete
    assert found.seen.signature == "bug"


def test_what_columns_do_together_goes_together():
    """Loops in which they meet: one that does fewer turns than the other waits for ever, and is refused."""
    text = """
about: a
region: m 4 writable

p @0         | p @1
repeat 8     | repeat 8
  meet go    |   meet go
  munmap m   |   load m
  mmap m     |
  meet end   |   meet end
end          | end
"""
    found = shrunk(Case("none", test=text, seed=3), run=Planted(seeds=1))
    assert found.size == {"switches": 0, "calls": 2, "threads": 2, "pages": 1}


def test_it_is_the_same_each_time():
    """Schedules are drawn, from a stream of the case's own."""
    assert shrunk().case == shrunk().case
    first, second = Planted(), Planted()
    shrunk(run=first)
    shrunk(run=second)
    assert first.cases == second.cases


def test_a_drawn_schedule_helps_where_the_list_does_not():
    """A bug that needs a hand-over at a point that a smaller test passes no more: the list that it had shows
    nothing then, and a drawn one goes on as a list of its own.
    """

    class Shifting(Planted):
        def __call__(self, case):
            calls = case.test.count("store")
            self.needs = {(0, 10 * calls, 1)}
            return super().__call__(case)

    found = shrunk(run=Shifting())
    assert "store" not in found.case.test
    assert found.case.schedule.switches == ((0, 0, 1),)


def test_hand_overs_that_nothing_needs_go_and_the_schedule_with_them():
    """A run without scheduling points is simpler than one without hand-overs."""
    found = shrunk(run=Planted(needs=set(), seeds=1))
    assert found.case.schedule is None
    assert found.size["switches"] == 0


def test_a_schedule_that_makes_a_difference_without_hand_overs_stays():
    """The engine with scheduling points is another one."""

    class OnlyWithPoints(Planted):
        def __call__(self, case):
            return super().__call__(case) if case.schedule else Seen()

    assert shrunk(run=OnlyWithPoints(needs=set())).case.schedule == replace(CASE.schedule, strategy="listed")


def test_without_scheduling_points_other_seeds_are_tried():
    """And the case says which it was."""
    found = shrunk(replace(CASE, schedule=None, seed=9))
    assert found.case.schedule is None
    assert found.case.seed % 3 == 0
    assert found.size["calls"] == 2


def test_another_bug_is_not_taken_for_it():
    """A smaller test that shows something else is no smaller case of this."""

    class Others(Planted):
        def __call__(self, case):
            seen = super().__call__(case)
            return seen if "madvise" in case.test else replace(seen, signature=seen.signature and "another")

    assert "madvise" in shrunk(run=Others()).case.test


def test_what_does_not_repeat_is_not_shrunk():
    """None, after one run."""
    run = Planted(signature="another")
    assert shrunk(run=run) is None
    assert len(run.cases) == 1


def test_time_is_kept():
    """What has been reached by then comes out, and says so."""
    ticks = itertools.count()
    run = Planted()
    found = shrunk(run=run, seconds=60, clock=lambda: next(ticks))
    assert not found.complete
    assert len(run.cases) < 60
    assert found.size["switches"] < len(LOGGED)
    assert found.seen.signature == "bug"


def test_a_case_that_is_no_litmus_test_loses_hand_overs():
    """Its workload stays as it is."""
    case = replace(CASE, test="", workload="churn", machine="litmus")

    def run(case):
        if case.schedule is None:
            return Seen()
        listed = case.schedule.strategy == "listed"
        there = not listed or set(case.schedule.switches) >= WANTED
        return Seen("bug" if there else "", switches=tuple(case.schedule.switches if listed else LOGGED))

    found = shrink(case, run, "bug")
    assert set(found.case.schedule.switches) == WANTED
    assert found.size == {"switches": 2, "calls": 0, "threads": 0, "pages": 0}


@pytest.mark.parametrize("wanted", [set(), {0}, {99}, {3, 77}, {10, 11, 12, 90}, set(range(100))])
def test_fewest(wanted):
    """All that is needed and nothing else, in an order of runs that does not grow with what is not."""
    tries = []

    def holds(kept):
        tries.append(kept)
        return wanted <= set(kept)

    assert fewest(range(100), holds) == sorted(wanted)
    assert len(tries) < 40 * (1 + len(wanted))


def test_a_real_finding_shrinks_and_replays():
    """A design that leaves the flushes of munmap out: some calls on two CPUs, which do the same each time."""
    design = shelf.ready("none:what=user")
    with Arena() as arena:
        run = runner(arena, design)
        case = Case("none:what=user", test=text_of(litmus_test("munmap").sheet), seed=2)
        signature = run(case).signature
        assert signature == "access after completion: load, taken away by munmap"
        found = shrink(case, run, signature, seconds=60)
        assert found.complete
        assert found.size["calls"] <= 6
        assert found.size["threads"] == 2
        assert replays(found.case, run, found.seen, 5) == 5
        assert replays(found.case, runner(arena, shelf.ready("linux")), found.seen, 2) == 0


def test_a_broken_rule_is_shrunk_as_other_findings_are():
    """Though nothing goes wrong by it."""
    first = Case("careless", test=text_of(litmus_test("munmap:pages=16,access=try_load").sheet),
                 schedule=Schedule(distance=300, rules=1))  # fmt: skip
    with Arena() as arena:
        run = runner(arena, shelf.ready(Careless()))
        signature = run(first).signature
        assert signature.startswith("rule: lock order: queue_lock is taken under a word of the design")
        small = shrink(first, run, signature, seconds=45, clock=itertools.count().__next__)
        assert small.seen.signature == signature
        assert small.size["calls"] < 9
        assert small.case.schedule.strategy == "listed"
        assert small.size["switches"] == 0
        assert replays(small.case, run, small.seen, 5) == 5
        assert not run(replace(small.case, schedule=replace(small.case.schedule, rules=0))).signature
