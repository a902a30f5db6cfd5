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

from workloads.parameters import THREADS, Parameter, Room
from workloads.rounds import Rounds, Row, share
from workloads.rows import IFETCH, LOAD, UPROBE, Process, Region, Workload, visit

PARAMETERS = {"threads": THREADS, "pages": Parameter(1, 2**16, "pages of code")}
PROCESSES_MAX = 4
CODE, COLD = range(2)
CODE_PAGES = 64
CHANGES = 24  # pairs of setting and taking away in a round
SWEEP = 32  # pages of the cold file between two changes
PASSES = 48  # of each thread through the code in a round
FETCHES = 20_000  # on each page, some 10 us: who sleeps has a lazy CPU, which is interrupted by nobody


def uprobes(room: Room, rounds: int, seed: int, given: Mapping[str, int]) -> Workload:
    """Return the workload."""
    threads = given.get("threads", max(1, room.cpus - 1))
    code, cold = given.get("pages", CODE_PAGES), max(1024, room.pages * 5 // 4)
    rng = np.random.default_rng((seed, 18))
    regions = (
        Region("code", code, file="program", executable=True),
        Region("cold", cold, file="cold", shared=True),
    )
    meetings = Rounds(threads + 1, rounds)
    count = min(PROCESSES_MAX, threads)
    processes = []
    for number in range(count):
        made = []
        for k in range(number, threads, count):
            part, size = share(cold, threads, k)
            made.append(
                meetings.program([_execute(rng, code, part, size) for _ in range(rounds)], main=k == number)
            )
        processes.append(Process(f"server{number}", regions, tuple(made), together=True))
    tracer = meetings.program([_trace(rng, code, cold) for _ in range(rounds)], main=True)
    processes.append(
        Process("tracer", (Region("code", code, file="program"), regions[COLD]), (tracer,), together=True)
    )
    what = (
        f"{count} processes, {threads} threads, execute {code} pages of code; a tracer sets and "
        "removes breakpoints in it"
    )
    return Workload("uprobes", tuple(processes), what, rounds, exact=True)


def _execute(rng: np.random.Generator, code: int, part: int, size: int) -> list[Row]:
    """Rows of one thread and round: through the code, and a piece of the thread's share of the cold file."""
    rows: list[Row] = []
    piece = max(1, size // PASSES)
    for number in range(PASSES):
        first = int(rng.integers(0, code))
        rows.append(visit(IFETCH, CODE, first, code - first, FETCHES))
        rows.append(visit(LOAD, COLD, part + min(number * piece, size - piece), piece, 4))
    return rows


def _trace(rng: np.random.Generator, code: int, cold: int) -> list[Row]:
    """Rows of the tracer in a round."""
    rows: list[Row] = []
    for _ in range(CHANGES):
        size = int(rng.integers(1, min(4, code) + 1))
        page = int(rng.integers(0, code - size + 1))
        for kind in (1, 0):
            rows.append((UPROBE, kind, CODE, size, 0, page))
            rows.append(visit(LOAD, COLD, int(rng.integers(0, cold - SWEEP)), SWEEP))
    return rows
