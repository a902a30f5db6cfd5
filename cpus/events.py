"""Event rings: what each CPU did, in one total order, for witnesses and traces.

A record is EVENT_WORDS words: sequence, virtual ns, kind, four arguments, cpu and task. The sequence comes
from one counter that all CPUs add to, so merging the rings gives an order that agrees with what every CPU
saw. Only rare events are recorded (faults, unmaps, frees, takes, interrupts, switches), never page visits.

Whoever sees what an event did has a later number than the event: that is up to where it is recorded. What
others may see or take from then on (a page mapped, filled, moved, given back, handed out, written, a change
complete) is recorded before it is done. What takes away (a PTE cleared, a TLB flushed) is recorded after it
is done, but before anybody may rely on it: under the PTE lock, before the ack. A violating access draws its
number after its load. Left out: anything older than the last EVENT_RING events of a CPU.
"""

from cpus.abi.numbered import Numbered
from cpus.atomics import fetch_add, store_release
from cpus.compiled import kernel
from cpus.declare import ANY, OWNER, Atomic, Constant, Field, Struct
from cpus.spans import SPAN_CALL, end_span, span

EVENT_WORDS = 8
EVENT_RING = 131072  # events kept per CPU (8 MiB, touched only as far as used)
FIELDS = (
    Constant("events_on", "1: events are recorded"),
    Struct("one", "events", (Field("run_event_seq", Atomic("fetch_add"), "total order of events"),)),
    Struct("nr_cpus", "clock", (Field("cpu_event_head", OWNER, "events recorded", reads=ANY),)),
    Field("event", OWNER, "ring of records", ("nr_cpus", EVENT_RING * EVENT_WORDS), reads=ANY),
)  # fmt: skip

EVENTS = Numbered[tuple[str, ...]]()  # the words of a record behind its kind, as far as they mean anything
EV_FAULT = EVENTS.add(("mm", "page", "kind of access", "task"), 1)  # 0: memory that nobody has written
EV_MAP = EVENTS.add(("frame", "mm", "page", "bits of the PTE"))
EV_UNMAP = EVENTS.add(("frame", "mm", "page", "bits of the PTE"))
EV_FREE = EVENTS.add(("frame", "object + 1", "page of it", "key"))
EV_TAKE = EVENTS.add(("frame", "zone"))
EV_FILL = EVENTS.add(("frame", "object", "page of it", "what it holds then"))
EV_MIGRATE = EVENTS.add(("frame", "new frame", "0", "what both hold then"))
EV_SHOOTDOWN = EVENTS.add(("mm, 0 several", "CPUs asked", "SITE_*"))
EV_FLUSH = EVENTS.add(("mm", "first page, -1 all", "pages", "who asked for it"))
EV_SWITCH = EVENTS.add(("mm before", "mm"))
EV_WAKE = EVENTS.add(("task", "CPU"))
EV_BARRIER = EVENTS.add(("process", "barrier"))
EV_RECLAIM = EVENTS.add(("node", "BY_KSWAPD, BY_DIRECT", "reclaimed; kswapd: free pages", "priority"))
EV_TASK = EVENTS.add(("task", "1: it starts"))
EV_WRITE = EVENTS.add(("frame, -1 none", "object", "page of it", "version"))
EV_CHANGE = EVENTS.add(("mm", "first page", "behind the last page", "UNMAPPED, WRITE_PROTECTED"))
EV_MOVE = EVENTS.add(("frame", "mm", "page", "new page"))
EV_CALL = EVENTS.add(("CALL_*", "row, node or page", "mm", "first page of its range"))
EV_RETURN = EVENTS.add(("CALL_*", "row, node or page", "1: it gives way, and goes on later"))

CALLS = Numbered[str]()  # what a task is in while others see what it does, for a witness to name it
CALL_ROW = CALLS.add("a call of its program")  # b is the row, c the first page of its range
CALL_KSWAPD = CALLS.add("reclaim by kswapd", 1)
CALL_DIRECT = CALLS.add("direct reclaim")
CALL_DEMOTION = CALLS.add("demotion")
CALL_PROMOTION = CALLS.add("promotion after a NUMA hint fault")
CALL_NUMA_SCAN = CALLS.add("the scan for NUMA hints")
CALL_WRITE_FAULT = CALLS.add("a write fault")

EVENT_TASK_SHIFT = 16  # the last word: CPU, and above it the task that it ran + 1


@kernel
def draw_place(ram):
    """Take the next place in the total order, for something that happens now."""
    return fetch_add(ram.run_event_seq, 0, 1) + 1


@kernel
def record(ram, cpu, kind, a, b, c, d):
    """Append one event to the CPU's ring; calls are spans, too."""
    if kind == EV_CALL:
        span(ram, cpu, SPAN_CALL, a, b)
    elif kind == EV_RETURN:
        end_span(ram, cpu, SPAN_CALL)
    if not ram.events_on:
        return
    at = (ram.cpu_event_head[cpu] & (EVENT_RING - 1)) * EVENT_WORDS
    ram.event[cpu, at] = draw_place(ram)
    ram.event[cpu, at + 1] = ram.cpu_clock[cpu]
    ram.event[cpu, at + 2] = kind
    ram.event[cpu, at + 3] = a
    ram.event[cpu, at + 4] = b
    ram.event[cpu, at + 5] = c
    ram.event[cpu, at + 6] = d
    ram.event[cpu, at + 7] = cpu | ((ram.cpu_task[cpu] + 1) << EVENT_TASK_SHIFT)
    # complete, then counted: the CPU may be killed at any time
    store_release(ram.cpu_event_head, cpu, ram.cpu_event_head[cpu] + 1)
