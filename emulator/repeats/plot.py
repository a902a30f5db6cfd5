"""The picture of repeated runs: for each figure and design the ratio to the first design, with its interval,
each run as a dot.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from emulator.output_file import write_atomically
from emulator.repeats.figures import FIGURES, samples
from emulator.repeats.result import Repeats
from emulator.repeats.spread import Difference, differences
from emulator.report.picture import LABEL, Write, picture
from inputs.text import on_a_line

ROW, HEAD = 0.3, 1.4  # inches


def draw_repeats(repeats: Repeats, file: str | Path, write: Write = write_atomically) -> None:
    """Draw it whole or not at all. Raises ValueError for an ending that no picture has, OSError with the
    path.
    """
    title = f"{repeats.runs[0].workload}: {', '.join(repeats.designs)}"
    draw_groups({"": repeats}, title, file, write)


class _Bar(NamedTuple):
    """A line of the picture: what it is called, its runs as ratios, its difference, its colour."""

    name: str
    runs: list[float]
    found: Difference
    colour: str


def draw_groups(
    groups: Mapping[str, Repeats], title: str, file: str | Path, write: Write = write_atomically
) -> None:
    """Draw several groups of runs, each compared within itself, one below the other."""
    bars = [bar for name, group in groups.items() for bar in _bars(name, group)]
    base = next(iter(groups.values())).designs[0]
    with picture(file, (8, HEAD + ROW * max(1, len(bars))), write=write) as drawing:
        axes = drawing.subplots()
        axes.axvline(1, color="0.6", linewidth=1)
        for place, bar in enumerate(bars):
            axes.plot(bar.runs, [place] * len(bar.runs), ".", color=bar.colour, alpha=0.4)
            axes.plot([bar.found.ratio], [place], "D", color=bar.colour, markersize=5)
            if not math.isnan(bar.found.low):
                axes.plot([bar.found.low, bar.found.high], [place, place], "-", color=bar.colour, linewidth=2)
        axes.set_yticks(range(len(bars)), [on_a_line(bar.name, LABEL) for bar in bars])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel(f"ratio to {base}: median, 95 % interval, runs as dots; grey: no difference seen")
        axes.set_title(on_a_line(title, 2 * LABEL))


def _bars(group: str, repeats: Repeats) -> Iterator[_Bar]:
    """Give a line for each figure and design."""
    taken = {design: samples(repeats.of(design)) for design in repeats.designs}
    base, *others = repeats.designs
    found = {design: differences(taken[base], taken[design]) for design in others}
    for figure in FIGURES:
        if not statistics.median(taken[base].get(figure.name, [0])):
            continue
        for i, design in enumerate(others):
            if figure.name in taken[design]:
                middle = statistics.median(taken[base][figure.name])
                one = found[design][figure.name]
                name = figure.label.strip() + f", {group}" * bool(group) + f", {design}" * (len(others) > 1)
                colour = f"C{i % 10}" if one.seen else "0.6"
                yield _Bar(name, [value / middle for value in taken[design][figure.name]], one, colour)
