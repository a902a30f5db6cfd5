"""What a sweep found: a row for each point, with median and interval of each figure; a row for each run; a
picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.output_file import write_atomically
from emulator.repeats.figures import FIGURES, samples
from emulator.repeats.spread import median_interval
from emulator.repeats.table import WRITERS, rows
from emulator.report.picture import label, picture
from emulator.result import Result
from emulator.sweep.plan import Point
from inputs.text import on_a_line

SHOWN = ("tlb_shootdowns", "runtime_mean_ns")
KEY, CELL = 24, 34  # columns at most


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended, and the point that it belongs to."""

    point: Point
    result: Result


def points_of(ended: Sequence[Ended]) -> list[tuple[Point, list[Result]]]:
    """Put the runs of each point together, in the order in which points first come."""
    found: dict[tuple[str, ...], tuple[Point, list[Result]]] = {}
    for one in ended:
        found.setdefault(tuple(one.point.values()), (one.point, []))[1].append(one.result)
    return list(found.values())


def point_rows(ended: Sequence[Ended]) -> list[dict[str, Any]]:
    """Give one row a point: what was varied, the runs, and median, low and high of each figure."""
    table = []
    for point, runs in points_of(ended):
        row: dict[str, Any] = {**point, "runs": len(runs), "clean": sum(run.clean for run in runs)}
        taken = samples(runs)
        for figure in FIGURES:
            ends = median_interval(taken[figure.name]) if figure.name in taken else (None, None, None)
            row |= zip((figure.name, f"{figure.name}.low", f"{figure.name}.high"), ends)
        table.append(row)
    return table


def write_tables(ended: Sequence[Ended], folder: Path) -> None:
    """Leave points.csv and runs.csv. Raises OSError with the path."""
    write_atomically(folder / "points.csv", WRITERS[".csv"](point_rows(ended)))
    runs = rows(one.result for one in ended)
    varied = [{f"vary.{key}": value for key, value in one.point.items()} for one in ended]
    write_atomically(folder / "runs.csv", WRITERS[".csv"]([a | b for a, b in zip(varied, runs)]))


def table_text(ended: Sequence[Ended]) -> str:
    """Return the table for people: medians with their 95 % intervals."""
    figures = [figure for figure in FIGURES if figure.name in SHOWN]
    varied = list(ended[0].point)
    lines = [[*varied, "runs", *(f"{figure.label.strip()} (95 %)" for figure in figures)]]
    for row in point_rows(ended):
        cells = [on_a_line(row[key], KEY) for key in varied]
        dirty = row["runs"] - row["clean"]
        cells.append(f"{row['runs']}" + f", {dirty} not clean" * bool(dirty))
        for figure in figures:
            middle, low, high = (row[f"{figure.name}{end}"] for end in ("", ".low", ".high"))
            said = "-" if middle is None else figure.shown(middle)
            if low is not None and not math.isnan(low):
                said += f" [{figure.shown(low)}, {figure.shown(high)}]"
            cells.append(on_a_line(said, CELL))
        lines.append(cells)
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "".join("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths)).rstrip() + "\n"
                   for line in lines)  # fmt: skip


def draw_sweep(ended: Sequence[Ended], file: Path) -> None:
    """Draw one line a design, and a line of its own for each other combination, over the first varied key
    whose values are numbers, or else over the first that is no design.
    """
    points = points_of(ended)
    along = _along([point for point, _ in points])
    lines: dict[str, list[tuple[str, list[Result]]]] = {}
    for point, runs in points:
        rest = ", ".join(value if key == "design" else f"{key}={value}" for key, value in point.items()
                         if key != along)  # fmt: skip
        lines.setdefault(rest, []).append((point.get(along, ""), runs))
    places = list(dict.fromkeys(point.get(along, "") for point, _ in points))
    numbers = {place: _number(place) for place in places}
    is_number = None not in numbers.values()
    figures = [figure for figure in FIGURES if figure.name in SHOWN]
    with picture(file, (8, 3.2 * len(figures))) as drawing:
        for axes, figure in zip(drawing.subplots(len(figures), sharex=True), figures):
            for name, line in lines.items():
                at, found = [], []
                for place, runs in line:
                    if figure.name in (taken := samples(runs)):
                        at.append(numbers[place] if is_number else places.index(place))
                        found.append(median_interval(taken[figure.name]))
                below = [_length(middle - low) for middle, low, _ in found]
                above = [_length(high - middle) for middle, _, high in found]
                middles = [middle for middle, _, _ in found]
                axes.errorbar(at, middles, [below, above], marker="o", capsize=3, label=label(name))
            axes.set_ylabel(figure.label.strip() + (", ns" if figure.name.endswith("_ns") else ""))
            axes.set_ylim(bottom=0)
            if not is_number:
                axes.set_xticks(range(len(places)), [on_a_line(place, KEY) for place in places])
        axes.set_xlabel(on_a_line(along, KEY))
        drawing.axes[0].set_title("medians of runs, with 95 % intervals")
        drawing.axes[0].legend(fontsize="small")


def _along(points: Sequence[Mapping[str, str]]) -> str:
    keys = [key for key in points[0] if key != "design"]
    for key in keys:
        if all(_number(point[key]) is not None for point in points):
            return key
    return keys[0] if keys else ""


def _number(text: str) -> float | None:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _length(value: float) -> float:
    return 0.0 if math.isnan(value) else max(0.0, value)
