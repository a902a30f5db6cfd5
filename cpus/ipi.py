"""Inter-processor interrupts: one ZeroMQ message per target that does not know already, a doorbell, a queue,
and acks.

As in Linux (kernel/smp.c: smp_call_function_many_cond, llist_add of call_single_queue) the request itself
lies in shared memory: the sender pushes it on the target's queue and sends a message only if the queue was
empty. So three numbers differ: requests, messages, functions executed; `strict_ipi` sends a message for each
request. The doorbell is a COUNT of messages, raised before the send: a target receives exactly as many as it
announces (a flag rung after the send hangs). The message carries the request too, for whoever watches; the
target executes what is queued.

Order: request data, then push (release) -> exchange by the target (acquire) -> function -> subtract from the
sender's `cpu_acks` (release) -> sender sees 0 (acquire): what the target flushed is flushed for the sender.
Two other kinds of request take the same way. IPI_FLUSH_EARLY_ACK: the handler acks when it is entered
(EuroSys'20), after it has copied the request, and flushes before it returns. BROADCAST_FLUSH: what the
hardware does by itself (AMD's INVLPGB), so no interrupt: it costs the target nothing, and the sender one
instruction and one wait (TLBSYNC) however many targets there are. Left out: NMIs, interrupt priorities, a
target's interrupt latency while it has interrupts off (counted as none).
"""

from typing import Any

import numpy as np

from cpus.atomics import compare_exchange, exchange, fetch_add, load_acquire, store_release
from cpus.compiled import apart, kernel, later
from cpus.cpumask import __cpumask_clear_cpu, cpumask_weight, for_each_cpu
from cpus.declare import ANY, OURS, OWNER, Atomic, Constant, Cost, Counter, Field, OneOf, OwnerOf, Struct
from cpus.lease import BLOCKED, WAIT_ACKS, WAIT_IDLE, block, offer_lease, wake
from cpus.points import hold_points, note_broken_rule
from cpus.ram import has_points
from cpus.rules import WAITS_IRQ_OFF
from cpus.spans import SPAN_ACKED, SPAN_EXECUTED, SPAN_INTERRUPT, SPAN_REQUEST, SPAN_WAIT, end_span, span
from cpus.steal import pass_time, turn_ns

MASKS = ("nr_cpus", "mask_words")
FIELDS = (
    Constant("strict_ipi", "1: a message for each request"),
    Struct("nr_cpus", "bell", (
        Field("cpu_bell",
              Atomic("fetch_add", why="1 is added BEFORE a message is sent, subtracted when it was received"),
              "messages on their way"),
        Field("cpu_queue",
              Atomic("compare_exchange", "exchange", why="whoever asks pushes, the owner takes all"),
              "call_single_queue: node + 1 of the newest request"),
    )),
    Struct("nr_cpus", "acks", (
        Field("cpu_acks",
              Atomic("store_release", "fetch_add", why="the owner sets it, who executes subtracts"),
              "requests not yet acked"),
    )),
    Struct("nr_cpus", "clock", (
        Field("cpu_in_irq", OWNER, "1 inside an interrupt handler", reads=ANY),
    )),
    Struct("nr_cpus", "call", (  # the owner writes before it queues; targets read until they ack
        Field("call_kind", OWNER, "what to do (IPI_*)", reads=ANY),
        Field("call_mm", OWNER, "address space", reads=ANY),
        Field("call_start", OWNER, "first vpn", reads=ANY),
        Field("call_end", OWNER, "behind the last vpn", reads=ANY),
        Field("call_gen", OWNER, "tlb_gen", reads=ANY),
        Field("call_stride", OWNER, "pages from one address of the range to the next, log2", reads=ANY),
        Field("call_time", OWNER, "virtual send time", reads=ANY, unit="ns"),
        Field("call_sequence", OWNER, "requests so far", reads=ANY),
    )),
    Field("csd_next", OneOf(OWNER, OwnerOf(index=1)),
          "next node + 1 (node = sender * nr_cpus + target): of the sender until it " "has pushed it, then "
          "of the target until it acks", ("nr_cpus", "nr_cpus")),
    Field("call_mask", OWNER, "targets of the request being built", MASKS),
)  # fmt: skip

