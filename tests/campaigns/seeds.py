"""Run designs over workloads, numbers of CPUs and many seeds with the oracle on, and say which runs were not
clean.

    python -m tests.campaigns.seeds --designs linux luf --workload llama3x15 munmap-storm readers-writer
    fork-storm --cpus 8 64 --seeds 20

Exit code 0 if every run was clean and accounted for, 1 otherwise. One line per cell (design, workload, CPUs):
how many of its runs were not clean, and what they had, by kind. The first witness of each kind in a cell is
kept in the folder `--witnesses`.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from emulator.experiment import run_design
from emulator.machine import MachineError, load_machine
from emulator.report.proof import violation_text
from emulator.result import Result
from emulator.supervisor import RunStopped


@dataclass(slots=True)
class Cell:
    """What the seeds of one design, workload and number of CPUs have found."""

    design: str
    workload: str
    cpus: int
    runs: int = 0
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    dirty: list[int] = field(default_factory=list)
    witnesses: dict[str, str] = field(default_factory=dict)

    def note(self, seed: int, found: dict[str, str]) -> None:
        """Count one run: kind -> witness of what was wrong with it."""
        self.runs += 1
        self.dirty += [seed] * bool(found)
        for kind, witness in found.items():
            self.kinds[kind] += 1
            self.witnesses.setdefault(
                kind,
                f"design {self.design}, workload {self.workload}, {self.cpus} CPUs, seed {seed}\n{witness}\n",
            )

    def line(self) -> str:
        """Give the cell's line."""
        if not self.dirty:
            verdict = "all clean"
        else:
            kinds = ", ".join(f"{kind} {count}" for kind, count in self.kinds.most_common())
            verdict = (
                f"NOT clean: {len(self.dirty)} of {self.runs} ({kinds}), seeds "
                f"{' '.join(map(str, self.dirty))}"
            )
        return (
            f"{self.design:<10} {self.workload:<18} {self.cpus:>3} CPUs {self.runs:>4} seeds "
            f"{self.seconds:>7.1f} s  {verdict}"
        )

    def keep(self, folder: Path) -> None:
        """Write the first witness of each kind."""
        for kind, witness in self.witnesses.items():
            folder.mkdir(parents=True, exist_ok=True)
            name = "-".join(
                re.sub(r"[^\w.]+", "_", str(part)).strip("_")
                for part in (self.design, self.workload, self.cpus, kind)
            )
            (folder / f"{name}.txt").write_text(witness, encoding="utf-8")


def wrong(result: Result) -> dict[str, str]:
    """Give kind -> witness of what is wrong with a run."""
    found: dict[str, str] = {}
    for violation in result.violations:
        reported = violation_text(
            {"design": result.design, "seed": result.seed, **violation}, violation.get("events", ())
        )
        found.setdefault(str(violation.get("kind", "violation")), reported)
    for name, (expected, counted) in result.unaccounted.items():
        found[f"{name} unaccounted"] = f"{name}: expected {expected:,}, found {counted:,}"
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign as the options say."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        for cpus in options.cpus:
            load_machine(options.machine, scale=options.scale, cpus=cpus)
    except MachineError as error:
        parser.error(str(error))  # now, not after hours
    options.workload = options.workload or ["llama3x15"]  # `extend` would add to a default
    bad = 0
    for workload in options.workload:
        for cpus in options.cpus:
            for design in options.designs:
                cell, began = Cell(design, workload, cpus), time.monotonic()
                for seed in range(options.first, options.first + options.seeds):
                    cell.note(seed, _run(design, workload, cpus, seed, options))
                cell.seconds = time.monotonic() - began
                bad += len(cell.dirty)
                cell.keep(Path(options.witnesses))
                print(cell.line(), flush=True)
    return 1 if bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="run designs over workloads and many seeds with the oracle on"
    )
    parser.add_argument("--designs", nargs="+", default=["linux", "luf"])
    parser.add_argument(
        "--workload", nargs="+", action="extend", help="one or several, may be repeated; default llama3x15"
    )
    parser.add_argument("--cpus", nargs="+", type=int, default=[4, 16, 64])
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--machine", default="xeon6430-cxl")
    parser.add_argument("--scale", type=float, default=1024)
    parser.add_argument("--tokens", type=int, default=1, help="tokens, or rounds")
    parser.add_argument("--leases", type=int, default=2)
    parser.add_argument(
        "--witnesses", default="runs/witnesses", help="folder for the first witness of each kind and cell"
    )
    return parser


def _run(design: str, workload: str, cpus: int, seed: int, options: argparse.Namespace) -> dict[str, str]:
    machine = load_machine(options.machine, scale=options.scale, cpus=cpus)
    try:
        return wrong(
            run_design(design, machine, workload, tokens=options.tokens, leases=options.leases, seed=seed)
        )
    except RunStopped as stopped:
        return {type(stopped).__name__.lower(): str(stopped)}


if __name__ == "__main__":
    sys.exit(main())
