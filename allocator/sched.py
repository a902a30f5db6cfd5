"""Tasks and CPUs: run queues, placement, idling (a minimum of kernel/sched).

A CPU runs the task at the head of its queue until its time slice is over and another waits. A woken task goes
to the CPU it ran on if that idles, else to any idle CPU, else to the shortest queue. An idle CPU keeps the
last address space loaded, lazily. A task that sleeps for a time (for the disk, mostly) stays in its CPU's
queue; if nothing else can run there the CPU idles until it is due, or until somebody else wakes up there.
Before it idles it takes kswapd over if that waits on another CPU (sched_balance_newidle). Left out:
priorities, load balancing of user threads, preemption by wake-ups (RUN_TO_PARITY protects most slices),
NUMA-aware placement.
"""

from allocator.hooks import HOOK_IDLE
from allocator.tlb_flush import enter_lazy_tlb
from cpus.atomics import fetch_add, load_acquire
from cpus.compiled import apart, call, kernel
from cpus.declare import (
    ANY,
    CONFIG,
    INTERRUPTS,
    Atomic,
    Cost,
    Counter,
    Exclusive,
    Field,
    Held,
    Lock,
    OneOf,
    OwnerOf,
    Struct,
)
from cpus.events import EV_WAKE, record
from cpus.ipi import serve_interrupts
from cpus.lease import WAIT_IDLE, block, idle_until, offer_lease, wake
from cpus.locks import spin_lock, spin_unlock
from cpus.spans import SPAN_WAIT, end_span, span

QUEUE = Held("queue_lock")
FIELDS = (
    Struct("one", "rotors", (Field("run_next_task_cpu", Atomic("fetch_add"),
                                   "rotor for placing new tasks"),)),
    Struct("nr_cpus", "queue", (
        Lock("queue_lock", "rq.lock", "the CPU's run queue"),
        Field("queue_count", QUEUE, "tasks in it", reads=ANY),
        Field("queue_first", QUEUE, "first task + 1"),
        Field("queue_last", QUEUE, "last one + 1"),
    )),
    Struct("nr_tasks", "task", (
        Field("task_kind", CONFIG, "TASK_USER, TASK_KSWAPD, TASK_DESIGN"),
        Field("task_state", OneOf(Held("queue_lock", at="task_cpu"), OwnerOf("task_cpu")),
              "SLEEPING, QUEUED, ON_CPU, DONE", reads=ANY),
        Field("task_cpu", Exclusive("who wakes it, before it is queued"), "CPU it runs or ran on, -1 never",
              reads=ANY),
        Field("task_pinned", CONFIG, "CPU or -1"),
        Field("task_next", Held("queue_lock", at="task_cpu"), "next in the run queue + 1"),
        Field("task_mm", CONFIG, "address space"),
        Field("task_process", CONFIG, "process"),
        Field("task_index", CONFIG, "thread of the process, or node of kswapd"),
        Field("task_wake_ns", Exclusive("who wakes it, before it is queued"), "not before this virtual time",
              reads=ANY, unit="ns"),
        Field("task_wait_ns", OwnerOf("task_cpu"), "virtual time at which what it waits for is there",
              unit="ns"),
    )),
)  # fmt: skip

COUNTERS = (Counter("irq_resched", INTERRUPTS, "RES: idle CPUs woken because a task was queued there"),)
COSTS = (Cost("wakeup", "from waking a task until it runs"),)

TASK_USER, TASK_KSWAPD, TASK_DESIGN = 0, 1, 2
SLEEPING, QUEUED, ON_CPU, DONE = 0, 1, 2, 3
BASE_SLICE_NS = 750_000  # sysctl_sched_base_slice of one CPU (6.12, kernel/sched/fair.c)
TICK_NS = 4_000_000  # CONFIG_HZ 250
NOBODY = -1


def base_slice_ns(cpus: int) -> int:
    """Give the time slice that the kernel computes at boot: longer with more CPUs, up to 3 ms with 8
    (get_update_sysctl_factor).
    """
    return BASE_SLICE_NS * min(cpus, 8).bit_length()


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
    spin_lock(ram, cpu, ram.queue_lock, target)
    ram.task_cpu[task] = target
    ram.task_state[task] = QUEUED
    ram.task_next[task] = 0
    if ram.queue_count[target] == 0:
        ram.queue_first[target] = task + 1
    else:
        ram.task_next[ram.queue_last[target] - 1] = task + 1
    ram.queue_last[target] = task + 1
    ram.queue_count[target] += 1
    spin_unlock(ram, cpu, ram.queue_lock, target)
    return 0


@kernel
def _dequeue_first_due(ram, cpu, owner, now, kernel_threads):
    """Take the first task of `owner`'s queue that is due at `now`, or the first kernel thread that is; -1 if
    there is none.
    """
    if load_acquire(ram.queue_count, owner) == 0:
        return NOBODY
    spin_lock(ram, cpu, ram.queue_lock, owner)
    before, task = 0, ram.queue_first[owner]
    while task != 0 and (
        ram.task_wake_ns[task - 1] > now or (kernel_threads and ram.task_kind[task - 1] == TASK_USER)
    ):
        before, task = task, ram.task_next[task - 1]
    if task != 0:
        if before == 0:
            ram.queue_first[owner] = ram.task_next[task - 1]
        else:
            ram.task_next[before - 1] = ram.task_next[task - 1]
        if ram.queue_last[owner] == task:
            ram.queue_last[owner] = before
        ram.queue_count[owner] -= 1
        ram.task_cpu[task - 1] = cpu
        ram.task_state[task - 1] = ON_CPU
    spin_unlock(ram, cpu, ram.queue_lock, owner)
    return task - 1


