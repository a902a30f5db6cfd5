"""XSBench: threads look up cross sections in a large table that is written once and then only read.

Stands for XSBench (Argonne, github.com/ANL-CESAR/XSBench, Simulation.c: a look-up searches the unionized
energy grid for a random energy, then reads the grid points of each nuclide of a random material), the
workload of the series' first versions (migrc v1 to v8: `XSBench -p 50000000` on 16 CPUs with 1 GB + 8 GB).
Its table is malloc'ed, so mapped writable although nobody writes: what LUF can defer there is the program's
text. Tiers change only by NUMA balancing, whose scanner begins after a second: give it `--set
sysctl.numa_balancing_scan_delay_ms=0 --set sysctl.numa_balancing_scan_period_min_ms=1`. `file=1` maps the
table read-only from a file instead, as llama.cpp does its model.
Parameters: `threads`, `pages` of the table (default: 60 % of all memory; a file: 150 %), `file`, `lookups` of
each thread and round. A row is a page touched: 4 steps of the binary search (of some 20, the others stay in
the CPU's caches), and `NUCLIDES` grid points. Leaves out: arithmetic, the materials' shares (they only weigh
how many nuclides there are), huge pages.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workloads.parameters import THREADS, Parameter, Room
from workloads.rounds import LINES, Rounds, share, visits
from workloads.rows import IFETCH, LOAD, PAGE_BYTES, ROW, STORE, Process, Region, Workload, visit

PARAMETERS = {
    "threads": THREADS,
    "pages": Parameter(64, 2**26, "pages of the table"),
    "file": Parameter(0, 1, "1: the table is a file mapped read-only"),
    "lookups": Parameter(1, 100_000, "look-ups of each thread in a round"),
}
TABLE, TEXT, STACK = range(3)
SEARCH, NUCLIDES = 4, 12
TEXT_PAGES = 24  # of XSBench and the parts of libm and libgomp that a look-up runs through
INDEX_SHARE = 0.1  # of the table is the grid that is searched


def xsbench(room: Room, rounds: int, seed: int, given: Mapping[str, int]) -> Workload:
    """Return the workload."""
    threads, file = given.get("threads", room.cpus), bool(given.get("file", 0))
    lookups = given.get("lookups", 25 if file else 1000)
    pages = given.get("pages", max(64, int(room.pages * (1.5 if file else 0.6))))
    rng = np.random.default_rng((seed, 11))
    table = Region("table", pages, file="xs_table" if file else None, shared=file, writable=not file)
    text = Region("text", TEXT_PAGES, file="XSBench", executable=True)
    regions = (table, text, Region("stack", threads, writable=True))
    together, alone = Rounds(threads, 1), Rounds(1, rounds)  # they meet when the table is there
    made = []
    for k in range(threads):
        first, size = share(pages, threads, k)
        # fill it, or read it in
        begin = [visit(LOAD if file else STORE, TABLE, first, size, LINES), visit(STORE, STACK, k)]
        looked_up = [_lookups(rng, k, pages, lookups) for _ in range(rounds)]
        made.append(np.concatenate([together.program([begin]), alone.program(looked_up, main=k == 0)]))
    kind = "a file mapped read-only" if file else "anonymous memory"
    what = f"{threads} threads look up cross sections in {pages * PAGE_BYTES >> 20} MiB of {kind}"
    return Workload(
        "xsbench", (Process("XSBench", regions, tuple(made), together=True),), what, rounds, exact=True
    )


def _lookups(rng: np.random.Generator, thread: int, pages: int, lookups: int) -> np.ndarray:
    """Rows of one thread and round: instructions, the search, the grid points."""
    index = max(1, int(pages * INDEX_SHARE))
    rows = np.zeros((lookups, SEARCH + NUCLIDES + 2), ROW)
    rows[:, 0] = np.array(visit(IFETCH, TEXT, 0, TEXT_PAGES, 20), ROW)
    rows[:, 1] = np.array(visit(STORE, STACK, thread, 1, 20), ROW)
    rows[:, 2 : 2 + SEARCH] = visits(TABLE, rng.integers(0, index, lookups * SEARCH)).reshape(lookups, SEARCH)
    rows[:, 2 + SEARCH :] = visits(TABLE, rng.integers(index, pages, lookups * NUCLIDES), count=2).reshape(
        lookups, NUCLIDES
    )
    return rows.ravel()
