"""Breakpoints: who maps the code gets a copy in its place, nobody executes the old code when the call has
returned, and back.
"""

from __future__ import annotations

import pytest

from allocator.fork import dup_mm
from allocator.lru import drop_page
from allocator.mmap import do_mmap, do_munmap, exit_mm
from allocator.outcome import NEXT, SLEEP
from allocator.uprobes import hold_mapped, uprobe
from allocator.vma import VM_EXEC, VM_READ, VM_SHARED
from cpus.abi.numbers import IFETCH
from cpus.abi.row_kinds import REGISTER, UNREGISTER
from cpus.completion import look_for_completed_changes
from cpus.page_table import LEVEL_MASK, PTE_PRESENT, PTE_PROTNONE, PTE_WRITE, find_table
from designs.none import NoFlush
from emulator.small_machine import FILE, FILE_VPN

REGION, PAGES = 0, 256


def map_code(machine, mm, flags=VM_READ | VM_EXEC):
    """Map the file anew, as private code with an anon_vma for copies."""
    ram, process = machine.ram, mm - 1
    do_munmap(ram, 0, mm, FILE_VPN, FILE_VPN + PAGES)
    ram.proc_flags[process, REGION], ram.proc_anon[process, REGION] = flags, 1 + mm
    do_mmap(ram, 0, mm, REGION, 0, PAGES)


def prepared(machine):
    """Process 1 runs on CPUs 0 and 1, process 2 on CPU 2, both with code; CPU 3 is the tracer's, in process
    3, which maps none as code.
    """
    for mm in (1, 2):
        map_code(machine, mm)
    for cpu, mm in ((0, 1), (1, 1), (2, 2), (3, 3)):
        machine.run(mm, cpu=cpu)
    machine.ram.task_mm[3], machine.ram.task_process[3], machine.ram.proc_file[2, REGION] = 3, 2, FILE
    machine.asked()
    return machine


@pytest.fixture
def machine(small_machine):
    return prepared(small_machine(cpus=4, mms=3))


def change(machine, kind, page=0, pages=1):
    """Make the call on CPU 3, going through its waits for the disk."""
    ram = machine.ram
    ram.row_kind[0], ram.row_region[0], ram.row_pages[0], ram.row_page[0] = kind, REGION, pages, page
    while int(uprobe(ram, 3, 3, 0)) == SLEEP:
        ram.cpu_clock[3] = ram.task_wait_ns[3]
    assert (ram.task_step[3], ram.task_visit[3]) == (0, 0)


def execute(machine, cpu, page=0, pages=1):
    """Fetch on a CPU that has learned of all that has returned."""
    look_for_completed_changes(machine.ram, cpu)
    machine.touch(FILE_VPN + page, IFETCH, pages=pages, cpu=cpu)


def test_every_process_gets_its_own_copy(machine):
    """All who may have the old translation are interrupted once; the copies are read-only, and the cache
    keeps the file's page.
    """
    for cpu in (0, 1, 2):
        execute(machine, cpu, pages=2)
    old = machine.cached(FILE, 0)
    machine.asked()
    change(machine, REGISTER)
    assert sorted(map(tuple, machine.asked())) == [(0, 1), (2,)]
    copies = [machine.pfn(mm, FILE_VPN) for mm in (1, 2)]
    assert len({*copies, old}) == 3
    assert not any(machine.pte(mm, FILE_VPN) & PTE_WRITE for mm in (1, 2))
    assert machine.cached(FILE, 0) == old
    assert machine.pfn(1, FILE_VPN + 1) == machine.cached(FILE, 1)
    for cpu in (0, 1, 2):
        execute(machine, cpu, pages=2)
    change(machine, REGISTER)
    assert [machine.pfn(mm, FILE_VPN) for mm in (1, 2)] == copies, "set already"


def test_taken_away_the_files_page_is_executed_again(machine):
    for cpu in (0, 1, 2):
        execute(machine, cpu)
    change(machine, REGISTER)
    for cpu in (0, 1, 2):
        execute(machine, cpu)
    machine.asked()
    change(machine, UNREGISTER)
    assert sorted(map(tuple, machine.asked())) == [(0, 1), (2,)]
    assert [machine.pte(mm, FILE_VPN) for mm in (1, 2)] == [0, 0]
    for cpu in (0, 1, 2):
        execute(machine, cpu)
    assert machine.pfn(1, FILE_VPN) == machine.pfn(2, FILE_VPN) == machine.cached(FILE, 0)


def test_a_breakpoint_behind_a_pte_that_is_not_present_is_found(machine):
    """Planted: the copy's PTE is PROT_NONE, as a hint is. It is faulted in before the call looks for the
    breakpoint.
    """
    change(machine, REGISTER)
    copy = machine.pfn(1, FILE_VPN)
    table = machine.ram.frame_word[find_table(machine.ram, machine.ram.mm_pgd[1], FILE_VPN)]
    table[FILE_VPN & LEVEL_MASK] += PTE_PROTNONE - PTE_PRESENT
    change(machine, UNREGISTER)
    execute(machine, 0)
    assert machine.pfn(1, FILE_VPN) == machine.cached(FILE, 0) != copy


