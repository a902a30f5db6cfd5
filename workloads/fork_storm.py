"""Processes fork over and over; parent and child write what they share, so each write copies a page.

Stands for a pre-forking server or a shell script, and for the fork and copy-on-write cases of will-it-scale
(fork1, page_fault variants) and stress-ng `--fork`. fork write-protects the parent's memory, which its second
thread is reading on another CPU: a shootdown for all of it; each write to a shared page then is one more.
Mappings that were writable are nothing that LUF may defer. Parameters: `parents` (default: one for four CPUs,
at most 32; each has two threads and one child at a time), `pages` of each. Leaves out: exec.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cpus.abi.numbers import LOAD, STORE
from cpus.abi.row_kinds import EXIT_MM, FORK, MARK, NO_REGION, POST, SPIN, WAIT_FOR
from workloads.parameters import Parameter, Room
from workloads.rounds import Row
from workloads.rows import ROW, Process, Region, Workload, control, visit

PARAMETERS = {
    "parents": Parameter(1, 64, "processes that fork"),
    "pages": Parameter(4, 4096, "pages of each"),
}
PARENTS_MAX = 32
FORKS = 4  # of each parent in a round
HEAP, TEXT = range(2)
TEXT_PAGES = 16


def fork_storm(room: Room, rounds: int, seed: int, given: Mapping[str, int]) -> Workload:
    """Return the workload."""
    parents = given.get("parents", max(1, min(PARENTS_MAX, room.cpus // 4)))
    pages = given.get("pages", min(128, max(4, room.pages // (8 * parents))))
    rng = np.random.default_rng((seed, 15))
    regions = (
        Region("heap", pages, writable=True),
        Region("text", TEXT_PAGES, file="server", executable=True),
    )
    # a CPU for each task: the second thread stays on its own, with the parent's memory loaded
    spins = 3 * parents <= room.cpus
    processes = []
    for k in range(parents):
        flags = {"born": 3 * k, "gone": 3 * k + 1, "read": 3 * k + 2}
        main, second, child = _family(rng, pages, rounds, parents + k, flags, spins)
        processes.append((Process(f"parent{k}", regions, (main, second), together=True),
                          Process(f"child{k}", regions, (child,), together=True, forked=True)))  # fmt: skip
    listed = (*(parent for parent, _ in processes), *(child for _, child in processes))
    what = (
        f"{parents} processes of {pages} pages fork {FORKS} times a round; parent and "
        "child write what they share"
    )
    return Workload("fork-storm", listed, what, rounds, exact=True)


def _family(
    rng: np.random.Generator, pages: int, rounds: int, child: int, flags: Mapping[str, int], spins: bool
) -> tuple[np.ndarray, ...]:
    """Rows of a parent's two threads, and of its child."""

    def await_(flag: str, count: int) -> Row:
        return (
            control(SPIN, flags[flag], count, region=NO_REGION)
            if spins
            else control(WAIT_FOR, flags[flag], count)
        )

    main: list[Row] = [visit(STORE, HEAP, 0, pages)]
    second: list[Row] = []
    born: list[Row] = []
    for number in range(1, rounds * FORKS + 1):
        if number % FORKS == 1:
            main.append(control(MARK, (number - 1) // FORKS))
        size = int(rng.integers(1, pages + 1))
        at = int(rng.integers(0, pages - size + 1))
        main += [visit(STORE, HEAP, 0, pages, 2), control(FORK, child), visit(STORE, HEAP, at, size, 2)]
        main += [
            visit(LOAD, HEAP, 0, pages, 4),
            control(POST, flags["read"]),
            control(WAIT_FOR, flags["gone"], number),
        ]
        second += [visit(LOAD, HEAP, 0, pages, 16), await_("born", number)]
        second += [visit(LOAD, HEAP, 0, pages, 16), await_("read", number)]
        size = int(rng.integers(1, pages + 1))
        at = int(rng.integers(0, pages - size + 1))
        born += [
            control(POST, flags["born"]),
            visit(LOAD, HEAP, 0, pages),
            visit(STORE, HEAP, at, size, 2),
            visit(LOAD, HEAP, 0, pages, 2),
        ]
        born.append(control(EXIT_MM, flags["gone"]))
    return np.array(main, ROW), np.array(second, ROW), np.array(born, ROW)
