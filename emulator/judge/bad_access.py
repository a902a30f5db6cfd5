"""A panic that the input is to blame for: a program that touches what it has not mapped, or may not write, in
the words of the workload; and a workload that needs more memory or time than there is.

The kernel knows a page number and an address space. The RAM still has what the CPU's task was at, and the
workload has names for that. Left out: a workload that ships with luf. If one of those does this, the emulator
is wrong, not its input.
"""

from __future__ import annotations

from typing import Any

from allocator.panic import OUT_OF_MEMORY, PANICS, TIME_IS_OVER, panic_text
from emulator.stopped import Panicked
from workloads import names
from workloads.rows import ACCESSES, ROW_KINDS, VISIT, Process, Workload


class BadAccess(Panicked, ValueError):
    """A workload does what a real process would be killed for: bad input, one sentence with process, thread,
    step, region.
    """


class OutOfMemory(Panicked, ValueError):
    """The emulated machine has not the memory that the workload needs under this design: bad input."""


class OutOfTime(Panicked, ValueError):
    """The workload takes more virtual time on this machine than clocks can show: bad input."""


def explained(stopped: Panicked, ram: Any, workload: Workload) -> Panicked:
    """Give what to raise for a panic: an OutOfMemory, a BadAccess if a user's workload is to blame, an
    OutOfTime, else the panic itself.
    """
    if stopped.code == OUT_OF_MEMORY:
        sentence = (
            f"out of memory of the emulated machine, under design {stopped.design!r}: no page of node "
            f"{stopped.a} after {stopped.b} rounds of direct reclaim; give the machine more memory or the "
            "workload less"
        )
        return OutOfMemory(sentence, stopped.cpu, stopped.code, stopped.a, stopped.b)
    task = int(ram.cpu_task[stopped.cpu])
    own = 0 <= task < ram.user_tasks and workload.name.partition(":")[0] not in names()
    if own and stopped.code in PANICS and PANICS[stopped.code].rule:
        return _bad_access(stopped, ram, workload, task)
    if stopped.code == TIME_IS_OVER:
        said = panic_text(stopped.code, stopped.a, stopped.b)
        return OutOfTime(said, stopped.cpu, stopped.code, stopped.a, stopped.b)
    return stopped


def _bad_access(stopped: Panicked, ram: Any, workload: Workload, task: int) -> BadAccess:
    """Name the row that a task of the workload was at."""
    number, thread = int(ram.task_process[task]), int(ram.task_index[task])
    process = workload.processes[number]
    row = int(ram.task_row[task]) - _first_row(workload, number, thread)
    row = min(row, len(process.threads[thread]) - 1)  # the clock may be looked at behind the last one
    at = f"step {process.steps[thread][row]}" if process.steps else f"row {row}"
    what = _operation(process, thread, row)
    where = _place(ram, process, number, stopped.a) if PANICS[stopped.code].names_page else ""
    sentence = (
        f"workload {workload.name!r}: process {process.name!r} thread {thread} {at}: "
        f"{what}{where} {PANICS[stopped.code].rule}"
    )
    return BadAccess(sentence, stopped.cpu, stopped.code, stopped.a, stopped.b)


def _first_row(workload: Workload, number: int, thread: int) -> int:
    """Give the place of a thread's first row among all rows (build.py lays them out)."""
    before = sum(
        len(process.chunk_rows) + sum(map(len, process.threads)) for process in workload.processes[:number]
    )
    return before + sum(map(len, workload.processes[number].threads[:thread]))


def _operation(process: Process, thread: int, row: int) -> str:
    found = process.threads[thread][row]
    op = int(found["op"])
    return ACCESSES[int(found["kind"])] if op == VISIT else ROW_KINDS[op].name


def _place(ram: Any, process: Process, number: int, vpn: int) -> str:
    """Say which page of which region a page number is, as the regions lie now."""
    for i, region in enumerate(process.regions):
        page = vpn - int(ram.proc_region[number, i])
        if 0 <= page < region.pages:
            return f" of page {page} of region {region.name!r}"
    return f" of page number {vpn:#x}"
