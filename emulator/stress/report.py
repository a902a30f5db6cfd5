"""A campaign in words, and as plain data for findings.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from textwrap import indent
from typing import Any

from rich.text import Text

from emulator.exercised import sentence, warning
from emulator.report.console import BAD, GOOD, QUIET
from emulator.report.proof import violation_proof
from emulator.run_folder import file_name
from emulator.stress.campaign import Campaign, Finding
from emulator.stress.portfolio import PLAIN
from emulator.stress.shrinking import Small

SHOWN = 6  # names of a list
LABEL = 12


def finding_text(campaign: Campaign, finding: Finding, number: int) -> Text:
    """Return one finding: what, how often, the proof, and how to have it again."""
    first = finding.first
    text = Text(f"FOUND {number}  ", BAD).append(f"{finding.signature}\n", "bold")
    of = sum(campaign.runs[workload] for workload in finding.hits)
    text.append(f"  {finding.hits.total():,} of {of:,} runs of {_counted(finding.hits)}\n")
    text.append(
        f"  first in job {first.job.number:,}, {_how(first.job)}, after {finding.runs_before:,} runs "
    )
    text.append(f"and {finding.seconds:.1f} s\n")
    if checked := finding.checked:
        text.append(f"  repeated {checked.repeated} of {checked.repetitions} times")
        if checked.vanilla_runs:
            text.append(f"; vanilla Linux shows it in {checked.vanilla:,} of {checked.vanilla_runs:,} runs")
        text.append("\n")
    small = finding.small if finding.small and finding.small.text else None
    violations = [small.seen.violation] if small and small.seen.violation else first.outcome.violations[:1]
    if small:
        text.append(f"  shrunk to {_size(small)}\n")
    for violation in violations:
        proof = violation_proof({**violation, "design": campaign.design}, violation.get("events", ()))
        text.append_text(proof)
    if not violations:
        for line in _said(finding):
            text.append(f"  {line}\n")
    if small:
        text.append(f"  luf replay {case_name(campaign, number)}:\n\n")
        text.append(indent(small.text, "    ")).append("\n")
    return text.append(f"  again: {first.job.command(campaign.reference)}\n", QUIET)


def case_name(campaign: Campaign, number: int) -> str:
    """Name the replay file of a finding."""
    return f"{file_name(campaign.design)}-{number}.toml"


def _size(small: Small) -> str:
    size = small.size
    what = f"{_many(size['calls'], 'call')} of {_many(size['threads'], 'thread')}, "
    what += f"{_many(size['pages'], 'page')}, {_many(size['switches'], 'hand-over')}"
    more = "" if small.complete else ", and there was no time for more"
    again = f"the same {small.repeated:,} of {small.repetitions:,} times"
    return f"{what} ({small.runs:,} runs, {small.seconds:.0f} s{more}): {again}"


def campaign_text(campaign: Campaign) -> Text:
    """Return how a campaign ended: what it exercised and what not."""
    head = f"{campaign.design}: {campaign.runs.total():,} runs in {campaign.seconds:.0f} s"
    head += f" on {_many(campaign.workers, 'core')}, seed {campaign.seed}: "
    own, vanilla = campaign.own, [one for one in campaign.findings.values() if one.is_vanilla]
    text = Text(head, "bold")
    if own:
        text.append(f"{_many(len(own), 'distinct finding')}\n", BAD)
    else:
        text.append("nothing found\n", GOOD)
    for finding in vanilla:
        text.append(f"  vanilla Linux has this, too: {finding.signature} ({finding.hits.total():,} runs)\n")
    for label, said in _exercised(campaign):
        text.append(f"  {label:<{LABEL}}{said}\n")
    return text


def _exercised(campaign: Campaign) -> Iterable[tuple[str, str]]:
    runs, meant = campaign.runs, campaign.runs - campaign.void
    yield "exercised", f"{len(meant):,} workloads, {_figures(campaign)}"
    yield "", sentence(campaign.exercised)
    if said := warning(campaign.exercised, campaign.relies_on):
        yield "", said
    yield (
        "schedules",
        f"{_counted(campaign.strategies)} runs; {campaign.handovers:,} hand-overs, "
        f"{campaign.points:,} scheduling points",
    )
    if campaign.windows:
        yield "windows", f"{campaign.windows:,} that vanilla leaves open, too (docs/coherence.md)"
    if campaign.knobs:
        yield "knobs", f"{_counted(campaign.knobs)} runs"
    if campaign.cut_short:
        yield "cut short", f"{_counted(campaign.cut_short)} runs: they went on for too long"
    void = sorted(set(runs) - set(meant))
    if void:
        names = [f"{name} ({campaign.why_void[name]})" for name in void]
        yield "void", f"{_many(len(void), 'workload')} never did what they are about: {_listed(names)}"


FIGURES = {
    "pgfault": "faults", "nr_tlb_remote_flush": "remote flushes", "ipi_requests": "interrupts",
    "pgsteal_kswapd": "pages reclaimed by kswapd", "pgsteal_direct": "by direct reclaim",
    "pgmigrate_success": "migrated",
}  # fmt: skip


def _figures(campaign: Campaign) -> str:
    return ", ".join(f"{campaign.figures[name]:,} {words}" for name, words in FIGURES.items())


def as_data(campaigns: Sequence[Campaign], command: Sequence[str], compile_seconds: float) -> dict[str, Any]:
    """Give everything as plain tables, for JSON."""
    return {
        "command": list(command),
        "compile_seconds": round(compile_seconds, 3),
        "designs": [_campaign_data(campaign) for campaign in campaigns],
    }


def _campaign_data(campaign: Campaign) -> dict[str, Any]:
    return {
        "design": campaign.design,
        "seed": campaign.seed,
        "workers": campaign.workers,
        "seconds": round(campaign.seconds, 3),
        "runs": campaign.runs.total(),
        "handovers": campaign.handovers,
        "points": campaign.points,
        "windows": campaign.windows,
        "phases": {name: round(seconds, 3) for name, seconds in campaign.phases.items()},
        "clean": not campaign.own,
        "findings": [_finding_data(campaign, one) for one in campaign.findings.values()],
        "workloads": dict(campaign.runs),
        "void": {name: [count, campaign.why_void[name]] for name, count in campaign.void.items()},
        "cut_short": dict(campaign.cut_short),
        "strategies": dict(campaign.strategies),
        "knobs": dict(campaign.knobs),
        "figures": dict(campaign.figures),
        "exercised": campaign.exercised,
        "relies_on": list(campaign.relies_on),
    }


def _finding_data(campaign: Campaign, finding: Finding) -> dict[str, Any]:
    job, outcome, checked = finding.first.job, finding.first.outcome, finding.checked
    return {
        "signature": finding.signature,
        "kind": outcome.violations[0]["kind"] if outcome.violations else outcome.ended,
        "text": finding_text(campaign, finding, 1).plain,
        "vanilla": finding.is_vanilla,
        "workload": job.workload,
        "strategy": job.strategy,
        "seed": job.seed,
        "knobs": dict(job.knobs),
        "check": job.check,
        "schedule": asdict(job.schedule) if job.schedule else None,
        "switches": outcome.switches,
        "job": job.number,
        "hits": finding.hits.total(),
        "hits_by_workload": dict(finding.hits),
        "runs_until": finding.runs_before,
        "seconds_until": round(finding.seconds, 3),
        "repeated": [checked.repeated, checked.repetitions] if checked else [],
        "vanilla_runs": [checked.vanilla, checked.vanilla_runs] if checked else [],
        "fingerprint": outcome.fingerprint,
        "violations": outcome.violations[:1],
        "said": _said(finding),
        "shrunk": _small_data(finding.small),
        "again": job.command(campaign.reference),
    }


def _small_data(small: Small | None) -> dict[str, Any]:
    if small is None or not small.text:
        return {}
    return {
        **small.size, "replays": [small.repeated, small.repetitions], "runs": small.runs,
        "seconds": round(small.seconds, 3), "complete": small.complete, "text": small.text,
    }  # fmt: skip


def _said(finding: Finding) -> list[str]:
    outcome = finding.first.outcome
    said = [*outcome.unaccounted, *outcome.rule_findings, *outcome.findings]
    return [*filter(None, [outcome.sentence]), *said]


def _how(job: Any) -> str:
    """Name what scheduled a job, and its knobs."""
    knobs = ", ".join((*(f"{key} = {value}" for key, value in job.knobs), *job.shaken))
    way = "no preemption inside the kernel" if job.strategy == PLAIN else f"strategy {job.strategy}"
    return f"{way}, {knobs}" if knobs else way


def _counted(counts: Mapping[str, int]) -> str:
    found = sorted(counts.items(), key=lambda pair: -pair[1])
    return _listed([f"{name} ({count:,})" for name, count in found])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + "s" * (count != 1)
