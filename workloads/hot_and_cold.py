"""Threads that go through a hot region again and again while they sweep a cold file, larger than memory:
reclaim takes hot pages away while CPUs have them in their TLBs.

The hot region is HOT, the cold file COLD; each thread sweeps a share of its own. Readers of a hot *file* go
through all of it from anywhere on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from workloads.parameters import Room
from workloads.rounds import Rounds, Row, share
from workloads.rows import LOAD, Process, Region, visit

HOT, COLD = range(2)
HOT_PAGES = 1000  # as many as a TLB holds, and too many for all of them to stay in memory
PASSES = 12  # of each reader through the hot file in a round
SWEEP = 32  # pages of the cold file between two calls of who changes the hot region


def cold_pages(room: Room) -> int:
    """Give the size of the cold file."""
    return max(1024, room.pages * 5 // 4)


def sizes(room: Room, given: Mapping[str, int], others: int) -> tuple[int, int, int]:
    """Give the number of readers, and the pages of the hot and of the cold file; `others` threads have a CPU
    each.
    """
    threads = given.get("threads", max(1, room.cpus - others))
    return threads, given.get("pages", max(64, min(HOT_PAGES, room.pages // 32))), cold_pages(room)


def files(hot: int, cold: int) -> tuple[Region, Region]:
    """Give both files, as who reads or changes them maps them."""
    return Region("hot", hot, file="hot", shared=True), Region("cold", cold, file="cold", shared=True)


def dealt(
    name: str,
    regions: tuple[Region, ...],
    threads: int,
    processes_max: int,
    program: Callable[[int, bool], np.ndarray],
) -> list[Process]:
    """Deal threads to processes like cards; `program` gives the rows of thread k, and is asked whether it is
    the main one of its process.
    """
    count = min(processes_max, threads)
    return [
        Process(
            f"{name}{number}",
            regions,
            tuple(program(k, k == number) for k in range(number, threads, count)),
            together=True,
        )
        for number in range(count)
    ]


def pieces(cold: int, threads: int, k: int, passes: int) -> list[Row]:
    """Rows that sweep thread k's share of the cold file, a piece for each pass."""
    first, size = share(cold, threads, k)
    piece = max(1, size // passes)
    return [
        visit(LOAD, COLD, first + min(number * piece, size - piece), piece, 4) for number in range(passes)
    ]


def reads(rng: np.random.Generator, hot: int, cold: list[Row], count: int) -> list[Row]:
    """Rows of one reader and round: before each piece of `cold` the hot file from anywhere on, `count` times
    each page.
    """
    rows: list[Row] = []
    for piece in cold:
        first = int(rng.integers(0, hot))
        rows.append(visit(LOAD, HOT, first, hot - first, count))
        if first:
            rows.append(visit(LOAD, HOT, 0, first, count))
        rows.append(piece)
    return rows


def readers(
    rng: np.random.Generator,
    meetings: Rounds,
    hot: int,
    cold: int,
    threads: int,
    *,
    processes_max: int,
    count: int,
) -> list[Process]:
    """Give the processes whose threads read the hot file under the pressure of the cold one."""

    def reader(k: int, main: bool) -> np.ndarray:
        mine = pieces(cold, threads, k, PASSES)
        return meetings.program([reads(rng, hot, mine, count) for _ in range(meetings.rounds)], main)

    return dealt("reader", files(hot, cold), threads, processes_max, reader)


def sweep(rng: np.random.Generator, cold: int) -> Row:
    """Row that loads some pages of the cold file, anywhere."""
    return visit(LOAD, COLD, int(rng.integers(0, cold - SWEEP)), SWEEP)
