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

from workloads.parameters import THREADS, Parameter, Room
from workloads.rounds import LINES, Rounds, Row, share
from workloads.rows import LOAD, SYNC, TRUNCATE, WRITE, Process, Region, Workload, control, visit

PARAMETERS = {"threads": THREADS, "pages": Parameter(1, 2**20, "pages of the file that is read and written")}
READERS_MAX = 8
HOT, COLD = range(2)
# as many as a TLB holds, and too many for all of them to stay in memory: the oracle catches who does not
# flush
HOT_PAGES = 1000
CHANGES = 48  # of the writer in a round
SWEEP = 32  # pages of the cold file between two changes
PASSES = 12  # of each reader through the hot file in a round
SYNC_EVERY = 8


def readers_writer(room: Room, rounds: int, seed: int, given: Mapping[str, int]) -> Workload:
    """Return the workload."""
    threads = given.get("threads", max(1, room.cpus - 1))
    hot, cold = given.get("pages", max(64, min(HOT_PAGES, room.pages // 32))), max(1024, room.pages * 5 // 4)
    rng = np.random.default_rng((seed, 13))
    regions = (Region("hot", hot, file="hot", shared=True), Region("cold", cold, file="cold", shared=True))
    meetings = Rounds(threads + 1, rounds)
    count = min(READERS_MAX, threads)
    processes = []
    for number in range(count):
        made = []
        for k in range(number, threads, count):
            part, size = share(cold, threads, k)
            bodies = [_read(rng, hot, part, size) for _ in range(rounds)]
            made.append(meetings.program(bodies, main=k == number))
        processes.append(Process(f"reader{number}", regions, tuple(made), together=True))
    writer = meetings.program([_change(rng, hot, cold) for _ in range(rounds)], main=True)
    what = (
        f"{count} processes, {threads} threads, read a file of {hot} pages; another writes, syncs and "
        "truncates it under pressure"
    )
    processes.append(Process("writer", regions, (writer,), together=True))
    return Workload("readers-writer", tuple(processes), what, rounds, exact=True)


def _read(rng: np.random.Generator, hot: int, part: int, size: int) -> list[Row]:
    """Rows of one reader and round: the hot file from anywhere on, and a piece of the reader's own share of
    the cold one.
    """
    rows: list[Row] = []
    piece = max(1, size // PASSES)
    for number in range(PASSES):
        first = int(rng.integers(0, hot))
        rows.append(visit(LOAD, HOT, first, hot - first, LINES))
        if first:
            rows.append(visit(LOAD, HOT, 0, first, LINES))
        at = min(number * piece, size - piece)
        rows.append(visit(LOAD, COLD, part + at, piece, 4))
    return rows


def _change(rng: np.random.Generator, hot: int, cold: int) -> list[Row]:
    """Rows of the writer in a round."""
    rows: list[Row] = []
    for number in range(CHANGES):
        op = WRITE if rng.integers(0, 3) else TRUNCATE
        size = int(rng.integers(1, min(8, hot) + 1))
        rows.append(control(op, page=int(rng.integers(0, hot - size + 1)), pages=size, region=HOT))
        rows.append(visit(LOAD, COLD, int(rng.integers(0, cold - SWEEP)), SWEEP))
        if number % SYNC_EVERY == SYNC_EVERY - 1:
            rows.append(control(SYNC, page=0, pages=hot, region=HOT))
    return rows
