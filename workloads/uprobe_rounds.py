"""Processes execute the code of one program; a tracer sets breakpoints in it and takes them away again.

Stands for `perf probe -x` or bpftrace on a busy server, and for the uprobes case that Dave Hansen named
against LUF (linux-mm, May 2024: __replace_page): code is mapped read-only, so what reclaim unmaps of it may
wait for its flush, but a replaced page may not: once the call has returned, no CPU executes the old code. A
file larger than memory is swept beside it. LUF must flush as often as vanilla does here. Parameters:
`threads` that execute (in at most 4 processes), `pages` of code.
Leaves out: the traps and what is done in them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workloads.hot_and_cold import COLD, cold_pages, dealt, pieces, sweep
from workloads.parameters import THREADS, Parameter, Room
from workloads.rounds import Rounds, Row
from workloads.rows import IFETCH, UPROBE, Process, Region, Workload, visit

PARAMETERS = {"threads": THREADS, "pages": Parameter(1, 2**16, "pages of code")}
PROCESSES_MAX = 4
CODE = 0  # the hot region
CODE_PAGES = 64
CHANGES = 24  # pairs of setting and taking away in a round
PASSES = 48  # of each thread through the code in a round
FETCHES = 20_000  # on each page, some 10 us: who sleeps has a lazy CPU, which is interrupted by nobody


def uprobes(room: Room, rounds: int, seed: int, given: Mapping[str, int]) -> Workload:
    """Return the workload."""
    threads = given.get("threads", max(1, room.cpus - 1))
    code, cold = given.get("pages", CODE_PAGES), cold_pages(room)
    rng = np.random.default_rng((seed, 18))
    regions = (
        Region("code", code, file="program", executable=True),
        Region("cold", cold, file="cold", shared=True),
    )
    meetings = Rounds(threads + 1, rounds)

    def server(k: int, main: bool) -> np.ndarray:
        mine = pieces(cold, threads, k, PASSES)
        return meetings.program([_execute(rng, code, mine) for _ in range(rounds)], main)

    processes = dealt("server", regions, threads, PROCESSES_MAX, server)
    tracer = meetings.program([_trace(rng, code, cold) for _ in range(rounds)], main=True)
    what = (
        f"{len(processes)} processes, {threads} threads, execute {code} pages of code; a tracer sets and "
        "removes breakpoints in it"
    )
    processes.append(
        Process("tracer", (Region("code", code, file="program"), regions[COLD]), (tracer,), together=True)
    )
    return Workload("uprobes", tuple(processes), what, rounds, exact=True)


def _execute(rng: np.random.Generator, code: int, cold: list[Row]) -> list[Row]:
    """Rows of one thread and round: before each piece of `cold` the code, from anywhere to its end."""
    rows: list[Row] = []
    for piece in cold:
        first = int(rng.integers(0, code))
        rows += [visit(IFETCH, CODE, first, code - first, FETCHES), piece]
    return rows


def _trace(rng: np.random.Generator, code: int, cold: int) -> list[Row]:
    """Rows of the tracer in a round."""
    rows: list[Row] = []
    for _ in range(CHANGES):
        size = int(rng.integers(1, min(4, code) + 1))
        page = int(rng.integers(0, code - size + 1))
        for kind in (1, 0):
            rows.append((UPROBE, kind, CODE, size, 0, page))
            rows.append(sweep(rng, cold))
    return rows
