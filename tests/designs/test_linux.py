"""Vanilla's batch: what is pending is completed before a user changes mappings, also when its 15-bit counts
run over.
"""

import pytest

from allocator.flush_sites import REMOTE_SEND_IPI
from allocator.tlb_flush import ALL_PAGES
from allocator.unmap import zap_range
from cpus.abi.numbers import LOAD
from cpus.page_table import PTE_DIRTY
from designs.linux import FLUSHED_SHIFT, PENDING_LARGE, PENDING_MASK, flush_batched_pending, set_flush_pending
from emulator.small_machine import FILE_VPN


@pytest.fixture
def machine(small_machine):
    """Process 1 on CPUs 0 and 1, with pages of the file."""
    machine = small_machine()
    for cpu in (0, 1):
        machine.run(1, cpu=cpu)
        machine.touch(FILE_VPN, LOAD, pages=16, cpu=cpu)
    machine.asked()
    return machine


def pending_and_flushed(machine):
    batched = int(machine.ram.mm_batched[1])
    return batched & PENDING_MASK, batched >> FLUSHED_SHIFT


def forget(machine):
    """What these tests leave in the batch of CPU 0 is no business of the audit."""
    machine.enter("hook_unmap_flush", 0)


def test_what_is_pending_is_flushed_once_before_a_change(machine):
    set_flush_pending(machine.ram, 0, 1, PTE_DIRTY)
    assert pending_and_flushed(machine) == (1, 0)
    zap_range(machine.ram, 0, 1, FILE_VPN, FILE_VPN + 1)
    assert pending_and_flushed(machine) == (1, 1)
    assert machine.events(REMOTE_SEND_IPI) == {ALL_PAGES: 1, 1: 1}
    zap_range(machine.ram, 0, 1, FILE_VPN + 1, FILE_VPN + 2)
    assert machine.events(REMOTE_SEND_IPI) == {ALL_PAGES: 1, 1: 2}
    forget(machine)


def test_only_what_could_be_written_is_flushed_before_io(machine):
    set_flush_pending(machine.ram, 0, 1, 0)
    machine.enter("hook_unmap_flush_dirty", 0)
    assert (machine.asked(), machine.count("flushed_before_io")) == ([], 0)
    set_flush_pending(machine.ram, 0, 1, PTE_DIRTY)
    machine.enter("hook_unmap_flush_dirty", 0)
    assert (machine.asked(), machine.count("flushed_before_io")) == ([[1]], 1)


def test_the_count_starts_anew_before_it_could_catch_up_with_what_was_flushed(machine):
    """2 ** 14 unmaps later: 1 pending, 0 flushed; never equal while something is pending."""
    machine.ram.mm_batched[1] = PENDING_LARGE | (7 << FLUSHED_SHIFT)
    set_flush_pending(machine.ram, 0, 1, 0)
    assert pending_and_flushed(machine) == (PENDING_LARGE + 1, 7)
    set_flush_pending(machine.ram, 0, 1, 0)
    assert pending_and_flushed(machine) == (1, 0)
    flush_batched_pending(machine.ram, 0, 1)
    assert pending_and_flushed(machine) == (1, 1)
    forget(machine)
