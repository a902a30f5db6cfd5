"""Tell a violation as a proof: the last events that touched its frame and page, merged over all CPUs from
their rings.

Reads the RAM after the run has stopped. Left out: events that the rings no longer hold (the text says so),
drawing (Perfetto comes with the traces).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cpus.abi.numbers import PAGE_BYTES
from cpus.events import EV_FILL, EV_FLUSH, EV_FREE, EV_MAP, EV_MIGRATE, EV_TAKE, EV_UNMAP
from cpus.layout import EVENT_RING, EVENT_WORDS, VIOLATIONS_KEPT
from cpus.oracle import NOBODY, VERSION_BITS, VERSION_MASK, VIOLATIONS
from cpus.page_table import PTE_WRITE
from emulator.build import file_sizes
from emulator.judge.traces import CPU_MASK, actor, kept_lines
from workloads.rows import Workload

LET_AT_MOST = 8


class Names:
    """Words for logical pages, address spaces and tasks of one run."""

    def __init__(self, ram: Any, workload: Workload):
        self.ram = ram
        self.files: list[tuple[int, int, str]] = []
        self.anonymous: dict[int, str] = {}
        first = 0
        for name, pages in file_sizes(workload).items():
            self.files.append((first, pages, f"file {name}"))
            first += pages
        for p, process in enumerate(workload.processes):
            for i, region in enumerate(process.regions):
                self.anonymous.setdefault(int(ram.proc_anon[p, i]), f"anon {region.name} of {process.name}")

    def logical(self, number: int) -> str:
        """`file model1, page 66`; what the kernel uses has no logical page."""
        if number == NOBODY:
            return "memory that was handed out again"
        if number == self.ram.zero_logical:
            return "the zero page"
        for first, pages, name in self.files:
            if first <= number < first + pages:
                return f"{name}, page {number - first}"
        own = number - self.ram.first_anon_logical
        thing = int(self.ram.anon_object[own])
        return (
            f"{self.anonymous.get(thing, f'anonymous memory {thing}')}, page {int(self.ram.anon_index[own])}"
        )

    def word(self, word: int) -> str:
        """A content word: its page and version."""
        if word >> VERSION_BITS == NOBODY:
            return self.logical(NOBODY)
        return f"{self.logical(word >> VERSION_BITS)}, version {word & VERSION_MASK}"


def merged_events(ram: Any) -> np.ndarray:
    """Give all events that the rings still hold, in their total order: rows of EVENT_WORDS words."""
    rows = []
    for cpu in range(ram.nr_cpus):
        count = min(int(ram.cpu_event_head[cpu]), EVENT_RING)
        rows.append(ram.event[cpu].reshape(EVENT_RING, EVENT_WORDS)[:count])
    events = np.concatenate(rows)
    return events[np.argsort(events[:, 0], kind="stable")]


def violations(ram: Any, workload: Workload, design: str) -> list[dict[str, Any]]:
    """Give every recorded violation with its witness, as plain data for the report and the JSON."""
    count = min(int(ram.run_violations[0]), VIOLATIONS_KEPT)
    if count == 0:
        return []
    names = Names(ram, workload)
    events = merged_events(ram)
    return [_one(ram, names, events, ram.violation[i].tolist()) for i in range(count) if ram.violation[i, 0]]


def _one(ram: Any, names: Names, events: np.ndarray, record: list[int]) -> dict[str, Any]:
    what, cpu, vpn, pfn, expected, found, at_ns, filled_ns, mm, sequence, task, entry = record[:12]
    before = events[events[:, 0] <= sequence]
    told = _related(ram, names, before, pfn, mm, vpn)
    freed = [e for e in told if e["kind"] == EV_FREE]
    return {
        "kind": VIOLATIONS[what],
        "cpu": cpu,
        "t_ns": at_ns,
        "access": _access(ram, entry),
        "address": vpn * PAGE_BYTES,
        "page": vpn,
        "mm": mm,
        "task": task,
        "frame": pfn,
        "filled_ns": filled_ns,
        "expected": names.word(expected),
        "found": names.word(found),
        "however": _however(before, cpu, mm, vpn, told)
        if freed or told
        else "the event rings no longer hold what happened to the frame",
        "events": [
            {"t_ns": e["t_ns"], "actor": e["actor"], "what": e["what"]}
            for e in _with_traces(ram, told, sequence, pfn, vpn)
        ],
    }


def _access(ram: Any, entry: int) -> str:
    """Tell by the first-level TLB that an entry lies in what kind of access used it."""
    if entry < ram.store_base:
        return "load"
    return "store" if entry < ram.itlb_base else "fetch"


def _however(events: np.ndarray, cpu: int, mm: int, vpn: int, told: list[dict[str, Any]]) -> str:
    """Say whether the CPU flushed this page between the unmap and the access."""
    unmaps = [e for e in told if e["kind"] == EV_UNMAP]
    since = unmaps[0]["sequence"] if unmaps else 0
    mine = events[
        (events[:, 2] == EV_FLUSH)
        & (events[:, 7] & CPU_MASK == cpu)
        & (events[:, 0] > since)
        & (events[:, 3] == mm)
    ]
    full = mine[:, 4] < 0
    flushed = mine[full | ((mine[:, 4] <= vpn) & (vpn < mine[:, 4] + mine[:, 5]))]
    start = f"after {unmaps[0]['t_ns'] / 1000:,.1f} us" if unmaps else "in what the event rings hold"
    if len(flushed) == 0:
        return f"cpu{cpu} did not flush this page {start}."
    return (
        f"cpu{cpu} flushed this page {len(flushed)} times {start}, and filled the entry "
        "again from what it found."
    )


def _related(ram: Any, names: Names, events: np.ndarray, pfn: int, mm: int, vpn: int) -> list[dict[str, Any]]:
    """Pick the events about the frame from the unmap on that left the entry stale (in sequence, not by
    clock).

    If the rings no longer hold that one: from the last unmap before the frame was handed out again.
    """
    about = np.isin(events[:, 2], (EV_MAP, EV_UNMAP, EV_FREE, EV_TAKE, EV_FILL, EV_MIGRATE)) & (
        events[:, 3] == pfn
    )
    rows = events[about]
    own = np.flatnonzero((rows[:, 2] == EV_UNMAP) & (rows[:, 4] == mm) & (rows[:, 5] == vpn))
    if len(own):  # the very mapping that the entry was filled from
        return [_tell(ram, names, row.tolist()) for row in rows[own[-1] :][:LET_AT_MOST]]
    # the frame left the page that the entry was filled for
    left = np.flatnonzero(np.isin(rows[:, 2], (EV_TAKE, EV_MIGRATE)))
    until = left[-1] if len(left) else len(rows)
    stale = np.flatnonzero(rows[:until, 2] == EV_UNMAP)
    rows = rows[stale[-1] :] if len(stale) else rows[-LET_AT_MOST:]
    return [_tell(ram, names, row.tolist()) for row in rows[:LET_AT_MOST]]


RELATED = {
    EV_UNMAP: "unmap frame {a} from mm {b} at {at:#x} ({how})",
    EV_MAP: "map frame {a} in mm {b} at {at:#x}",
    EV_FREE: "free frame {a}{key}",
    EV_TAKE: "take frame {a} of node {b} in rmqueue",
    EV_FILL: "read page {c} of object {b} into frame {a}",
    EV_MIGRATE: "move frame {a} to frame {b}",
}


def _tell(ram: Any, names: Names, row: list[int]) -> dict[str, Any]:
    sequence, t_ns, kind, a, b, c, d, who = row
    what = RELATED.get(kind, "event {kind}").format(
        kind=kind,
        a=a,
        b=b,
        c=c,
        at=c * PAGE_BYTES,
        how="writable" if d & PTE_WRITE else "read-only",
        key=f" with key {d}" if d else "",
    )
    return {"sequence": sequence, "t_ns": t_ns, "kind": kind, "actor": actor(ram, who), "what": what}


def _with_traces(
    ram: Any, told: list[dict[str, Any]], until: int, pfn: int, vpn: int
) -> list[dict[str, Any]]:
    """Put lines of `trace` among the events, from the first that is told on: those that have the frame or the
    page among their values, or else the last ones.
    """
    since = told[0]["sequence"] if told else 0
    lines = [line for line in kept_lines(ram) if since <= line.sequence <= until]
    about = [line for line in lines if {pfn, vpn} & set(line.values)]
    said = about[:LET_AT_MOST] or lines[-LET_AT_MOST:]
    traces = [
        {
            "sequence": line.sequence,
            "t_ns": line.t_ns,
            "actor": actor(ram, line.who),
            "what": f"trace: {line.said}",
        }
        for line in said
    ]
    return sorted([*told, *traces], key=lambda one: one["sequence"])  # a line stands behind its event
