"""What a CPU does from boot to the end of the run: pick a task, run it for a slice, tick, idle.

Left out: softirqs, timers other than the tick, hotplug.
"""

from allocator.hooks import HOOK_CONTEXT_SWITCH, HOOK_RELEASE, HOOK_TICK
from allocator.kswapd import end_naps, kswapd_falls_asleep, kswapd_step
from allocator.kthread import run_kthread_slice
from allocator.lru import lru_add_drain
from allocator.numa_balancing import task_tick_numa
from allocator.outcome import BLOCKED, ENDED, SLEEP, YIELD
from allocator.panic import TIME_IS_OVER, panic
from allocator.pcp import drain_all_pages
from allocator.program import run_user
from allocator.sched import (
    DONE,
    SLEEPING,
    TASK_DESIGN,
    TASK_KSWAPD,
    TASK_USER,
    TICK_NS,
    enqueue,
    next_kthread,
    next_task,
    task_is_due,
)
from allocator.tlb_flush import INIT_MM, enter_lazy_tlb, switch_mm
from cpus.atomics import compare_exchange, fetch_add, load_acquire
from cpus.compiled import apart, call, kernel
from cpus.declare import OWNER, Atomic, Constant, Exclusive, Field, OwnerOf, Struct
from cpus.ipi import serve_interrupts
from cpus.lease import LEAVE, offer_lease
from cpus.ram import has_points
from cpus.spans import SPAN_TASK, end_span, span
from cpus.steal import charge_stolen
from cpus.strategies import random_next

SERIES_COLUMNS = 8
TIME_MAX_NS = 10**16  # 115 days
FIELDS = (
    Constant("base_slice_ns", "sched_base_slice_ns", "ns"),
    Constant("disturbs", "one of so many ticks has its CPU do what workers do (with points); 0: none"),
    Constant("series_ns", "between two samples of free memory", "ns"),
    Struct("one", "tasks", (Field("run_tasks_left", Atomic("fetch_add"),
                                  "user threads that have not finished"),)),
    Struct("one", "rotors", (
        Field("run_series_next_ns", Atomic("compare_exchange"), "virtual time of the next sample", unit="ns"),
        Field("run_series_count", Atomic("fetch_add"), "samples taken"),
    )),
    Struct("nr_cpus", "clock", (
        Field("cpu_last_task", OWNER, "task it ran last"),
        Field("cpu_tick_ns", OWNER, "next scheduler tick", unit="ns"),
    )),
    Struct("nr_tasks", "task", (
        Field("task_end_ns", OwnerOf("task_cpu"), "when it ended", unit="ns"),
        Field("task_slice_ns", OwnerOf("task_cpu"), "end of its time slice", unit="ns"),
        Field("task_runtime_ns",
              Atomic("fetch_add", why="a task that blocked may run elsewhere before it is added here"),
              "time it has run", unit="ns"),
    )),
    Field("series", Exclusive("winner of a sample"),
          "virtual ns, free pages of each node, then those with nothing pending",
          ("series_length", SERIES_COLUMNS)),
)  # fmt: skip


