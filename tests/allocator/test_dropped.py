"""A page of a file that was stored to must be written before it is dropped: else who drops it is reported."""

import pytest

from allocator.filemap import fadvise
from allocator.page import PG_DIRTY
from allocator.unmap import zap_range
from cpus.abi.numbers import STORE
from cpus.page_table import PTE_DIRTY, find_table
from emulator.small_machine import SHARED, SHARED_VPN

PAGE = 3
VPN = SHARED_VPN + PAGE


def stored(make):
    """A page of a shared file was stored to, and is mapped no more."""
    machine = make()
    machine.run(1)
    machine.touch(VPN, STORE)
    return machine


def forget_the_store(machine):
    """The bug: the dirty bit of the PTE is lost."""
    table = int(find_table(machine.ram, machine.ram.mm_pgd[1], VPN))
    machine.ram.frame_word[table, VPN & 511] &= ~PTE_DIRTY
    machine.ram.page_flags[machine.cached(SHARED, PAGE)] &= ~PG_DIRTY
    machine.forget_tlb(0)


def reclaim(machine):
    machine.reclaim_file(SHARED)


def drop_by_advice(machine):
    zap_range(machine.ram, 0, 1, VPN, VPN + 1)
    fadvise(machine.ram, 0, SHARED, PAGE, PAGE + 1)


@pytest.mark.parametrize("drops", [reclaim, drop_by_advice])
def test_a_page_whose_store_was_forgotten_is_dropped_with_it(broken_machine, drops):
    machine = stored(broken_machine)
    forget_the_store(machine)
    drops(machine)
    assert machine.cached(SHARED, PAGE) < 0
    assert machine.violations() == ["dropped store"]


@pytest.mark.parametrize("drops", [reclaim, drop_by_advice])
def test_one_that_is_written_first_or_stays_is_not(small_machine, drops):
    """Reclaim writes it; advice leaves it."""
    machine = stored(small_machine)
    drops(machine)
    assert (machine.cached(SHARED, PAGE) < 0) == (drops is reclaim)
