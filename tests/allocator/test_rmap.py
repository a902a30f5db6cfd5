"""Reverse mapping: every PTE of a page is found, cleared, turned into a migration entry and back."""

import pytest

from allocator.lru import drop_page, isolate_page, lru_add_drain, putback_page
from allocator.page import PG_DIRTY, get_page, lock_page, unlock_page
from allocator.rmap import (
    UNMAP_DONE,
    UNMAP_FOR_MIGRATION,
    UNMAP_FOR_RECLAIM,
    page_referenced,
    remove_migration_ptes,
    try_to_unmap,
)
from cpus.abi.numbers import LOAD, STORE
from cpus.page_table import PTE_ACCESSED, PTE_DIRTY, PTE_MIGRATION, PTE_PRESENT, PTE_WRITE
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN, SHARED_VPN

CPU, INDEX = 0, 5


@pytest.fixture
def machine(small_machine):
    """Three processes, one on each CPU, have read page INDEX of the file and written it in the shared one."""
    machine = small_machine(cpus=3, mms=3)
    for cpu in range(3):
        machine.run(cpu + 1, cpu=cpu)
        machine.touch(FILE_VPN + INDEX, LOAD, cpu=cpu)
        machine.touch(SHARED_VPN + INDEX, STORE, cpu=cpu)
        lru_add_drain(machine.ram, cpu)
    return machine


def unmap(machine, pfn, why, cpu=CPU):
    """Lock, unmap, complete the flush; returns what try_to_unmap says."""
    get_page(machine.ram, pfn)
    lock_page(machine.ram, cpu, pfn)
    result = int(try_to_unmap(machine.ram, cpu, pfn, why))
    machine.enter("hook_unmap_flush", cpu)
    unlock_page(machine.ram, cpu, pfn)
    drop_page(machine.ram, cpu, pfn)
    return result


def test_the_file_page_is_one_frame_for_all(machine):
    pfn = machine.pfn(1, FILE_VPN + INDEX)
    assert [machine.pfn(mm, FILE_VPN + INDEX) for mm in (1, 2, 3)] == [pfn] * 3
    assert (machine.ram.page_mapcount[pfn], machine.ram.page_refcount[pfn]) == (3, 4)


def test_references_are_counted_once(machine):
    """page_referenced looks at all PTEs and clears their accessed bits; with no new access it finds none."""
    pfn = machine.pfn(1, FILE_VPN + INDEX)
    assert page_referenced(machine.ram, CPU, pfn) == (3, False)
    assert page_referenced(machine.ram, CPU, pfn) == (0, False)
    assert [machine.pte(mm, FILE_VPN + INDEX) & PTE_ACCESSED for mm in (1, 2, 3)] == [0, 0, 0]
    assert machine.asked() == [], "nobody is flushed for that on x86"


def test_an_access_through_the_tlb_leaves_no_mark_until_the_next_walk(machine):
    """The price of not flushing: a page used through an old entry looks unused."""
    pfn = machine.pfn(1, FILE_VPN + INDEX)
    page_referenced(machine.ram, CPU, pfn)
    machine.touch(FILE_VPN + INDEX)
    assert page_referenced(machine.ram, CPU, pfn) == (0, False)


def test_code_is_told_apart(machine):
    pfn = machine.pfn(1, FILE_VPN + INDEX)
    machine.make_code(2)
    assert page_referenced(machine.ram, CPU, pfn) == (3, True)


def test_unmap_finds_every_pte(machine):
    """All three PTEs are gone, one interrupt goes to each other CPU that runs such a process, and the dirty
    bit is kept.
    """
    pfn = machine.pfn(1, SHARED_VPN + INDEX)
    machine.ram.page_flags[pfn] &= ~PG_DIRTY
    assert unmap(machine, pfn, UNMAP_FOR_RECLAIM) == UNMAP_DONE
    assert [machine.pte(mm, SHARED_VPN + INDEX) for mm in (1, 2, 3)] == [0, 0, 0]
    assert (machine.ram.page_mapcount[pfn], machine.ram.page_refcount[pfn]) == (0, 1)
    assert machine.flags(pfn) & PG_DIRTY
    assert (machine.count("unmap_rw"), machine.count("unmap_ro")) == (3, 0)
    assert machine.asked() == [[1, 2]]


