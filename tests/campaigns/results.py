"""Run every design on the talk's machine and every workload under linux and luf, and write docs/results.md.

    python -m tests.campaigns.results [--designs linux luf ...] [--cpus 64] [--tokens 8] [--rounds 2] [--seeds
    5]

Takes whatever designs the catalogue lists, but `eager`, which has a section of its own; that and the
comparison with published figures are written by tests/campaigns/published.py, which this command calls. Runs
are kept, and the same command goes on where it was (carried.py). What stands between the markers of the page
that say "by hand" is kept as it is. A run that is stopped, or that has a violation, is in the table with what
it had; the exit code is 0 all the same, as `none` is there to be caught. `python -m tests.campaigns.seeds` is
the one that judges.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from emulator.exercised import never, unproven
from emulator.experiment import design_names
from emulator.machine import load_machine
from emulator.output_file import write_atomically
from emulator.published import DirtyTree, check_page, filled
from emulator.repeats.figures import samples
from emulator.repeats.spread import differences
from emulator.repeats.text import change_text
from emulator.report.text import percent, seconds, share_text, sites_text
from emulator.report.timeline import timeline_text
from emulator.result import Result
from emulator.run_folder import versions
from emulator.sweep.journal import Line
from emulator.sweep.plan import Job
from tests.campaigns import published
from tests.campaigns.carried import carried, job
from tests.campaigns.takeoffs import takeoff_table
from workloads.generated import GENERATORS

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
MACHINE, TALK, CLEAN = "xeon6430-cxl", "llama3x15", "clean"
# The balancing scanner waits a second before it begins; these runs are over by then. It goes through a scaled
# process sooner, too.
OVERRIDES: dict[str, dict[str, object]] = {
    "xsbench": {"sysctl.numa_balancing_scan_delay_ms": 0, "sysctl.numa_balancing_scan_period_min_ms": 1}
}
VARIANTS = {
    "xsbench": ("xsbench", "xsbench:file=1"),
    "readers-writer": ("readers-writer", "readers-writer:pages=3000"),
    "read-only": ("read-only:0%", "read-only:50%", "read-only:99%"),
}
SWITCHES = ({"sysctl.init_on_free": True}, {"sysctl.kasan_poison": True})
ELSEWHERE = "eager"  # some ten million interrupts at 64 CPUs: published.py runs it in a smaller configuration
BEGIN, END = "<!-- by hand: {} -->", "<!-- end by hand: {} -->"
SLOTS = {
    "open question": (
        "*(To be written: what the designs above say about the talk's open question, who synchronises.)*"
    )
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a result, or the sentence of why there is none."""

    design: str
    workload: str
    result: Result | None
    stopped: str = ""
    # the runs of all seeds, if there were several; `result` is the one with the median of shootdowns
    of: tuple[Result, ...] = ()

    @property
    def verdict(self) -> str:
        """Say what the oracle and the audit found."""
        if self.result is None:
            return f"stopped: {self.stopped}"
        kinds = sorted({str(violation.get("kind")) for violation in self.result.violations})
        wrong = [f"violation: {', '.join(kinds)}"] if kinds else []
        wrong += [f"{name} unaccounted" for name in self.result.unaccounted]
        return "; ".join(wrong) or CLEAN

    @property
    def worth(self) -> str:
        """Say what a clean verdict is worth: how many of the rare branches the run has taken, and which of
        those that the design relies on it has not.
        """
        if self.result is None or self.verdict != CLEAN or not self.result.exercised:
            return ""
        taken = self.result.exercised
        missing = unproven(taken, self.result.relies_on)
        text = f"; exercised {len(taken) - len(never(taken))} of {len(taken)}"
        return text + (f"; relied on, never: {', '.join(missing)}" if missing else "")


