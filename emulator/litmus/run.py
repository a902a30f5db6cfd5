"""Run litmus tests: many seeds of each under each design, in controlled mode. Processes are used again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from emulator.experiment import Experiment
from emulator.litmus.machine import machine_of
from emulator.litmus.verdict import Run, Tally, check_figures, judge
from emulator.schedule import Schedule
from emulator.stress.arena import Arena
from emulator.stress.outcome import FINISHED, VIOLATED, Outcome
from workloads.litmus.test import Litmus

Planned = tuple[Litmus, Experiment]


def experiment_of(
    litmus: Litmus, design: Any, *, check: str = "full", leases: int = 1, schedule: Schedule | None = None
) -> Experiment:
    """Describe its run with seed 1."""
    return Experiment(
        design, machine_of(litmus), litmus.workload, leases=leases, seed=1, check=check, schedule=schedule
    )


def run_tests(
    planned: Sequence[Planned], runs: int, seed: int, emulate: Callable[[Experiment], Run] | None = None
) -> Iterator[Tally]:
    """Run each test so often, with seeds from `seed` on. Tests of one design should stand together: another
    one has other processes.
    """
    with ExitStack() as stack:
        arena = None if emulate else stack.enter_context(Arena())
        for test, first in planned:
            tally = Tally(test.name, first.design.name, test.about, list(test.possible))
            for number in range(runs):
                one = seeded(first, seed + number)
                run = emulate(one) if emulate else run_of(arena.run(one))
                if not run.stopped:
                    check_figures(test, run.figures)
                tally.add(judge(test, run), run)
            yield tally


def seeded(experiment: Experiment, seed: int) -> Experiment:
    """Give the same with another seed, which is its schedule's too."""
    schedule = experiment.schedule
    return replace(experiment, seed=seed, schedule=replace(schedule, seed=seed) if schedule else None)


def run_of(outcome: Outcome) -> Run:
    """Give what a litmus test asks of an outcome."""
    found = [str(violation["kind"]) for violation in outcome.violations]
    found += [f"audit: {sentence}" for sentence in outcome.unaccounted] + outcome.findings
    stopped = "" if outcome.ended in (FINISHED, VIOLATED) else outcome.sentence.partition("\n")[0]
    return Run(outcome.counters, tuple(found), stopped, small=outcome.is_void)