def test_without_the_files_page_another_copy_takes_the_place(machine):
    """Reclaim has taken the page out of the cache: the copy with the breakpoint is replaced by one without
    it.
    """
    change(machine, REGISTER)
    copies = {machine.content(machine.pfn(mm, FILE_VPN)) for mm in (1, 2)}
    machine.reclaim_file(FILE, cpu=3)
    change(machine, UNREGISTER)
    assert all(machine.pte(mm, FILE_VPN) for mm in (1, 2))
    assert not copies & {machine.content(machine.pfn(mm, FILE_VPN)) for mm in (1, 2)}


def test_code_that_is_not_there_is_read_first(machine):
    """Nothing was cached: the call sleeps until the disk has it, and nobody need be interrupted for what
    nobody had.
    """
    change(machine, REGISTER, page=200, pages=3)
    assert all(machine.pte(mm, FILE_VPN + 202) for mm in (1, 2))
    change(machine, UNREGISTER, page=200, pages=3)


def test_only_private_code_is_changed(machine):
    """The tracer's own mapping is no code; a shared one is nobody's to copy."""
    map_code(machine, 2, VM_READ | VM_EXEC | VM_SHARED)
    machine.touch(FILE_VPN, cpu=3)
    execute(machine, 2)
    change(machine, REGISTER)
    assert (
        machine.pfn(2, FILE_VPN)
        == machine.pfn(3, FILE_VPN)
        == machine.cached(FILE, 0)
        != machine.pfn(1, FILE_VPN)
    )


def test_a_child_inherits_the_breakpoint(machine):
    exit_mm(machine.ram, 2, 2)
    change(machine, REGISTER)
    dup_mm(machine.ram, 0, 1, 2)
    assert machine.pfn(2, FILE_VPN) == machine.pfn(1, FILE_VPN) != machine.cached(FILE, 0)
    machine.run(2, cpu=2)
    execute(machine, 2)
    change(machine, UNREGISTER)
    execute(machine, 2)
    execute(machine, 1)


@pytest.mark.parametrize("design", ["luf", "luf_v12"])
def test_luf_does_not_defer(small_machine, design):
    """Code unmapped by reclaim without a flush is executed on, rightly; from the return of the call on by
    nobody.
    """
    machine = prepared(small_machine(cpus=4, mms=3, design=design))
    do_munmap(machine.ram, 3, 3, FILE_VPN, FILE_VPN + PAGES)
    for cpu in (0, 1):
        machine.use(FILE_VPN, 4, IFETCH, cpu=cpu)
    machine.asked()
    machine.reclaim_file(FILE, cpu=0)
    assert machine.asked() == []
    faults = machine.count("pgfault")
    execute(machine, 1, pages=4)
    assert machine.count("pgfault") == faults
    change(machine, REGISTER, pages=4)
    assert {cpu for targets in machine.asked() for cpu in targets} >= {0, 1}
    execute(machine, 1, pages=4)
    assert machine.count("pgfault") == faults, "the copies are mapped"


def test_who_does_not_flush_is_caught(broken_machine):
    """`none:what=user` interrupts nobody: CPU 1 executes the code without the breakpoint."""
    machine = prepared(broken_machine(cpus=4, mms=3, design=NoFlush(what="user")))
    execute(machine, 1)
    change(machine, REGISTER)
    assert machine.asked() == []
    execute(machine, 1)
    assert machine.violations()[0] == "access after completion"


def test_a_frame_that_was_freed_meanwhile_is_not_held(machine):
    """Reclaim has frozen the page that a PTE was seen to show, or another one is mapped by now: the reference
    count is left as it is.
    """
    execute(machine, 0, pages=2)
    pfn, refs = machine.pfn(1, FILE_VPN), machine.ram.page_refcount
    there = int(refs[pfn])
    refs[pfn] = 0
    assert not hold_mapped(machine.ram, 3, 1, FILE_VPN, pfn)
    assert refs[pfn] == 0
    refs[pfn] = there
    assert not hold_mapped(machine.ram, 3, 1, FILE_VPN + 1, pfn)
    assert refs[pfn] == there
    assert hold_mapped(machine.ram, 3, 1, FILE_VPN, pfn)
    assert refs[pfn] == there + 1
    drop_page(machine.ram, 3, pfn)


def test_a_row_that_is_done_begins_anew(machine):
    """The state of the call is its task's, and is given back."""
    change(machine, REGISTER, pages=2)
    assert int(uprobe(machine.ram, 3, 3, 0)) == NEXT
