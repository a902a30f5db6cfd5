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

from workloads.hot_and_cold import HOT, PASSES, files, readers, sizes, sweep
from workloads.parameters import THREADS, Parameter, Room
from workloads.rounds import LINES, Rounds, Row
from workloads.rows import DIRECT_READ, DIRECT_WRITE, LOAD, STORE, Process, Region, Workload, visit

PARAMETERS = {"threads": THREADS, "pages": Parameter(1, 2**20, "pages of the file that is read and written")}
READERS_MAX = 4
MEMORY = 2  # behind HOT and COLD
CALLS = 32  # direct reads and writes in a round
CALL_PAGES = 8  # of one of them, at most
READS = 4000  # of each page, some 2 us: who sleeps has a lazy CPU, which is interrupted by nobody


def direct_io(room: Room, rounds: int, seed: int, given: Mapping[str, int]) -> Workload:
    """Return the workload."""
    threads, hot, cold = sizes(room, given, others=2)
    rng = np.random.default_rng((seed, 17))
    meetings = Rounds(threads + 2, rounds)
    processes = readers(rng, meetings, hot, cold, threads, processes_max=READERS_MAX, count=READS)
    memory = Region("memory", 2 * CALL_PAGES, writable=True)
    caller = meetings.program([_calls(rng, hot, cold) for _ in range(rounds)], main=True)
    user = meetings.program([_uses(rng) for _ in range(rounds)])
    what = (
        f"{len(processes)} processes, {threads} threads, read a file of {hot} pages; another reads and "
        "writes it with O_DIRECT under pressure"
    )
    processes.append(Process("direct", (*files(hot, cold), memory), (caller, user), together=True))
    return Workload("direct-io", tuple(processes), what, rounds, exact=True)


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
        rows.append(sweep(rng, cold))
    return rows


def _uses(rng: np.random.Generator) -> list[Row]:
    """Rows of a round of the thread that reads the memory meanwhile."""
    return [
        visit(LOAD, MEMORY, 0, 2 * CALL_PAGES, int(rng.integers(1, READS))) for _ in range(CALLS * PASSES)
    ]
