"""Where tasks run: a CPU whose only task sleeps for the disk is idle, and an idle CPU takes kswapd over if
that waits elsewhere.
"""

import pytest

from allocator.sched import NOBODY, base_slice_ns, enqueue, next_task, select_cpu, task_is_due

DISK, SOON = 1_000_000, 100
PINNED, FREE, OTHER, KSWAPD = 0, 1, 2, 3  # tasks


@pytest.fixture
def machine(broken_machine):
    """Three CPUs with nothing to do; task 0 is pinned to CPU 0, the others are free. Nothing is audited:
    queues are left as they are.
    """
    machine = broken_machine(cpus=3, mms=1)
    machine.ram.cpu_task[:] = NOBODY
    machine.ram.task_pinned[PINNED] = 0
    return machine


def queue(machine, cpu, task, wake_ns):
    machine.ram.task_wake_ns[task] = wake_ns
    enqueue(machine.ram, cpu, cpu, task)


def test_a_cpu_whose_task_sleeps_for_the_disk_is_idle(machine):
    """Others are busy: a task that wakes up goes there. Once it is queued, or the sleeper is about to wake
    up, the CPU is busy as well.
    """
    ram = machine.ram
    ram.cpu_task[1:] = 5, 6
    queue(machine, 0, PINNED, DISK)
    assert select_cpu(ram, 1, FREE, SOON) == 0
    assert select_cpu(ram, 1, FREE, DISK) != 0
    queue(machine, 0, FREE, SOON)
    assert select_cpu(ram, 1, OTHER, SOON) != 0


def test_a_task_goes_back_to_its_cpu_if_that_idles(machine):
    ram = machine.ram
    ram.task_cpu[FREE] = 2
    assert select_cpu(ram, 0, FREE, SOON) == 2
    ram.cpu_task[2] = 5
    assert select_cpu(ram, 0, FREE, SOON) in (0, 1)


def test_an_idle_cpu_takes_kswapd_over_if_that_waits_behind_another(machine):
    """Not before it is due, no user thread, and not from a CPU that idles and will run it itself."""
    ram = machine.ram
    ram.cpu_task[0] = 5
    queue(machine, 0, PINNED, 0)
    queue(machine, 0, FREE, 0)
    queue(machine, 0, KSWAPD, SOON)
    queue(machine, 1, OTHER, DISK)
    assert next_task(ram, 1) == NOBODY
    ram.cpu_clock[1] = SOON
    assert next_task(ram, 1) == KSWAPD
    assert (ram.task_cpu[KSWAPD], ram.queue_count[0]) == (1, 2)
    ram.cpu_task[0] = NOBODY
    queue(machine, 0, KSWAPD, SOON)
    ram.queue_count[1] = ram.queue_first[1] = 0
    queue(machine, 1, OTHER, DISK)
    ram.cpu_clock[1] = SOON
    assert next_task(ram, 1) == NOBODY


def test_a_cpu_idles_until_its_first_sleeper_wakes_up(machine):
    """Its clock is there then, and the task runs."""
    ram = machine.ram
    queue(machine, 0, PINNED, DISK)
    assert next_task(ram, 0) == NOBODY
    assert ram.cpu_clock[0] == DISK
    assert next_task(ram, 0) == PINNED


def test_only_a_task_that_is_due_ends_a_slice(machine):
    ram = machine.ram
    queue(machine, 0, PINNED, DISK)
    assert not task_is_due(ram, 0)
    ram.cpu_clock[0] = DISK
    assert task_is_due(ram, 0)
    assert not task_is_due(ram, 1)


def test_the_time_slice_grows_with_the_cpus_up_to_eight():
    """What `cat /sys/kernel/debug/sched/base_slice_ns` says: 0.75 ms * (1 + log2 of the CPUs)."""
    assert [base_slice_ns(cpus) / 1e6 for cpus in (1, 2, 3, 4, 7, 8, 64)] == [
        0.75,
        1.5,
        1.5,
        2.25,
        2.25,
        3,
        3,
    ]
