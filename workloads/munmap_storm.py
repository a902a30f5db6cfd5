"""Threads map, touch, unmap, protect and drop their own memory over and over, and check what they read (the oracle does).

Stands for will-it-scale's tlb_flush1 to tlb_flush3 (github.com/antonblanchard/will-it-scale, tests/tlb_flush*.c: touch, MADV_DONTNEED,
assert, count) and `stress-ng --tlb-shootdown` (mprotect). Threads of a process share its address space, so each change interrupts all
CPUs that run it. LUF must gain nothing here: these flushes are due before the call returns.
Parameters: `threads` (in processes of at most 32), `pages` of each thread.
Leaves out: rates; files (tlb_flush1 and 3; readers-writer has them).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workloads.parameters import THREADS, Parameter, Room
from workloads.program import (
    LOAD,
    MADV_DONTNEED,
    MADVISE,
    MMAP,
    MPROTECT,
    MUNMAP,
    PROT_READ,
    PROT_WRITE,
    STORE,
    Process,
    Region,
    Workload,
    control,
    visit,
)
from workloads.rounds import Rounds, Row

PARAMETERS = {"threads": THREADS, "pages": Parameter(1, 4096, "pages of each thread")}
THREADS_OF_A_PROCESS = 32
TIMES = 6  # changes of a thread in a round
HEAP, COMMON = range(2)
COMMON_PAGES = 8
UNMAP, PROTECT, DROP = range(3)


def munmap_storm(room: Room, rounds: int, seed: int, given: Mapping[str, int]) -> Workload:
    """Return the workload."""
    threads, pages = given.get("threads", room.cpus), given.get("pages", 32)
    pages = min(pages, max(1, room.pages // (4 * threads))) if "pages" not in given else pages
    rng = np.random.default_rng((seed, 12))
    alone = Rounds(1, rounds)  # nobody waits for anybody: who sleeps has a lazy CPU, which is interrupted by nobody
    processes = []
    for number, first in enumerate(range(0, threads, THREADS_OF_A_PROCESS)):
        members = min(THREADS_OF_A_PROCESS, threads - first)
        regions = (Region("heap", members * pages, writable=True), Region("common", COMMON_PAGES, writable=True))
        made = [
            alone.program([_changes(rng, k * pages, pages) for _ in range(rounds)], main=k == 0) for k in range(members)
        ]  # fmt: skip
        processes.append(Process(f"storm{number}", regions, tuple(made), together=True))
    what = f"{threads} threads map, touch, unmap, protect and drop {pages} pages each, and check what they read"
    return Workload("munmap-storm", tuple(processes), what, rounds, exact=True)


def _changes(rng: np.random.Generator, first: int, pages: int) -> list[Row]:
    """Rows of one thread and round."""
    rows: list[Row] = []
    for _ in range(TIMES):
        size = int(rng.integers(1, pages + 1))
        at = first + int(rng.integers(0, pages - size + 1))
        area = {"page": at, "pages": size, "region": HEAP}
        rows += [visit(STORE, HEAP, at, size, 4), visit(LOAD, HEAP, first, pages, 4), visit(LOAD, COMMON, 0, COMMON_PAGES)]
        change = int(rng.integers(0, 3))
        if change == UNMAP:
            rows += [control(MUNMAP, **area), control(MMAP, **area)]
        elif change == PROTECT:
            rows += [_kind(MPROTECT, PROT_READ, area), visit(LOAD, HEAP, at, size, 4), _kind(MPROTECT, PROT_READ | PROT_WRITE, area)]
        else:
            rows.append(_kind(MADVISE, MADV_DONTNEED, area))
        rows.append(visit(LOAD, HEAP, at, size))  # what was dropped reads as zero, what was protected as it was
    return rows


def _kind(op: int, kind: int, area: Mapping[str, int]) -> Row:
    return (op, kind, area["region"], area["pages"], 0, area["page"])
