"""What it costs to take a page off the allocator, for the table of docs/results.md that compares who
synchronises (`luf:sync=...`).

The figures are the designs' own (`Result.design_stats`, designs/measure.py); a design that does not measure
take-offs has no row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emulator.report.text import seconds
from emulator.report.timeline import BLOCKS
from emulator.result import Result

COLUMNS = 24
HEAD = (
    "design",
    "shootdowns",
    "flushes",
    "merged",
    "waits",
    "time waited",
    "take-offs that paid",
    "p50",
    "p99",
    "max",
)
LEGEND = """\
A *take-off* is the allocation of one page or block as the design sees it. Most find nothing pending. *p50*,
*p99* and *max* are the virtual times of those that had to *pay*, with a flush of their own or by waiting for
another's. *merged* counts pending frees that a flush for another one settled. *waits* and *time waited* are
of allocators that slept while another CPU flushed, all CPUs together. *clean DRAM* draws the free pages of
the first node with nothing pending, over the run ({columns} columns, each its last sample); *lowest* is their
lowest number. Full height is {top:,} pages, the most that any of these runs had in its second half, when
memory is full; what lay above it before is cut off.
"""


def takeoff_table(runs: Sequence[Result]) -> str:
    """Return legend and Markdown table of the runs that measured take-offs; "" if none did."""
    measured = [run for run in runs if "takeoff_paid" in run.design_stats]
    if not measured:
        return ""
    top = max(max(_settled(run), default=0) for run in measured)
    lines = [LEGEND.format(columns=COLUMNS, top=top), f"| {' | '.join(HEAD)} | clean DRAM | lowest |"]
    lines.append("|---|" + "---:|" * (len(HEAD) - 1) + "---|---:|")
    for run in measured:
        clean = _clean(run)
        lines.append(
            "| "
            + " | ".join([*_figures(run), f"`{blocks(clean, top)}`", f"{min(clean, default=0):,}"])
            + " |"
        )
    return "\n".join(lines) + "\n"


def _figures(run: Result) -> list[str]:
    """Give the cells before the level of clean pages."""
    stats = run.design_stats
    paid, counts = stats["takeoff_paid"], [f"{stats[name]:,}" for name in ("flushes", "merged", "waits")]
    times = [seconds(paid[name] / 1e9) for name in ("p50_ns", "p99_ns", "max_ns")]
    taken = f"{paid['count']:,} of {stats['takeoff']['count']:,}"
    return [run.design, f"{run.tlb_shootdowns:,}", *counts, seconds(stats["wait_ns"] / 1e9), taken, *times]


def _clean(run: Result) -> list[int]:
    level: dict[str, Any] = run.design_stats["clean_pages"]
    return level["node0"]


def _settled(run: Result) -> list[int]:
    level = _clean(run)
    return level[len(level) // 2 :]


def blocks(level: Sequence[int], top: int) -> str:
    """Draw a level over time: a block for each column, from its last sample, cut off at `top`; above 0 it is
    never drawn as nothing.
    """
    if not level or not top:
        return ""
    last = [level[-(-(i + 1) * len(level) // COLUMNS) - 1] for i in range(COLUMNS)]
    return "".join(BLOCKS[-(-min(value, top) * (len(BLOCKS) - 1) // top)] for value in last)
