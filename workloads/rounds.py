"""Write the threads of a generated workload round by round: rows that are random but for the seed, and the
sleep between rounds.

`parties` threads meet once a round, asleep: nobody runs ahead, and no CPU spins for those that have not come.
1 is nobody to meet.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from workloads.rows import LOAD, MARK, POST, ROW, VISIT, WAIT_FOR, control

LINES = 64  # of a page
Row = tuple[int, ...]


class Rounds:
    """The meetings of `parties` threads, one a round. One thread of each process is its main, which marks
    where a round begins.
    """

    def __init__(self, parties: int, rounds: int) -> None:
        self.parties, self.rounds = parties, rounds

    def program(
        self, bodies: Iterable[Iterable[Row] | np.ndarray], main: bool = False, last: Iterable[Row] = ()
    ) -> np.ndarray:
        """Give a thread's rows: `bodies` has those of each round (the first may set up), `last` those
        after all.
        """
        parts = []
        for number, body in enumerate(bodies):
            if main and number <= self.rounds:
                parts.append(np.array([control(MARK, number)], ROW))
            parts.append(body if isinstance(body, np.ndarray) else np.array(list(body), ROW))
            if self.parties > 1:
                parts.append(np.array([control(POST, number), control(WAIT_FOR, number, self.parties)], ROW))
        return np.concatenate([*parts, np.array(list(last), ROW)])


def visits(region: int, pages: np.ndarray, kind: int = LOAD, run: int = 1, count: int = 1) -> np.ndarray:
    """Give a row for each number in `pages`: `run` pages from there on, `count` accesses on each."""
    rows = np.zeros(len(pages), ROW)
    rows["op"], rows["kind"], rows["region"], rows["pages"], rows["count"], rows["page"] = (
        VISIT,
        kind,
        region,
        run,
        count,
        pages,
    )
    return rows


def share(total: int, parts: int, index: int) -> tuple[int, int]:
    """Give first and size of part `index` when `total` is cut into `parts`, as equal as can be."""
    first, end = total * index // parts, total * (index + 1) // parts
    return first, max(1, end - first)
