"""A picture of more designs than colours can tell apart: a row for each, and what was a line is a strip.

Rows are in the order of the command, in all panels. Shades are logarithmic; the figures of changes stand in
their cells. Left out: markers, which nobody tells apart in a crowd.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import LogNorm

from emulator.report.picture import label
from emulator.report.text import percent
from emulator.result import Result

NONE_COLOUR, SHADES, CHANGES = "#eeeeee", "viridis", "RdBu_r"
PIECES = 160  # of the time axis
ROW_INCHES = 0.22  # beside two for titles and axes
STRONG = 0.6  # a change from which on its cell is dark


def height_inches(runs: int) -> float:
    """Give the height of a picture with so many rows in each half."""
    return 2 * (2.2 + ROW_INCHES * runs)


def per_cpu(figure: Any, axes: Any, runs: list[Result]) -> None:
    """Draw shootdowns received: a row for each design, a column for each CPU."""
    axes.set_title("TLB shootdowns received, per CPU", loc="left", fontweight="bold")
    counts = np.zeros((len(runs), max((len(run.tlb_shootdowns_per_cpu) for run in runs), default=1) or 1))
    for row, run in enumerate(runs):
        counts[row, : len(run.tlb_shootdowns_per_cpu)] = run.tlb_shootdowns_per_cpu
    _strips(figure, axes, counts, (-0.5, counts.shape[1] - 0.5))
    axes.set_xlabel("CPU (grey: none, it idled or was not interrupted)")
    _names(axes, [f"{label(run.design)}: {run.tlb_shootdowns:,}" for run in runs])


def changes(axes: Any, rows: list[tuple[str, list[float | None]]], metrics: list[str], base: str) -> None:
    """Draw changes as numbers, on a ground that says how large they are: blue is fewer, red more."""
    axes.set_title(f"Change against {label(base)}, %", loc="left", fontweight="bold")
    values = np.array([[np.nan if value is None else value for value in row] for _, row in rows])
    axes.imshow(np.clip(values, -1, 1), cmap=CHANGES, vmin=-1, vmax=1, aspect="auto")
    for place, value in np.ndenumerate(values):
        shown = "-" if np.isnan(value) else percent(value).replace(" %", "")
        ink = "white" if abs(value) > STRONG else "black"
        axes.text(place[1], place[0], shown, ha="center", va="center", fontsize=8, color=ink)
    axes.set_xticks(range(len(metrics)), metrics, fontsize=9)
    _names(axes, [name for name, _ in rows])


def free_memory(figure: Any, axes: Any, runs: list[Result]) -> None:
    """Draw the least free memory of the first node in each piece of time."""
    node = next((run.node_names[0] for run in runs if run.node_names), "node 0")
    axes.set_title(f"Least free memory of {label(node)}, MiB", loc="left", fontweight="bold")
    end_ns = max((max(run.series.t_ns) for run in runs if run.series.t_ns), default=0) or 1
    least = np.full((len(runs), PIECES), np.nan)
    for row, run in enumerate(runs):
        if run.series.free_mib:
            piece = np.minimum(np.array(run.series.t_ns) * PIECES // end_ns, PIECES - 1).astype(int)
            for column, mib in zip(piece, run.series.free_mib[0]):
                least[row, column] = np.fmin(least[row, column], mib)
    _strips(figure, axes, least, (0, end_ns / 1e6))
    axes.set_xlabel("virtual time, ms (grey: no sample, or none free)")
    _names(axes, [label(run.design) for run in runs])


def _strips(figure: Any, axes: Any, values: np.ndarray, across: tuple[float, float]) -> None:
    """Draw a row of cells for each row of values, shaded by their logarithm; 0 and nan are none."""
    shown = np.ma.masked_less_equal(np.ma.masked_invalid(values), 0)
    low, high = (float(shown.min()), float(shown.max())) if shown.count() else (1.0, 10.0)
    axes.set_facecolor(NONE_COLOUR)
    extent = (*across, len(values) - 0.5, -0.5)
    norm = LogNorm(low, max(high, low * 1.01))
    drawn = axes.imshow(shown, cmap=SHADES, norm=norm, aspect="auto", extent=extent, interpolation="nearest")
    bar = figure.colorbar(drawn, ax=axes, pad=0.01, fraction=0.04, format="{x:,g}")
    bar.ax.tick_params(labelsize=8)


def _names(axes: Any, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[["bottom", "left"]].set_visible(False)