@kernel
def _sample(ram, cpu):
    """Note free pages, and those of them with nothing pending, once per `series_ns` of virtual time, by
    whichever CPU gets there first.
    """
    now = ram.cpu_clock[cpu]
    due = load_acquire(ram.run_series_next_ns, 0)
    if now < due or compare_exchange(ram.run_series_next_ns, 0, due, now + ram.series_ns) != due:
        return
    n = fetch_add(ram.run_series_count, 0, 1)
    if n >= ram.series_length:
        return
    ram.series[n, 0] = now
    nodes = min(ram.nr_nodes, (SERIES_COLUMNS - 1) // 2)
    for node in range(nodes):
        for zone in range(ram.node_first_zone[node], ram.node_end_zone[node]):
            ram.series[n, 1 + node] += ram.zone_free[zone]
            ram.series[n, 1 + nodes + node] += ram.zone_free[zone] - ram.zone_pending[zone]


@kernel
def _tick_period(ram, cpu):
    """Give the time until the next tick; with scheduling points it is drawn, so that a tick may come at any
    moment.
    """
    if not has_points(ram):
        return TICK_NS
    ram.cpu_random[cpu] = random_next(ram.cpu_random[cpu])
    return 1 + (ram.cpu_random[cpu] >> 16) % (2 * ram.tick_ns)


@kernel
def tick(ram, cpu, task):
    """The scheduler tick, when it is due."""
    _sample(ram, cpu)
    if ram.cpu_clock[cpu] < ram.cpu_tick_ns[cpu]:
        return
    ram.cpu_tick_ns[cpu] = ram.cpu_clock[cpu] + _tick_period(ram, cpu)
    end_naps(ram, cpu)
    call(ram, HOOK_TICK, cpu, 0, 0, 0, 0)
    if ram.numa_balancing and ram.task_kind[task] == TASK_USER:
        task_tick_numa(ram, cpu, task)
    if has_points(ram) and ram.disturbs > 0:
        disturb(ram, cpu, task)


@kernel
def _check_time(ram, cpu):
    """Stop the run long before a clock, in tenths of a ns, could wrap: between two looks it may gain what the
    dearest visit of one page takes, and all that the kernel does: half of 10^18 ns.
    """
    if ram.cpu_clock[cpu] > TIME_MAX_NS:
        panic(ram, cpu, TIME_IS_OVER, ram.cpu_clock[cpu], TIME_MAX_NS)


@kernel
def _start_task(ram, cpu, task):
    """Switch to a task: a user thread's address space is loaded, a kernel thread borrows what is loaded."""
    before = ram.cpu_loaded_mm[cpu]
    borrowed = ram.cpu_lazy[cpu] and before != INIT_MM
    if task != ram.cpu_last_task[cpu]:
        ram.cpu_live_count[cpu] = 0
    ram.cpu_task[cpu] = ram.cpu_last_task[cpu] = task
    _check_time(ram, cpu)
    ram.task_slice_ns[task] = ram.cpu_clock[cpu] + ram.base_slice_ns
    ram.cpu_clock[cpu] += ram.cost_context_switch
    if ram.task_kind[task] == TASK_USER:
        switch_mm(ram, cpu, ram.task_mm[task])
        if borrowed:
            call(ram, HOOK_RELEASE, cpu, before, 0, 0, 0)
    else:
        enter_lazy_tlb(ram, cpu)
    call(ram, HOOK_CONTEXT_SWITCH, cpu, before, ram.cpu_loaded_mm[cpu], task, 0)


@kernel
def _finish(ram, cpu, task):
    """A user thread's program has ended."""
    ram.task_state[task] = DONE
    ram.task_end_ns[task] = ram.cpu_clock[cpu]
    if ram.task_index[task] == 0:
        ram.proc_end_ns[ram.task_process[task]] = ram.cpu_clock[cpu]
    ram.cpu_task[cpu] = -1
    fetch_add(ram.run_tasks_left, 0, -1)


@kernel
def _slice_is_over(ram, cpu, task):
    """Has the running task used its slice up while another wants the CPU? If nobody does, a new slice begins
    (update_deadline).
    """
    if ram.cpu_clock[cpu] < ram.task_slice_ns[task]:
        return False
    if task_is_due(ram, cpu):
        return True
    ram.task_slice_ns[task] = ram.cpu_clock[cpu] + ram.base_slice_ns
    return False


@kernel
def _give_way(ram, cpu, task):
    """Put the running task behind the others; False: the CPU must choose again."""
    ram.task_wake_ns[task] = 0
    enqueue(ram, cpu, cpu, task)
    return False


@kernel
def _run_user_slice(ram, cpu, task):
    """Run a user thread until the slice is over or it stops by itself; False if the CPU must choose again."""
    began = ram.cpu_clock[cpu]
    result = run_user(ram, cpu, task)
    _check_time(ram, cpu)  # what is stolen may be 255 times as much
    charge_stolen(ram, cpu)
    _check_time(ram, cpu)
    fetch_add(ram.task_runtime_ns, task, ram.cpu_clock[cpu] - began)
    if result == ENDED:
        _finish(ram, cpu, task)
        return False
    if result == BLOCKED:
        ram.cpu_task[cpu] = -1
        return False
    if result == SLEEP:
        ram.task_wake_ns[task] = ram.task_wait_ns[task]
        ram.cpu_task[cpu] = -1
        enqueue(ram, cpu, cpu, task)
        return False
    tick(ram, cpu, task)
    if result == YIELD and load_acquire(ram.queue_count, cpu) > 0:
        return _give_way(ram, cpu, task)
    return not _slice_is_over(ram, cpu, task) or _give_way(ram, cpu, task)


@kernel
def _run_kswapd_slice(ram, cpu, task):
    """Run a node's kswapd for a slice; False if it fell asleep or others want the CPU."""
    node = ram.task_index[task]
    while ram.cpu_clock[cpu] < ram.cpu_slice_end[cpu]:
        if ram.cpu_bell[cpu] > 0:
            serve_interrupts(ram, cpu)
        if kswapd_step(ram, cpu, node) == 0:
            charge_stolen(ram, cpu)
            ram.task_state[task] = SLEEPING
            ram.cpu_task[cpu] = -1
            kswapd_falls_asleep(ram, cpu, node)
            return False
    return not _slice_is_over(ram, cpu, task) or _give_way(ram, cpu, task)


@kernel
def _run_task(ram, cpu, task):
    """Run a task that was switched to until it sleeps, ends, or gives way."""
    span(ram, cpu, SPAN_TASK, task, 0)
    again = True
    while again:
        if ram.cpu_clock[cpu] >= ram.cpu_slice_end[cpu]:
            offer_lease(ram, cpu)
        if ram.task_kind[task] == TASK_KSWAPD:
            again = _run_kswapd_slice(ram, cpu, task)
        elif ram.task_kind[task] == TASK_DESIGN:
            again = run_kthread_slice(ram, cpu, task)
        else:
            again = _run_user_slice(ram, cpu, task)
    end_span(ram, cpu, SPAN_TASK)


@apart
def disturb(ram, cpu, task):
    """Have this CPU do, if it is drawn, what others may ask of any CPU at any time: give its LRU batch back
    (lru_add_drain_all), all page lists (drain_all_pages), or stand idle, its address space a borrowed one,
    until others have run.
    """
    ram.cpu_random[cpu] = random_next(ram.cpu_random[cpu])
    what = (ram.cpu_random[cpu] >> 16) % (3 * ram.disturbs)
    if what == 0:
        lru_add_drain(ram, cpu)
    elif what == 1:
        for zone in range(ram.nr_zones):
            drain_all_pages(ram, cpu, zone)
    elif what == 2:
        enter_lazy_tlb(ram, cpu)
        offer_lease(ram, cpu)
        if ram.cpu_bell[cpu] > 0:
            serve_interrupts(ram, cpu)
        _start_task(ram, cpu, task)
    return 0


@apart
def run_waiting_kthread(ram, cpu):
    """Run a kernel thread that waits for a CPU while this one's task sleeps inside the kernel
    (schedule_timeout); 0 if none waits.

    Then the task goes on. No lock may be held that spins, nor anything of this CPU's that reclaim uses.
    """
    thread = next_kthread(ram, cpu)
    if thread < 0:
        return 0
    task, began = ram.cpu_task[cpu], ram.cpu_clock[cpu]
    _start_task(ram, cpu, thread)
    _run_task(ram, cpu, thread)
    _start_task(ram, cpu, task)
    fetch_add(ram.task_runtime_ns, task, began - ram.cpu_clock[cpu])
    return 1


@apart
def cpu_loop(ram, cpu):
    """Run tasks until the run ends; returns 0."""
    ram.cpu_task[cpu] = -1
    while load_acquire(ram.run_stop, 0) != LEAVE:
        if ram.cpu_bell[cpu] > 0:
            serve_interrupts(ram, cpu)
        _sample(ram, cpu)
        task = next_task(ram, cpu)
        if task < 0:
            continue
        _start_task(ram, cpu, task)
        _run_task(ram, cpu, task)
    return 0
