"""The command `luf litmus`: run litmus tests under designs, and say how often each outcome was seen."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

from designs import shelf
from emulator.litmus.exhaustive import scheduled
from emulator.litmus.exhaustive_command import exhaustive_command
from emulator.litmus.run import Planned, experiment_of, run_tests
from emulator.litmus.verdict import Tally
from emulator.report.progress import Progress
from emulator.streams import reader_may_leave
from emulator.stress.arena import Arena
from emulator.verdict import CLEAN, DIRTY
from workloads.litmus.shelf import litmus_tests, shipped
from workloads.litmus.test import Litmus


def litmus_command(options: Namespace, emulate: Any) -> int:
    """Run what was asked for. `emulate`, an experiment's Run, stands in for the emulator in tests."""
    tests = [test for name in options.tests or shipped() for test in litmus_tests(name)]
    if options.list:
        with reader_may_leave():
            sys.stdout.writelines(listed(tests))
        return CLEAN
    if options.exhaustive:
        if options.schedule:
            rule = "'--schedule' must not be given with --exhaustive, which goes through all"
            raise ValueError(f"{rule} (got {options.schedule.strategy})")
        planned = _planned(tests, options)
        _load(planned[:: len(tests)])
        return exhaustive_command(planned, options)
    width = max(len(test.name) for test in tests)
    tallies: list[Tally] = []
    for tally in _tallies(tests, options, emulate):
        tallies.append(tally)
        with reader_may_leave():
            sys.stdout.write(f"{tally.test:<{width}}  {tally.design:<10}  {tally.line()}\n")
            sys.stdout.flush()
    with reader_may_leave():
        sys.stdout.write(f"\n{_summary(tallies)}\n")
    return DIRTY if any(tally.is_bad for tally in tallies) else CLEAN


def _tallies(tests: list[Litmus], options: Namespace, emulate: Callable[..., Any] | None) -> Iterator[Tally]:
    """Run each test under each design. What is wrong with any is told before the first run."""
    planned = _planned(tests, options)
    cores = sorted(os.sched_getaffinity(0))
    if emulate is None:
        _load(planned[:: len(tests)])
    yield from run_tests(planned, options.runs, options.seed, cores, emulate)


def _planned(tests: list[Litmus], options: Namespace) -> list[Planned]:
    """Describe the first run of each test under each design."""
    schedule = scheduled(()) if options.exhaustive else options.schedule
    designs = [shelf.ready(name) for name in options.designs]
    return [
        (test, experiment_of(test, design, check=options.check, schedule=schedule))
        for design in designs
        for test in tests
    ]


def _load(planned: list[Planned]) -> None:
    """Compile or load all code before workers are forked, who then have it."""
    with Progress("litmus", unit="tests") as progress:

        def compiling(name: str, i: int, n: int) -> None:
            progress.phase(f"compiling {i + 1}/{n} {name}")

        with Arena(progress=compiling) as arena:
            for _, first in planned:
                progress.phase(f"loading {first.design.name}")
                arena.run(first)


def _summary(tallies: list[Tally]) -> str:
    bad = [tally for tally in tallies if tally.is_bad]
    void = [tally for tally in tallies if tally.is_void]
    runs = sum(tally.runs for tally in tallies)
    text = f"{runs:,} runs of {len(tallies)} pairs of test and design: {len(bad)} with a forbidden outcome"
    return text + (f", {len(void)} void: what they need did not happen" if void else "")


def listed(tests: list[Litmus]) -> Iterator[str]:
    """Give a few lines for each test: name, what it is about, what it covers, what it catches."""
    for test in tests:
        yield f"{test.name}\n    {test.about}\n    covers {', '.join(test.covers)}"
        yield f"; catches {', '.join(test.catches)}\n" if test.catches else "\n"
