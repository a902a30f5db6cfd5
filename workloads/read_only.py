"""A share of what is mapped is read-only, the rest writable: shows where LUF pays and where it costs.

The talk: 99 % of the pages that llama.cpp's machine unmaps are read-only ("without RO mappings LUF gains
nothing"). Here the share is asked for: `read-only:0%`, `read-only:50%`, `read-only:99%`. Threads of three
processes sweep two files, each process its own, together of 140 % of all memory: one mapped read-only and
loaded, one mapped shared and writable and stored to. Both are reclaimed alike. Parameters after the share:
`threads` of all, `pages` of all files, `order`: files are cached in large folios of 2^order pages, for which
LUF flushes at once, as vanilla does (can_luf_init).
Leaves out: anonymous memory, which cannot be reclaimed without swap. Pages that are demoted and promoted
count as unmapped, too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workloads.parameters import THREADS, Parameter, Room
from workloads.rounds import Rounds, Row
from workloads.rows import FOLIO_ORDER_MAX, LOAD, PAGE_BYTES, STORE, Process, Region, Workload, visit

PARAMETERS = {
    "share": Parameter(0, 100, "percent of the pages that are mapped read-only"),
    "threads": THREADS,
    "pages": Parameter(192, 2**26, "pages of all files"),
    "order": Parameter(0, FOLIO_ORDER_MAX, "the files are cached in folios of 2^order pages"),
}
PROCESSES = 3
PIECE = 64  # pages swept at a time
ACCESSES = 4000  # on each page, some 2 us: threads compute about as long as they wait for the disk
FILES_SHARE = 1.4


def read_only(room: Room, rounds: int, seed: int, given: Mapping[str, int]) -> Workload:
    """Return the workload."""
    percent, threads = given["share"], max(PROCESSES, given.get("threads", room.cpus))
    pages = given.get("pages", max(192, int(room.pages * FILES_SHARE))) // PROCESSES
    read = pages * percent // 100
    sizes = [("read", read, False), ("written", pages - read, True)]
    rng = np.random.default_rng((seed, 16))
    # nobody waits for anybody: who sleeps has a lazy CPU, which is interrupted by nobody
    alone = Rounds(1, rounds)
    processes = []
    for number in range(PROCESSES):
        regions = tuple(
            Region(
                name,
                size,
                file=f"{name}{number}",
                shared=True,
                writable=writable,
                folio_order=given.get("order", 0),
            )
            for name, size, writable in sizes
            if size
        )
        members = range(number, threads, PROCESSES)
        made = []
        for k in members:
            bodies = [_sweep(rng, regions, len(members)) for _ in range(rounds)]
            made.append(alone.program(bodies, main=k == number))
        processes.append(Process(f"app{number}", regions, tuple(made), together=True))
    what = (
        f"{threads} threads sweep {pages * PROCESSES * PAGE_BYTES >> 20} MiB of files, {percent} % mapped "
        "read-only, the rest written"
    )
    return Workload(f"read-only:{percent}%", tuple(processes), what, rounds, exact=True)


def _sweep(rng: np.random.Generator, regions: tuple[Region, ...], threads: int) -> list[Row]:
    """Rows of one thread and round: pieces anywhere in the files, in all as many as make one sweep of all
    threads.
    """
    rows: list[Row] = []
    for index, region in enumerate(regions):
        piece = min(PIECE, region.pages)
        for _ in range(max(1, region.pages // (piece * threads))):
            rows.append(
                visit(
                    STORE if region.writable else LOAD,
                    index,
                    int(rng.integers(0, region.pages - piece + 1)),
                    piece,
                    ACCESSES,
                )
            )
    return [rows[i] for i in rng.permutation(len(rows))]
