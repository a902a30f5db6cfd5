"""Processes fork each other and meet at flags: each fork has its exit, and every wait for a flag ends."""

from __future__ import annotations

import numpy as np

from workloads import rows as p
from workloads.rules.place import Place

WAITS = p.kinds_with(p.POSTS)
# they wait for so many posts, or go with one other row
ONCE = (p.FORK, p.EXIT_MM, p.WAIT_FOR, p.SPIN)
POSTS = tuple(number for number in p.kinds_with(p.FLAG) if number not in WAITS)


def check_forks(processes: tuple[p.Process, ...]) -> None:
    """Raise ValueError unless every FORK names a forked process with the regions of the one that forks, as
    often as that one exits.
    """
    forks = np.zeros(len(processes), np.int64)
    for process in processes:
        for index, rows in enumerate(process.threads):
            at = np.flatnonzero(rows["op"] == p.FORK)
            wanted = rows["page"][at].astype(np.int64)
            place = Place(process.name, index)
            known = np.array([k < len(processes) and processes[k].forked for k in wanted.tolist()], bool)
            place.refuse(~known, "'page' of FORK must be the number of a forked process", wanted, at)
            same = np.array([processes[k].regions == process.regions for k in wanted.tolist()], bool)
            place.refuse(~same, "'page' of FORK must name a process with the same regions", wanted, at)
            np.add.at(forks, wanted, 1)
    for number, process in enumerate(processes):
        exits = sum(int((rows["op"] == p.EXIT_MM).sum()) for rows in process.threads)
        if exits != forks[number]:
            raise ValueError(
                f"process {process.name!r}: EXIT_MM must stand as often as it is forked, "
                f"{forks[number]} times (got {exits})"
            )
        if process.forked and not exits:
            raise ValueError(
                f"process {process.name!r}: a forked process must be forked by another one (got no FORK)"
            )
        if process.forked:
            last = process.threads[0]["op"][-1:]
            names = np.array([p.ROW_KINDS[int(op)].name for op in last])
            at = np.array([len(process.threads[0]) - 1])
            Place(process.name, 0).refuse(
                last != p.EXIT_MM, "the last row of a forked process must be EXIT_MM", names, at
            )


def check_loops(processes: tuple[p.Process, ...]) -> None:
    """Raise ValueError for a row that UNTIL would do again, but that stands for one time only."""
    for process in processes:
        for index, rows in enumerate(process.threads):
            place = Place(process.name, index)
            for end in np.flatnonzero(rows["op"] == p.UNTIL).tolist():
                first = end - int(rows["count"][end])
                at = np.arange(first, end)
                bad = np.isin(rows["op"][at], ONCE)
                names = np.array([p.ROW_KINDS[int(op)].name for op in rows["op"][at]])
                place.refuse(bad, f"'op' must not be {', '.join(p.ROW_KINDS[op].name for op in ONCE)} where "
                             "UNTIL goes back over it", names, at)  # fmt: skip


def check_flags(processes: tuple[p.Process, ...]) -> None:
    """Raise ValueError unless every wait for a flag ends, whatever the schedule. As flags only grow, it is
    enough to try one schedule.
    """
    walks = [_FlagWalk(process.name, number, index, rows) for number, process in enumerate(processes)
             for index, rows in enumerate(process.threads)]  # fmt: skip
    if not any(walk.waits for walk in walks):
        return
    posted = np.zeros(max(walk.flags for walk in walks), np.int64)
    for walk in walks:
        np.add.at(posted, walk.posts, 1)
    for walk in walks:
        wanted, at = walk.rows["pages"][walk.waits].astype(np.int64), np.array(walk.waits)
        flags = walk.rows["page"][walk.waits]
        walk.place.refuse(
            wanted > posted[flags],
            "'pages' of a wait must be at most the number of POSTs of its flag",
            wanted,
            at,
        )
    posted[:] = 0
    alive = [0 if process.forked else 1 for process in processes]
    going = walks
    while sum(walk.advance(posted, alive) for walk in going):
        going = [walk for walk in going if walk.at < len(walk.order)]
    stuck = [walk for walk in walks if walk.at < len(walk.order) and alive[walk.number]]
    if stuck:
        walk = stuck[0]
        row = walk.order[walk.at]
        rule = (
            f"a wait must end, but here {len(stuck)} threads would wait for each other for ever, this one for"
        )
        walk.place.refuse(
            np.array([True]),
            f"{rule} {walk.rows['pages'][row]} POSTs",
            posted[walk.rows["page"][[row]]],
            np.array([row]),
        )


class _FlagWalk:
    """One thread on its way through the rows that concern flags and forks."""

    def __init__(self, process: str, number: int, index: int, rows: np.ndarray) -> None:
        self.place, self.number, self.rows, self.at = Place(process, index), number, rows, 0
        self.order = np.flatnonzero(np.isin(rows["op"], (*WAITS, *POSTS, p.FORK))).tolist()
        self.waits = [row for row in self.order if rows["op"][row] in WAITS]
        self.posts = rows["page"][[row for row in self.order if rows["op"][row] in POSTS]]
        named = rows["page"][[row for row in self.order if rows["op"][row] != p.FORK]]
        self.flags = int(named.max(initial=0)) + 1

    def advance(self, posted: np.ndarray, alive: list[int]) -> bool:
        """Go on as far as the flags allow; False if that is nowhere."""
        began = self.at
        while self.at < len(self.order) and alive[self.number]:
            op, flag, pages = (int(self.rows[name][self.order[self.at]]) for name in ("op", "page", "pages"))
            if op in WAITS and posted[flag] < pages:
                break
            if op == p.FORK:
                alive[flag] += 1
            elif op in POSTS:
                posted[flag] += 1
                alive[self.number] -= op == p.EXIT_MM
            self.at += 1
        return self.at > began
