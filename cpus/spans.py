"""Spans: what each CPU was at, from when to when, for a trace (emulator/trace/).

A record is SPAN_WORDS words: virtual ns, kind, two values. A kind that lasts has two, one where it begins and
one, with ENDS, where it ends; they nest, in the order of the ring. Records are made on slow paths alone:
faults, calls, shootdowns, interrupts, waits, switches. In a run without a trace (`spans_on` is 0) that costs
the look at one constant.
The supervisor takes them out while the run goes on. A CPU whose ring is full gives the host's core away until
there is room, but not for ever: then this record and all later ones of the CPU are lost, and counted, so that
what is there is whole up to that point.
Left out: page visits, and what a design does inside its hooks.
"""

from cpus.abi.numbered import Numbered
from cpus.atomics import load_acquire, store_release
from cpus.compiled import apart, kernel
from cpus.declare import OWNER, Constant, Field, Struct
from cpus.host import sched_yield

SPAN_WORDS = 4
FIELDS = (
    Constant("spans_on", "1: spans are recorded"),
    Struct("nr_cpus", "spans", (
        Field("cpu_span_head", OWNER, "spans recorded"),  # no other CPU reads: no scheduling points
        Field("cpu_span_tail", OWNER, "of them, taken out, by the supervisor"),
        Field("cpu_spans_lost", OWNER, "those that found no room"),
    )),
    Field("span", OWNER, "ring of records: virtual ns, kind, two values", ("nr_cpus", "nr_span_words")),
)  # fmt: skip

SPANS_KEPT = 1 << 16  # of a CPU, until they are taken out: a twentieth of a second holds fewer
YIELDS = 1 << 20  # about a second
ENDS = 16

SPANS = Numbered[tuple[str, ...]]()  # what the two values of a record mean
SPAN_TASK = SPANS.add(("task", "0"), 1)
SPAN_CALL = SPANS.add(("CALL_*", "row, node or page"))
SPAN_FAULT = SPANS.add(("kind of access", "page"))
SPAN_SHOOTDOWN = SPANS.add(("SITE_*", "mm, 0 several"))
SPAN_INTERRUPT = SPANS.add(("0", "0"))
SPAN_WAIT = SPANS.add(("WAIT_*", "what for: an address, page, barrier, the CPUs asked"))
SPAN_REQUEST = SPANS.add(("CPUs asked", "number of the request"))  # from here on: no time
SPAN_EXECUTED = SPANS.add(("who asked", "number of his request"))
SPAN_ACKED = SPANS.add(("CPUs asked", "number of the request"))


@apart
def note_span(ram, cpu, kind, a, b):
    """Append a record, once there is room; 1 if it is lost."""
    head, room = ram.cpu_span_head[cpu], SPANS_KEPT
    if ram.cpu_spans_lost[cpu] == 0:
        for _ in range(YIELDS):
            if head - load_acquire(ram.cpu_span_tail, cpu) < room:
                break
            sched_yield()
    if ram.cpu_spans_lost[cpu] > 0 or head - load_acquire(ram.cpu_span_tail, cpu) >= room:
        ram.cpu_spans_lost[cpu] += 1
        return 1
    at = (head & (SPANS_KEPT - 1)) * SPAN_WORDS
    ram.span[cpu, at], ram.span[cpu, at + 1] = ram.cpu_clock[cpu], kind
    ram.span[cpu, at + 2], ram.span[cpu, at + 3] = a, b
    store_release(ram.cpu_span_head, cpu, head + 1)  # last: the supervisor reads what it counts
    return 0


@kernel
def span(ram, cpu, kind, a, b):
    """Record that something begins here, or happens."""
    if ram.spans_on:
        note_span(ram, cpu, kind, a, b)


@kernel
def end_span(ram, cpu, kind):
    """Record that what began last ends here."""
    if ram.spans_on:
        note_span(ram, cpu, kind | ENDS, 0, 0)
