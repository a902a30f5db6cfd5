"""Threads map, touch, unmap, protect and drop memory over and over, their own and each other's, and check
what they read (the oracle does).

Stands for will-it-scale's tlb_flush1 to tlb_flush3 (github.com/antonblanchard/will-it-scale,
tests/tlb_flush*.c: touch, MADV_DONTNEED, assert, count) and `stress-ng --tlb-shootdown` (mprotect). Threads
of a process share its address space, so each change interrupts all CPUs that run it. LUF must gain nothing
here: these flushes are due before the call returns. So that somebody would notice, threads go in pairs: at
the end of a round one maps and stores to its pages, the other reads them on its own CPU, the first unmaps (or
drops) them, maps and stores anew, and the other reads again. Whoever was not flushed reads what was there
before.
Parameters: `threads` (in processes of at most 32), `pages` of each thread.
Leaves out: rates; files (tlb_flush1 and 3; readers-writer has them).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cpus.abi.numbers import LOAD, MADV_DONTNEED, PROT_READ, PROT_WRITE, STORE
from cpus.abi.row_kinds import MADVISE, MMAP, MPROTECT, MUNMAP, NO_REGION, POST, SPIN, WAIT_FOR
from workloads.parameters import THREADS, Parameter, Room
from workloads.rounds import Rounds, Row
from workloads.rows import Process, Region, Workload, control, visit

PARAMETERS = {"threads": THREADS, "pages": Parameter(1, 4096, "pages of each thread")}
THREADS_OF_A_PROCESS = 32
TIMES = 6  # changes of a thread in a round
HEAP, COMMON = range(2)
COMMON_PAGES = 8
UNMAP, PROTECT = range(2)  # a third does neither: it drops
SHOWN = 3  # times that a pair looks at the same pages in a round


def munmap_storm(room: Room, rounds: int, seed: int, given: Mapping[str, int]) -> Workload:
    """Return the workload."""
    threads, pages = given.get("threads", room.cpus), given.get("pages", 32)
    pages = min(pages, max(1, room.pages // (4 * threads))) if "pages" not in given else pages
    rng = np.random.default_rng((seed, 12))
    # nobody waits for anybody: who sleeps has a lazy CPU, which is interrupted by nobody
    alone = Rounds(1, rounds)
    processes = []
    for number, first in enumerate(range(0, threads, THREADS_OF_A_PROCESS)):
        members = min(THREADS_OF_A_PROCESS, threads - first)
        regions = (
            Region("heap", members * pages, writable=True),
            Region("common", COMMON_PAGES, writable=True),
        )
        made = []
        for k in range(members):
            bodies = [_changes(rng, k * pages, pages) for _ in range(rounds)]
            if k | 1 < members:  # not the last of an odd number, who has no partner
                wait = SPIN if threads <= room.cpus else WAIT_FOR
                for n, body in enumerate(bodies):
                    body += _show(rng, first + k, (k & ~1) * pages, pages, n * SHOWN, wait)
            made.append(alone.program(bodies, main=k == 0))
        processes.append(Process(f"storm{number}", regions, tuple(made), together=True))
    what = (
        f"{threads} threads map, touch, unmap, protect and drop {pages} pages each, and check what they read"
    )
    return Workload("munmap-storm", tuple(processes), what, rounds, exact=True)


def _changes(rng: np.random.Generator, first: int, pages: int) -> list[Row]:
    """Rows of one thread and round."""
    rows: list[Row] = []
    for _ in range(TIMES):
        size = int(rng.integers(1, pages + 1))
        at = first + int(rng.integers(0, pages - size + 1))
        area = {"page": at, "pages": size, "region": HEAP}
        rows += [
            visit(STORE, HEAP, at, size, 4),
            visit(LOAD, HEAP, first, pages, 4),
            visit(LOAD, COMMON, 0, COMMON_PAGES),
        ]
        change = int(rng.integers(0, 3))
        if change == UNMAP:
            rows += [control(MUNMAP, **area), control(MMAP, **area)]
        elif change == PROTECT:
            rows += [
                _kind(MPROTECT, PROT_READ, area),
                visit(LOAD, HEAP, at, size, 4),
                _kind(MPROTECT, PROT_READ | PROT_WRITE, area),
            ]
        else:
            rows.append(_kind(MADVISE, MADV_DONTNEED, area))
        # what was dropped reads as zero, what was protected as it was
        rows.append(visit(LOAD, HEAP, at, size))
    return rows


def _show(rng: np.random.Generator, thread: int, at: int, pages: int, before: int, wait: int) -> list[Row]:
    """Rows of one of a pair of threads, after `before` earlier times: the even one changes pages, the odd one
    reads them in between.
    """
    shown, seen = thread & ~1, thread | 1  # flags
    rows: list[Row] = []
    area = {"page": at, "pages": pages, "region": HEAP}
    for n in range(before + 1, before + SHOWN + 1):
        if thread & 1:
            rows += [
                control(wait, shown, n, region=NO_REGION),
                visit(LOAD, HEAP, at, pages, 4),
                control(POST, seen),
            ]
            continue
        rows += [
            visit(STORE, HEAP, at, pages),
            control(POST, shown),
            control(wait, seen, n, region=NO_REGION),
        ]
        if rng.integers(0, 2):
            rows += [control(MUNMAP, **area), control(MMAP, **area)]
        else:
            rows.append(_kind(MADVISE, MADV_DONTNEED, area))
    return rows


def _kind(op: int, kind: int, area: Mapping[str, int]) -> Row:
    return (op, kind, area["region"], area["pages"], 0, area["page"])
