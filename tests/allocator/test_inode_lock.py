"""The locks of a file: who changes it keeps the others out, asleep as tasks; a truncation keeps readers from
bringing pages in; hits take neither.
"""

from __future__ import annotations

import pytest

from allocator.direct_io import UNDER_WAY, direct_io
from allocator.outcome import BLOCKED, NEXT, RAN, SLEEP
from allocator.sched import DONE, QUEUED
from allocator.syscalls import change_file
from cpus.abi.numbers import LOAD, STORE
from cpus.abi.row_kinds import DIRECT_READ, DIRECT_WRITE, TRUNCATE, WRITE
from cpus.locks import WRITER
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN

REGION, MEMORY = 0, 2
DIRECT, CHANGE = (DIRECT_READ, DIRECT_WRITE), (WRITE, TRUNCATE)


@pytest.fixture
def machine(small_machine):
    """Tasks 0 and 1 are threads of a process, on CPUs of their own; a third CPU reads."""
    machine = small_machine(cpus=3, mms=1, pages=(1024,), user_tasks=2)
    ram = machine.ram
    for cpu in range(3):
        machine.run(1, cpu=cpu)
    ram.task_mm[:2], ram.task_process[:2], ram.task_pinned[:2] = 1, 0, (0, 1)
    ram.proc_file[0, REGION] = FILE
    machine.touch(ANON_VPN, STORE, pages=32)
    yield machine
    machine.forget_wakeups()
    ram.task_state[:2] = DONE


def execute(machine, task, op, pages=4):
    """Execute a row, or go on with it, on the task's CPU, when what it waits for is there."""
    ram = machine.ram
    ram.row_op[0], ram.row_region[0], ram.row_pages[0], ram.row_page[0] = op, REGION, pages, 0
    ram.row_kind[0], ram.row_count[0] = (MEMORY, 8 * task) if op in DIRECT else (0, 0)
    ram.cpu_clock[task] = max(ram.cpu_clock[task], ram.task_wait_ns[task])
    return int((direct_io if op in DIRECT else change_file)(ram, task, task, 0))


def submit(machine, task, op):
    """Begin a direct call; it returns with the device at work."""
    while execute(machine, task, op) != SLEEP or machine.ram.task_step[task] != UNDER_WAY:
        pass


@pytest.mark.parametrize("held", DIRECT)
@pytest.mark.parametrize("wanted", CHANGE)
def test_who_changes_a_file_waits_for_direct_calls(machine, held, wanted):
    """As a task: it is woken when the call returns, and does its row then."""
    ram = machine.ram
    submit(machine, 0, held)
    assert execute(machine, 1, wanted) == BLOCKED
    assert ram.task_wait_inode[1] == FILE + 1
    assert execute(machine, 0, held) == NEXT
    assert ram.task_wait_inode[1] == 0
    assert (ram.task_state[1], ram.queue_count[1]) == (QUEUED, 1)
    assert execute(machine, 1, wanted) == NEXT
    assert (ram.inode_lock[FILE], ram.invalidate_lock[FILE]) == (0, 0)


@pytest.mark.parametrize("wanted", [*DIRECT, *CHANGE])
def test_a_write_has_the_file_alone_from_its_first_page_to_its_last(machine, wanted):
    """Its slice ends after each page, and others run."""
    ram = machine.ram
    machine.touch(FILE_VPN, LOAD, pages=4)
    ram.cpu_slice_end[0] = 0
    assert execute(machine, 0, WRITE) == RAN
    assert ram.inode_lock[FILE] == WRITER
    assert execute(machine, 1, wanted) == BLOCKED
    assert [execute(machine, 0, WRITE) for _ in range(3)] == [RAN, RAN, NEXT]
    while (result := execute(machine, 1, wanted)) == SLEEP:
        pass
    assert result == NEXT


def test_a_file_that_nobody_changes_is_free(machine):
    """What the others wait for is the lock and nothing else: one after the other nobody waits."""
    assert [execute(machine, task, op) for op in CHANGE for task in (0, 1)] == [NEXT] * 4


def test_of_two_direct_writes_at_once_the_later_one_is_the_content(machine):
    """The second one's device is done while the first one's call empties the cache: both versions are on
    disk, one after the other, and each call makes its own one known. A reader of the first would be stale.
    """
    ram = machine.ram
    logical, seen = int(ram.object_logical[FILE]), []
    submit(machine, 0, DIRECT_WRITE)
    submit(machine, 1, DIRECT_WRITE)
    assert ram.inode_lock[FILE] == 2

    def other(*_):
        if not seen:
            seen.append(int(ram.disk_version[logical]))
            assert execute(machine, 1, DIRECT_WRITE) == NEXT
            seen.append(int(ram.version[logical]))

    machine.on_hook("truncate", other)
    assert execute(machine, 0, DIRECT_WRITE) == NEXT
    assert seen == [1, 2]
    assert (ram.disk_version[logical], ram.version[logical]) == (2, 2)
    assert ram.inode_lock[FILE] == 0
    machine.touch(FILE_VPN, LOAD, cpu=2)
    assert machine.content(machine.cached(FILE, 0)) == (logical, 2)


def test_nobody_brings_a_page_in_while_the_file_is_truncated(machine):
    """A miss waits for invalidate_lock; a hit does not look at it."""
    ram = machine.ram
    machine.touch(FILE_VPN, LOAD, pages=2)
    held = []
    machine.on_hook("truncate", lambda *_: held.append(int(ram.invalidate_lock[FILE])))
    assert execute(machine, 0, TRUNCATE, pages=2) == NEXT
    assert held == [WRITER, WRITER]
    machine.touch(FILE_VPN, LOAD)
    ram.invalidate_lock[FILE] = WRITER  # as if another CPU were at it
    machine.forget_tlb(1)
    machine.touch(FILE_VPN, LOAD, cpu=1)
    waits = []

    def truncated(cpu):
        waits.append(cpu)
        ram.invalidate_lock[FILE] = 0

    machine.on_wait = truncated
    machine.touch(FILE_VPN + 200, LOAD, cpu=1)
    assert waits == [1]
    assert ram.invalidate_lock[FILE] == 0
