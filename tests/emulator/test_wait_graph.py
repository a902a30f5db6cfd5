"""Whom a CPU waits for is said in words: which lock, whose, and what it is if it is none."""

import pytest

from benchmarks.storm import small_ram
from cpus.atomics import address
from cpus.compiled import kernel
from cpus.lease import BLOCKED, RUNNING, WAIT_IDLE, WAIT_INVALIDATE, WAIT_WORD
from cpus.segment import word_at_address
from emulator.judge.wait_graph import wait_graph


@pytest.fixture
def ram():
    """Three CPUs: 0 waits, 1 runs, 2 is idle."""
    ram = small_ram(3)
    ram.cpu_state[:] = BLOCKED, RUNNING, BLOCKED
    ram.cpu_wait_kind[:] = WAIT_WORD, 0, WAIT_IDLE
    yield ram
    ram.close()


def where(view, *index):
    """Give the address of an element as a numpy view has it."""
    return view.ctypes.data + sum(i * stride for i, stride in zip(index, view.strides, strict=True))


@kernel
def addresses(ram):
    return address(ram.pcp_lock, (1, 0)), address(ram.cpu_acks, 2)


def test_compiled_code_and_python_mean_the_same_word(ram):
    """What a waiter notes in compiled code is found again by name and index."""
    pcp, acks = addresses(ram)
    ram.pcp_lock[1, 0], ram.cpu_acks[2] = 5, 7
    assert word_at_address(ram, pcp) == ("pcp_lock", (1, 0), 5)
    assert word_at_address(ram, acks) == ("cpu_acks", (2,), 7)


@pytest.mark.parametrize(
    ("name", "index", "value", "text"),
    [
        ("pcp_lock", (1, 0), 2, "cpu0 waits for pcp.lock[1, 0] held by cpu1; cpu1 runs; 1 CPUs are idle"),
        ("zone_lock", (0,), 1 << 40 | 3, "cpu0 waits for zone.lock[0] held by cpu2"),
        ("queue_lock", (2,), 0, "cpu0 waits for rq.lock[2], which nobody holds"),
        ("zone_key_done", (0,), 6, "cpu0 waits for zone_key_done[0] to change (6)"),
    ],
)
def test_a_word_has_a_name(ram, name, index, value, text):
    """Linux's name of a lock, and its holder; of any other word its own name, and what it is now."""
    view = getattr(ram, name)
    view[index] = value
    ram.cpu_wait_object[0] = where(view, *index)
    assert wait_graph(ram).startswith(text)


def test_the_locks_of_a_file(ram):
    """A CPU waits for invalidate_lock; for the inode's a task sleeps, and its CPU is idle."""
    ram.cpu_wait_kind[0], ram.cpu_wait_object[0] = WAIT_INVALIDATE, 1
    ram.task_wait_inode[0] = 1
    said = "cpu0 waits for invalidate_lock 1; cpu1 runs; 1 CPUs are idle; task 0 sleeps for inode.i_rwsem[0]"
    assert wait_graph(ram) == said


def test_a_designs_own_lock_goes_by_its_name():
    own = small_ram(2, design_fields={"key_lock": (4,), "key_mask": (4, 2)})
    own.cpu_state[:], own.cpu_wait_kind[:] = (BLOCKED, RUNNING), (WAIT_WORD, 0)
    own.design["key_lock"][3] = 2
    own.cpu_wait_object[0] = where(own.design["key_lock"], 3)
    assert wait_graph(own).startswith("cpu0 waits for key_lock[3] held by cpu1")
    own.close()


def test_an_address_that_is_no_word_of_ours_is_said_to_be_none(ram):
    ram.cpu_wait_object[0] = ram._base + 4
    assert "cpu0 waits for a word at 0x" in wait_graph(ram)
    assert "that nothing declares" in wait_graph(ram)
