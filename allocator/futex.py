"""Flags that threads post and wait for, asleep or spinning; sleeping for a time (kernel/futex,
kernel/time/hrtimer.c: nanosleep).

A flag is a number that only grows. `futex_wait` sleeps until it has reached a value: its CPU runs somebody
else or idles, lazily. `spin_on_flag` waits in user mode: the CPU keeps the address space in use and is
interrupted for it. Flags belong to no process, so processes can wait for each other (futexes in shared
memory, pipes, waitpid).
Whoever waits takes over the virtual time of the latest post, if that is later than its own.
Left out: everything else that futexes do.
"""

from allocator.sched import wake_task
from cpus.atomics import exchange, fence, fetch_add, fetch_max, load_acquire, store_release
from cpus.compiled import kernel
from cpus.declare import ANY, Atomic, Field, OwnerOf, Struct
from cpus.ipi import serve_interrupts
from cpus.lease import WAIT_FLAG, begin_wait, cancel_wait, finish_wait, wait_until, wake_all_waiting_for
from cpus.spans import SPAN_WAIT, end_span, span
from cpus.steal import pass_until

FIELDS = (
    Struct("nr_tasks", "task", (
        Field("task_wait_flag",
              Atomic("store_release", "exchange", why="the sleeper sets it, who takes it back wakes it"),
              "flag it sleeps for + 1"),
        Field("task_wait_count", OwnerOf("task_cpu"), "the count that it sleeps for, before task_wait_flag",
              reads=ANY),
    )),
    Field("flag_count", Atomic("fetch_add"), "times that a flag of the workload was posted", ("nr_flags",)),
    Field("flag_ns", Atomic("fetch_max"), "virtual time of its latest post", ("nr_flags",), unit="ns"),
)  # fmt: skip


@kernel
def post_flag(ram, cpu, flag):
    """Add 1 to a flag; wake who sleeps or spins for it (futex_wake)."""
    fetch_max(ram.flag_ns, flag, ram.cpu_clock[cpu])
    count = fetch_add(ram.flag_count, flag, 1) + 1
    fence()  # the count before the look for sleepers: pairs with futex_wait
    for task in range(ram.user_tasks):
        if load_acquire(ram.task_wait_flag, task) == flag + 1 and ram.task_wait_count[task] <= count:
            if exchange(ram.task_wait_flag, task, 0) == flag + 1:
                wake_task(ram, cpu, task, ram.cpu_clock[cpu])
    wake_all_waiting_for(ram, WAIT_FLAG, flag, ram.cpu_clock[cpu])


@kernel
def flag_reached(ram, cpu, flag, count):
    """Has the flag reached `count`? Then take over the time of its latest post."""
    if load_acquire(ram.flag_count, flag) < count:
        return False
    pass_until(ram, cpu, load_acquire(ram.flag_ns, flag))
    return True


@kernel
def futex_wait(ram, cpu, task, flag, count):
    """True if the flag has reached `count`; else the task is entered as a sleeper, and its CPU must choose
    another.
    """
    if flag_reached(ram, cpu, flag, count):
        return True
    ram.cpu_clock[cpu] += ram.cost_syscall
    ram.task_wait_count[task] = count
    store_release(ram.task_wait_flag, task, flag + 1)
    fence()
    # whoever takes the entry back goes on with the task: we, if the flag was posted meanwhile, or who posted
    # it
    return (
        load_acquire(ram.flag_count, flag) >= count
        and exchange(ram.task_wait_flag, task, 0) != 0
        and flag_reached(ram, cpu, flag, count)
    )


@kernel
def spin_until(ram, cpu, task, words, index, goal, kind):
    """Spin in user mode until words[index] has reached `goal`, serving interrupts, as a wait of this `kind`;
    False if the task's time slice is over and another task waits for the CPU.
    """
    over = False
    while load_acquire(words, index) < goal:
        if ram.cpu_bell[cpu] > 0:
            serve_interrupts(ram, cpu)
        wanted = load_acquire(ram.queue_count, cpu) > 0
        if wanted and (over or ram.cpu_clock[cpu] >= ram.task_slice_ns[task]):
            return False
        if begin_wait(ram, cpu, kind, index):
            fence()
            if load_acquire(words, index) >= goal or (not wanted and load_acquire(ram.queue_count, cpu) > 0):
                cancel_wait(ram, cpu)
            elif wanted:
                over = wait_until(ram, cpu, ram.task_slice_ns[task])
            else:
                finish_wait(ram, cpu)
    return True


@kernel
def spin_on_flag(ram, cpu, task, flag, count):
    """Spin until the flag has reached `count`; False if the CPU must be left to another task."""
    span(ram, cpu, SPAN_WAIT, WAIT_FLAG, flag)
    reached = spin_until(ram, cpu, task, ram.flag_count, flag, count, WAIT_FLAG) and flag_reached(
        ram, cpu, flag, count
    )
    end_span(ram, cpu, SPAN_WAIT)
    return reached
