"""Draw a comparison as one picture: shootdowns per CPU, the changes beside the talk's, who shoots down, free
memory over time.

Colours are Okabe and Ito's, which people with any colour vision tell apart; designs differ in colour and
marker, nodes in line style.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from allocator.flush_sites import SITE_OTHER, SITES
from emulator.output_file import write_atomically
from emulator.report import plot_many, talk
from emulator.report.picture import Write, label, picture, room_above
from emulator.report.text import percent
from emulator.result import Comparison, Result
from inputs.text import on_a_line

DESIGN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DESIGN_MARKERS = "osD^vPX"
PATTERNS = ("", "....", "xxxx", "----", "||||", "++++", "oooo")
LINE_MARKS = 12  # on a line whose colour another design has too
TITLE_COLUMNS, TITLE_CHANGES = 140, 4  # characters, lines
TALK_COLOUR, QUIET_COLOUR = "#777777", "#f0f0f0"
NODE_LINES = ("-", "--", ":", "-.")
SHOWN_SHARE = 0.06
DARK = 0.28  # luminance
LABELLED_BARS = 4  # designs, the talk among them, whose changes are written at their bars
LINEAR_TO = 1.0  # a change beyond +100 % is drawn logarithmically
METRICS = (
    ("TLB\nshootdowns", lambda run: run.tlb_shootdowns, talk.change(talk.TLB_SHOOTDOWNS)),
    ("dTLB-load-\nmisses", lambda run: run.dtlb_load_misses, talk.change(talk.DTLB_LOAD_MISSES)),
    ("dTLB-store-\nmisses", lambda run: run.dtlb_store_misses, talk.change(talk.DTLB_STORE_MISSES)),
    ("iTLB-load-\nmisses", lambda run: run.itlb_load_misses, talk.change(talk.ITLB_LOAD_MISSES)),
    ("runtime", lambda run: run.runtime_mean_ns, talk.runtime_change()),
)


def draw(comparison: Comparison, file: str | Path, write: Write = write_atomically) -> None:
    """Draw `comparison` into a .png, .svg or .pdf file; raises ValueError for another ending."""
    runs = comparison.runs
    many = len(runs) > len(DESIGN_COLOURS)
    inches = (13, max(8.2, plot_many.height_inches(len(runs))) if many else 8.2)
    with picture(file, inches, write=write) as figure:
        halves: Any = figure.subfigures(2, 1, height_ratios=(1.12, 1), hspace=0.04)
        top, bottom = halves
        left, right = top.subplots(1, 2, width_ratios=(1.15, 1))
        if many:
            plot_many.per_cpu(top, left, runs)
            _changes_of_many(right, comparison)
        else:
            _per_cpu(left, runs)
            draw_changes(right, comparison)
        left, right = bottom.subplots(1, 2, width_ratios=(1.15, 1))
        _sites(left, runs)
        if many:
            plot_many.free_memory(bottom, right, runs)
        else:
            _free_memory(right, runs)
        figure.suptitle(picture_title(comparison.runs[0]), fontsize=11)


def picture_title(run: Result) -> str:
    """Give the lines above a picture: the machine, what ran on it, and what was changed of the machine."""
    words = [run.machine, run.machine_text, run.scale_text or f"scale 1/{run.scale:g}"]
    more = [run.workload, run.length_text, f"seed {run.seed}"]
    changed = f"set {run.overrides_text}" if run.overrides else ""
    lines = [
        "   ·   ".join(on_a_line(word, TITLE_COLUMNS) for word in line if word) for line in (words, more)
    ]
    rest = textwrap.wrap(
        changed, TITLE_COLUMNS, break_on_hyphens=False, max_lines=TITLE_CHANGES, placeholder=" ..."
    )
    return "\n".join(lines + rest)


def _plain_number(value: float, position: int) -> str:
    return f"{value:,g}"


def _colour(index: int) -> str:
    return DESIGN_COLOURS[index % len(DESIGN_COLOURS)]


def marker(index: int) -> str:
    """Give a design's marker; where colours begin anew markers are shifted, so that 49 designs differ in one
    or the other.
    """
    return DESIGN_MARKERS[(index + index // len(DESIGN_COLOURS)) % len(DESIGN_MARKERS)]


def pattern(index: int) -> str:
    """Give the hatching of a design's bars: none for those that have a colour to themselves."""
    return PATTERNS[index // len(DESIGN_COLOURS) % len(PATTERNS)]


def site_colour(site: str) -> str:
    """Give the colour of a site: the same one in every picture, also for one that only a design knows."""
    colours = {known.text: known.colour for known in SITES.values()}
    return colours.get(site) or list(colours.values())[sum(map(ord, site)) % len(colours)]


def drawn_sites(sites: Iterable[str]) -> list[str]:
    """Give sites in the order they are drawn in: as declared, then a design's own, "other" last."""
    known = [site.text for site in SITES.values()]
    places = {text: i for i, text in enumerate(known)} | {known[SITE_OTHER]: len(known) + 1}
    return sorted(sites, key=lambda site: (places.get(site, len(known)), site))


def _ink(colour: str) -> str:
    """Give the colour of text that can be read on a colour (its luminance as in WCAG 2)."""
    red, green, blue = ((int(colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))
    return "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < DARK else "black"


def _per_cpu(axes: Any, runs: list[Result]) -> None:
    axes.set_title("TLB shootdowns received, per CPU", loc="left", fontweight="bold")
    top = 1.0
    for i, run in enumerate(runs):
        counts = [float(count) for count in run.tlb_shootdowns_per_cpu]
        top = max(top, *counts)
        axes.plot(
            range(len(counts)),
            counts,
            color=_colour(i),
            marker=marker(i),
            markersize=4 if len(counts) > 16 else 6,
            linestyle="none",  # CPUs have no order that a line could mean
            clip_on=False,  # those at 0 stand on the axis, whole
            label=f"{label(run.design)}: {run.tlb_shootdowns:,} in all",
        )
    columns = min(len(runs), 3)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(0, room_above(top, 6.0, len(runs), columns))  # a decade for each row of the legend
    axes.yaxis.set_major_formatter(_plain_number)
    for cpu in quiet_cpus(runs):
        axes.axvspan(cpu - 0.5, cpu + 0.5, color=QUIET_COLOUR, linewidth=0)
    axes.set_xlabel("CPU (grey: none under any design; 0: idle, or not interrupted)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color="#e5e5e5")
    axes.legend(loc="upper left", frameon=False, ncols=columns, fontsize=9, columnspacing=1.2).set_in_layout(
        False
    )


def quiet_cpus(runs: list[Result]) -> list[int]:
    """Give the CPUs that no design has interrupted."""
    cpus = max((len(run.tlb_shootdowns_per_cpu) for run in runs), default=0)
    return [
        cpu for cpu in range(cpus) if not any(run.tlb_shootdowns_per_cpu[cpu : cpu + 1] > [0] for run in runs)
    ]


def _changes_of_many(axes: Any, comparison: Comparison) -> None:
    base, *others = comparison.runs
    rows = [(label(run.design), [_change(base, run, value) for _, value, _ in METRICS]) for run in others]
    if _with_talk(comparison):
        rows.append(("the talk (luf)", [change for _, _, change in METRICS]))
    plot_many.changes(axes, rows, [name for name, _, _ in METRICS], base.design)


def _with_talk(comparison: Comparison) -> bool:
    """Does the talk say something of this comparison?"""
    base, *others = comparison.runs
    has_luf = any(run.design == "luf" for run in others)
    return base.design == "linux" and has_luf and base.workload == talk.WORKLOAD


def draw_changes(axes: Any, comparison: Comparison) -> None:
    """Draw the changes against the first design as bars, with the talk's where they belong."""
    base, others = comparison.runs[0], comparison.runs[1:]
    bars: list[tuple[str, str, list[float | None]]] = [
        (label(run.design), _colour(i), [_change(base, run, value) for _, value, _ in METRICS])
        for i, run in enumerate(others, 1)
    ]
    if _with_talk(comparison):
        bars.append(("the talk (luf)", "white", [change for _, _, change in METRICS]))
    if not bars:
        nothing(axes, "Change", "one design: nothing to compare with")
        return
    axes.set_title(f"Change against {label(base.design)}", loc="left", fontweight="bold")
    width = 0.8 / len(bars)
    values = [value for _, _, bar in bars for value in bar if value is not None]
    low, high = min([*values, 0.0]), max([*values, 0.0])
    for i, (name, colour, bar) in enumerate(bars):
        places = [metric + (i - (len(bars) - 1) / 2) * width for metric in range(len(METRICS))]
        heights = [100 * (value or 0.0) for value in bar]
        edge, hatch = (
            (TALK_COLOUR, "////")
            if colour == "white"
            else ("white", again)
            if (again := pattern(i + 1))
            else (colour, "")
        )
        axes.bar(
            places, heights, width * 0.9, color=colour, label=name, edgecolor=edge, hatch=hatch, linewidth=1
        )
        for place, value, height in zip(places, bar, heights) if len(bars) <= LABELLED_BARS else ():
            text = "-" if value is None else percent(value).replace(" %", "")
            offset, align = (-3, "top") if height <= 0 else (3, "bottom")
            axes.annotate(
                text,
                (place, height),
                (0, offset),
                textcoords="offset points",
                ha="center",
                va=align,
                fontsize=8,
            )
    axes.axhline(0, color="black", linewidth=0.8)
    if high > LINEAR_TO:  # one design that loses tenfold must not flatten all others
        axes.set_yscale("symlog", linthresh=100 * LINEAR_TO)
        axes.yaxis.set_major_formatter(_plain_number)
        axes.set_ylim(100 * low - 12 if low < 0 else 0, 150 * high)
    else:
        axes.set_ylim(100 * low - 12 if low < 0 else 0, 100 * high + 12 if high > 0.02 else 8)
    axes.set_ylabel("%")
    axes.set_xticks(range(len(METRICS)), [name for name, _, _ in METRICS])
    axes.tick_params(axis="x", length=0)
    axes.spines["bottom"].set_visible(False)
    if len(bars) <= LABELLED_BARS:
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1.0, 0.995),
            frameon=False,
            ncols=len(bars),
            fontsize=9,
            columnspacing=1.2,
        )
    else:  # inside, where there is room: above the title they would push the panel out of the picture
        axes.legend(loc="best", frameon=False, ncols=2, fontsize=8).set_in_layout(False)


def _change(base: Result, run: Result, value: Callable[[Result], float]) -> float | None:
    return None if base.stopped or run.stopped or not value(base) else value(run) / value(base) - 1


def _sites(axes: Any, runs: list[Result]) -> None:
    axes.set_title("Shot down by (share of shootdowns)", loc="left", fontweight="bold")
    names = drawn_sites({site for run in runs for site, count in run.flush_sites.items() if count})
    for row, run in enumerate(runs):
        total, start = sum(run.flush_sites.values()), 0.0
        if not total:
            axes.text(0.01, row, "no shootdown", va="center", fontsize=9, color=TALK_COLOUR)
        for site in names:
            colour = site_colour(site)
            share = run.flush_sites.get(site, 0) / total if total else 0.0
            named = label(site) if row == 0 else None
            axes.barh(row, share, left=start, height=0.55, color=colour, edgecolor="white", label=named)
            if share >= SHOWN_SHARE:
                axes.text(
                    start + share / 2,
                    row,
                    f"{share * 100:.0f} %",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color=_ink(colour),
                )
            start += share
    axes.set_yticks(range(len(runs)), [label(run.design) for run in runs])
    axes.set_ylim(max(len(runs), 2) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if names:
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=min(len(names), 4), frameon=False, fontsize=9
        )


def _free_memory(axes: Any, runs: list[Result]) -> None:
    if not any(run.series.t_ns and run.series.free_mib for run in runs):
        nothing(axes, "Free memory", "no samples")
        return
    axes.set_title("Free memory over virtual time", loc="left", fontweight="bold")
    for i, run in enumerate(runs):
        times = [t / 1e6 for t in run.series.t_ns]
        for node, free in enumerate(run.series.free_mib):
            name = run.node_names[node] if node < len(run.node_names) else f"node {node}"
            marked = (
                {"marker": marker(i), "markersize": 4, "markevery": max(1, len(times) // LINE_MARKS)}
                if pattern(i)
                else {}
            )
            style = NODE_LINES[node % len(NODE_LINES)]
            axes.plot(
                times,
                free,
                style,
                color=_colour(i),
                linewidth=1.4,
                label=f"{label(run.design)}, {label(name)}",
                **marked,
            )
    axes.set_xlabel("virtual time, ms")
    axes.set_ylabel("MiB")
    axes.set_yscale("symlog", linthresh=1)  # the pressure is near the bottom
    columns = min(len(runs), 3)
    top = max((mib for run in runs for free in run.series.free_mib for mib in free), default=1.0)
    lines = sum(len(run.series.free_mib) for run in runs)
    axes.set_ylim(0, room_above(max(top, 1.0), 3.0, lines, columns))
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(_plain_number)
    axes.grid(axis="y", color="#e5e5e5")
    axes.legend(loc="upper right", frameon=False, fontsize=9, ncols=columns, columnspacing=1.2).set_in_layout(
        False
    )


def nothing(axes: Any, title: str, why: str) -> None:
    """Say in place of a panel why there is none."""
    axes.set_title(title, loc="left", fontweight="bold")
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color=TALK_COLOUR)
    axes.set_axis_off()
