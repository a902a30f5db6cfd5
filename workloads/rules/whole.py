"""Check that a workload can be executed to its end: no row outside its region, no barrier that somebody
misses.

Each rule is one function. They are vectorised, since a program may have millions of rows, and each stops at
the first row that breaks it, with an error of the form `process 'llama0' thread 2 row 17: 'page' must be
inside region 'kv' of 64 pages (got 64)`.
"""

from __future__ import annotations

import numpy as np

from workloads import rows as p
from workloads.rules.flags import check_flags, check_forks, check_loops
from workloads.rules.mappings import check_mappings
from workloads.rules.one_row import check_arguments, check_ops
from workloads.rules.place import Place
from workloads.rules.rounds import check_barriers, check_draws, check_marks, check_rounds
from workloads.rules.sizes import check_sizes


def validate(workload: p.Workload) -> None:
    """Raise ValueError, naming process, thread, row, rule and value, unless every program can be executed to
    its end.
    """
    check_sizes(workload)
    for process in workload.processes:
        _check_process(process)
    check_loops(workload.processes)
    check_forks(workload.processes)
    check_flags(workload.processes)


def _check_process(process: p.Process) -> None:
    """Raise ValueError at the first row of `process` that breaks a rule."""
    for index, rows in [*enumerate(process.threads), (-1, process.chunk_rows)]:
        place = Place(process.name, index)
        if rows.dtype != p.ROW:
            raise ValueError(f"{place}: 'dtype' must be ROW (got {rows.dtype})")
        check_ops(place, rows, _where(process, index))
        check_arguments(place, rows, process)
    _check_sections(process)
    if process.cpus and len(process.cpus) != len(process.threads):
        raise ValueError(
            f"process {process.name!r}: 'cpus' must name a CPU for each of {len(process.threads)} threads "
            f"(got {len(process.cpus)})"
        )
    if process.forked and len(process.threads) != 1:
        raise ValueError(
            f"process {process.name!r}: a forked process must have one thread (got {len(process.threads)})"
        )
    if process.together:
        return  # they meet at flags alone, and map what they like: the kernel says what is not there
    rounds = check_rounds(process)
    check_barriers(process, rounds)
    check_draws(process, rounds)
    check_marks(process)
    check_mappings(process, rounds)


def _where(process: p.Process, thread: int) -> int:
    """Say in what kind of thread rows stand; -1 are the chunks."""
    if thread < 0:
        return p.A_CHUNK
    if process.together:
        return p.OTHERS if thread else p.FIRST
    return p.A_WORKER if thread else p.MAIN


def _check_sections(process: p.Process) -> None:
    rows = len(process.chunk_rows)
    for index, section in enumerate(process.sections):
        where = f"process {process.name!r} section {index}"
        chunks = section.chunks
        if chunks.ndim != 2 or chunks.shape[1] != 2 or not np.issubdtype(chunks.dtype, np.signedinteger):
            raise ValueError(
                f"{where}: 'chunks' must be signed integers of shape (n, 2) "
                f"(got {chunks.dtype} {chunks.shape})"
            )
        bad = (chunks[:, 0] < 0) | (chunks[:, 1] < chunks[:, 0]) | (chunks[:, 1] > rows)
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"{where}: chunk {first} must lie in the {rows} chunk rows "
                f"(got {tuple(chunks[first].tolist())})"
            )
