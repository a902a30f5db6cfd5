"""When did each design flush: shootdowns by site over virtual time, as the talk's last slides draw it, in
blocks of text.

Counted from the event rings when a run is over (an EV_SHOOTDOWN has the CPU that asked, its site, and how
many CPUs it interrupted), so the hot path has no counter for it. A ring keeps the last EVENT_RING events of a
CPU; where one has wrapped, what is older is missing, and `complete_from_ns` says from when on nothing is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from emulator.result import Result, Timeline

BINS = 240
COLUMNS = 80
LABEL = 18
BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII_BLOCKS = " .:-=+*#@"  # for a stream that has no others


def timeline(ram: Any) -> Timeline:
    """Count the shootdowns that the rings still hold: CPUs interrupted, by site, in BINS equal pieces of the
    run.
    """
    from allocator.flush_sites import SITE_NAMES
    from cpus.events import EV_SHOOTDOWN
    from cpus.layout import EVENT_RING, EVENT_WORDS

    end = max(int(ram.proc_end_ns[: ram.nr_processes].max()), 1)
    counts = np.zeros((len(SITE_NAMES), BINS), np.int64)
    wrapped, complete_from = 0, 0
    for cpu, head in enumerate(ram.cpu_event_head.tolist()):
        rows = ram.event[cpu].reshape(EVENT_RING, EVENT_WORDS)[: min(head, EVENT_RING)]
        if head > EVENT_RING:
            wrapped += 1
            complete_from = max(complete_from, int(rows[head % EVENT_RING, 1]))
        rows = rows[rows[:, 2] == EV_SHOOTDOWN]
        # kernel threads go on for a moment after the last program's end
        bins = np.clip(rows[:, 1] * BINS // end, 0, BINS - 1)
        np.add.at(counts, (rows[:, 5], bins), rows[:, 4])
    sites = {name: counts[i].tolist() for i, name in enumerate(SITE_NAMES) if counts[i].any()}
    return Timeline(end_ns=end, sites=sites, rings_wrapped=wrapped, complete_from_ns=complete_from)


def rebinned(counts: Sequence[int], end_ns: int, axis_ns: int, columns: int = COLUMNS) -> list[int]:
    """Give the counts of a run that took `end_ns` in columns of an axis of `axis_ns`, which is at least as
    long.
    """
    found = [0] * columns
    for i, count in enumerate(counts):
        middle = (i + 0.5) / len(counts) * end_ns
        found[min(int(middle / axis_ns * columns), columns - 1)] += count
    return found


def timeline_text(runs: Sequence[Result], blocks: str = BLOCKS) -> str:
    """Return a row of `blocks` for each design and site, all on one axis and to one scale; "" if no run has a
    timeline.
    """
    axis_ns = max((run.timeline.end_ns for run in runs), default=0)
    if not axis_ns:
        return ""
    rows = {
        run.design: {
            site: rebinned(counts, run.timeline.end_ns, axis_ns)
            for site, counts in run.timeline.sites.items()
        }
        for run in runs
    }
    top = max((count for sites in rows.values() for counts in sites.values() for count in counts), default=0)
    width = max(map(len, rows)) + 2
    axis = f"0{f'{axis_ns / 1e6:,.1f} ms':>{COLUMNS - 1}}"
    lines = [
        "when it flushed: CPUs interrupted, by what the asking CPU was doing, over virtual time",
        " " * (width + LABEL) + axis,
    ]
    for run in runs:
        sites = sorted(rows[run.design].items(), key=lambda pair: -sum(pair[1]))
        for i, (site, counts) in enumerate(sites):
            heights = "".join(_block(count, top, blocks) for count in counts)
            lines.append(f"{run.design if i == 0 else '':<{width}}{site:<{LABEL}}{heights}  {sum(counts):,}")
        if not sites:
            lines.append(f"{run.design:<{width}}nobody")
    if top:
        lines.append(
            f"{blocks[-1]} is {top:,} in {axis_ns / COLUMNS / 1e6:,.2f} ms; {blocks[1]} at least one"
        )
    lines += [_missing(run) for run in runs if run.timeline.rings_wrapped]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _block(count: int, top: int, blocks: str) -> str:
    return blocks[-(-count * (len(blocks) - 1) // top)] if count else blocks[0]


def _missing(run: Result) -> str:
    """Say what the rings did not hold."""
    line = run.timeline
    rings = f"the event rings of {line.rings_wrapped} CPU{'s' * (line.rings_wrapped > 1)} wrapped"
    return f"{run.design}: {rings}; some of what was before {line.complete_from_ns / 1e6:,.1f} ms is missing"
