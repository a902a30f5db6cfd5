"""Which wrong design does each litmus test notice, after how many runs; and is it silent of right ones?

    python -m tests.campaigns.litmus [TESTS] [--runs 20] [--right linux luf] [--schedule walk:distance=200]

A test's head `catches` names designs of the shelf, and those of tests/emulator/litmus_mutants.py
(`wrong_luf:wrong=take`). One with a `~` needs CPUs that hand over inside the kernel: it is tried with
--schedule alone. Exit code 1 if a right design is accused, or a wrong one not noticed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from designs import shelf
from emulator.litmus.run import experiment_of, run_tests
from emulator.litmus.verdict import FORBIDDEN
from workloads.litmus.shelf import litmus_tests, shipped
from workloads.litmus.test import Litmus

MUTANTS = Path(__file__).parents[1] / "emulator/litmus_mutants.py"
CLASSES = {"spare": "Spare", "wrong_luf": "WrongLuf", "wrong_linux": "WrongLinux"}
INSIDE = "~"


def design_of(name: str) -> Any:
    """Make a design that a test catches."""
    name = name.removeprefix(INSIDE)
    base, colon, given = name.partition(":")
    return shelf.ready(f"{MUTANTS}:{CLASSES[base]}{colon}{given}" if base in CLASSES else name)


def pairs(tests: Sequence[Litmus], right: Sequence[str], inside: bool) -> Iterator[tuple[str, Litmus, bool]]:
    """Give designs and tests, those of one design together; is the design right?"""
    for design in right:
        yield from ((design, test, True) for test in tests)
    wrong = {design for test in tests for design in test.catches if inside or not design.startswith(INSIDE)}
    for design in sorted(wrong):
        yield from ((design, test, False) for test in tests if design in test.catches)


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign as the options say."""
    parser = argparse.ArgumentParser(description="which wrong designs do litmus tests notice?")
    parser.add_argument("tests", nargs="*", help="default: all that ship")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--right", nargs="*", default=["linux", "luf"])
    parser.add_argument("--schedule")
    options = parser.parse_args(arguments)
    schedule = None
    if options.schedule:
        from emulator.schedule import parse_schedule

        schedule = parse_schedule(options.schedule)
    tests = [test for name in options.tests or shipped() for test in litmus_tests(name)]
    plan = list(pairs(tests, options.right, schedule is not None))
    made = {name: design_of(name) for name in dict.fromkeys(name for name, _, _ in plan)}
    planned = [(test, experiment_of(test, made[name], schedule=schedule)) for name, test, _ in plan]
    failed = 0
    tallies = run_tests(planned, options.runs, options.seed, sorted(os.sched_getaffinity(0)))
    for (name, test, right), tally in zip(plan, tallies, strict=True):
        bad = tally.is_bad if right else not tally.what[FORBIDDEN]
        failed += bad
        print(f"{'**' if bad else '  '} {test.name:<50} {name:<34} {tally.line()}", flush=True)
    print(f"{len(plan)} pairs, {failed} wrong", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
