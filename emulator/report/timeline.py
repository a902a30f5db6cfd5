"""When did each design flush: requests by site over virtual time, as the talk's last slides draw it, in
blocks of text.

They are counted when they are made (allocator/flush_times.py), so none is missing, and the sums are those of
the table. A result of an older luf may have lost its oldest ones: what is not known is drawn as `?`, never as
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from emulator.result import Result, Timeline

COLUMNS = 80
LABEL = 18
BLOCKS = " ▁▂▃▄▅▆▇█"
UNKNOWN = "?"
ASCII_BLOCKS = " .:-=+*#@"  # for a stream that has no others


def timeline(ram: Any) -> Timeline:
    """Bring the tables of all CPUs of a run that is over to pieces of one length, and add them up."""
    from allocator.flush_sites import SITE_NAMES
    from allocator.flush_times import FIRST_SHIFT, TIME_PIECES

    joined = ram.site_time_joined.tolist()
    counts = np.zeros((TIME_PIECES, len(SITE_NAMES)), np.int64)
    for cpu, times in enumerate(joined):
        own = ram.site_time[cpu].reshape(len(SITE_NAMES), TIME_PIECES)
        np.add.at(counts, np.arange(TIME_PIECES) >> (max(joined) - times), own.T)
    used = 1 + int(np.flatnonzero(counts.any(axis=1)).max(initial=0))
    ended = ram.proc_end_ns[: ram.nr_processes]  # 0: a violation came first
    return Timeline(
        end_ns=max(int(ended.max(initial=0) if ended.all() else ram.cpu_clock.max()), 1),
        piece_ns=1 << (FIRST_SHIFT + max(joined)),
        sites={name: counts[:used, i].tolist() for i, name in enumerate(SITE_NAMES) if counts[:, i].any()},
    )


def in_columns(line: Timeline, site: str, axis_ns: float, columns: int = COLUMNS) -> list[int]:
    """Give the requests of a site in columns of an axis; what is behind its end goes into the last one."""
    found = [0] * columns
    for middle, count in line.pieces(site):
        found[min(int(middle / axis_ns * columns), columns - 1)] += count
    return found


def unknown_columns(line: Timeline, axis_ns: float, columns: int = COLUMNS) -> int:
    """Give how many columns lie before the time from which on nothing is missing."""
    return math.ceil(line.complete_from_ns / axis_ns * columns) if line.rings_wrapped else 0


def timeline_text(runs: Sequence[Result], blocks: str = BLOCKS) -> str:
    """Return a row of `blocks` for each design and site, all on one axis and to one scale; "" if no run has a
    timeline.
    """
    axis_ns = max((run.timeline.end_ns for run in runs), default=0)
    if not axis_ns:
        return ""
    rows = {
        run.design: {site: in_columns(run.timeline, site, axis_ns) for site in run.timeline.sites}
        for run in runs
    }
    top = max((count for sites in rows.values() for counts in sites.values() for count in counts), default=0)
    width = max(map(len, rows)) + 2
    axis = f"0{f'{axis_ns / 1e6:,.1f} ms':>{COLUMNS - 1}}"
    lines = [
        "when it flushed: CPUs asked to, by what the asking CPU was doing, over virtual time",
        " " * (width + LABEL) + axis,
    ]
    for run in runs:
        sites = sorted(rows[run.design].items(), key=lambda pair: -sum(pair[1]))
        for i, (site, counts) in enumerate(sites):
            unknown = unknown_columns(run.timeline, axis_ns)
            heights = UNKNOWN * unknown + "".join(_block(count, top, blocks) for count in counts[unknown:])
            lines.append(f"{run.design if i == 0 else '':<{width}}{site:<{LABEL}}{heights}  {sum(counts):,}")
        if not sites:
            lines.append(f"{run.design:<{width}}{_nobody(run)}")
    if top:
        lines.append(
            f"{blocks[-1]} is {top:,} in {axis_ns / COLUMNS / 1e6:,.2f} ms; {blocks[1]} at least one"
        )
    lines += [_missing(run) for run in runs if run.timeline.rings_wrapped]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _block(count: int, top: int, blocks: str) -> str:
    return blocks[-(-count * (len(blocks) - 1) // top)] if count else blocks[0]


def _nobody(run: Result) -> str:
    """Say why a run has no row."""
    line = run.timeline
    if not line.end_ns:
        return "no timeline in this result"
    return "nobody" if not line.rings_wrapped else f"nobody after {line.complete_from_ns / 1e6:,.1f} ms"


def _missing(run: Result) -> str:
    """Say what the rings of an older luf did not hold."""
    line = run.timeline
    rings = f"the event rings of {line.rings_wrapped} CPU{'s' * (line.rings_wrapped > 1)} wrapped"
    until = f"{line.complete_from_ns / 1e6:,.1f} ms"
    return (
        f"{run.design}: {rings}: what was before {until} is not known ({UNKNOWN}), and the sums are too small"
    )
