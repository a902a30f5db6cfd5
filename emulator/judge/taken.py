"""Which call took a translation away, or changed rights: who made it, on which CPU, and when it began and
returned.

A task records where it enters a call, reclaim, migration or a copy on write, and where it leaves it
(cpus/events.py: EV_CALL, EV_RETURN). They nest: direct reclaim in a madvise(2), demotion in a run of kswapd.
The innermost one that is open at an event is what did it, the others are where that was. A call that sleeps
leaves and enters again; it began where it was entered first. Left out: page faults that clear no PTE; calls
of a program whose begin the rings no longer hold.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cpus.abi.numbers import ADVICE, RIGHTS
from cpus.abi.row_kinds import (
    CHILD,
    DONTNEED,
    MADV,
    NR_PAGES,
    PROT,
    REGISTER,
    ROW_KINDS,
    TARGET,
    UPROBE,
    RowKind,
)
from cpus.events import (
    CALL_DEMOTION,
    CALL_DIRECT,
    CALL_KSWAPD,
    CALL_NUMA_SCAN,
    CALL_ROW,
    CALLS,
    EV_CALL,
    EV_RETURN,
    EVENT_TASK_SHIFT,
    EVENT_WORDS,
)
from workloads.rows import Process, Workload

PLACE, _, KIND, A, B, C, _, WHO = range(EVENT_WORDS)
OUTERMOST = (CALL_ROW, CALL_KSWAPD)  # in which a task is in no other call


class Call(NamedTuple):
    """One call that was open at an event. `begin` and `end` are events, as rows of the rings; `end` is None
    if it has not returned.
    """

    begin: list[int]
    end: list[int] | None


def open_calls(events: np.ndarray, at: list[int]) -> list[Call]:
    """Give the calls that were open at an event of their task, the innermost first. `events` are all of them,
    in order.
    """
    task = at[WHO] >> EVENT_TASK_SHIFT
    same = events[:, WHO] >> EVENT_TASK_SHIFT == task if task else events[:, WHO] == at[WHO]
    own = events[same & np.isin(events[:, KIND], (EV_CALL, EV_RETURN))]
    before, behind = own[own[:, PLACE] <= at[PLACE]].tolist(), own[own[:, PLACE] > at[PLACE]].tolist()
    found: list[list[int]] = []
    left: list[list[int]] = []  # calls that were left before the event, whose begins are not ours
    for event in reversed(before):
        if event[KIND] == EV_RETURN:
            if event[A] in OUTERMOST:
                break
            left.append(event[A:C])
        elif left and left[-1] == event[A:C]:
            left.pop()
        else:
            found.append(event)
            if event[A] in OUTERMOST:
                break
    return [Call(_first_begin(before, call), _end(behind, call)) for call in found]


def _first_begin(before: list[list[int]], call: list[int]) -> list[int]:
    """Give the event at which a call began that may have slept since, and been gone on with."""
    first = call
    for event in reversed(before[: before.index(call)]):
        if event[KIND] == EV_RETURN and event[A:C] == call[A:C] and event[C] == 0:
            break
        if event[KIND] == EV_CALL and event[A:C] == call[A:C]:
            first = event
        elif event[A] == CALL_ROW and event[B] != call[B]:
            break
    return first


def _end(behind: list[list[int]], call: list[int]) -> list[int] | None:
    return next(
        (event for event in behind if event[KIND] == EV_RETURN and event[A:C] == call[A:C] and not event[C]),
        None,
    )


class CallNames:
    """Words for calls of one run."""

    def __init__(self, ram: Any, workload: Workload):
        self.ram = ram
        self.processes = [process.name for process in workload.processes]
        self.threads = [
            (process, index) for process in workload.processes for index in range(len(process.threads))
        ]

    def thread(self, task: int) -> str:
        """Name a user's thread: its process, and its number if that has several; else nothing."""
        if not 0 <= task < len(self.threads):
            return ""
        process, index = self.threads[task]
        return f"{process.name}/{index}" if len(process.threads) > 1 else process.name

    def short(self, calls: list[Call]) -> str:
        """Name what did it in a word or two that do not change from run to run: `munmap`, `demotion in
        reclaim by kswapd`.
        """
        return " in ".join(self.name(call.begin) for call in calls)

    def full(self, event: list[int]) -> str:
        """Name a call with its arguments, and where its thread's program has it."""
        _, _, _, call, b, mm, first, who = event
        task = (who >> EVENT_TASK_SHIFT) - 1
        if call == CALL_ROW:
            return self._row(task, b, first)
        if call == CALL_KSWAPD:
            return f"reclaim of node {b} by kswapd"
        if call == CALL_DIRECT:
            return f"{CALLS[call]} of node {b}"
        if call == CALL_DEMOTION:
            return f"{CALLS[call]} to node {b}"
        if call == CALL_NUMA_SCAN:
            return f"{CALLS[call]} of mm {mm}"
        return f"{CALLS[call]} in mm {mm} at 0x{b << 12:_x}"

    def name(self, event: list[int]) -> str:
        """Name one call without its arguments."""
        if event[A] != CALL_ROW:
            return CALLS[event[A]]
        row = event[B]
        op, kind = int(self.ram.row_op[row]), int(self.ram.row_kind[row])
        return _name_of(ROW_KINDS[op], op, kind)

    def _row(self, task: int, row: int, first: int) -> str:
        """`munmap(buf, pages 0-63) at 0x1000_0000, row 5`."""
        ram, process, index = self.ram, *self.threads[task]
        op, kind, region = int(ram.row_op[row]), int(ram.row_kind[row]), int(ram.row_region[row])
        arguments = ROW_KINDS[op].fields
        words, where = [], ""
        if "region" in arguments:
            page, pages = int(ram.row_page[row]), int(ram.row_pages[row])
            words.append(process.regions[region].name)
            if NR_PAGES in arguments.values():
                words.append(f"page {page}" if pages == 1 else f"pages {page}-{page + pages - 1}")
            where = f" at 0x{first << 12:_x}" if first >= 0 else ""
        elif "pages" in arguments:
            words.append(f"{int(ram.row_pages[row])} pages")
        if arguments.get("count") is TARGET:
            words.append(f"to {process.regions[int(ram.row_count[row])].name}")
        if CHILD in arguments.values():
            words = [self.processes[int(ram.row_page[row])]]
        number = row - int(ram.task_end[task]) + len(process.threads[index])
        name, step = _name_of(ROW_KINDS[op], op, kind), _step(process, index, number)
        return f"{name} of {', '.join(words)}{where}, {step}"


def _step(process: Process, index: int, row: int) -> str:
    """Where a thread's program has a row: the step of a script, or the row."""
    if index < len(process.steps):
        return f"step {int(process.steps[index][row])}"
    return f"row {row}"


def _name_of(kind: RowKind, op: int, number: int) -> str:
    """Name a call as Linux does; what is given with it belongs to its name where it decides what it does."""
    if op == DONTNEED:
        return "madvise(MADV_DONTNEED)"
    if op == UPROBE:
        return "uprobe_register" if number == REGISTER else "uprobe_unregister"
    name = kind.calls[0] if kind.calls else kind.name.lower()
    given = kind.fields.get("kind")
    if given is MADV:
        return f"{name}({ADVICE.get(number, number)})"
    if given is PROT:
        rights = [text for bit, text in RIGHTS.items() if bit & number] or [RIGHTS[0]]
        return f"{name}({'|'.join(rights)})"
    return name
