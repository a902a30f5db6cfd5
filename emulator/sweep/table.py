"""What a sweep found: a row for each point, with median and interval of each figure, and its change against
the first design; a row for each run; a picture.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emulator.output_file import write_atomically
from emulator.repeats.figures import FIGURES, Figure
from emulator.repeats.spread import median_interval
from emulator.repeats.table import WRITERS, rows
from emulator.repeats.text import change_text
from emulator.report.picture import Write, label, picture
from emulator.sweep.points import At, Ended, first_design
from inputs.text import on_a_line

SHOWN = ("tlb_shootdowns", "runtime_mean_ns")
KEY, CELL = 24, 36  # columns at most
COLUMNS = 80
EACH_BY_ITSELF = "Each change is tested by itself: of equal designs about one in a hundred differs."


def point_rows(points: Sequence[At]) -> list[dict[str, Any]]:
    """Give one row a point: what was varied, the runs, and of each figure median, low and high, and how it
    differs from the first design's.
    """
    table = []
    for at in points:
        row: dict[str, Any] = {**at.point, "runs": len(at.runs), "clean": sum(run.clean for run in at.runs)}
        for figure in FIGURES:
            name, one = figure.name, at.changes.get(figure.name)
            ends = median_interval(at.taken[name]) if name in at.taken else (None, None, None)
            row |= zip((name, f"{name}.low", f"{name}.high"), ends)
            change = (one.ratio, one.low, one.high, one.p) if one else (None, None, None, None)
            row |= zip((f"{name}.ratio", f"{name}.ratio.low", f"{name}.ratio.high", f"{name}.p"), change)
        table.append(row)
    return table


def write_tables(points: Sequence[At], ended: Sequence[Ended], folder: Path) -> None:
    """Leave points.csv and runs.csv. Raises OSError with the path."""
    write_atomically(folder / "points.csv", WRITERS[".csv"](point_rows(points)))
    runs = rows(one.result for one in ended)
    varied = [{f"vary.{key}": value for key, value in one.point.items()} for one in ended]
    write_atomically(folder / "runs.csv", WRITERS[".csv"]([a | b for a, b in zip(varied, runs)]))


def median_text(figure: Figure, at: At) -> str:
    """Say a median, with its interval if there are several runs."""
    if figure.name not in at.taken:
        return "-"
    middle, low, high = median_interval(at.taken[figure.name])
    ends = "" if math.isnan(low) else f" [{figure.shown(low)}, {figure.shown(high)}]"
    return figure.shown(middle) + ends


def table_text(points: Sequence[At]) -> str:
    """Return the tables for people: medians with their 95 % intervals, and changes with theirs."""
    figures = [figure for figure in FIGURES if figure.name in SHOWN]
    varied = list(points[0].point)
    medians = [[*varied, "runs", *(f"{figure.label.strip()} (95 %)" for figure in figures)]]
    changes = [[*varied, *(figure.label.strip() for figure in figures)]]
    for at in points:
        keys = [on_a_line(at.point[key], KEY) for key in varied]
        dirty = sum(not run.clean for run in at.runs)
        runs = f"{len(at.runs)}" + f", {dirty} not clean" * bool(dirty)
        medians.append([*keys, runs, *(on_a_line(median_text(figure, at), CELL) for figure in figures)])
        if at.changes:
            said = [
                change_text(at.changes[figure.name], at.counts(figure.name))[0]
                if figure.name in at.changes
                else "-"
                for figure in figures
            ]
            changes.append([*keys, *(on_a_line(text, CELL) for text in said)])
    if len(changes) == 1:
        return _in_columns(medians)
    head = f"Changes against {on_a_line(first_design(points), KEY)} at the same point, with 95 % intervals."
    told = textwrap.fill(f"{head} {EACH_BY_ITSELF}", COLUMNS)
    return f"{_in_columns(medians)}\n{told}\n\n{_in_columns(changes)}"


def _in_columns(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "".join("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths)).rstrip() + "\n"
                   for line in lines)  # fmt: skip


def draw_sweep(points: Sequence[At], file: str | Path, write: Write = write_atomically) -> None:
    """Draw one line a design, and a line of its own for each other combination, over the first varied key
    whose values are numbers, or else over the first that is no design.
    """
    along = _along([at.point for at in points])
    lines: dict[str, list[tuple[str, At]]] = {}
    for at in points:
        rest = ", ".join(value if key == "design" else f"{key}={value}" for key, value in at.point.items()
                         if key != along)  # fmt: skip
        lines.setdefault(rest, []).append((at.point.get(along, ""), at))
    places = list(dict.fromkeys(at.point.get(along, "") for at in points))
    numbers = {place: _number(place) for place in places}
    is_number = None not in numbers.values()
    figures = [figure for figure in FIGURES if figure.name in SHOWN]
    with picture(file, (8, 3.2 * len(figures)), write=write) as drawing:
        for axes, figure in zip(drawing.subplots(len(figures), sharex=True), figures):
            for name, line in lines.items():
                where, found = [], []
                for place, at in line:
                    if figure.name in at.taken:
                        where.append(numbers[place] if is_number else places.index(place))
                        found.append(median_interval(at.taken[figure.name]))
                below = [_length(middle - low) for middle, low, _ in found]
                above = [_length(high - middle) for middle, _, high in found]
                middles = [middle for middle, _, _ in found]
                axes.errorbar(where, middles, [below, above], marker="o", capsize=3, label=label(name))
            axes.set_ylabel(figure.label.strip())
            axes.yaxis.set_major_formatter(_shown_by(figure))
            axes.set_ylim(bottom=0)
            if not is_number:
                axes.set_xticks(range(len(places)), [on_a_line(place, KEY) for place in places])
        axes.set_xlabel(on_a_line(along, KEY))
        drawing.axes[0].set_title("medians of runs, with 95 % intervals")
        drawing.axes[0].legend(fontsize="small")


def _shown_by(figure: Figure) -> Callable[[float, int], str]:
    return lambda value, _: figure.shown(value)


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
