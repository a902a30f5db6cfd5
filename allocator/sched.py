"""Tasks and CPUs: run queues, placement, idling (a minimum of kernel/sched).

A CPU runs the task at the head of its queue until its time slice is over and another waits. A woken task goes to the CPU it ran
on if that idles, else to any idle CPU, else to the shortest queue. An idle CPU keeps the last address space loaded, lazily.
A sleeping task stays on its CPU; if nothing else can run there, the CPU's clock moves on to when the task wakes.
Left out: priorities, load balancing of running tasks, preemption by wake-ups, NUMA-aware placement.
"""

from allocator.hooks import HOOK_IDLE
from allocator.tlb_flush import enter_lazy_tlb
from cpus.atomics import fetch_add, load_acquire
from cpus.compiled import apart, call, kernel
from cpus.costs import WAKEUP
from cpus.events import EV_WAKE, record
from cpus.ipi import serve_interrupts
from cpus.layout import COUNTER
from cpus.lease import WAIT_IDLE, block, offer_lease, wake
from cpus.locks import LOCK_QUEUE, spin_lock, spin_unlock

TASK_USER, TASK_KSWAPD, TASK_DESIGN = 0, 1, 2
SLEEPING, QUEUED, ON_CPU, DONE = 0, 1, 2, 3
TIME_SLICE_NS = 3_000_000  # sysctl_sched_base_slice of 6.12 with 8 CPUs or more: 0.75 ms * (1 + log2(8))
TICK_NS = 4_000_000  # CONFIG_HZ 250
NOBODY = -1
C_RESCHED = COUNTER["irq_resched"]


@kernel
def cond_resched(ram, cpu):
    """A point at which kernel code may be interrupted and may hand its lease on (no spin lock held)."""
    if ram.cpu_bell[cpu] > 0:
        serve_interrupts(ram, cpu)
    if ram.cpu_clock[cpu] >= ram.cpu_slice_end[cpu] and ram.cpu_no_resched[cpu] == 0:
        offer_lease(ram, cpu)


@apart
def enqueue(ram, cpu, target, task):
    """Put a task at the end of a CPU's queue."""
    spin_lock(ram, cpu, ram.queue_lock, target, LOCK_QUEUE | target)
    ram.task_state[task] = QUEUED
    ram.task_cpu[task] = target
    ram.task_next[task] = 0
    if ram.queue_count[target] == 0:
        ram.queue_first[target] = task + 1
    else:
        ram.task_next[ram.queue_last[target] - 1] = task + 1
    ram.queue_last[target] = task + 1
    ram.queue_count[target] += 1
    spin_unlock(ram, cpu, ram.queue_lock, target, LOCK_QUEUE | target)
    return 0


@kernel
def _dequeue_first_due(ram, cpu, now):
    """Take the first task of the own queue that is due at `now`; -1 if none is."""
    if ram.queue_count[cpu] == 0:
        return NOBODY
    spin_lock(ram, cpu, ram.queue_lock, cpu, LOCK_QUEUE | cpu)
    before, task = 0, ram.queue_first[cpu]
    while task != 0 and ram.task_wake_ns[task - 1] > now:
        before, task = task, ram.task_next[task - 1]
    if task != 0:
        if before == 0:
            ram.queue_first[cpu] = ram.task_next[task - 1]
        else:
            ram.task_next[before - 1] = ram.task_next[task - 1]
        if ram.queue_last[cpu] == task:
            ram.queue_last[cpu] = before
        ram.queue_count[cpu] -= 1
        ram.task_state[task - 1] = ON_CPU
    spin_unlock(ram, cpu, ram.queue_lock, cpu, LOCK_QUEUE | cpu)
    return task - 1


@kernel
def _earliest_wake(ram, cpu):
    """When the first task of the own queue is due; -1 if the queue is empty."""
    spin_lock(ram, cpu, ram.queue_lock, cpu, LOCK_QUEUE | cpu)
    task, earliest = ram.queue_first[cpu], -1
    while task != 0:
        if earliest < 0 or ram.task_wake_ns[task - 1] < earliest:
            earliest = ram.task_wake_ns[task - 1]
        task = ram.task_next[task - 1]
    spin_unlock(ram, cpu, ram.queue_lock, cpu, LOCK_QUEUE | cpu)
    return earliest


@kernel
def _is_idle(ram, c):
    return ram.cpu_task[c] == NOBODY and load_acquire(ram.queue_count, c) == 0


@kernel
def select_cpu(ram, task):
    """Choose the CPU for a task that wakes up (select_task_rq_fair, much simplified)."""
    if ram.task_pinned[task] >= 0:
        return ram.task_pinned[task]
    last = ram.task_cpu[task]
    if last >= 0 and _is_idle(ram, last):
        return last
    start = fetch_add(ram.run_next_task_cpu, 0, 1)
    shortest, length = 0, -1
    for i in range(ram.nr_cpus):
        c = (start + i) % ram.nr_cpus
        if _is_idle(ram, c):
            return c
        waiting = load_acquire(ram.queue_count, c) + 1
        if length < 0 or waiting < length:
            shortest, length = c, waiting
    return shortest


@apart
def wake_task(ram, cpu, task, at_ns):
    """Make a sleeping task runnable, not before virtual time `at_ns` (try_to_wake_up)."""
    target = select_cpu(ram, task)
    ram.task_wake_ns[task] = at_ns + ram.cost[WAKEUP]
    record(ram, cpu, EV_WAKE, task, target, 0, 0)
    enqueue(ram, cpu, target, task)
    if target != cpu:
        wake(ram, target, at_ns)
    return 0


@kernel
def _idle(ram, cpu):
    """Nothing to run: sleep until a task is queued here."""
    enter_lazy_tlb(ram, cpu)
    call(ram, HOOK_IDLE, cpu, 0, 0, 0, 0)
    if load_acquire(ram.queue_count, cpu) == 0:  # the hook may have slept, and taken the wake-up of a task that came meanwhile
        block(ram, cpu, WAIT_IDLE, 0)


@apart
def next_task(ram, cpu):
    """Give the task to run now, -1 if the caller should look again (it idled, or time had to pass first)."""
    task = _dequeue_first_due(ram, cpu, ram.cpu_clock[cpu])
    if task >= 0:
        return task
    ram.cpu_task[cpu] = NOBODY
    if ram.queue_count[cpu] == 0:
        _idle(ram, cpu)
        if ram.queue_count[cpu] > 0:
            ram.counter[cpu, C_RESCHED] += 1  # what woke it would be a reschedule interrupt
        return NOBODY
    due = _earliest_wake(ram, cpu)
    if due > ram.cpu_clock[cpu]:
        enter_lazy_tlb(ram, cpu)
        ram.cpu_clock[cpu] = due  # idle until then
        offer_lease(ram, cpu)  # whoever is behind runs first, and finds this CPU lazy, as it would be in that time
    return NOBODY