def test_an_unmapped_page_is_mapped_again_by_the_next_access(machine):
    """The TLB entry is gone on every CPU: the oracle would see a read through an old one after the page has
    changed.
    """
    pfn = machine.pfn(1, SHARED_VPN + INDEX)
    unmap(machine, pfn, UNMAP_FOR_RECLAIM)
    faults = machine.count("pgfault")
    for cpu in range(3):
        machine.touch(SHARED_VPN + INDEX, STORE, cpu=cpu)
    assert machine.count("pgfault") - faults == 3
    assert machine.ram.page_mapcount[pfn] == 3


def test_a_process_that_runs_nowhere_else_is_flushed_at_once(machine):
    """mm 1 is on CPU 0 only: no batch, no interrupt."""
    machine.touch(ANON_VPN, STORE)
    lru_add_drain(machine.ram, CPU)
    pfn = machine.pfn(1, ANON_VPN)
    assert isolate_page(machine.ram, CPU, pfn)
    assert unmap(machine, pfn, UNMAP_FOR_MIGRATION) == UNMAP_DONE
    assert machine.asked() == []
    assert machine.ram.ubc_required[CPU] == 0
    remove_migration_ptes(machine.ram, CPU, pfn, pfn)
    putback_page(machine.ram, CPU, pfn)


@pytest.mark.parametrize("vpn, rights", [(FILE_VPN, 0), (SHARED_VPN, PTE_WRITE | PTE_DIRTY)])
def test_migration_entries_keep_the_rights_and_go_back(machine, vpn, rights):
    """PTE -> migration entry of the same frame -> PTE, with the same rights; nothing is present between."""
    pfn = machine.pfn(1, vpn + INDEX)
    assert isolate_page(machine.ram, CPU, pfn)
    assert unmap(machine, pfn, UNMAP_FOR_MIGRATION) == UNMAP_DONE
    between = [machine.pte(mm, vpn + INDEX) for mm in (1, 2, 3)]
    assert all(pte & PTE_MIGRATION and not pte & PTE_PRESENT and pte >> 12 == pfn for pte in between)
    assert (machine.ram.page_mapcount[pfn], machine.ram.page_refcount[pfn]) == (0, 2)
    remove_migration_ptes(machine.ram, CPU, pfn, pfn)
    after = [machine.pte(mm, vpn + INDEX) for mm in (1, 2, 3)]
    assert after == [pfn << 12 | PTE_PRESENT | PTE_ACCESSED | rights] * 3
    assert (machine.ram.page_mapcount[pfn], machine.ram.page_refcount[pfn]) == (3, 5)
    putback_page(machine.ram, CPU, pfn)


def test_who_meets_a_migration_entry_waits_for_the_page_lock(machine):
    """CPU 2 faults on the entry and sleeps; the migrator maps the page again, unlocks it; CPU 2 goes on."""
    pfn = machine.pfn(1, FILE_VPN + INDEX)
    assert isolate_page(machine.ram, CPU, pfn)
    lock_page(machine.ram, CPU, pfn)
    try_to_unmap(machine.ram, CPU, pfn, UNMAP_FOR_MIGRATION)
    machine.enter("hook_unmap_flush", CPU)
    waited = []

    def migrator_goes_on(cpu):
        waited.append((cpu, int(machine.ram.cpu_wait_object[cpu])))
        remove_migration_ptes(machine.ram, CPU, pfn, pfn)
        unlock_page(machine.ram, CPU, pfn)

    machine.on_wait = migrator_goes_on
    machine.touch(FILE_VPN + INDEX, cpu=2)
    assert waited == [(2, pfn)]
    assert machine.count("faults_on_a_moving_page") == 1
    putback_page(machine.ram, CPU, pfn)


def test_a_page_of_nobody_is_not_referenced(machine):
    """Read ahead and never touched."""
    pfn = machine.cached(FILE, 20)
    assert machine.ram.page_mapcount[pfn] == 0
    assert page_referenced(machine.ram, CPU, pfn) == (0, False)
