"""Check that a process can be executed to its end: no row outside its region, no barrier that somebody
misses.

Each rule is one function. They are vectorised, since a program may have millions of rows, and each stops at
the first row that breaks it, with an error of the form `process 'llama0' thread 2 row 17: 'page' must be
inside region 'kv' of 64 pages (got 64)`.

Threads meet main in *rounds*: what main executes between two JOINs, and what a worker executes between CLONE
and EXIT. A barrier is sound when the same round of every party reaches it and all of them have been cloned by
then; with ids that only grow in each thread, nobody can then wait for somebody who waits for them.
"""

from __future__ import annotations

import numpy as np

from workloads import rows as p

FOLIO_ORDER_MAX = 6  # 256 KiB


class RowError(ValueError):
    """A rule that a row breaks."""

    def __init__(self, process: str, thread: int, row: int, rule: str) -> None:
        self.process, self.thread, self.row, self.rule = process, thread, row, rule
        super().__init__(
            f"process {process!r} {'chunk_rows' if thread < 0 else f'thread {thread}'} row {row}: {rule}"
        )


def check_process(process: p.Process) -> None:
    """Raise ValueError at the first row of `process` that breaks a rule."""
    if not process.threads:
        raise ValueError(f"process {process.name!r}: 'threads' must have at least the main thread (got 0)")
    for region in process.regions:
        if region.pages < 1:
            raise ValueError(
                f"process {process.name!r}: 'pages' of region {region.name!r} must be at least 1 (got {region.pages})"
            )
        if not 0 <= region.folio_order <= (FOLIO_ORDER_MAX if region.file is not None else 0):
            rule = f"0 to {FOLIO_ORDER_MAX}, and 0 if it maps no file"
            raise ValueError(
                f"process {process.name!r}: 'folio_order' of region {region.name!r} must be {rule} (got {region.folio_order})"
            )
    for index, rows in [*enumerate(process.threads), (-1, process.chunk_rows)]:
        place = _Place(process.name, index)
        if rows.dtype != p.ROW:
            raise ValueError(f"{place}: 'dtype' must be ROW (got {rows.dtype})")
        _check_ops(place, rows, index)
        _check_ranges(place, rows, process.regions)
        _check_visits(place, rows, process.regions)
        _check_direct(place, rows, process.regions)
    _check_sections(process)
    if process.cpus and len(process.cpus) != len(process.threads):
        raise ValueError(
            f"process {process.name!r}: 'cpus' must name a CPU for each of {len(process.threads)} threads (got {len(process.cpus)})"
        )
    if process.together:
        _check_together(process)
        return
    rounds = _check_rounds(process)
    _check_barriers(process, rounds)
    _check_draws(process, rounds)
    _check_marks(process)
    _check_mappings(process, rounds)


def check_forks(processes: tuple[p.Process, ...]) -> None:
    """Raise ValueError unless every FORK names a forked process with the regions of the one that forks, as
    often as that one exits.
    """
    forks = np.zeros(len(processes), np.int64)
    for process in processes:
        for index, rows in enumerate(process.threads):
            at = np.flatnonzero(rows["op"] == p.FORK)
            wanted = rows["page"][at].astype(np.int64)
            place = _Place(process.name, index)
            known = np.array([k < len(processes) and processes[k].forked for k in wanted.tolist()], bool)
            place.refuse(~known, "'page' of FORK must be the number of a forked process", wanted, at)
            same = np.array([processes[k].regions == process.regions for k in wanted.tolist()], bool)
            place.refuse(~same, "'page' of FORK must name a process with the same regions", wanted, at)
            np.add.at(forks, wanted, 1)
    for number, process in enumerate(processes):
        exits = sum(int((rows["op"] == p.EXIT_MM).sum()) for rows in process.threads)
        if exits != forks[number]:
            raise ValueError(
                f"process {process.name!r}: EXIT_MM must stand as often as it is forked, {forks[number]} times (got {exits})"
            )
        if process.forked and not exits:
            raise ValueError(
                f"process {process.name!r}: a forked process must be forked by another one (got no FORK)"
            )
        if process.forked:
            last = process.threads[0]["op"][-1:]
            names = np.array([p.OP_NAMES[int(op)] for op in last])
            at = np.array([len(process.threads[0]) - 1])
            _Place(process.name, 0).refuse(
                last != p.EXIT_MM, "the last row of a forked process must be EXIT_MM", names, at
            )


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
    while sum(walk.advance(posted, alive) for walk in walks):
        pass
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
        self.place, self.number, self.rows, self.at = _Place(process, index), number, rows, 0
        self.order = np.flatnonzero(
            np.isin(rows["op"], (p.POST, p.EXIT_MM, p.WAIT_FOR, p.SPIN, p.FORK))
        ).tolist()
        self.waits = [row for row in self.order if rows["op"][row] in (p.WAIT_FOR, p.SPIN)]
        self.posts = rows["page"][[row for row in self.order if rows["op"][row] in (p.POST, p.EXIT_MM)]]
        named = rows["page"][[row for row in self.order if rows["op"][row] != p.FORK]]
        self.flags = int(named.max(initial=0)) + 1

    def advance(self, posted: np.ndarray, alive: list[int]) -> bool:
        """Go on as far as the flags allow; False if that is nowhere."""
        began = self.at
        while self.at < len(self.order) and alive[self.number]:
            op, flag, pages = (int(self.rows[name][self.order[self.at]]) for name in ("op", "page", "pages"))
            if op in (p.WAIT_FOR, p.SPIN) and posted[flag] < pages:
                break
            if op == p.FORK:
                alive[flag] += 1
            elif op in (p.POST, p.EXIT_MM):
                posted[flag] += 1
                alive[self.number] -= op == p.EXIT_MM
            self.at += 1
        return self.at > began


