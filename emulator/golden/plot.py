"""Draw the emulator against the real kernel: IPIs and faults of the micro cells, and pressure ratios inside
their bands, on log axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emulator.golden.bands import FACTORS, BandRow
from emulator.golden.compare import AGREES, DIFFERS, Row
from emulator.golden.report import percent_down
from emulator.golden.result import Fidelity
from emulator.report.picture import picture
from emulator.report.plot import DESIGN_COLOURS, TALK_COLOUR, nothing

SHOWN = {"tlb_ipi": ("TLB IPIs", "o", "#0072B2"), "pgfault": ("page faults", "^", "#E69F00")}
RUN_MARKERS = "osD^vPX*<>ph"  # as many as runs may lie on one row: colours repeat before them
BAD_COLOUR = "#D55E00"
BAND_COLOURS = {"count": "#c9dff0", "time": "#eef4f9"}
RATIO_MOST = 8.0  # ratios beyond are drawn at the edge


def draw_fidelity(fidelity: Fidelity, file: str | Path) -> None:
    """Draw into a .png, .svg or .pdf file; raises ValueError for another ending."""
    metrics = len({row.metric for row in fidelity.bands})
    with picture(file, (13, max(6.4, 1.6 + 0.5 * metrics)), option="--plot") as figure:
        axes: Any = figure.subplots(1, 2, width_ratios=(1, 1.25))
        _micro(axes[0], fidelity)
        _pressure(axes[1], fidelity.bands)
        title = f"the emulator beside Linux {fidelity.rules.kernel}   ·   {fidelity.seeds}"
        figure.suptitle(title, fontsize=11)


def _micro(axes: Any, fidelity: Fidelity) -> None:
    rows = [
        row
        for row in fidelity.rows
        if row.metric in SHOWN and row.emulated is not None and row.verdict in (AGREES, DIFFERS)
    ]
    if not rows:
        nothing(axes, "Micro scenarios", "no micro cell was emulated")
        return
    axes.set_title("Micro scenarios: count of each cell", loc="left", fontweight="bold")
    for metric, (label, marker, colour) in SHOWN.items():
        for verdict, face in ((AGREES, "none"), (DIFFERS, BAD_COLOUR)):
            points = [row for row in rows if row.metric == metric and row.verdict == verdict]
            edge = colour if verdict == AGREES else BAD_COLOUR
            if points:
                style = {"s": 26, "marker": marker, "facecolors": face, "edgecolors": edge, "zorder": 3}
                said = f"{label}, {verdict} ({len(points):,})"
                axes.scatter(
                    [row.middle for row in points], [row.emulated for row in points], label=said, **style
                )
                _ranges(axes, points, edge)
    most = max(max(row.middle, row.emulated or 0.0) for row in rows) * 2 + 1
    axes.plot([0, most], [0, most], color=TALK_COLOUR, linewidth=0.8, zorder=1)
    for scale, limit, name in (
        (axes.set_xscale, axes.set_xlim, axes.set_xlabel),
        (axes.set_yscale, axes.set_ylim, axes.set_ylabel),
    ):
        scale("symlog", linthresh=1)  # zero has a place beside the logarithm
        limit(-0.3, most)
        name("real (median)" if name == axes.set_xlabel else "emulated (median)")
    axes.grid(color="#eeeeee", zorder=0)
    one = fidelity.tally
    said = f"{percent_down(one.agrees, one.judged)} of all judged rows agree"
    axes.text(0.98, 0.02, said, ha="right", va="bottom", transform=axes.transAxes)
    axes.legend(loc="upper left", frameon=False, fontsize=9)


def _ranges(axes: Any, rows: Sequence[Row], colour: str) -> None:
    for row in rows:
        if row.real[0] != row.real[2]:
            axes.plot(
                [row.real[0], row.real[2]],
                [row.emulated] * 2,
                color=colour,
                linewidth=0.8,
                alpha=0.6,
                zorder=2,
            )


def _pressure(axes: Any, bands: Sequence[BandRow]) -> None:
    rows = [row for row in bands if row.ratio is not None]
    if not rows:
        nothing(axes, "Pressure runs", "no pressure run was emulated")
        return
    axes.set_title("Pressure runs: emulated / real", loc="left", fontweight="bold")
    metrics = list(dict.fromkeys(row.metric for row in rows))
    tags = list(dict.fromkeys(row.tag for row in rows))
    kinds = {row.metric: row.kind for row in rows}
    for place, metric in enumerate(metrics):
        factor = FACTORS[kinds[metric]]
        axes.fill_betweenx(
            [place - 0.42, place + 0.42], 1 / factor, factor, color=BAND_COLOURS[kinds[metric]], zorder=0
        )
        _real_spread(axes, place, [row for row in bands if row.metric == metric])
    for i, tag in enumerate(tags):
        points = [row for row in rows if row.tag == tag]
        shift = 0.6 * (i / max(len(tags) - 1, 1) - 0.5)
        ratios = [min(max(row.ratio or 0.0, 1 / RATIO_MOST), RATIO_MOST) for row in points]
        places = [metrics.index(row.metric) + shift for row in points]
        colour, marker = DESIGN_COLOURS[i % len(DESIGN_COLOURS)], RUN_MARKERS[i % len(RUN_MARKERS)]
        _own_spread(axes, points, places, colour)
        axes.scatter(ratios, places, s=26, color=colour, marker=marker, label=tag, zorder=3)
    axes.axvline(1, color=TALK_COLOUR, linewidth=0.8, zorder=1)
    _ratio_axis(axes, metrics)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.08), frameon=False, fontsize=9, ncols=6, columnspacing=1.2
    )


def _own_spread(axes: Any, rows: Sequence[BandRow], places: Sequence[float], colour: str) -> None:
    """Draw how far the emulator's seeds are apart, as a line through each point."""
    for row, place in zip(rows, places):
        if row.own and row.real:
            ends = [min(max(edge / row.real, 1 / RATIO_MOST), RATIO_MOST) for edge in row.own]
            axes.plot(ends, [place, place], color=colour, linewidth=1)


def _real_spread(axes: Any, place: int, rows: Sequence[BandRow]) -> None:
    """Draw how far the real kernel is from itself, over the runs that were recorded twice."""
    ratios = [edge / row.real for row in rows for edge in row.spread if row.real]
    if ratios:
        axes.plot(
            [min(ratios), max(ratios)],
            [place, place],
            color="black",
            linewidth=5,
            alpha=0.35,
            solid_capstyle="butt",
            zorder=2,
        )


def _ratio_axis(axes: Any, metrics: Sequence[str]) -> None:
    ticks = [1 / RATIO_MOST, 0.25, 0.5, 0.8, 1, 1.25, 2, 4, RATIO_MOST]
    names = ["1/8 or less", "1/4", "1/2", "", "1", "", "2", "4", "8 or more"]
    axes.set_xscale("log", base=2)
    axes.set_xlim(1 / RATIO_MOST / 1.1, RATIO_MOST * 1.1)
    axes.set_xticks(ticks, names)
    axes.minorticks_off()
    axes.set_yticks(range(len(metrics)), metrics)
    axes.set_ylim(len(metrics) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("dark: x 1.25 (counts), light: x 2 (times); grey: real against itself; lines: our seeds")
