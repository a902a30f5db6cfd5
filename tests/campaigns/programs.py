"""Run random programs of all calls under designs, with oracle and audit, and show what each finding needs.

    python -m tests.campaigns.programs --designs linux --count 2000 --seed 1 --jobs 2

One line of progress for each batch; each distinct finding with its program, shrunk and written as TOML that
`luf run` reads; a summary. Exit code 0 if nothing was found, 1 otherwise. Who runs the same seed, count and
version of hypothesis gets the same programs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from designs import shelf
from tests.support.program import Finding, Program, generated, run, shrunk
from tests.support.random_programs import random_program
from tests.support.random_rows import random_rows

BATCH = 25
EACH_OF_ROWS = 8  # one batch in so many is of rows that no script can make
NEVER_FLUSHES = "none"


def all_designs() -> list[str]:
    """Give every design that is meant to be right, as it is without parameters."""
    return [name for name in shelf.names() if name != NEVER_FLUSHES and ":" not in name]


@dataclass(slots=True)
class Summary:
    """What the batches of one design have found."""

    design: str
    runs: int = 0
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        """Give its line."""
        each = self.seconds / max(1, self.runs)
        found = "; ".join(f"{kind} ({count})" for kind, count in self.kinds.most_common())
        verdict = f"{sum(self.kinds.values())} findings: {found}" if found else "all clean"
        return f"{self.design:<10} {self.runs:>5} programs, {each:.2f} s each: {verdict}"


def batch(design: str, seed: int, count: int) -> list[tuple[Finding, Program]]:
    """Run so many programs under a design; gives what is wrong with which."""
    found: list[tuple[Finding, Program]] = []

    def look(program: Program) -> None:
        finding = run(program, design)
        if finding:
            found.append((finding, program))

    generated(random_program if seed % EACH_OF_ROWS else random_rows, look, seed, count)
    return found


def campaign(
    design: str, count: int, seed: int, jobs: int, folder: Path, say: Callable[[str], None]
) -> Summary:
    """Run a design's batches, `jobs` of them at a time."""
    summary, began = Summary(design), time.monotonic()
    sizes = [min(BATCH, count - first) for first in range(0, count, BATCH)]
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [
            pool.submit(batch, design, seed * 1_000_000 + number, size) for number, size in enumerate(sizes)
        ]
        for future, size in zip(futures, sizes, strict=True):
            found = future.result()
            summary.runs, summary.seconds = summary.runs + size, time.monotonic() - began
            for finding, program in found:
                summary.kinds[finding.kind] += 1
                if summary.kinds[finding.kind] == 1:
                    show(finding, program, design, len(summary.kinds), folder, say)
            say(summary.line())
    return summary


def show(
    finding: Finding, program: Program, design: str, number: int, folder: Path, say: Callable[[str], None]
) -> None:
    """Print one finding with the smallest program that shows it."""
    smaller = shrunk(program, finding, design)
    command = smaller.keep(folder, f"{design}-{number}", design)
    say(f"--- finding {number} under {design}: {finding.kind}\n{finding.text}\n{command}")
    say(smaller.workload_toml())


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign as the options say."""
    options = _parser().parse_args(arguments)
    folder = Path(options.findings)

    def say(line: str) -> None:
        print(line, flush=True)

    summaries = [
        campaign(design, options.count, options.seed, options.jobs, folder, say)
        for design in options.designs or all_designs()
    ]
    say("")
    for summary in summaries:
        say(summary.line())
    return 1 if any(summary.kinds for summary in summaries) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="run random programs of all calls, with oracle and audit")
    parser.add_argument("--designs", nargs="+", help="default: all but none")
    parser.add_argument("--count", type=int, default=200, help="programs for each design")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="programs that run at a time")
    parser.add_argument("--findings", default="runs/programs", help="folder for the programs of findings")
    return parser


if __name__ == "__main__":
    sys.exit(main())
