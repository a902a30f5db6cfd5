"""Event rings: what each CPU did, in one total order, for witnesses and traces.

A record is EVENT_WORDS words: sequence, virtual ns, kind, four arguments, cpu and task. The sequence comes
from one counter that all CPUs add to, so merging the rings gives an order that agrees with what every CPU
saw. Only rare things are recorded (faults, unmaps, frees, takes, interrupts, switches), never page visits.
Left out: anything older than the last EVENT_RING events of a CPU.
"""

from cpus.atomics import fetch_add
from cpus.compiled import kernel
from cpus.layout import EVENT_RING, EVENT_WORDS

EVENT_NAMES = (
    "none", "fault", "map", "unmap", "free", "take", "fill", "migrate", "shootdown", "flush", "switch",
    "wake", "barrier", "reclaim", "task", "write",
)  # fmt: skip
(_, EV_FAULT, EV_MAP, EV_UNMAP, EV_FREE, EV_TAKE, EV_FILL, EV_MIGRATE, EV_SHOOTDOWN, EV_FLUSH, EV_SWITCH,
 EV_WAKE, EV_BARRIER, EV_RECLAIM, EV_TASK, EV_WRITE) = range(len(EVENT_NAMES))  # fmt: skip

EVENT_TASK_SHIFT = 16  # the last word: CPU, and above it the task that it ran + 1


@kernel
def record(ram, cpu, kind, a, b, c, d):
    """Append one event to the CPU's ring."""
    if not ram.events_on:
        return
    at = (ram.cpu_event_head[cpu] & (EVENT_RING - 1)) * EVENT_WORDS
    ram.event[cpu, at] = fetch_add(ram.run_event_seq, 0, 1) + 1
    ram.event[cpu, at + 1] = ram.cpu_clock[cpu]
    ram.event[cpu, at + 2] = kind
    ram.event[cpu, at + 3] = a
    ram.event[cpu, at + 4] = b
    ram.event[cpu, at + 5] = c
    ram.event[cpu, at + 6] = d
    ram.event[cpu, at + 7] = cpu | ((ram.cpu_task[cpu] + 1) << EVENT_TASK_SHIFT)
    ram.cpu_event_head[cpu] += 1