COUNTERS = (
    Counter("ipi_requests", OURS, "requests, one for each CPU that is asked; by who asks"),
    Counter("ipi_messages", OURS, "messages sent for them: none to a CPU that has been reported already"),
    Counter("ipi_received", OURS, "messages received"),
    Counter("ipi_executed", OURS, "requests executed; by who executes them"),
    Counter("ipi_acked", OURS, "requests acked; by who acks them"),
    Counter("irq_ns", OURS, "virtual time in interrupt handlers", "ns"),
    Counter("shootdown_wait_ns", OURS, "virtual time spent waiting for acks", "ns"),
)
COSTS = (
    Cost("ipi_send", "sending, per target"),
    Cost("ipi_latency", "until the target enters its handler"),
    Cost("ipi_handle", "handler entry, flush function, ack, return"),
)

IPI_FLUSH, IPI_FLUSH_EARLY_ACK, BROADCAST_FLUSH = 1, 2, 3
MESSAGE_ANNOUNCED, NOTHING_ANNOUNCED = 0, 1  # what shell_receive is asked for

shell_send, shell_receive, irq_handler = (
    later("shell_send", 1),
    later("shell_receive", 2),
    later("irq_handler", 2),
)


@kernel
def _push(ram, target, node):
    """Queue a request node; True if the queue was empty."""
    while True:
        head = load_acquire(ram.cpu_queue, target)
        ram.csd_next[node // ram.nr_cpus, node % ram.nr_cpus] = head
        if compare_exchange(ram.cpu_queue, target, head, node + 1) == head:
            return head == 0


@apart
def send_interrupts(ram, cpu):
    """Ask every CPU in `call_mask` to execute the request in this CPU's `call_*` words; returns how many were
    asked.

    The caller must wait (`wait_for_acks`) before it touches its `call_*` words again.
    """
    __cpumask_clear_cpu(cpu, ram.call_mask, cpu)
    asked = cpumask_weight(ram.call_mask, cpu)
    if asked == 0:
        return 0
    ram.call_time[cpu] = ram.cpu_clock[cpu]
    ram.call_sequence[cpu] += 1
    span(ram, cpu, SPAN_REQUEST, asked, ram.call_sequence[cpu])
    store_release(ram.cpu_acks, cpu, asked)  # before the first push: a target may be done at once
    messages = 0
    for target in for_each_cpu(ram.call_mask, cpu):
        was_empty = _push(ram, target, cpu * ram.nr_cpus + target)
        if was_empty or ram.strict_ipi:
            messages += 1
        else:
            __cpumask_clear_cpu(target, ram.call_mask, cpu)
    ram.ipi_requests[cpu] += asked
    ram.ipi_messages[cpu] += messages
    ram.cpu_clock[cpu] += ram.cost_ipi_send * (1 if ram.call_kind[cpu] == BROADCAST_FLUSH else asked)
    if messages:  # to those left in call_mask
        hold_points(ram, 1)  # a target that hears the bell waits for its message
        for target in for_each_cpu(ram.call_mask, cpu):
            fetch_add(ram.cpu_bell, target, 1)  # before the send, see the module's text
        shell_send(ram, cpu)
        hold_points(ram, 0)
    if ram.controlled:  # nobody is interrupted behind the schedule's back: targets become runnable instead
        for target in range(ram.nr_cpus):
            if load_acquire(ram.cpu_bell, target) > 0 and ram.cpu_state[target] == BLOCKED and target != cpu:
                wake(ram, target, ram.cpu_clock[cpu])
    return asked


@kernel
def _answer_ns(ram, sender):
    """Virtual time from a request to its ack: until the handler is entered, and with an ordinary interrupt
    until it has flushed.
    """
    return ram.cost_ipi_latency + (ram.cost_ipi_handle if ram.call_kind[sender] < IPI_FLUSH_EARLY_ACK else 0)


@kernel
def ack(ram, cpu, sender):
    """Ack the request of CPU `sender`, whose `call_*` words may change from now on. The last ack wakes it."""
    ram.ipi_acked[cpu] += 1  # by who acks: the sender's count of requests is compared with it
    at_ns = ram.call_time[sender] + _answer_ns(ram, sender)
    if fetch_add(ram.cpu_acks, sender, -1) == 1:
        wake(ram, sender, at_ns)


@apart
def wait_for_acks(ram, cpu, asked):
    """Serve interrupts until all requests of this CPU are acked (so two CPUs that shoot at each other cannot
    deadlock).
    """
    if has_points(ram) and ram.rules and asked > 0 and ram.cpu_irq_off[cpu] > 0:
        note_broken_rule(ram, cpu, 0, WAITS_IRQ_OFF, -WAITS_IRQ_OFF)
    span(ram, cpu, SPAN_WAIT, WAIT_ACKS, asked)
    while load_acquire(ram.cpu_acks, cpu) > 0:
        if load_acquire(ram.cpu_bell, cpu) > 0 and ram.cpu_irq_off[cpu] == 0:
            serve_interrupts(ram, cpu)
        else:
            block(ram, cpu, WAIT_ACKS, asked)
    turn = turn_ns(ram, asked)
    waited = _answer_ns(ram, cpu) + turn
    pass_time(ram, cpu, waited)
    ram.shootdown_wait_ns[cpu] += waited
    span(ram, cpu, SPAN_ACKED, asked, ram.call_sequence[cpu])
    end_span(ram, cpu, SPAN_WAIT)
    if turn > 0 and ram.cpu_no_resched[cpu] == 0 and ram.cpu_irq_off[cpu] == 0 and ram.cpu_in_irq[cpu] == 0:
        offer_lease(ram, cpu)  # the others were at it all that time
    return 0


@kernel
def _execute_queue(ram, cpu):
    """Take the whole queue and execute it, oldest first; False if there was nothing in it but broadcasts,
    which are no interrupts.
    """
    node = exchange(ram.cpu_queue, cpu, 0) - 1
    reversed_head = -1
    while node >= 0:
        after = ram.csd_next[node // ram.nr_cpus, node % ram.nr_cpus] - 1
        ram.csd_next[node // ram.nr_cpus, node % ram.nr_cpus] = reversed_head + 1
        reversed_head = node
        node = after
    node = reversed_head
    interrupted = node < 0
    while node >= 0:
        sender = node // ram.nr_cpus
        # before the ack: the node is the sender's again then
        after = ram.csd_next[sender, node % ram.nr_cpus] - 1
        span(ram, cpu, SPAN_EXECUTED, sender, ram.call_sequence[sender])
        interrupted |= ram.call_kind[sender] != BROADCAST_FLUSH
        acked = irq_handler(ram, cpu, sender)
        ram.ipi_executed[cpu] += 1
        if acked == 0:
            ack(ram, cpu, sender)
        node = after
    return interrupted


@apart
def serve_interrupts(ram, cpu):
    """Receive every announced message and execute what is queued. Call with interrupts on (no irq-safe lock
    held).
    """
    if ram.cpu_irq_off[cpu] > 0 or ram.cpu_in_irq[cpu] > 0:
        return 0
    ram.cpu_in_irq[cpu] = 1
    while load_acquire(ram.cpu_bell, cpu) > 0:
        hold_points(ram, 1)  # who leaves a run waits for what is announced: it must not have been taken
        shell_receive(ram, cpu, MESSAGE_ANNOUNCED)
        fetch_add(ram.cpu_bell, cpu, -1)
        hold_points(ram, 0)
        ram.ipi_received[cpu] += 1
        # an idle or sleeping CPU handles the interrupt in time that it would not use
        busy = ram.cpu_wait_kind[cpu] != WAIT_IDLE
        before = ram.cpu_clock[cpu]
        span(ram, cpu, SPAN_INTERRUPT, 0, 0)
        handle_ns = ram.cost_ipi_handle if _execute_queue(ram, cpu) else 0
        ram.irq_ns[cpu] += handle_ns
        ram.cpu_clock[cpu] = before + handle_ns if busy else before
        end_span(ram, cpu, SPAN_INTERRUPT)
    ram.cpu_in_irq[cpu] = 0
    return 0


def unaccounted_interrupts(ram: Any) -> list[str]:
    """Check conservation after a run: requests = executed = acked, messages = received, nothing queued. One
    sentence per fault.
    """
    faults = []
    for one, other in (("requests", "executed"), ("requests", "acked"), ("messages", "received")):
        asked, done = (int(getattr(ram, f"ipi_{name}").sum()) for name in (one, other))
        if asked != done:
            faults.append(f"interrupts: {asked:,} {one}, but {done:,} {other}")
    for field, words in (
        ("cpu_bell", "messages not taken"),
        ("cpu_queue", "requests not executed"),
        ("cpu_acks", "acks missing"),
    ):
        cpus = np.flatnonzero(getattr(ram, field))
        if len(cpus):
            faults.append(f"interrupts: {words} at {', '.join(f'cpu{cpu}' for cpu in cpus)}")
    return faults
