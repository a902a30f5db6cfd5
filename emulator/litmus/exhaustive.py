"""`luf litmus --exhaustive`: all schedules of a test with at most so many preemptions, as far as there is
time, by workers on host cores (search.py says which schedules these are).

Ticks are off, and the seed stays the same: only turns differ. The first forbidden schedule ends the search,
as it has as few preemptions as any. Left out: shrinking; `luf replay --shrink` does that.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from designs.ready import ReadyDesign
from emulator.experiment import Experiment
from emulator.litmus.run import run_of
from emulator.litmus.search import Explored, Search, Todo
from emulator.litmus.touched import (
    CPU,
    NUMBER,
    Prefix,
    advances,
    choices,
    order_of,
    passed,
    possible,
    touched,
)
from emulator.litmus.verdict import FORBIDDEN, VOID, Verdict, judge
from emulator.replay.case import Case
from emulator.replay.file import Recorded, design_digest, replay_text
from emulator.schedule import Schedule
from emulator.stress.arena import Arenas
from emulator.stress.outcome import FINISHED, Outcome
from emulator.stress.pool import Pool
from emulator.stress.signature import signature_of
from workloads.litmus.laid_out import text_of
from workloads.litmus.test import Litmus

NO_TICK_NS = 10**12
SLICE_NS = 10_000  # so that who spins for others does not do so for long
POINTS_MAX = 1_000_000  # of a schedule
LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Explore:
    """Run a schedule: what a worker does."""

    test: Litmus
    first: Experiment
    todo: Todo

    def do(self, arenas: Arenas, designs: Mapping[str, ReadyDesign]) -> Ran:
        """Do it, in a worker."""
        schedule = scheduled(self.todo.prefix, records=1)
        design = designs[self.first.design.name]
        outcome = arenas.run(replace(self.first, design=design, schedule=schedule))
        verdict = judge(self.test, run_of(outcome))
        cut_short = outcome.record is None or outcome.is_cut_short
        ends = outcome.ended != FINISHED or verdict.what == FORBIDDEN or cut_short
        return Ran(explored(self.todo, outcome, ends=ends), verdict, _end_of(outcome), cut_short)


@dataclass(frozen=True, slots=True)
class Ran:
    """What a schedule came to; `end` is the same for runs that did the same work."""

    explored: Explored
    verdict: Verdict
    end: int
    cut_short: bool


@dataclass(slots=True)
class Exhausted:
    """All schedules of a test under a design, as far as there was time."""

    test: str
    design: str
    search: Search
    seconds: float = 0.0
    what: Counter[str] = field(default_factory=Counter)
    why_void: Counter[str] = field(default_factory=Counter)
    ends: set[int] = field(default_factory=set)
    cut_short: int = 0
    forbidden: Verdict | None = None
    prefix: Prefix = ()
    replay: str = ""  # of the forbidden schedule

    def add(self, ran: Ran) -> None:
        """Count a run."""
        self.search.tell(ran.explored)
        self.what[ran.verdict.what] += not ran.explored.again
        if ran.verdict.what == VOID:
            self.why_void[ran.verdict.why] += 1
        self.ends.add(ran.end)
        self.cut_short += ran.cut_short
        fewer = self.forbidden is None or len(ran.explored.prefix) < len(self.prefix)
        if ran.verdict.what == FORBIDDEN and fewer:
            self.forbidden, self.prefix = ran.verdict, ran.explored.prefix

    @property
    def is_whole(self) -> bool:
        """Has each schedule been run, to its end?"""
        return self.search.over and not self.cut_short

    @property
    def is_void(self) -> bool:
        """Did no run mean anything?"""
        return self.forbidden is None and self.what[VOID] == self.what.total()

    def line(self) -> str:
        """Say it in words."""
        search, runs = self.search, sum(self.search.runs)
        if self.forbidden:
            count = _many(len(self.prefix), "preemption")
            when = f"in schedule {runs:,}, after {self.seconds:.1f} s"
            return f"FORBIDDEN with {count}, {when}: {self.forbidden.why}"
        if self.is_whole:
            most = _many(search.preemptions, "preemption")
            said = f"all schedules with at most {most} were run, {runs:,}"
        else:
            said = f"{runs:,} schedules were run in {self.seconds:.0f} s, {_levels(search)}"
        parts = [
            f"{said}: nothing forbidden",
            _many(len(search.orders), "distinct order"),
            _many(len(self.ends), "distinct end"),
            f"of {search.possible:,} choices others make no difference, or lead where a run has been",
        ]
        parts += [f"{self.cut_short:,} were too long to go on from"] * bool(self.cut_short)
        if self.what[VOID]:
            parts.append(f"{self.what[VOID]:,} void ({self.why_void.most_common(1)[0][0]})")
        return "; ".join(parts)


def _levels(search: Search) -> str:
    """Say how many schedules of each number of preemptions were run, of how many."""
    parts = []
    for level, known in enumerate(search.known[: search.level + 1]):
        at_least = "at least " * (level == search.level)
        parts.append(f"{search.runs[level]:,} of {at_least}{known:,} with {level}")
    return f"{', '.join(parts)} preemptions"


def scheduled(prefix: Prefix, *, records: int = 0) -> Schedule:
    """Give the schedule with these preemptions."""
    return Schedule(
        "listed",
        switches=prefix,
        records=records,
        tick_ns=NO_TICK_NS,
        slice_ns=SLICE_NS,
        points_max=POINTS_MAX,
    )


def explored(todo: Todo, outcome: Outcome, *, ends: bool) -> Explored:
    """Give what the search asks of a run."""
    record, prefix = outcome.record, tuple(outcome.switches)
    if record is None:
        return Explored(todo.prefix, ends=True, again=todo.again)
    after = -1
    if prefix:
        at = np.flatnonzero((record[:, CPU] == prefix[-1][0]) & (record[:, NUMBER] == prefix[-1][1]))
        after = int(at[-1]) if len(at) else len(record)
    mine = touched(record)
    places = np.union1d(todo.places, mine.shared)
    return Explored(
        todo.prefix,
        order_of(record),
        mine,
        choices(record, after, places),
        advances(record, prefix),
        passed(record, after),
        places,
        possible(record, after),
        taken=[(cpu, other) for cpu, _, other in prefix] == [(cpu, other) for cpu, _, other in todo.prefix],
        ends=ends,
        again=todo.again,
    )


def exhaust(
    test: Litmus,
    first: Experiment,
    reference: str,
    cores: Sequence[int],
    *,
    preemptions: int,
    seconds: float,
    tell: Callable[[Exhausted], None] = lambda _: None,
) -> Exhausted:
    """Have workers run schedules until all have been, one is forbidden, or the time is over. `reference` is
    what names the design to a command, `tell` hears how it gets on.
    """
    found = Exhausted(test.name, first.design.name, Search(preemptions))
    with Pool(cores, {first.design.name: first.design}) as pool:
        began = time.monotonic()
        while True:
            while pool.idle and found.forbidden is None and found.seconds < seconds:
                if (todo := found.search.next()) is None:
                    break
                pool.put(Explore(test, first, todo))
            if not pool.is_busy:
                break
            for ran in pool.take(LOOK_S):
                found.add(ran)
            found.seconds = time.monotonic() - began
            tell(found)
        if found.forbidden:
            pool.put(Repeat(test, first, reference, found.prefix))
            found.replay = _only(pool)
    return found


def _only(pool: Pool) -> Any:
    """Wait for the only result that is due."""
    while not (results := pool.take(LOOK_S)):
        pass
    return results[0]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Run a schedule once more, without a record, and write it down as a replay file."""

    test: Litmus
    first: Experiment
    reference: str
    prefix: Prefix

    def do(self, arenas: Arenas, designs: Mapping[str, ReadyDesign]) -> str:
        """Do it, in a worker."""
        one = replace(self.first, design=designs[self.first.design.name], schedule=scheduled(self.prefix))
        outcome = arenas.run(one)
        signature = signature_of(outcome)
        if not signature:
            signature = f"forbidden outcome: {judge(self.test, run_of(outcome)).why}"
        text = text_of(self.test.sheet)
        case = Case(self.reference, test=text, seed=one.seed, check=one.check, schedule=one.schedule)
        return replay_text(Recorded(case, signature, outcome.fingerprint, design_digest(self.reference)))


def _end_of(outcome: Outcome) -> int:
    """Give a number by which two runs ended alike, in workers of one pool: how, and with which counts."""
    counts = sorted((name, count) for name, count in outcome.counters.items() if not name.endswith("_ns"))
    return hash((outcome.ended, *counts))


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + "s" * (count != 1)
