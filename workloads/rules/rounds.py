"""Threads meet main in *rounds*: what main executes between two JOINs, and what a worker executes between
CLONE and EXIT.

A barrier is sound when the same round of every party reaches it and all of them have been cloned by then;
with ids that only grow in each thread, nobody can then wait for somebody who waits for them. A piece of
shared work is sound when each of its parties draws from it once.
"""

from __future__ import annotations

import numpy as np

from workloads import rows as p
from workloads.rules.place import Place


def check_rounds(process: p.Process) -> list[np.ndarray]:
    """Check CLONE, EXIT and JOIN against each other; return for each worker its segments as (round, clone
    row, join row).
    """
    main, place = process.threads[0], Place(process.name, 0)
    joins = np.flatnonzero(main["op"] == p.JOIN)
    clones = np.flatnonzero(main["op"] == p.CLONE)
    workers = main["page"][clones].astype(np.int64)
    bad = (workers < 1) | (workers >= len(process.threads))
    place.refuse(bad, f"'page' of CLONE must be a worker, 1..{len(process.threads) - 1}", workers, clones)
    rounds = np.searchsorted(joins, clones)
    open_round = rounds >= len(joins)
    place.refuse(open_round, "every CLONE must be followed by a JOIN", workers, clones)
    started = np.bincount(rounds, minlength=len(joins))
    place.refuse(
        main["pages"][joins] != started,
        "'pages' of JOIN must be the number of workers cloned before it",
        main["pages"][joins],
        joins,
    )
    segments: list[np.ndarray] = [np.zeros((0, 3), np.int64)]
    for worker in range(1, len(process.threads)):
        mine = workers == worker
        twice = np.diff(rounds[mine], prepend=-1) == 0
        place.refuse(twice, "a worker must be cloned once between two JOINs", workers[mine], clones[mine])
        rows = process.threads[worker]
        exits = int((rows["op"] == p.EXIT).sum())
        here = Place(process.name, worker)
        if exits != mine.sum():
            raise ValueError(
                f"{here}: the number of EXIT rows must be that of its CLONEs, {mine.sum()} (got {exits})"
            )
        if len(rows) and rows["op"][-1] != p.EXIT:
            raise ValueError(
                f"{here} row {len(rows) - 1}: the last row of a worker must be EXIT "
                f"(got {p.ROW_KINDS[int(rows['op'][-1])].name})"
            )
        segments.append(np.stack([rounds[mine], clones[mine], joins[rounds[mine]]], axis=1).astype(np.int64))
    return segments


def segment_of(rows: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return how many EXITs come before each row of `at`: the number of the segment it belongs to."""
    return np.searchsorted(np.flatnonzero(rows["op"] == p.EXIT), at)


def check_barriers(process: p.Process, segments: list[np.ndarray]) -> None:
    joins = np.flatnonzero(process.threads[0]["op"] == p.JOIN)
    met: dict[str, list[np.ndarray]] = {"thread": [], "row": [], "id": [], "parties": [], "round": []}
    for thread, rows in enumerate(process.threads):
        at = np.flatnonzero(rows["op"] == p.BARRIER)
        ids = rows["page"][at].astype(np.int64)
        Place(process.name, thread).refuse(
            np.diff(ids, prepend=-1) <= 0, "'page' of BARRIER must grow in every thread", ids, at
        )
        met["thread"].append(np.full(len(at), thread))
        met["row"].append(at)
        met["id"].append(ids)
        met["parties"].append(rows["pages"][at].astype(np.int64))
        met["round"].append(
            np.searchsorted(joins, at) if thread == 0 else segments[thread][segment_of(rows, at), 0]
        )
    column = {name: np.concatenate(parts) for name, parts in met.items()}
    if not len(column["id"]):
        return
    ids, group, reached = np.unique(column["id"], return_inverse=True, return_counts=True)
    expected = np.zeros(len(ids), np.int64)
    expected[group[::-1]] = column["parties"][::-1]  # reversed: the first one counts, errors name a later one
    same_round = np.zeros(len(ids), np.int64)
    same_round[group[::-1]] = column["round"][::-1]

    def refuse(bad: np.ndarray, rule: str, values: np.ndarray) -> None:
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            place = Place(process.name, int(column["thread"][first]))
            raise ValueError(
                f"{place} row {column['row'][first]}: barrier {column['id'][first]}: {rule} "
                f"(got {values[first]})"
            )

    refuse(
        column["parties"] != expected[group],
        "all rows of a barrier must name as many parties",
        column["parties"],
    )
    refuse(
        reached[group] != column["parties"],
        f"'pages' must be the number of threads that come to it, {reached[group][0]}",
        column["parties"],
    )
    refuse(
        column["round"] != same_round[group],
        "all parties must come to it between the same JOINs",
        column["round"],
    )
    _check_cloned_before(process, segments, column, group)


def _check_cloned_before(
    process: p.Process, segments: list[np.ndarray], column: dict[str, np.ndarray], group: np.ndarray
) -> None:
    """Refuse a barrier at which main would wait for a worker that it starts only afterwards."""
    main_row = np.full(group.max() + 1, np.iinfo(np.int64).max)
    in_main = column["thread"] == 0
    main_row[group[in_main]] = column["row"][in_main]
    for worker in range(1, len(process.threads)):
        mine = np.flatnonzero(column["thread"] == worker)
        clone_row = segments[worker][segment_of(process.threads[worker], column["row"][mine]), 1]
        late = clone_row > main_row[group[mine]]
        Place(process.name, worker).refuse(
            late,
            "main must CLONE the worker before it waits for it at a barrier",
            column["id"][mine],
            column["row"][mine],
        )


def check_draws(process: p.Process, segments: list[np.ndarray]) -> None:
    parties: dict[int, int] = {}
    drawn: dict[int, set[int]] = {}
    for thread, rows in enumerate(process.threads):
        place = Place(process.name, thread)
        at = np.flatnonzero(rows["op"] == p.DRAW)
        draws = rows[at]
        place.refuse(
            draws["page"] >= len(process.sections),
            f"'page' of DRAW must be below {len(process.sections)}",
            draws["page"],
            at,
        )
        place.refuse(
            draws["count"] >= draws["pages"],
            "'count' of DRAW must be below its parties, 'pages'",
            draws["count"],
            at,
        )
        for row, section, own, wanted in zip(
            at, draws["page"].tolist(), draws["count"].tolist(), draws["pages"].tolist(), strict=True
        ):
            if wanted > len(process.sections[section].chunks):
                chunks = len(process.sections[section].chunks)
                raise ValueError(
                    f"{place} row {row}: 'pages' of DRAW must be at most its {chunks} chunks (got {wanted})"
                )
            if parties.setdefault(section, wanted) != wanted:
                raise ValueError(
                    f"{place} row {row}: 'pages' of DRAW must be the same in all threads, "
                    f"{parties[section]} (got {wanted})"
                )
            if own in drawn.setdefault(section, set()):
                raise ValueError(
                    f"{place} row {row}: 'count' of DRAW must be drawn once in section {section} (got {own})"
                )
            drawn[section].add(own)
    for section, own in drawn.items():
        if len(own) != parties[section]:
            raise ValueError(
                f"process {process.name!r} section {section}: all {parties[section]} parties must DRAW "
                f"(got {len(own)})"
            )


def check_marks(process: p.Process) -> None:
    main = process.threads[0]
    at = np.flatnonzero(main["op"] == p.MARK)
    evals = main["page"][at].astype(np.int64)
    Place(process.name, 0).refuse(np.diff(evals, prepend=-1) <= 0, "'page' of MARK must grow", evals, at)
