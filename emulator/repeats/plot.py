"""The picture of repeated runs: for each figure and design the ratio to the first design, with its interval,
each run as a dot.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path

from emulator.output_file import write_atomically
from emulator.repeats.figures import FIGURES, samples
from emulator.repeats.result import Repeats
from emulator.repeats.spread import differences
from emulator.report.picture import LABEL, Write, picture
from inputs.text import on_a_line

ROW, HEAD = 0.3, 1.4  # inches


def draw_repeats(repeats: Repeats, file: str | Path, write: Write = write_atomically) -> None:
    """Draw it whole or not at all. Raises ValueError for an ending that no picture has, OSError with the
    path.
    """
    taken = {design: samples(repeats.of(design)) for design in repeats.designs}
    base, *others = repeats.designs
    figures = [one for one in FIGURES if statistics.median(taken[base].get(one.name, [0]))]
    rows = [(figure, design) for figure in figures for design in others if figure.name in taken[design]]
    found = {design: differences(taken[base], taken[design]) for design in others}
    with picture(file, (8, HEAD + ROW * max(1, len(rows))), write=write) as drawing:
        axes = drawing.subplots()
        axes.axvline(1, color="0.6", linewidth=1)
        for place, (figure, design) in enumerate(rows):
            middle = statistics.median(taken[base][figure.name])
            runs = [value / middle for value in taken[design][figure.name]]
            one = found[design][figure.name]
            colour = f"C{others.index(design) % 10}" if one.seen else "0.6"
            axes.plot(runs, [place] * len(runs), ".", color=colour, alpha=0.4)
            axes.plot([one.ratio], [place], "D", color=colour, markersize=5)
            if not math.isnan(one.low):
                axes.plot([one.low, one.high], [place, place], "-", color=colour, linewidth=2)
        names = [figure.label.strip() + f", {design}" * (len(others) > 1) for figure, design in rows]
        axes.set_yticks(range(len(rows)), [on_a_line(name, LABEL) for name in names])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel(f"ratio to {base}: median, 95 % interval, runs as dots; grey: no difference seen")
        axes.set_title(on_a_line(f"{repeats.runs[0].workload}: {', '.join(repeats.designs)}", 2 * LABEL))