@kernel
def _earliest_wake(ram, cpu, owner):
    """When the first task of `owner`'s queue is due; -1 if the queue is empty."""
    spin_lock(ram, cpu, ram.queue_lock, owner)
    task, earliest = ram.queue_first[owner], -1
    while task != 0:
        if earliest < 0 or ram.task_wake_ns[task - 1] < earliest:
            earliest = ram.task_wake_ns[task - 1]
        task = ram.task_next[task - 1]
    spin_unlock(ram, cpu, ram.queue_lock, owner)
    return earliest


@kernel
def task_is_due(ram, cpu):
    """Does a task other than the running one want this CPU now? (One that sleeps for the disk does not.)"""
    if load_acquire(ram.queue_count, cpu) == 0:
        return False
    due = _earliest_wake(ram, cpu, cpu)
    return 0 <= due <= ram.cpu_clock[cpu]


@kernel
def _is_idle(ram, cpu, c, now):
    """Does CPU `c` run nothing, and is nothing on its way to it? Those who sleep in its queue do not count
    (available_idle_cpu).
    """
    if ram.cpu_task[c] != NOBODY:
        return False
    return load_acquire(ram.queue_count, c) == 0 or _earliest_wake(ram, cpu, c) > now + ram.cost_wakeup


@kernel
def select_cpu(ram, cpu, task, now):
    """Choose the CPU for a task that wakes up at `now` (select_task_rq_fair, much simplified)."""
    if ram.task_pinned[task] >= 0:
        return ram.task_pinned[task]
    last = ram.task_cpu[task]
    if last >= 0 and _is_idle(ram, cpu, last, now):
        return last
    start = fetch_add(ram.run_next_task_cpu, 0, 1)
    shortest, length = 0, -1
    for i in range(ram.nr_cpus):
        c = (start + i) % ram.nr_cpus
        if _is_idle(ram, cpu, c, now):
            return c
        waiting = load_acquire(ram.queue_count, c) + 1
        if length < 0 or waiting < length:
            shortest, length = c, waiting
    return shortest


@apart
def wake_task(ram, cpu, task, at_ns):
    """Make a sleeping task runnable, not before virtual time `at_ns` (try_to_wake_up)."""
    target = select_cpu(ram, cpu, task, at_ns)
    ram.task_wake_ns[task] = at_ns + ram.cost_wakeup
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
    # the hook may have slept, and taken the wake-up of a task that came meanwhile
    if load_acquire(ram.queue_count, cpu) == 0:
        block(ram, cpu, WAIT_IDLE, 0)


@kernel
def _pull_task(ram, cpu, now):
    """Take a kernel thread that waits behind another task on a busy CPU (sched_balance_newidle); -1 if there
    is none.

    XXX: user threads stay. Those of our workloads are pinned or spin at barriers: a spinner that is moved
    keeps the CPU from its own task, which sleeps for the disk and would be back before its slice is over.
    """
    for c in range(ram.nr_cpus):
        if c != cpu and ram.cpu_task[c] != NOBODY and load_acquire(ram.queue_count, c) > 0:
            task = _dequeue_first_due(ram, cpu, c, now, True)
            if task >= 0:
                return task
    return NOBODY


@kernel
def next_kthread(ram, cpu):
    """Take a kernel thread that waits for this CPU, or behind another task on a busy one; -1 if there is
    none.
    """
    task = _dequeue_first_due(ram, cpu, cpu, ram.cpu_clock[cpu], True)
    return task if task >= 0 else _pull_task(ram, cpu, ram.cpu_clock[cpu])


@kernel
def _idle_until_woken_or_due(ram, cpu):
    """Idle until a task is queued here, or, if one is, until the first is due."""
    if ram.queue_count[cpu] == 0:
        _idle(ram, cpu)
        if ram.queue_count[cpu] > 0:
            ram.irq_resched[cpu] += 1  # what woke it would be a reschedule interrupt
        return
    due = _earliest_wake(ram, cpu, cpu)
    if due > ram.cpu_clock[cpu]:
        enter_lazy_tlb(ram, cpu)
        idle_until(ram, cpu, due)  # whoever is behind runs first, and finds this CPU lazy


@apart
def next_task(ram, cpu):
    """Give the task to run now, -1 if the caller should look again (it idled, or time had to pass first)."""
    task = _dequeue_first_due(ram, cpu, cpu, ram.cpu_clock[cpu], False)
    if task < 0:
        task = _pull_task(ram, cpu, ram.cpu_clock[cpu])
    if task >= 0:
        return task
    ram.cpu_task[cpu] = NOBODY
    span(ram, cpu, SPAN_WAIT, WAIT_IDLE, 0)
    _idle_until_woken_or_due(ram, cpu)
    end_span(ram, cpu, SPAN_WAIT)
    return NOBODY
