"""The pressure workload of the golden record: processes whose threads sweep memory larger than the machine,
page by page.

Thread k (0 <= k < max(processes, cpus)) belongs to process k mod processes and is pinned to CPU k mod cpus.
Each goes through the whole region of its process from start to end, one access a page: once to warm up; then
all meet, asleep; then the measured sweeps. `file_ro` loads from a file of each process, mapped shared and
read-only; `anon_rw` stores to private anonymous memory. Beside its region a process has the small writable
one that any program has for stacks and data, a page for each thread. A process of its own starts and ends the
measurement: snapshot BEFORE when all are warm, snapshot AFTER when all have finished. Leaves out: what the
recording program did besides (reading /proc, printing).
"""

from __future__ import annotations

import numpy as np

from cpus.abi.numbers import LOAD, PAGES_PER_MIB, STORE
from cpus.abi.row_kinds import POST, SNAPSHOT, WAIT_FOR
from workloads.rows import ROW, Process, Region, Workload, control, visit

FILE_RO, ANON_RW = "file_ro", "anon_rw"
KINDS = {FILE_RO: LOAD, ANON_RW: STORE}
BEFORE, AFTER = 0, 1  # snapshots
READY, GO, FINISHED = range(3)  # flags
MAIN, STACK = 0, 1  # regions


def sweep(
    kind: str, *, cpus: int, processes: int = 3, mib: int = 384, sweeps: int = 1, warm_sweeps: int = 1
) -> Workload:
    """Return the workload with `mib` MiB for each process and threads on CPUs 0 .. cpus-1.

    >>> [len(process.threads) for process in sweep("file_ro", cpus=8).processes]
    [3, 3, 2, 1]
    """
    if kind not in KINDS:
        raise ValueError(f"'kind' must be one of {', '.join(KINDS)} (got {kind!r})")
    for name, value in (("cpus", cpus), ("processes", processes), ("mib", mib), ("sweeps", sweeps)):
        if value < 1:
            raise ValueError(f"'{name}' must be at least 1 (got {value})")
    total = max(processes, cpus)
    members = [[k for k in range(total) if k % processes == p] for p in range(processes)]
    pages = mib * PAGES_PER_MIB
    made = [_process(p, numbers, kind, pages, cpus, sweeps, warm_sweeps) for p, numbers in enumerate(members)]
    what = "read-only file mappings" if kind == FILE_RO else "anonymous memory"
    description = (
        f"{processes} processes sweep {mib} MiB of {what} each, {total} threads on {cpus} "
        f"CPUs, {sweeps} measured sweeps"
    )
    return Workload(f"sweep-{kind}", (*made, _observer(total)), description)


def _process(
    p: int, numbers: list[int], kind: str, pages: int, cpus: int, sweeps: int, warm_sweeps: int
) -> Process:
    main = (
        Region("main", pages, file=f"big{p}", shared=True)
        if kind == FILE_RO
        else Region("main", pages, writable=True)
    )
    regions = (main, Region("stack", max(len(numbers), 1), writable=True))
    once = visit(KINDS[kind], MAIN, 0, pages)
    threads = []
    for i, _ in enumerate(numbers):
        rows = [visit(STORE, STACK, i), *[once] * warm_sweeps, control(POST, READY), control(WAIT_FOR, GO, 1)]
        threads.append(np.array([*rows, *[once] * sweeps, control(POST, FINISHED)], ROW))
    return Process(f"app{p}", regions, tuple(threads), cpus=tuple(k % cpus for k in numbers), together=True)


def _observer(total: int) -> Process:
    rows = [control(WAIT_FOR, READY, total), control(SNAPSHOT, BEFORE), control(POST, GO)]
    rows += [control(WAIT_FOR, FINISHED, total), control(SNAPSHOT, AFTER)]
    return Process("scenario", (Region("stack", 1, writable=True),), (np.array(rows, ROW),), together=True)
