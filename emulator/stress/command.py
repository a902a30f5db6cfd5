"""The command `luf stress`: a portfolio of short runs against a design, until the time is over."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import Any

from designs import shelf
from designs.none import NoFlush
from designs.ready import ReadyDesign
from emulator.output_file import write_output
from emulator.report.console import print_styled
from emulator.report.progress import Progress
from emulator.run_folder import RunFolder, new_run_folder
from emulator.schedule import Schedule
from emulator.streams import reader_may_leave
from emulator.stress.arena import Arenas
from emulator.stress.campaign import Campaign, Finding, run_campaign
from emulator.stress.job import GENERATED, Job, cpus_of, tests
from emulator.stress.pool import Pool
from emulator.stress.portfolio import PLAIN, STRATEGIES, Portfolio
from emulator.stress.report import as_data, campaign_text, case_name, finding_text
from emulator.verdict import CLEAN, DIRTY
from inputs.text import clipped

import msgspec  # isort: skip

Emulate = Callable[[Campaign, Portfolio], None]
ALL = "all"
VANILLA = "linux"


class StressError(ValueError):
    """What was asked for cannot be done: one sentence."""


def stress_command(options: Namespace, emulate: Emulate | None) -> int:
    """Stress the designs one after the other; returns the exit code. `emulate` stands in for the workers in
    tests.
    """
    named = _designs(options.designs)
    workloads = workloads_of(options.only, options.without)
    vanilla = named.get(VANILLA) or shelf.ready(VANILLA)
    seconds = options.seconds if options.minutes is None else options.minutes * 60
    cores = sorted(os.sched_getaffinity(0))
    cores = [cores[i % len(cores)] for i in range(options.jobs or len(cores))]
    with new_run_folder(options.out, "stress") as folder:
        compiled_s = 0.0 if emulate else _load([*named.values(), vanilla], workloads[0], options)
        campaigns: list[Campaign] = []
        for reference, design in named.items():
            campaigns.append(Campaign(design.name, reference, options.seed, len(cores)))
            try:
                portfolio = _portfolio(workloads, options)
                if emulate:
                    emulate(campaigns[-1], portfolio)
                else:
                    with Pool(cores, {VANILLA: vanilla, reference: design}) as pool:
                        _stress(pool, campaigns[-1], portfolio, seconds, options)
            finally:  # what was found so far is shown, whatever ends it
                _print_end(campaigns[-1], options)
            _write_cases(folder, campaigns[-1])
        data = as_data(campaigns, ["luf", *sys.argv[1:]], compiled_s)
        folder.write_json("findings.json", data)
    _print_verdict(campaigns, str(folder.final), data, options)
    return DIRTY if any(campaign.own for campaign in campaigns) else CLEAN


def workloads_of(pattern: str | None, without: Sequence[str] = ()) -> list[str]:
    """Give the names of the workloads that are asked for. Raises StressError if none is."""
    known = [*(() if "litmus" in without else tests()), *GENERATED]
    found = [name for name in known if pattern is None or fnmatch(name, pattern) or pattern == name]
    if not found:
        raise StressError(f"'--only' must match a workload of the portfolio (got {clipped(pattern)})")
    return found


def _designs(names: Sequence[str]) -> dict[str, ReadyDesign]:
    """Make the designs, by what names them; `all` is every one of the shelf that is not wrong on purpose."""
    wanted: list[str] = []
    for name in names:
        wanted += [one.name for one in shelf.SHELF if one is not NoFlush] if name == ALL else [name]
    for i, name in enumerate(wanted):
        if name in wanted[:i]:
            raise StressError(f"each design must be named once (got {name!r} twice)")
    return {name: shelf.ready(name) for name in wanted}


def _load(designs: Sequence[ReadyDesign], workload: str, options: Namespace) -> float:
    """Compile or load all code before workers are forked; returns the seconds that took."""
    began = time.monotonic()
    with Progress("stress", unit="jobs") as progress:

        def compiling(name: str, i: int, n: int) -> None:
            progress.phase(f"compiling {i + 1}/{n} {name}")

        with Arenas(progress=compiling) as arenas:
            for design in designs:
                progress.phase(f"loading {design.name}")
                for schedule in (None, Schedule())[: 1 + _has_points(options)]:
                    job = Job(0, workload, PLAIN, 1, check=_check(options), schedule=schedule)
                    arenas.run(job.experiment(design))
    return time.monotonic() - began


def _portfolio(workloads: Sequence[str], options: Namespace) -> Portfolio:
    strategies = [PLAIN, *STRATEGIES[: len(STRATEGIES) * _has_points(options)]]
    return Portfolio(options.seed, workloads, strategies, check=_check(options), cpus=cpus_of)


def _stress(pool: Pool, campaign: Campaign, portfolio: Portfolio, seconds: float, options: Namespace) -> None:
    """Run one design's campaign, and say what it finds as it comes."""
    with Progress(campaign.design, unit="s") as progress:

        def tell(passed: float) -> None:
            progress.update(min(passed, seconds), int(seconds))
            progress.phase(
                f"{passed:.0f}/{seconds:.0f} s, {campaign.runs.total():,} runs, "
                f"{len(campaign.findings)} distinct findings"
            )

        def found(finding: Finding) -> None:
            progress.line(f"luf: {campaign.design}: {finding.signature} (job {finding.first.job.number:,})")

        run_campaign(
            pool,
            campaign,
            "" if campaign.reference == VANILLA else VANILLA,
            portfolio,
            seconds,
            first=options.first,
            shrinks=not options.no_shrink,
            tell=tell,
            found=found,
        )


def _has_points(options: Namespace) -> bool:
    """May schedules have scheduling points? `--check bounds` compiles another engine, which has none."""
    return "points" not in options.without and options.check != "bounds"


def _check(options: Namespace) -> str:
    return "accesses" if "states" in options.without else str(options.check)


def _write_cases(folder: RunFolder, campaign: Campaign) -> None:
    """Leave a replay file for each finding that was shrunk."""
    for number, finding in enumerate(campaign.own, 1):
        if finding.small and finding.small.text:
            folder.write(case_name(campaign, number), finding.small.text)


def _print_end(campaign: Campaign, options: Namespace) -> None:
    if options.json == "-":
        return
    with _screen() as stream:
        for number, finding in enumerate(campaign.own, 1):
            print_styled(finding_text(campaign, finding, number).append("\n"), stream)
        print_styled(campaign_text(campaign).append("\n"), stream)


@contextmanager
def _screen() -> Any:
    with reader_may_leave():
        yield sys.stdout


def _print_verdict(
    campaigns: Sequence[Campaign], folder: str, data: dict[str, Any], options: Namespace
) -> None:
    text = msgspec.json.format(msgspec.json.encode(data), indent=1).decode() + "\n"
    with reader_may_leave():
        if options.json == "-":
            sys.stdout.write(text)
        else:
            dirty = [f"{one.design} ({len(one.own)})" for one in campaigns if one.own]
            said = (
                f"not clean, exit code {DIRTY}: {', '.join(dirty)}" if dirty else f"clean, exit code {CLEAN}"
            )
            sys.stdout.write(f"findings in  {folder}/findings.json\nverdict      {said}\n")
    if options.json and options.json != "-":
        write_output("json", options.json, text)
