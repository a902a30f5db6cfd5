"""Do figures hang on how a run is emulated: on how far a CPU goes before others that are behind go first, and
on how many execute at a time?

The finest slice of a sweep is the limit. A point has converged if each figure lies within TOLERANCE of that
of the limit, all else being equal, and of that of the first number of leases. Figures are medians over seeds;
a count of some thousands differs by as much as that by chance, so it needs several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from emulator.result import Result
from emulator.sweep.plan import Point
from emulator.sweep.points import At

TOLERANCE = 0.05
SLICE, LEASES = "slice", "leases"
Points = Sequence[tuple[Point, list[Result]]]


class Figure(NamedTuple):
    """What must not hang on the order. A share is compared by its difference, anything else by its ratio."""

    label: str
    value: Callable[[Result], float]
    shown: Callable[[float], str] = "{:,.0f}".format
    is_share: bool = False


def _total(run: Result, *names: str) -> int:
    return sum(sum(run.counters[name]) for name in names)


def _cpus_per_flush(run: Result) -> float:
    return run.tlb_shootdowns / max(1, _total(run, "nr_tlb_remote_flush"))


def _direct_share(run: Result) -> float:
    """Give the share of pages that who allocated had to reclaim or demote himself."""
    direct = _total(run, "pgsteal_direct", "pgdemote_direct")
    return direct / max(1, direct + _total(run, "pgsteal_kswapd", "pgdemote_kswapd"))


FIGURES = (
    Figure("shootdowns", lambda run: run.tlb_shootdowns),
    Figure("CPUs per flush", _cpus_per_flush, "{:.2f}".format),
    Figure("direct reclaim", _direct_share, "{:.1%}".format, is_share=True),
    Figure("load misses", lambda run: run.dtlb_load_misses),
    Figure("store misses", lambda run: run.dtlb_store_misses),
    Figure("fetch misses", lambda run: run.itlb_load_misses),
    Figure("runtime, ms", lambda run: run.runtime_mean_ns / 1e6, "{:,.1f}".format),
)


class Apart(NamedTuple):
    """By how much a figure of a point differs from that of runs in another order."""

    by: float
    figure: Figure
    point: Point
    beside: str

    def __str__(self) -> str:
        return f"{_named(self.point)}: {self.figure.label} {_by(self.figure, self.by)} beside {self.beside}"


def converged(points: Sequence[At]) -> tuple[bool, str]:
    """Give whether all points have converged, and what shows it. A run that was ended early has not."""
    ended = [(at.point, runs) for at in points if (runs := [run for run in at.runs if not run.stopped])]
    apart = _differences(ended)
    far = sorted((one for one in apart if abs(one.by) > TOLERANCE), key=lambda one: -abs(one.by))
    good = bool(apart) and not far and len(ended) == len(points)
    if good:
        most = max(apart, key=lambda one: abs(one.by))
        verdict = f"converged: all figures within {TOLERANCE:.0%}, the farthest: {most}"
    elif apart:
        verdict = f"NOT converged: {len(far)} of {len(apart)} figures are more than {TOLERANCE:.0%} apart"
    else:
        verdict = "NOT judged: nothing to compare with, several values of slice or leases are needed"
    return good, f"{_table(ended)}\norder    {verdict}\n" + "".join(f"  {one}\n" for one in far)


def _differences(points: Points) -> list[Apart]:
    """Compare each point with the finest slice, and with the first number of leases."""
    found = []
    for point, runs in points:
        for reference, beside in (
            (_finest(point, points), "the finest slice"),
            (_first_leases(point, points), "other leases"),
        ):
            if reference is not runs:
                found += [Apart(_apart(one, runs, reference), one, point, beside) for one in FIGURES]
    return found


def _table(points: Points) -> str:
    if not points:
        return "no run has ended\n"
    lines = [[*points[0][0], *(figure.label for figure in FIGURES)]]
    for point, runs in points:
        limit = _finest(point, points)
        lines.append([*point.values(), *(_cell(figure, runs, limit) for figure in FIGURES)])
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "".join("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths)).rstrip() + "\n"
                   for line in lines)  # fmt: skip


def _named(point: Point) -> str:
    return " ".join(f"{name}={value}" if name != "design" else value for name, value in point.items())


def _finest(point: Point, points: Points) -> list[Result]:
    """Give the runs with the finest slice that are like this point in all else."""
    return min(_alike(point, points, SLICE), key=lambda other: int(other[0].get(SLICE, 0)))[1]


def _first_leases(point: Point, points: Points) -> list[Result]:
    return _alike(point, points, LEASES)[0][1]


def _alike(point: Point, points: Points, but_for: str) -> list[tuple[Point, list[Result]]]:
    rest = {name: value for name, value in point.items() if name != but_for}
    return [other for other in points if all(other[0][name] == value for name, value in rest.items())]


def _apart(figure: Figure, runs: Sequence[Result], reference: Sequence[Result]) -> float:
    one, other = (median(map(figure.value, side)) for side in (runs, reference))
    if figure.is_share:
        return one - other
    return one / other - 1 if other else float(one != other)


def _by(figure: Figure, by: float) -> str:
    return f"{100 * by:+.1f} {'points' if figure.is_share else '%'}"


def _cell(figure: Figure, runs: Sequence[Result], limit: Sequence[Result]) -> str:
    text = figure.shown(median(map(figure.value, runs)))
    return text if limit is runs else f"{text} ({_by(figure, _apart(figure, runs, limit))})"