def check_nodes(workload: p.Workload, nodes: int) -> None:
    """Raise ValueError at a row that moves pages to a node which a machine of so many nodes has not."""
    for process in workload.processes:
        for index, rows in enumerate(process.threads):
            bad = (rows["op"] == p.MOVE_PAGES) & (rows["kind"] >= nodes)
            _Place(process.name, index).refuse(
                bad, f"'kind' of MOVE_PAGES must be a node of the machine, 0 to {nodes - 1}", rows["kind"]
            )


def _check_together(process: p.Process) -> None:
    """Threads that start together meet at flags alone, and map what they like: the kernel says so if they
    touch what is not there.
    """
    if process.forked and len(process.threads) != 1:
        raise ValueError(
            f"process {process.name!r}: a forked process must have one thread (got {len(process.threads)})"
        )
    for index, rows in enumerate(process.threads):
        bad = np.isin(rows["op"], (p.BARRIER, p.DRAW, p.CLONE, p.EXIT, p.JOIN))
        names = np.array([p.OP_NAMES[int(op)] for op in rows["op"]])
        _Place(process.name, index).refuse(
            bad, "'op' must be no BARRIER, DRAW, CLONE, EXIT or JOIN in threads that start together", names
        )


class _Place:
    """Names a process and a thread in error messages."""

    def __init__(self, process: str, thread: int) -> None:
        self.process, self.thread = process, thread
        self.text = f"process {process!r} " + ("chunk_rows" if thread < 0 else f"thread {thread}")

    def __str__(self) -> str:
        return self.text

    def refuse(self, bad: np.ndarray, rule: str, values: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Raise for the first true element of `bad`; `rows` gives its row number if `bad` covers only some
        rows.
        """
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            row = first if rows is None else int(rows[first])
            raise RowError(self.process, self.thread, row, f"{rule} (got {values[first]})")


def _check_ops(place: _Place, rows: np.ndarray, thread: int) -> None:
    op = rows["op"]
    place.refuse(~np.isin(op, list(p.OP_NAMES)), "'op' must be a known operation", op)
    if thread < 0:
        # Inside a chunk only visits: a chunk's thread is not known beforehand, so it can't meet or start
        # anybody.
        place.refuse(op != p.VISIT, "'op' must be VISIT inside a chunk", op)
    elif thread == 0:
        place.refuse(op == p.EXIT, "'op' must not be EXIT in main", op)
    else:
        place.refuse(
            np.isin(op, (p.CLONE, p.JOIN, p.MARK)), "'op' must not be CLONE, JOIN or MARK in a worker", op
        )


def _check_ranges(place: _Place, rows: np.ndarray, regions: tuple[p.Region, ...]) -> None:
    at = np.flatnonzero(np.isin(rows["op"], p.RANGE_OPS))
    ranged = rows[at]
    place.refuse(
        ranged["region"] >= len(regions), f"'region' must be below {len(regions)}", ranged["region"], at
    )
    place.refuse(ranged["pages"] < 1, "'pages' must be at least 1", ranged["pages"], at)
    size = np.array([region.pages for region in regions], np.int64)[ranged["region"]]
    files = np.array([region.file is not None for region in regions], bool)[ranged["region"]]
    names = np.array([region.name for region in regions])[ranged["region"]]
    place.refuse(
        np.isin(ranged["op"], p.FILE_OPS) & ~files, "'region' of a call on a file must map one", names, at
    )
    end = ranged["page"].astype(np.int64) + ranged["pages"]
    if (end > size).any():
        first = int(np.flatnonzero(end > size)[0])
        name = regions[ranged["region"][first]].name
        place.refuse(
            end > size, f"'page' + 'pages' must be inside region {name!r} of {size[first]} pages", end, at
        )


def _check_visits(place: _Place, rows: np.ndarray, regions: tuple[p.Region, ...]) -> None:
    at = np.flatnonzero(rows["op"] == p.VISIT)
    visits = rows[at]
    place.refuse(
        ~np.isin(visits["kind"], list(p.KIND_NAMES)),
        "'kind' must be LOAD, STORE or IFETCH",
        visits["kind"],
        at,
    )
    place.refuse(visits["count"] < 1, "'count' must be at least 1", visits["count"], at)
    names = np.array([region.name for region in regions])[visits["region"]]
    writable = np.array([region.writable for region in regions], bool)[visits["region"]]
    executable = np.array([region.executable for region in regions], bool)[visits["region"]]
    place.refuse((visits["kind"] == p.STORE) & ~writable, "'region' of a STORE must be writable", names, at)
    place.refuse(
        (visits["kind"] == p.IFETCH) & ~executable, "'region' of an IFETCH must be executable", names, at
    )


def _check_direct(place: _Place, rows: np.ndarray, regions: tuple[p.Region, ...]) -> None:
    """The memory of a direct read or write is in the process, and a read can be written there."""
    at = np.flatnonzero(np.isin(rows["op"], p.DIRECT_OPS))
    calls = rows[at]
    place.refuse(
        calls["kind"] >= len(regions),
        f"'kind' of a direct call must be a region, below {len(regions)}",
        calls["kind"],
        at,
    )
    size = np.array([region.pages for region in regions], np.int64)[calls["kind"]]
    writable = np.array([region.writable for region in regions], bool)[calls["kind"]]
    names = np.array([region.name for region in regions])[calls["kind"]]
    end = calls["count"].astype(np.int64) + calls["pages"]
    place.refuse(end > size, "'count' + 'pages' of a direct call must be inside its memory's region", end, at)
    place.refuse(
        (calls["op"] == p.DIRECT_READ) & ~writable,
        "'kind' of DIRECT_READ must be a writable region",
        names,
        at,
    )


def _check_sections(process: p.Process) -> None:
    rows = len(process.chunk_rows)
    for index, section in enumerate(process.sections):
        where = f"process {process.name!r} section {index}"
        chunks = section.chunks
        if chunks.ndim != 2 or chunks.shape[1] != 2 or not np.issubdtype(chunks.dtype, np.signedinteger):
            raise ValueError(
                f"{where}: 'chunks' must be signed integers of shape (n, 2) (got {chunks.dtype} {chunks.shape})"
            )
        bad = (chunks[:, 0] < 0) | (chunks[:, 1] < chunks[:, 0]) | (chunks[:, 1] > rows)
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"{where}: chunk {first} must lie in the {rows} chunk rows (got {tuple(chunks[first].tolist())})"
            )


def _check_rounds(process: p.Process) -> list[np.ndarray]:
    """Check CLONE, EXIT and JOIN against each other; return for each worker its segments as (round, clone
    row, join row).
    """
    main, place = process.threads[0], _Place(process.name, 0)
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
        here = _Place(process.name, worker)
        if exits != mine.sum():
            raise ValueError(
                f"{here}: the number of EXIT rows must be that of its CLONEs, {mine.sum()} (got {exits})"
            )
        if len(rows) and rows["op"][-1] != p.EXIT:
            raise ValueError(
                f"{here} row {len(rows) - 1}: the last row of a worker must be EXIT (got {p.OP_NAMES[int(rows['op'][-1])]})"
            )
        segments.append(np.stack([rounds[mine], clones[mine], joins[rounds[mine]]], axis=1).astype(np.int64))
    return segments


def _segment_of(rows: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return how many EXITs come before each row of `at`: the number of the segment it belongs to."""
    return np.searchsorted(np.flatnonzero(rows["op"] == p.EXIT), at)


def _check_barriers(process: p.Process, segments: list[np.ndarray]) -> None:
    joins = np.flatnonzero(process.threads[0]["op"] == p.JOIN)
    met: dict[str, list[np.ndarray]] = {"thread": [], "row": [], "id": [], "parties": [], "round": []}
    for thread, rows in enumerate(process.threads):
        at = np.flatnonzero(rows["op"] == p.BARRIER)
        ids = rows["page"][at].astype(np.int64)
        _Place(process.name, thread).refuse(
            np.diff(ids, prepend=-1) <= 0, "'page' of BARRIER must grow in every thread", ids, at
        )
        met["thread"].append(np.full(len(at), thread))
        met["row"].append(at)
        met["id"].append(ids)
        met["parties"].append(rows["pages"][at].astype(np.int64))
        met["round"].append(
            np.searchsorted(joins, at) if thread == 0 else segments[thread][_segment_of(rows, at), 0]
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
            place = _Place(process.name, int(column["thread"][first]))
            raise ValueError(
                f"{place} row {column['row'][first]}: barrier {column['id'][first]}: {rule} (got {values[first]})"
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
        clone_row = segments[worker][_segment_of(process.threads[worker], column["row"][mine]), 1]
        late = clone_row > main_row[group[mine]]
        _Place(process.name, worker).refuse(
            late,
            "main must CLONE the worker before it waits for it at a barrier",
            column["id"][mine],
            column["row"][mine],
        )


def _check_draws(process: p.Process, segments: list[np.ndarray]) -> None:
    parties: dict[int, int] = {}
    drawn: dict[int, set[int]] = {}
    for thread, rows in enumerate(process.threads):
        place = _Place(process.name, thread)
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
                raise ValueError(
                    f"{place} row {row}: 'pages' of DRAW must be at most its {len(process.sections[section].chunks)} chunks (got {wanted})"
                )
            if parties.setdefault(section, wanted) != wanted:
                raise ValueError(
                    f"{place} row {row}: 'pages' of DRAW must be the same in all threads, {parties[section]} (got {wanted})"
                )
            if own in drawn.setdefault(section, set()):
                raise ValueError(
                    f"{place} row {row}: 'count' of DRAW must be drawn once in section {section} (got {own})"
                )
            drawn[section].add(own)
    for section, own in drawn.items():
        if len(own) != parties[section]:
            raise ValueError(
                f"process {process.name!r} section {section}: all {parties[section]} parties must DRAW (got {len(own)})"
            )


def _check_marks(process: p.Process) -> None:
    main = process.threads[0]
    at = np.flatnonzero(main["op"] == p.MARK)
    evals = main["page"][at].astype(np.int64)
    _Place(process.name, 0).refuse(np.diff(evals, prepend=-1) <= 0, "'page' of MARK must grow", evals, at)


def _check_mappings(process: p.Process, segments: list[np.ndarray]) -> None:
    """Check that MUNMAP and MMAP alternate, in main, and that nobody visits what is unmapped."""
    for worker, rows in enumerate(process.threads[1:], 1):
        bad = np.isin(rows["op"], (p.MUNMAP, p.MMAP))
        _Place(process.name, worker).refuse(bad, "'op' must not be MUNMAP or MMAP in a worker", rows["op"])
    main, place = process.threads[0], _Place(process.name, 0)
    unmapped: dict[tuple[int, int, int], int] = {}
    gaps: list[tuple[tuple[int, int, int], int, int]] = []
    for row in np.flatnonzero(np.isin(main["op"], (p.MUNMAP, p.MMAP))).tolist():
        what = (int(main["region"][row]), int(main["page"][row]), int(main["pages"][row]))
        if main["op"][row] == p.MUNMAP:
            if any(what[0] == r and what[1] < f + n and f < what[1] + what[2] for r, f, n in unmapped):
                raise ValueError(
                    f"{place} row {row}: MUNMAP must name mapped pages (got region, page, pages = {what})"
                )
            unmapped[what] = row
        elif what not in unmapped:
            raise ValueError(
                f"{place} row {row}: MMAP must name pages of an earlier MUNMAP (got region, page, pages = {what})"
            )
        else:
            gaps.append((what, unmapped.pop(what), row))
    gaps += [(what, row, len(main)) for what, row in unmapped.items()]
    if gaps:
        _check_gaps(process, segments, gaps)


def _check_gaps(
    process: p.Process, segments: list[np.ndarray], gaps: list[tuple[tuple[int, int, int], int, int]]
) -> None:
    for thread, rows in enumerate(process.threads):
        at = np.flatnonzero(np.isin(rows["op"], (p.VISIT, p.POPULATE, p.DONTNEED)))
        touched = rows[at]
        first = touched["page"].astype(np.int64)
        end = first + touched["pages"]
        segment = _segment_of(rows, at)
        begins = at if thread == 0 else segments[thread][segment, 1]
        ends = at if thread == 0 else segments[thread][segment, 2]
        for (region, page, pages), from_row, to_row in gaps:
            hit = (
                (touched["region"] == region)
                & (first < page + pages)
                & (end > page)
                & (begins < to_row)
                & (ends > from_row)
            )
            _Place(process.name, thread).refuse(
                hit, f"'page' must not be unmapped (main's rows {from_row} to {to_row})", first, at
            )
