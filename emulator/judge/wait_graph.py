"""Say in words what each CPU does and whom it waits for: what a run that no longer moves is reported with.

Read from the RAM of a machine that may still run: one look, no lock. Idle CPUs are only counted.
Left out: a search for the cycle. With a dozen words per CPU it is seen at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cpus.lease import (
    BLOCKED,
    OFF,
    READY,
    RUNNING,
    STATES,
    WAIT_ACKS,
    WAIT_IDLE,
    WAIT_MM,
    WAIT_WORD,
    WAITS,
)
from cpus.locks import WAITERS
from cpus.segment import word_at_address

CPUS_SHOWN = 64


def wait_graph(ram: Any) -> str:
    """Give one clause per CPU that is not idle, joined by semicolons."""
    clauses = [_clause(ram, cpu) for cpu in range(ram.nr_cpus) if not _idle(ram, cpu)]
    idle = ram.nr_cpus - len(clauses)
    if len(clauses) > CPUS_SHOWN:
        clauses[CPUS_SHOWN:] = [f"{len(clauses) - CPUS_SHOWN} more"]
    if idle:
        clauses.append(f"{idle} CPUs are idle" if clauses else "all CPUs are idle, but the work is not done")
    return "; ".join(clauses + _sleepers(ram))


def _sleepers(ram: Any) -> list[str]:
    """Name the tasks that sleep for the lock of a file."""
    return [
        f"task {task} sleeps for inode.i_rwsem[{int(ram.task_wait_inode[task]) - 1}]"
        for task in np.flatnonzero(ram.task_wait_inode).tolist()
    ]


def _idle(ram: Any, cpu: int) -> bool:
    return bool(
        ram.cpu_state[cpu] == BLOCKED
        and ram.cpu_wait_kind[cpu] == WAIT_IDLE
        and ram.cpu_bell[cpu] == 0
        and ram.queue_count[cpu] == 0
    )


def _clause(ram: Any, cpu: int) -> str:
    state, kind, object = int(ram.cpu_state[cpu]), int(ram.cpu_wait_kind[cpu]), int(ram.cpu_wait_object[cpu])
    if state == RUNNING:
        text = "runs"
    elif state == READY:
        text = "waits for a lease"
    elif state == OFF:
        text = "has not started"
    elif state != BLOCKED:
        text = STATES[state]
    elif kind == WAIT_ACKS:
        text = f"waits for acks of {_names(_silent_targets(ram, cpu)) or 'nobody: a wake-up was lost'}"
    elif kind == WAIT_WORD:
        text = f"waits for {_word(ram, object)}"
    elif kind == WAIT_MM:
        text = f"waits for mmap_lock of mm {object} ({_mm_holder(int(ram.mm_lock[object]))})"
    elif kind == WAIT_IDLE:
        text = f"is idle with {int(ram.queue_count[cpu])} tasks queued"
    else:
        text = f"waits for {WAITS[kind]} {object}"
    return f"cpu{cpu} {text}{_notes(ram, cpu)}"


def _notes(ram: Any, cpu: int) -> str:
    notes = []
    if ram.cpu_in_irq[cpu]:
        notes.append("in an interrupt handler")
    if ram.cpu_irq_off[cpu]:
        notes.append("interrupts off")
    if ram.cpu_bell[cpu]:
        notes.append(f"{int(ram.cpu_bell[cpu])} interrupts not taken")
    return f" ({', '.join(notes)})" if notes else ""


def _names(cpus: list[int]) -> str:
    return ", ".join(f"cpu{cpu}" for cpu in cpus)


def _silent_targets(ram: Any, sender: int) -> list[int]:
    """Find the CPUs that have a request of `sender` in their queue, or execute what they took off it."""
    found = []
    for target in range(ram.nr_cpus):
        node, steps = int(ram.cpu_queue[target]) - 1, 0
        while node >= 0 and steps < ram.nr_cpus:
            if node // ram.nr_cpus == sender:
                found.append(target)
                break
            node, steps = int(ram.csd_next[node // ram.nr_cpus, node % ram.nr_cpus]) - 1, steps + 1
    if len(found) < ram.cpu_acks[sender]:
        found += [c for c in range(ram.nr_cpus) if c not in found and c != sender and ram.cpu_in_irq[c]]
    return found


def _word(ram: Any, where: int) -> str:
    """Say which word a CPU sleeps for, and who holds it if it is a lock."""
    found = word_at_address(ram, where)
    if found is None:
        return f"a word at {where:#x} that nothing declares"
    name, index, value = found
    lock = ram.layout.locks.get(name)
    text = f"{lock.linux if lock else name}[{', '.join(map(str, index))}]"
    if lock is None and not name.endswith("_lock"):  # a design's own lock goes by its name
        return f"{text} to change ({value})"
    holder = (value & (WAITERS - 1)) - 1
    return f"{text} held by cpu{holder}" if holder >= 0 else f"{text}, which nobody holds"


def _mm_holder(word: int) -> str:
    return "a writer holds it" if word < 0 else f"{word} readers hold it" if word else "nobody holds it"