def median_row(rows: Sequence[Row]) -> Row:
    """Give the run with the median of shootdowns, and what the others had; one that was not clean stands for
    all.
    """
    dirty = [row for row in rows if row.verdict != CLEAN]
    if dirty or len(rows) == 1:
        return (dirty or list(rows))[0]
    ranked = sorted(rows, key=lambda row: row.result.tlb_shootdowns if row.result is not None else 0)
    return replace(
        ranked[len(ranked) // 2],
        of=tuple(row.result for row in ranked if row.result is not None),
    )


def workload_names() -> list[str]:
    """Give the talk's workload and every generated one, those that need a parameter with several."""
    return [TALK, *(variant for name in GENERATORS for variant in VARIANTS.get(name, (name,)))]


def every_design() -> list[str]:
    """Give the catalogue's names; a parameter's default goes by the design's own name."""
    return [
        name
        for name, line in design_names().items()
        if not line.endswith("(the default)") and name != ELSEWHERE
    ]


def by_hand(page: str, name: str) -> str:
    """Give what somebody wrote into a slot of the page; what the slot says before, if there is no such page
    yet. Raises ValueError if the slot has no end: its text would be lost.
    """
    begin, end = BEGIN.format(name), END.format(name)
    if begin not in page:
        return SLOTS[name]
    if end not in page.split(begin, 1)[1]:
        raise ValueError(f"{PAGE.name}: {begin!r} must be followed by {end!r} on one line, but it is not")
    return page.split(begin, 1)[1].split(end, 1)[0].strip("\n")


def table(rows: Sequence[Row], first: str) -> str:
    """Give a Markdown table of runs; changes and savings are against the row of the same workload under
    design `first`.
    """
    head = (
        "design",
        "workload",
        "shootdowns",
        "sent",
        "saved",
        "change",
        "dTLB-load",
        "iTLB-load",
        "runtime",
        "read-only",
        "host",
    )
    lines = [
        "| " + " | ".join((*head, "decided by", "verdict")) + " |",
        "|---|---|" + "---:|" * (len(head) - 2) + "---|---|",
    ]
    bases = {row.workload: row for row in rows if row.design == first}
    for row in rows:
        cells = [
            row.design,
            row.workload,
            *_figures(row, bases.get(row.workload), row.design == first),
            row.verdict + row.worth,
        ]
        if row.of:
            cells[2] += f" ({row.of[0].tlb_shootdowns:,} - {row.of[-1].tlb_shootdowns:,})"
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _figures(row: Row, of: Row | None, is_base: bool) -> list[str]:
    """Give the cells between workload and verdict."""
    run, base = row.result, of.result if of is not None else None
    if run is None:
        return ["-"] * 10
    whole = not run.violations  # a violation ends the run: its counts are those of a part
    compared = base is not None and not is_base and whole and not base.violations
    saved = base.tlb_shootdowns - run.tlb_shootdowns if base is not None and compared else None

    def change(name: str) -> str:
        return _change(of, row, name) if of is not None and compared else "-"

    time_cell = seconds(run.runtime_mean_ns / 1e9) if is_base and whole else change("runtime_mean_ns")
    names = ("dtlb_load_misses", "itlb_load_misses")
    misses = [f"{getattr(run, name):,}" if is_base else change(name) for name in names]
    counts = [
        f"{run.tlb_shootdowns:,}",
        f"{run.ipi.messages:,}",
        "-" if saved is None else f"{saved:,}",
        change("tlb_shootdowns"),
    ]
    return [
        *counts,
        *misses,
        time_cell,
        share_text(run.unmapped_read_only),
        seconds(run.host_seconds),
        sites_text(run.flush_sites),
    ]


def _change(base: Row, row: Row, name: str) -> str:
    """Say by how much a figure differs: of several seeds with its interval, if it is more than chance."""
    sides = [samples(one.of or [one.result]) for one in (base, row) if one.result is not None]
    if any(name not in side for side in sides):
        return "-"
    found = differences(*sides)[name]
    if not base.of or not row.of:
        return "-" if math.isnan(found.ratio) else percent(found.ratio - 1)
    return change_text(found, (len(base.of), len(row.of)))[0]


HEAD = """\
# Results

Written by `python -m tests.campaigns.results`, {date}: {machine}, {scale}, {leases} leases, git
{git}. Edit only what stands between the markers "by hand"; the command keeps that, and writes the rest anew.

- *shootdowns*: flush functions that CPUs executed because another CPU asked (the `TLB` row of
  /proc/interrupts). *sent*: messages; a CPU whose queue is not empty gets no second interrupt. *saved*: how
  many shootdowns fewer than {first} made on the same workload; *change*: that of the medians.
- *dTLB-load*, *iTLB-load* (misses) and *runtime* (virtual, mean of the processes): figures for {first},
  changes against them for the others.
- *read-only*: of the PTEs that reclaim and migration cleared, the share that was not writable. *host*: how
  long the run took here.
- *verdict*: what oracle and audit found. A violation ends a run, so its counts are those of a part, and are
  not compared. *exercised*: how many of the rare branches on which a verdict depends the run has taken; those
  that the design's safety relies on and that it never took are named
  ([coherence.md](coherence.md#what-a-clean-run-is-worth)).
- Every line is of {seeds} seeds, from {seed} on: the figures are those of the run with the median of
  shootdowns, with the fewest and the most in brackets. Changes are those of the medians with their 95 %
  interval, if they are more than chance ([screen.md](screen.md#several-runs-of-each-design)); a line that was
  not clean is that of its first such run.
"""


def document(parts: dict[str, str], previous: str) -> str:
    """Give the page: head, tables, timeline, what take-offs cost, and the slots that are written by hand."""
    text = parts["head"]
    text += "\n## All designs, the talk's experiment\n\n" + parts["designs"]
    text += "\nWhen each of them flushed:\n\n```\n" + parts["timeline"] + "```\n"
    if parts["takeoffs"]:
        text += "\n## Who synchronises\n\n" + parts["takeoffs"]
    for name in SLOTS:
        begin, end = BEGIN.format(name), END.format(name)
        text += f"\n## The {name}\n\n{begin}\n{by_hand(previous, name)}\n{end}\n"
    text += "\n## All workloads, linux and luf\n\n" + parts["workloads"]
    text += "\n## What LUF requires\n\n" + REQUIRES + "\n" + parts["switches"]
    return text


REQUIRES = """\
A page that is deferred must keep its bytes while it is free. A kernel that clears or poisons pages on free
(`sysctl.init_on_free`, `sysctl.kasan_poison` of the machine) leaves nothing to defer: LUF then flushes as
vanilla does. LUF may not defer writable mappings either (`read-only:0%`), nor fork and copy-on-write
(`fork-storm`), nor changes by the user (`munmap-storm`). Writes and truncation by another process
(`readers-writer`) make it flush early.
"""


def job_of(
    options: argparse.Namespace,
    design: str,
    workload: str,
    overrides: Mapping[str, object] = MappingProxyType({}),
    seed: int = 1,
) -> Job:
    """Give one run of a table."""
    changes = {**OVERRIDES.get(workload, {}), **overrides}
    machine = load_machine(MACHINE, scale=options.scale, cpus=options.cpus, overrides=changes)
    tokens = options.tokens if workload == TALK else options.rounds
    return job(design, machine, workload, tokens=tokens, leases=options.leases, seed=seed)


def row_of(line: Line, design: str, workload: str) -> Row:
    """Give the row of a run that is over."""
    return Row(design, workload, line.result, " ".join(line.stopped.split())[:160])


def main(arguments: list[str] | None = None) -> int:
    """Run everything and rewrite the page."""
    options = _parser().parse_args(arguments)
    try:
        check_page(options.page, "--page draft.md")
    except DirtyTree as dirty:
        sys.stderr.write(f"results: {dirty}\n")
        return 2
    designs, workloads = options.designs or every_design(), options.workloads or workload_names()
    pair = designs[:1] + [name for name in ("luf",) if name in designs[1:]]
    others = [name for name in workloads if name != TALK]
    seeds = range(options.seed, options.seed + options.seeds)
    asked = [(design, TALK, {}, design) for design in designs]
    asked += [(design, workload, {}, design) for workload in others for design in pair]
    if len(pair) > 1:
        asked += [("luf", TALK, switch, f"luf, {next(iter(switch))}") for switch in SWITCHES]
    cells = {
        (label, workload): [job_of(options, design, workload, changes, seed) for seed in seeds]
        for design, workload, changes, label in asked
    }
    lines = carried("results", [jobs[i] for i in range(options.seeds) for jobs in cells.values()])
    made = [
        median_row([row_of(lines[one.key], label, workload) for one in jobs])
        for (label, workload), jobs in cells.items()
    ]
    talk = [row for row in made if row.workload == TALK and row.design in designs]
    rows = [row for row in made if row.design in pair]
    switched = [row for row in made if row.workload == TALK and row.design not in designs]
    switched = [row for row in talk if row.design in pair] + switched
    machine = load_machine(MACHINE, scale=options.scale, cpus=options.cpus)
    head = HEAD.format(date=time.strftime("%Y-%m-%d"), machine=machine.summary(),
                       scale=machine.scaled_summary(), seed=options.seed, leases=options.leases,
                       git=versions().get("git", "unknown"), first=designs[0],
                       seeds=options.seeds)  # fmt: skip
    parts = {
        "head": head,
        "designs": table(talk, designs[0]),
        "timeline": timeline_text([row.result for row in talk if row.result is not None]),
        "takeoffs": takeoff_table(
            [row.result for row in talk if row.result is not None and row.verdict == CLEAN]
        ),
        "workloads": table(rows, designs[0]),
        "switches": table(switched, designs[0]),
    }
    page = Path(options.page)
    previous = page.read_text(encoding="utf-8") if page.is_file() else ""
    text = document(parts, previous)
    if not options.without_published:
        clean = {row.design: row.result for row in talk if row.result is not None and row.verdict == CLEAN}
        text = published.replaced(text, published.sections(options, clean))
    write_atomically(page, filled(text))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="run every design and every workload, and write docs/results.md"
    )
    parser.add_argument(
        "--designs",
        nargs="+",
        help="default: all of the catalogue; the first is what the others are compared with",
    )
    parser.add_argument("--workloads", nargs="+", help="default: all")
    parser.add_argument("--cpus", type=int, default=64)
    parser.add_argument("--scale", type=float, help="default: the machine's own")
    parser.add_argument("--tokens", type=int, default=8, help="of the talk's workload")
    parser.add_argument("--rounds", type=int, default=2, help="of the others")
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--seeds", type=int, default=5, help="of each line; 5 are the least for an interval")
    parser.add_argument("--leases", type=int, default=2)
    parser.add_argument(
        "--page", default=str(PAGE), help="default: docs/results.md, from committed sources only"
    )
    parser.add_argument(
        "--without-published",
        action="store_true",
        help="leave the comparison with published figures out of the page",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
