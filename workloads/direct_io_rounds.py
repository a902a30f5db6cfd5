"""Processes map a file read-only; another one reads and writes it past the page cache, into and from its own
memory (O_DIRECT).

Stands for a database or a backup beside readers through mmap, and for one of Dave Hansen's cases against LUF
(linux-mm, May 2024: content that changes without a write through the page cache). A cold file, larger than
memory, is swept beside it, so that reclaim takes pages of the hot file away while readers have them in their
TLBs; a direct write finds nothing in the cache then, and every reader must see what it wrote all the same.
The device writes what a direct read brings into pinned pages, which a second thread of the process reads
meanwhile. Parameters: `threads` of all readers (in at most 4 processes), `pages` of the hot file.
Leaves out: asynchronous I/O, read(2) through the cache.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workloads.parameters import THREADS, Parameter, Room
from workloads.rounds import LINES, Rounds, Row, share
from workloads.rows import DIRECT_READ, DIRECT_WRITE, LOAD, STORE, Process, Region, Workload, visit

PARAMETERS = {"threads": THREADS, "pages": Parameter(1, 2**20, "pages of the file that is read and written")}
READERS_MAX = 4
HOT, COLD, MEMORY = range(3)
CALLS = 32  # direct reads and writes in a round
CALL_PAGES = 8  # of one of them, at most
SWEEP = 32  # pages of the cold file between two calls
HOT_PAGES = 1000  # as many as a TLB holds, and too many for all of them to stay in memory
PASSES = 12  # of each reader through the hot file in a round
READS = 4000  # of each page, some 2 us: who sleeps has a lazy CPU, which is interrupted by nobody


def direct_io(room: Room, rounds: int, seed: int, given: Mapping[str, int]) -> Workload:
    """Return the workload."""
    threads = given.get("threads", max(1, room.cpus - 2))
    hot, cold = given.get("pages", max(64, min(HOT_PAGES, room.pages // 32))), max(1024, room.pages * 5 // 4)
    rng = np.random.default_rng((seed, 17))
    files = (Region("hot", hot, file="hot", shared=True), Region("cold", cold, file="cold", shared=True))
    meetings = Rounds(threads + 2, rounds)
    count = min(READERS_MAX, threads)
    processes = []
    for number in range(count):
        made = []
        for k in range(number, threads, count):
            part, size = share(cold, threads, k)
            bodies = [_reads(rng, hot, part, size) for _ in range(rounds)]
            made.append(meetings.program(bodies, main=k == number))
        processes.append(Process(f"reader{number}", files, tuple(made), together=True))
    memory = Region("memory", 2 * CALL_PAGES, writable=True)
    caller = meetings.program([_calls(rng, hot, cold) for _ in range(rounds)], main=True)
    user = meetings.program([_uses(rng) for _ in range(rounds)])
    processes.append(Process("direct", (*files, memory), (caller, user), together=True))
    what = (
        f"{count} processes, {threads} threads, read a file of {hot} pages; another reads and writes it "
        "with O_DIRECT under pressure"
    )
    return Workload("direct-io", tuple(processes), what, rounds, exact=True)


def _reads(rng: np.random.Generator, hot: int, part: int, size: int) -> list[Row]:
    """Rows of one reader and round: the hot file from anywhere on, and a piece of the reader's own share of
    the cold one.
    """
    rows: list[Row] = []
    piece = max(1, size // PASSES)
    for number in range(PASSES):
        first = int(rng.integers(0, hot))
        rows += [visit(LOAD, HOT, first, hot - first, READS), visit(LOAD, HOT, 0, first, READS)][
            : 2 if first else 1
        ]
        rows.append(visit(LOAD, COLD, part + min(number * piece, size - piece), piece, 4))
    return rows


def _calls(rng: np.random.Generator, hot: int, cold: int) -> list[Row]:
    """Rows of a round of the thread that calls: new contents for the memory, and then to or from the file."""
    rows: list[Row] = []
    for _ in range(CALLS):
        size = int(rng.integers(1, min(CALL_PAGES, hot) + 1))
        at, page = int(rng.integers(0, 2 * CALL_PAGES - size + 1)), int(rng.integers(0, hot - size + 1))
        op = DIRECT_WRITE if rng.integers(0, 3) else DIRECT_READ
        if op == DIRECT_WRITE:
            rows.append(visit(STORE, MEMORY, at, size, LINES))
        rows += [(op, MEMORY, HOT, size, at, page), visit(LOAD, MEMORY, at, size, LINES)]
        rows.append(visit(LOAD, COLD, int(rng.integers(0, cold - SWEEP)), SWEEP))
    return rows


def _uses(rng: np.random.Generator) -> list[Row]:
    """Rows of a round of the thread that reads the memory meanwhile."""
    return [
        visit(LOAD, MEMORY, 0, 2 * CALL_PAGES, int(rng.integers(1, READS))) for _ in range(CALLS * PASSES)
    ]
