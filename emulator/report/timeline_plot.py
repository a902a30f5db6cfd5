"""Draw when each design flushed: requests by site over virtual time, a panel for each design, one scale for
all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emulator.output_file import write_atomically
from emulator.report.picture import Write, picture
from emulator.report.plot import drawn_sites, nothing, picture_title, site_colour
from emulator.report.timeline import in_columns, unknown_columns
from emulator.result import Result

COLUMNS = 160
PANEL_INCHES = 1.7


def draw_timeline(runs: Sequence[Result], file: str | Path, write: Write = write_atomically) -> None:
    """Draw the timelines of `runs` into a .png, .svg or .pdf file."""
    axis_ns = max((run.timeline.end_ns for run in runs), default=0) or 1
    width = axis_ns / 1e6 / COLUMNS
    with picture(file, (13, 1.8 + PANEL_INCHES * len(runs)), dpi=110, write=write) as figure:
        panels = figure.subplots(len(runs), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        shown: dict[str, Any] = {}
        for axes, run in zip(panels, runs, strict=True):
            axes.set_title(run.design, loc="left", fontweight="bold", fontsize=10)
            if not run.timeline.end_ns:
                nothing(axes, run.design, "no timeline in this result")
                continue
            unknown = unknown_columns(run.timeline, axis_ns, COLUMNS)
            if unknown:
                axes.axvspan(0, unknown * width, color="#dddddd", hatch="///", linewidth=0)
                middle = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "center"}
                axes.text(unknown * width / 2, 0.5, "not known: its event rings wrapped", **middle)
            bottom = [0] * COLUMNS
            for site in drawn_sites(run.timeline.sites):
                counts = in_columns(run.timeline, site, axis_ns, COLUMNS)
                counts[:unknown] = [0] * unknown
                places = [i * width for i in range(COLUMNS)]
                bars = axes.bar(places, counts, width, bottom=bottom, align="edge", color=site_colour(site))
                bottom = [a + b for a, b in zip(bottom, counts, strict=True)]
                shown.setdefault(site, bars)
        figure.suptitle(picture_title(runs[0]), fontsize=11)
        panels[-1].set_xlim(0, axis_ns / 1e6)
        panels[-1].set_xlabel("virtual time, ms")
        figure.supylabel("CPUs asked to flush", fontsize=10)
        if shown:
            style: dict[str, Any] = {"ncols": min(len(shown), 6), "frameon": False, "fontsize": 9}
            figure.legend(list(shown.values()), list(shown), loc="outside lower center", **style)
