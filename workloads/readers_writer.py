"""Processes map a file read-only and read it again and again; one other process writes, syncs and truncates
it.

Stands for a page cache with readers and one writer: will-it-scale's write1 and ftruncate1 beside mmap
readers, and the cases that Dave Hansen named against LUF (linux-mm, May 2024: a file modified by another
process, pages unmapped lazily). A cold file, larger than memory, is swept beside it, so that reclaim takes
pages of the hot file away while readers have them in their TLBs. Every write(2) must then be seen by all
readers, every truncated page be gone (the oracle checks each load).
Parameters: `threads` of all readers (in at most 8 processes), `pages` of the hot file.
Leaves out: readers that use read(2): they have no translation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workloads.hot_and_cold import HOT, files, readers, sizes, sweep
from workloads.parameters import THREADS, Parameter, Room
from workloads.rounds import LINES, Rounds, Row
from workloads.rows import SYNC, TRUNCATE, WRITE, Process, Workload, control

PARAMETERS = {"threads": THREADS, "pages": Parameter(1, 2**20, "pages of the file that is read and written")}
READERS_MAX = 8
CHANGES = 48  # of the writer in a round
SYNC_EVERY = 8


def readers_writer(room: Room, rounds: int, seed: int, given: Mapping[str, int]) -> Workload:
    """Return the workload."""
    threads, hot, cold = sizes(room, given, others=1)
    rng = np.random.default_rng((seed, 13))
    meetings = Rounds(threads + 1, rounds)
    processes = readers(rng, meetings, hot, cold, threads, processes_max=READERS_MAX, count=LINES)
    writer = meetings.program([_change(rng, hot, cold) for _ in range(rounds)], main=True)
    what = (
        f"{len(processes)} processes, {threads} threads, read a file of {hot} pages; another writes, syncs "
        "and truncates it under pressure"
    )
    processes.append(Process("writer", files(hot, cold), (writer,), together=True))
    return Workload("readers-writer", tuple(processes), what, rounds, exact=True)


def _change(rng: np.random.Generator, hot: int, cold: int) -> list[Row]:
    """Rows of the writer in a round."""
    rows: list[Row] = []
    for number in range(CHANGES):
        op = WRITE if rng.integers(0, 3) else TRUNCATE
        size = int(rng.integers(1, min(8, hot) + 1))
        rows.append(control(op, page=int(rng.integers(0, hot - size + 1)), pages=size, region=HOT))
        rows.append(sweep(rng, cold))
        if number % SYNC_EVERY == SYNC_EVERY - 1:
            rows.append(control(SYNC, page=0, pages=hot, region=HOT))
    return rows
