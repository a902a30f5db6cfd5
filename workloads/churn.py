"""Short-lived memory beside file mappings, under pressure: what the allocator gives out has just been
somebody's file page.

Stands for a server that allocates and frees all the time (slab-like churn; stress-ng's `--vm` beside
`--mmap-file`) while others read files larger than memory. Michal Hocko's objection (linux-mm, June 2024):
with LUF an allocation pays for a flush that somebody else put off. Half of the threads, in one process, store
to random pieces of their own anonymous memory and drop them soon after (MADV_DONTNEED); the other half, in
another, read random pieces of a file of 130 % of all memory.
Parameters: `threads` of both, `pages` of memory of each thread that allocates.
Leaves out: the slab itself; the kernel's own objects are not modelled.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workloads.parameters import THREADS, Parameter, Room
from workloads.rounds import Rounds, Row, visits
from workloads.rows import (
    LOAD,
    MADV_DONTNEED,
    MADVISE,
    PAGE_BYTES,
    STORE,
    Process,
    Region,
    Workload,
    visit,
)

PARAMETERS = {
    "threads": THREADS,
    "pages": Parameter(8, 2**20, "pages of memory of each thread that allocates"),
}
PIECES = 40  # that a thread stores to in a round
USES = 400  # reads of each page of a piece
LIVE = 4  # of these are in use at a time
READ_AHEAD = 32  # pages that a reader goes through at a time
READS = 2000  # of each of them, some 1 us
FILE_SHARE = 1.3
BACK = 40  # pieces later a reader looks at a piece again: 1,280 pages, which a TLB still holds


def churn(room: Room, rounds: int, seed: int, given: Mapping[str, int]) -> Workload:
    """Return the workload."""
    threads = max(2, given.get("threads", room.cpus))
    allocating = threads // 2
    reading = threads - allocating
    pages = given.get("pages", min(512, max(8, room.pages // (8 * allocating))))
    file = max(2 * READ_AHEAD, int(room.pages * FILE_SHARE))
    rng = np.random.default_rng((seed, 14))
    # nobody waits for anybody: who sleeps has a lazy CPU, which is interrupted by nobody
    alone = Rounds(1, rounds)
    made = [
        alone.program([_pieces(rng, k * pages, pages) for _ in range(rounds)], main=k == 0)
        for k in range(allocating)
    ]
    heap = Process("server", (Region("heap", allocating * pages, writable=True),), tuple(made), together=True)
    # all readers together go through about the whole file in a round
    times = max(8, file // (READ_AHEAD * reading))
    made = [
        alone.program([_reads(rng, file, times) for _ in range(rounds)], main=k == 0) for k in range(reading)
    ]
    readers = Process(
        "readers", (Region("file", file, file="churn.dat", shared=True),), tuple(made), together=True
    )
    what = f"{allocating} threads allocate and free, {reading} read a file of {file * PAGE_BYTES >> 20} MiB"
    return Workload("churn", (heap, readers), what, rounds, exact=True)


def _reads(rng: np.random.Generator, file: int, times: int) -> np.ndarray:
    """Rows of a reader and round: pieces anywhere, each once more while the TLB still has it but maybe memory
    does not.
    """
    pieces = rng.integers(0, file - READ_AHEAD, times)
    again = np.concatenate([pieces[: min(BACK, times)], pieces])[:times]
    return visits(0, np.stack([pieces, again], axis=1).ravel(), run=READ_AHEAD, count=READS)


def _pieces(rng: np.random.Generator, first: int, pages: int) -> list[Row]:
    """Rows of one thread and round: store to a piece, read it, drop the one of LIVE pieces ago."""
    rows: list[Row] = []
    live: list[tuple[int, int]] = []
    for _ in range(PIECES):
        size = int(rng.integers(1, max(2, pages // LIVE)))
        at = first + int(rng.integers(0, pages - size + 1))
        rows += [visit(STORE, 0, at, size, 8), visit(LOAD, 0, at, size, USES)]
        live.append((at, size))
        if len(live) > LIVE:
            dropped, length = live.pop(0)
            rows.append((MADVISE, MADV_DONTNEED, 0, length, 0, dropped))
    return rows
