"""Judge pressure runs: each metric within a band around the real kernel's, and changes between runs in the
same direction.

Pure functions. A count may be off by a factor of 1.25, what depends on time by 2. Runs that were recorded
twice (X and X_rep2) show how far the real kernel is from itself; that spread is put beside each row. What
lies in it the real kernel has done itself, so it is inside; the band is around the first recording all the
same, not around both.
The emulator runs each with several seeds. Its value is their median, and [lowest, highest] its own spread. If
those of two runs overlap, the emulator does not say in which direction the metric changes: such a change is
undecided, whatever the sign of its median.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Annotated, Any, Protocol

from msgspec import Meta

from emulator.golden.data import PressureRun, Threads
from emulator.golden.rules import Explained
from inputs.checked import Amount, Line

INSIDE, OUTSIDE, NOT_RECORDED, NOT_EMULATED = "inside", "outside", "not recorded", "not emulated"
SAME, OPPOSITE, UNDECIDED, FLAT = "same", "opposite", "undecided", "flat"
FACTORS = {"count": 1.25, "time": 2.0}
FLAT_CHANGE = 0.05  # a real change smaller than this, or than the spread of repeated runs, has no direction


class Metric(Protocol):
    """One row of `emulator.golden.pressure.PRESSURE_ROWS`: how to read a value from an entry of golden.json,
    real or emulated.
    """

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def why(self) -> str: ...
    @property
    def value(self) -> Callable[[dict[str, Any]], float | None]: ...


Spread = Annotated[list[Amount], Meta(max_length=2)]  # [lowest, highest], or nothing
Change = Annotated[float, Meta(ge=-1, le=1)]
Seeds = Sequence[dict[str, Any]]  # what the emulator did in one run, an entry for each seed
Emulated = Mapping[str, Seeds]  # by the tag of the run
Runs = Sequence[PressureRun]
Metrics = Sequence[Metric]


@dataclass(frozen=True, slots=True)
class BandRow:
    """One metric of one run; `spread` is [lowest, highest] over the run and its repetitions on the real
    kernel, `own` over our seeds.
    """

    tag: Line
    T: Threads
    metric: Line
    kind: Annotated[str, Meta(pattern=r"\A(count|time)\Z")]
    factor: Annotated[float, Meta(ge=1)]
    real: Amount | None
    spread: Spread
    emulated: Amount | None
    ratio: Amount | None
    verdict: Annotated[str, Meta(pattern=r"\A(inside|outside|not recorded|not emulated)\Z")]
    why: str
    explanation: str = ""
    problem: str = ""
    own: Spread = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Direction:
    """How one metric changes from one run to another that differs in one respect: T, policy or workload."""

    respect: Annotated[str, Meta(pattern=r"\A(T|policy|workload)\Z")]
    first: Line
    second: Line
    T: Threads  # of the second
    metric: Line
    real: Change
    emulated: Change
    verdict: Annotated[str, Meta(pattern=r"\A(same|opposite|undecided|flat)\Z")]
    explanation: str = ""


def first_runs(runs: Runs) -> list[PressureRun]:
    """Return the runs to emulate: all but those that repeat another one that is there."""
    tags = {run.tag for run in runs}
    return [run for run in runs if run.repeats == run.tag or run.repeats not in tags]


def judge_runs(runs: Runs, emulated: Emulated, metrics: Metrics, explained: Explained) -> list[BandRow]:
    """Return a row for each metric of each run that is not a repetition; `emulated` has a run's entries, one
    for each seed.
    """
    return [
        _row(run, runs, emulated.get(run.tag, ()), metric, explained)
        for run in first_runs(runs)
        for metric in metrics
    ]


def _row(run: PressureRun, runs: Runs, entries: Seeds, metric: Metric, explained: Explained) -> BandRow:
    factor = FACTORS[metric.kind]
    real = metric.value(run.entry)
    value, own = middle(metric, entries), own_spread(metric, entries)
    problem = next(filter(None, map(problem_of, entries)), "")
    repeated = [
        one for other in runs if other.repeats == run.tag and (one := metric.value(other.entry)) is not None
    ]
    spread = [min(repeated), max(repeated)] if len(repeated) > 1 else []
    verdict = NOT_EMULATED if not entries else band_verdict(real, None if problem else value, factor, spread)
    ratio = value / real if real and value is not None else None
    why = explained.of(run.tag, metric.name, run.T) if verdict == OUTSIDE else ""
    return BandRow(
        run.tag,
        run.T,
        metric.name,
        metric.kind,
        factor,
        real,
        spread,
        value,
        ratio,
        verdict,
        metric.why,
        why,
        problem,
        own,
    )


def middle(metric: Metric, entries: Seeds) -> float | None:
    """Return the median over the seeds; None if one of them has no such value."""
    values = [metric.value(entry) for entry in entries]
    known = [value for value in values if value is not None]
    return median(known) if known and len(known) == len(values) else None


def own_spread(metric: Metric, entries: Seeds) -> list[float]:
    """Return [lowest, highest] over the seeds, empty if there are less than two values."""
    known = [value for entry in entries if (value := metric.value(entry)) is not None]
    return [min(known), max(known)] if len(known) > 1 else []


def problem_of(entry: dict[str, Any]) -> str:
    """Return why an emulated run proves nothing; empty if it is sound."""
    found = "; ".join(map(str, entry.get("findings", ())))
    return str(
        entry.get("problem") or found or ("" if entry.get("clean", True) else "the emulation was not clean")
    )


def band_verdict(
    real: float | None, emulated: float | None, factor: float, spread: Sequence[float] = ()
) -> str:
    """Inside if real / factor <= emulated <= real * factor (a real 0 asks for 0), or if the real kernel's own
    spread holds it.
    """
    if real is None:
        return NOT_RECORDED
    if emulated is None:
        return OUTSIDE
    low, high = sorted((real / factor, real * factor))
    itself = bool(spread) and min(spread) <= emulated <= max(spread)
    return INSIDE if low <= emulated <= high or itself else OUTSIDE


def pairs(runs: Runs) -> list[tuple[str, PressureRun, PressureRun]]:
    """Return the runs that differ in one respect only, as (respect, first, second): T ascending, policy off
    to on, file to anonymous.
    """
    firsts = sorted(first_runs(runs), key=lambda run: (run.mb_per_proc, run.tag))
    found: list[tuple[str, PressureRun, PressureRun]] = []

    def add(respect: str, same: Callable[[PressureRun], Any], order: Callable[[PressureRun], Any]) -> None:
        groups: dict[Any, dict[Any, PressureRun]] = {}
        for run in firsts:
            # of two that are alike, the one with less memory
            groups.setdefault(same(run), {}).setdefault(order(run), run)
        for group in groups.values():
            found.extend(
                (respect, first, second) for first, second in pairwise(group[key] for key in sorted(group))
            )

    add("T", lambda run: (run.workload, run.mb_per_proc, run.policy), lambda run: run.T)
    add("policy", lambda run: (run.workload, run.mb_per_proc, run.T), lambda run: run.policy)
    add(
        "workload",
        lambda run: (run.T, run.policy),
        lambda run: (run.workload.startswith("anon"), run.workload),
    )
    return found


def judge_directions(
    runs: Runs, emulated: Emulated, metrics: Metrics, explained: Explained
) -> list[Direction]:
    """Return for each pair of runs and each metric whether it changes in the same direction; pairs that were
    not emulated give nothing.
    """
    directions: list[Direction] = []
    for metric in metrics:
        noise = max(FLAT_CHANGE, real_spread(runs, metric))
        for respect, first, second in pairs(runs):
            if first.tag not in emulated or second.tag not in emulated:
                continue
            real = change(metric.value(first.entry), metric.value(second.entry))
            ours = change(middle(metric, emulated[first.tag]), middle(metric, emulated[second.tag]))
            if real is None or ours is None:
                continue
            apart = _apart(own_spread(metric, emulated[first.tag]), own_spread(metric, emulated[second.tag]))
            verdict = (
                FLAT
                if abs(real) <= noise
                else UNDECIDED
                if not apart
                else SAME
                if real * ours > 0
                else OPPOSITE
            )
            why = explained.of(second.tag, metric.name, second.T) if verdict == OPPOSITE else ""
            directions.append(
                Direction(respect, first.tag, second.tag, second.T, metric.name, real, ours, verdict, why)
            )
    return directions


def _apart(first: Sequence[float], second: Sequence[float]) -> bool:
    """Do two spreads not overlap? What has none, of a single seed, is taken as it is."""
    return not first or not second or first[1] < second[0] or second[1] < first[0]


def change(first: float | None, second: float | None) -> float | None:
    """Return the change as a share of the larger value, from -1 to 1; None if one is not known."""
    if first is None or second is None:
        return None
    larger = max(abs(first), abs(second))
    return (second - first) / larger if larger else 0.0


def real_spread(runs: Runs, metric: Metric) -> float:
    """Return the largest difference of this metric between a recorded run and its repetition, as a share."""
    by_tag = {run.tag: run for run in runs}
    repeated = [
        (by_tag[run.repeats], run) for run in runs if run.repeats != run.tag and run.repeats in by_tag
    ]
    return max(
        (abs(change(metric.value(a.entry), metric.value(b.entry)) or 0.0) for a, b in repeated), default=0.0
    )
