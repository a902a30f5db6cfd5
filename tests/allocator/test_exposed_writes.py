"""A page that is written to disk counts as clean: a CPU that could store to it unnoticed is exposed."""

import pytest

from allocator.filemap import clean_and_write
from allocator.page import PG_DIRTY
from cpus.abi.numbers import LOAD, STORE
from cpus.exposed import LOADED, note_unmap
from cpus.exposed_writes import WRITTEN_OUT, page_becomes_clean
from cpus.page_table import PTE_DIRTY, PTE_WRITE, find_table
from emulator.small_machine import SHARED, SHARED_VPN

PAGE = 3
VPN = SHARED_VPN + PAGE


def used(make, kind=STORE):
    """CPU 1 has used a page of a shared file; the page itself is dirty."""
    machine = make(cpus=3)
    for cpu in (0, 1):
        machine.run(1, cpu=cpu)
    machine.touch(VPN, kind, cpu=1)
    machine.ram.page_flags[machine.cached(SHARED, PAGE)] |= PG_DIRTY
    return machine


def where(machine):
    return int(find_table(machine.ram, machine.ram.mm_pgd[1], VPN)), VPN & 511


def take(machine, bits):
    """The bug: something is taken from a PTE, and nobody flushes."""
    machine.ram.frame_word[where(machine)] &= ~bits


def written_out(machine):
    """CPU 0 says that the page is about to be written; what is found of it."""
    before = int(machine.ram.run_exposures[0])
    page_becomes_clean(machine.ram, 0, machine.cached(SHARED, PAGE))
    rows = machine.ram.exposure[before : int(machine.ram.run_exposures[0])].tolist()
    return {(row[0], row[1], row[13]) for row in rows}


@pytest.mark.parametrize("bits", [PTE_DIRTY, PTE_WRITE | PTE_DIRTY, -1])
def test_who_can_store_to_a_page_that_counts_as_clean_is_exposed(broken_machine, bits):
    """Its dirty bit went to the page, or its right to write, or the whole PTE."""
    machine = used(broken_machine)
    take(machine, bits)
    assert written_out(machine) == {(WRITTEN_OUT, 1, LOADED)}


def test_write_back_looks_for_writers(broken_machine):
    machine = used(broken_machine)
    take(machine, PTE_WRITE | PTE_DIRTY)
    clean_and_write(machine.ram, 0, machine.cached(SHARED, PAGE), SHARED)
    assert machine.ram.run_exposures[0] > 0


def test_a_pte_that_says_that_it_is_dirty_will_be_looked_at_again(small_machine):
    machine = used(small_machine)
    assert written_out(machine) == set()
    take(machine, PTE_WRITE)
    assert written_out(machine) == set()


def test_an_entry_without_a_dirty_bit_walks_before_a_store(small_machine):
    machine = used(small_machine, LOAD)
    take(machine, PTE_WRITE | PTE_DIRTY)
    assert written_out(machine) == set()


def test_who_holds_the_lock_of_the_pte_is_not_ready_yet(broken_machine):
    machine = used(broken_machine)
    take(machine, -1)
    lock = where(machine)[0]
    machine.ram.page_lock_word[lock] = 2
    assert written_out(machine) == set()
    machine.ram.page_lock_word[lock] = 0
    assert written_out(machine) != set()


@pytest.mark.parametrize(("unmapper", "found"), [(0, {(WRITTEN_OUT, 1, LOADED)}), (1, set()), (2, set())])
def test_who_writes_must_have_flushed_his_own_batch(broken_machine, unmapper, found):
    """CPU 1 flushes its own before it returns to user code; of CPU 2's batch vanilla knows nothing."""
    machine = used(broken_machine)
    note_unmap(machine.ram, unmapper, machine.cached(SHARED, PAGE))
    take(machine, -1)
    assert written_out(machine) == found
    assert (machine.ram.run_windows[0] > 0) == (unmapper == 2)


def test_a_flush_in_time_is_enough(small_machine):
    machine = used(small_machine)
    clean_and_write(machine.ram, 0, machine.cached(SHARED, PAGE), SHARED)
    assert machine.pte(1, VPN) & (PTE_WRITE | PTE_DIRTY) == 0
    machine.touch(VPN, STORE, cpu=1)
    assert machine.pte(1, VPN) & PTE_DIRTY
