"""What slices and marks of a trace are called, and which category each has; of shootdowns their site."""

from __future__ import annotations

from typing import Any

import numpy as np

from allocator.flush_sites import SITES
from allocator.sched import TASK_DESIGN, TASK_KSWAPD
from cpus.abi.numbers import ACCESSES
from cpus.abi.row_kinds import ROW_KINDS
from cpus.events import (
    CALL_DEMOTION,
    CALL_DIRECT,
    CALL_KSWAPD,
    CALL_NUMA_SCAN,
    CALL_PROMOTION,
    CALL_ROW,
    CALLS,
)
from cpus.lease import WAIT_IDLE, WAITS
from cpus.spans import (
    SPAN_ACKED,
    SPAN_CALL,
    SPAN_EXECUTED,
    SPAN_FAULT,
    SPAN_INTERRUPT,
    SPAN_REQUEST,
    SPAN_SHOOTDOWN,
    SPAN_TASK,
    SPAN_WAIT,
)
from workloads.rows import Workload

T_NS, KIND, A, B, OWN_NS = range(5)  # of a record; the last of those alone that bear another's time
INDEX_BITS = 32  # of a key: kind, and above it which of that kind
INDEX = (1 << INDEX_BITS) - 1
FIRST_ROW_KIND = 1 << 8  # calls of programs are told by their kind of row
RECLAIM = (CALL_KSWAPD, CALL_DIRECT, CALL_DEMOTION)
SCAN = (CALL_NUMA_SCAN, CALL_PROMOTION)
PLAIN = {SPAN_INTERRUPT: "interrupt", SPAN_REQUEST: "request", SPAN_ACKED: "acked"}
# what the debug annotation of a slice holds: its name, and the word of the record
NOTES = {
    SPAN_FAULT: ("page", B),
    SPAN_SHOOTDOWN: ("mm", B),
    SPAN_REQUEST: ("CPUs asked", A),
    SPAN_EXECUTED: ("its own clock", OWN_NS),
}


def keys(ram: Any, spans: np.ndarray) -> np.ndarray:
    """Give a number for each record that stands for its name."""
    kind, index = spans[:, KIND], spans[:, A].copy()
    index[np.isin(kind, list(PLAIN))] = 0
    rows = (kind == SPAN_CALL) & (index == CALL_ROW)
    index[rows] = FIRST_ROW_KIND + ram.row_op[spans[rows, B]].astype(np.int64)
    return kind << INDEX_BITS | index


class Names:
    """Name and category of each key, in one run."""

    def __init__(self, ram: Any, workload: Workload):
        self.ram, self.workload = ram, workload

    def of(self, key: int) -> tuple[str, str]:
        """Give name and category."""
        kind, index = key >> INDEX_BITS, key & INDEX
        if kind == SPAN_TASK:
            return self._task(index)
        if kind == SPAN_CALL:
            return _call(index)
        if kind == SPAN_FAULT:
            return f"fault: {ACCESSES[index].lower()}", "fault"
        if kind == SPAN_SHOOTDOWN:
            return f"shootdown: {SITES[index].text}", SITES[index].text
        if kind == SPAN_WAIT:
            return ("idle" if index == WAIT_IDLE else f"waits for {WAITS[index]}"), "wait"
        if kind == SPAN_EXECUTED:
            return f"flush for cpu{index}", "interrupt"
        return PLAIN[kind], "interrupt"

    def _task(self, task: int) -> tuple[str, str]:
        ram = self.ram
        if ram.task_kind[task] == TASK_KSWAPD:
            return f"kswapd{int(ram.task_index[task])}", "kernel thread"
        if ram.task_kind[task] == TASK_DESIGN:
            return "the design's thread", "kernel thread"
        process = self.workload.processes[int(ram.task_process[task])]
        return f"{process.name}, thread {int(ram.task_index[task])}", "user"


def _call(index: int) -> tuple[str, str]:
    if index >= FIRST_ROW_KIND:
        return ROW_KINDS[index - FIRST_ROW_KIND].name.lower(), "call"
    category = "reclaim" if index in RECLAIM else "NUMA balancing" if index in SCAN else "fault"
    return CALLS[index], category
