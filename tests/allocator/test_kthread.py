"""A design's kernel thread: no wake-up is lost, and it is one task however often it is woken."""

from __future__ import annotations

from allocator.kthread import ASLEEP, AWAKE, AWAKE_AGAIN, _falls_asleep, wake_kthread
from allocator.sched import ON_CPU, QUEUED, SLEEPING, next_task
from emulator import load_machine, run_design


def test_a_wake_up_while_awake_is_one_more_round(small_machine):
    """Woken twice it is queued once; it goes round again, and only then sleeps."""
    ram = small_machine(cpus=2, mms=1).ram
    thread = int(ram.user_tasks + ram.nr_nodes)
    wake_kthread(ram, 0)
    assert (ram.task_asked[thread], ram.task_state[thread], ram.queue_count.sum()) == (AWAKE, QUEUED, 1)
    wake_kthread(ram, 1)
    wake_kthread(ram, 1)
    assert (ram.task_asked[thread], ram.queue_count.sum()) == (AWAKE_AGAIN, 1)
    cpu = int(ram.queue_count.argmax())
    ram.cpu_clock[cpu] = ram.task_wake_ns[thread]
    assert next_task(ram, cpu) == thread
    assert not _falls_asleep(ram, 1, thread)
    assert (ram.task_asked[thread], ram.task_state[thread], ram.cpu_task[1]) == (AWAKE, ON_CPU, thread)
    assert _falls_asleep(ram, 1, thread)
    assert (ram.task_asked[thread], ram.task_state[thread], ram.cpu_task[1]) == (ASLEEP, SLEEPING, -1)


def test_the_kicker_is_a_task_of_its_own():
    """Under pressure the thread of luf:sync=kicker flushes, and saves allocators from doing it; without the
    hook there is no thread.
    """
    machine = load_machine("xeon6430-cxl", scale=1024, cpus=8)
    owner, kicker = (
        run_design(f"luf:sync={sync}", machine, "churn", tokens=2, leases=1, seed=1)
        for sync in ("owner", "kicker")
    )
    assert kicker.clean
    assert kicker.design_stats["kicked"] > 0
    assert kicker.flush_sites.get("page allocation", 0) < owner.flush_sites["page allocation"]
    assert owner.design_stats["kicked"] == 0
