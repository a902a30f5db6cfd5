"""A flush design's kernel thread: asleep until woken, then in steps until its hook says that nothing is left
(kernel/kthread.c).

A design that has HOOK_KTHREAD gets one. It is a task as kswapd is: on an idle CPU if there is one, at the end
of a queue if not. A wake-up that comes while it is awake makes it go round once more before it sleeps, so
none is lost.
Left out: several threads, binding to a CPU, priorities.
"""

from allocator.hooks import HOOK_KTHREAD
from allocator.sched import ON_CPU, SLEEPING, enqueue, wake_task
from cpus.atomics import compare_exchange, load_acquire, store_release
from cpus.compiled import apart, call, kernel
from cpus.declare import Atomic, Field, Struct
from cpus.ipi import serve_interrupts

FIELDS = (
    Struct("nr_tasks", "task", (
        Field("task_asked", Atomic("compare_exchange", "store_release"),
              "a design's thread is ASLEEP, AWAKE, AWAKE_AGAIN"),
    )),
)  # fmt: skip

ASLEEP, AWAKE, AWAKE_AGAIN = 0, 1, 2


@apart
def wake_kthread(ram, cpu):
    """Wake the design's thread (wake_up_process). No spin lock may be held."""
    task = ram.user_tasks + ram.nr_nodes
    if (
        load_acquire(ram.task_asked, task) == AWAKE_AGAIN
        or compare_exchange(ram.task_asked, task, AWAKE, AWAKE_AGAIN) == AWAKE
    ):
        return 0
    if compare_exchange(ram.task_asked, task, ASLEEP, AWAKE) == ASLEEP:
        wake_task(ram, cpu, task, ram.cpu_clock[cpu])
    return 0


@kernel
def _falls_asleep(ram, cpu, task):
    """Sleep unless somebody has asked meanwhile. Asleep, the task may be on another CPU at once."""
    ram.task_state[task] = SLEEPING
    ram.cpu_task[cpu] = -1
    if compare_exchange(ram.task_asked, task, AWAKE, ASLEEP) == AWAKE:
        return True
    ram.task_state[task] = ON_CPU
    ram.cpu_task[cpu] = task
    store_release(ram.task_asked, task, AWAKE)
    return False


@kernel
def run_kthread_slice(ram, cpu, task):
    """Run the design's thread for a slice; False if it fell asleep or others want the CPU."""
    while ram.cpu_clock[cpu] < ram.cpu_slice_end[cpu]:
        if ram.cpu_bell[cpu] > 0:
            serve_interrupts(ram, cpu)
        if call(ram, HOOK_KTHREAD, cpu, 0, 0, 0, 0) == 0 and _falls_asleep(ram, cpu, task):
            return False
    if load_acquire(ram.queue_count, cpu) > 0 and ram.cpu_clock[cpu] >= ram.task_slice_ns[task]:
        ram.task_wake_ns[task] = 0
        enqueue(ram, cpu, cpu, task)
        return False
    return True
