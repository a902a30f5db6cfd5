"""What private memory must show: each page that is dropped, forgotten or put somewhere else is lost data, and
what is given up by its process, or freed lazily and not stored to again, is not.
"""

import pytest

from allocator.direct_io import direct_io
from allocator.fork import dup_mm
from allocator.lru import LRU_INACTIVE_FILE, lru_add_drain
from allocator.madvise import madvise
from allocator.migrate import move_pages
from allocator.mmap import do_munmap, exit_mm
from allocator.mremap import mremap
from allocator.page import PG_EXCLUSIVE, clear_flag
from cpus.abi.numbers import LOAD, MADV_DONTNEED, MADV_FREE, STORE
from cpus.abi.row_kinds import DIRECT_READ
from cpus.lost_data import device_stores, stored_to_by_two
from cpus.page_table import PTE_WRITE, find_table
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN

PARENT, CHILD = 1, 2
PAGES = 8
ELSEWHERE = ANON_VPN + (1 << 20)
LOST = ["lost data"]


def stored(make, design="linux", **wanted):
    """Both CPUs run in process 1, and have stored to some private pages."""
    machine = make(design=design, **wanted)
    machine.run(PARENT, cpu=0)
    machine.run(PARENT, cpu=1)
    for cpu in (0, 1):
        machine.touch(ANON_VPN, STORE, pages=PAGES, cpu=cpu)
        lru_add_drain(machine.ram, cpu)
    return machine


def where(machine, vpn, mm=PARENT):
    return int(find_table(machine.ram, machine.ram.mm_pgd[mm], vpn)), vpn & 511


def plant(machine, vpn, pte, mm=PARENT):
    """The bug: a PTE becomes something else, and nobody says why."""
    machine.ram.frame_word[where(machine, vpn, mm)] = pte
    machine.forget_tlb(0)
    machine.forget_tlb(1)


# --- dropped ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [LOAD, STORE])
def test_a_page_that_somebody_dropped_is_lost(broken_machine, kind):
    """It is noticed whatever is found instead: zeros, or a fresh page."""
    machine = stored(broken_machine)
    plant(machine, ANON_VPN, 0)
    machine.touch(ANON_VPN, kind)
    assert machine.violations() == LOST
    machine.touch(ANON_VPN, kind)
    assert machine.violations() == LOST, "once"


def test_a_copy_of_a_page_of_a_file_is_lost_if_the_file_shows_again(broken_machine):
    machine = broken_machine()
    machine.run(PARENT)
    machine.ram.vma_flags[0] |= 2  # a private mapping that may be written
    machine.ram.vma_anon[0] = machine.ram.vma_anon[2]
    machine.touch(FILE_VPN, STORE)
    plant(machine, FILE_VPN, 0)
    machine.touch(FILE_VPN, LOAD)
    assert machine.violations() == LOST


def test_a_childs_page_is_lost_to_the_child_alone(broken_machine):
    machine = stored(broken_machine, mms=2)
    exit_mm(machine.ram, 1, CHILD)
    machine.run(PARENT, cpu=1)
    dup_mm(machine.ram, 0, PARENT, CHILD)
    plant(machine, ANON_VPN, 0, CHILD)
    machine.run(CHILD, cpu=1)
    machine.touch(ANON_VPN, LOAD, cpu=0)
    assert machine.violations() == []
    machine.touch(ANON_VPN, LOAD, cpu=1)
    assert machine.violations() == LOST


# --- put somewhere else -------------------------------------------------------------------------------------


def test_two_pages_in_each_others_place_are_lost(broken_machine):
    machine = stored(broken_machine)
    first, second = machine.pte(PARENT, ANON_VPN), machine.pte(PARENT, ANON_VPN + 1)
    plant(machine, ANON_VPN, second)
    plant(machine, ANON_VPN + 1, first)
    machine.touch(ANON_VPN, LOAD)
    assert machine.violations() == LOST


def test_a_private_page_where_none_was_stored_is_somebody_elses(broken_machine):
    machine = stored(broken_machine)
    plant(machine, ANON_VPN + PAGES, machine.pte(PARENT, ANON_VPN))
    machine.touch(ANON_VPN + PAGES, LOAD)
    assert machine.violations() == LOST


@pytest.mark.parametrize("pages", [PAGES, 512])
def test_mremap_takes_pages_along(small_machine, pages):
    """PTE by PTE, or the table as a whole."""
    machine = stored(small_machine, region=512, pages=(2048,))
    contents = [machine.content(machine.pfn(PARENT, ANON_VPN + i)) for i in range(PAGES)]
    mremap(machine.ram, 0, PARENT, ANON_VPN, pages, ELSEWHERE)
    assert [machine.content(machine.pfn(PARENT, ELSEWHERE + i)) for i in range(PAGES)] == contents
    machine.touch(ELSEWHERE, LOAD, pages=PAGES)
    machine.touch(ELSEWHERE, STORE, pages=PAGES, cpu=1)


def test_one_that_mremap_leaves_behind_is_lost(broken_machine):
    machine = stored(broken_machine)
    mremap(machine.ram, 0, PARENT, ANON_VPN, PAGES, ELSEWHERE)
    plant(machine, ELSEWHERE + 1, 0)
    machine.touch(ELSEWHERE, LOAD)
    assert machine.violations() == []
    machine.touch(ELSEWHERE + 1, LOAD)
    assert machine.violations() == LOST


def test_migration_keeps_the_page_and_another_one_in_its_place_is_lost(broken_machine):
    machine = stored(broken_machine, pages=(512, 512))
    assert move_pages(machine.ram, 0, PARENT, ANON_VPN, ANON_VPN + PAGES, 1) == PAGES
    machine.touch(ANON_VPN, LOAD, pages=PAGES)
    assert machine.violations() == []
    plant(machine, ANON_VPN, machine.pte(PARENT, ANON_VPN + 1))
    machine.touch(ANON_VPN, LOAD)
    assert machine.violations() == LOST


# --- given up -----------------------------------------------------------------------------------------------


def test_what_the_process_gives_up_is_not_lost(small_machine):
    """MADV_DONTNEED, munmap and a copy on write after fork."""
    machine = stored(small_machine, mms=2)
    madvise(machine.ram, 0, PARENT, ANON_VPN, ANON_VPN + 2, MADV_DONTNEED)
    machine.touch(ANON_VPN, LOAD)
    machine.touch(ANON_VPN + 1, STORE)
    exit_mm(machine.ram, 1, CHILD)
    machine.run(PARENT, cpu=1)
    dup_mm(machine.ram, 0, PARENT, CHILD)
    machine.run(CHILD, cpu=1)
    for cpu in (0, 1):
        machine.touch(ANON_VPN, STORE, pages=PAGES, cpu=cpu)
        machine.touch(ANON_VPN, LOAD, pages=PAGES, cpu=cpu)
    do_munmap(machine.ram, 0, PARENT, ANON_VPN, ANON_VPN + PAGES)
    assert not machine.ram.must_show[where(machine, ANON_VPN, CHILD)[0]][PAGES + 1 :].any()


# --- shared -------------------------------------------------------------------------------------------------


def forked(make):
    """A parent on CPU 0 and its child on CPU 1 share private pages."""
    machine = stored(make, mms=2)
    exit_mm(machine.ram, 1, CHILD)
    machine.run(PARENT, cpu=1)
    dup_mm(machine.ram, 0, PARENT, CHILD)
    machine.run(CHILD, cpu=1)
    return machine


@pytest.mark.parametrize("kind", [LOAD, STORE])
@pytest.mark.parametrize(("mm", "cpu"), [(PARENT, 0), (CHILD, 1)])
def test_who_has_the_right_to_store_to_a_page_that_another_process_shares_is_found(
    broken_machine, kind, mm, cpu
):
    machine = forked(broken_machine)
    plant(machine, ANON_VPN, machine.pte(mm, ANON_VPN) | PTE_WRITE, mm)
    machine.touch(ANON_VPN, kind, cpu=cpu)
    assert machine.violations() == ["store to a shared page"]


def test_a_device_that_writes_to_a_shared_page_is_found(broken_machine):
    machine = forked(broken_machine)
    device_stores(machine.ram, 0, machine.pfn(PARENT, ANON_VPN))
    assert machine.violations() == ["store to a shared page"]


def test_a_device_that_writes_to_one_that_was_moved_is_not(small_machine):
    machine = stored(small_machine)
    mremap(machine.ram, 0, PARENT, ANON_VPN, PAGES, ELSEWHERE)
    device_stores(machine.ram, 0, machine.pfn(PARENT, ELSEWHERE))


def test_a_right_that_has_gone_before_the_second_look_was_nobodys(small_machine):
    """let cpu0 find a right to store, and cpu1 fork . however the right had gone before that"""
    machine = forked(small_machine)
    stored_to_by_two(machine.ram, 0, ANON_VPN, where(machine, ANON_VPN)[0])


@pytest.mark.parametrize("leaves", [exit_mm, do_munmap, mremap, madvise])
def test_a_page_that_the_other_process_has_let_go_may_be_stored_to(small_machine, leaves):
    machine = forked(small_machine)
    child = {
        exit_mm: (CHILD,),
        do_munmap: (CHILD, ANON_VPN, ANON_VPN + PAGES),
        mremap: (CHILD, ANON_VPN, PAGES, ELSEWHERE),
        madvise: (CHILD, ANON_VPN, ANON_VPN + PAGES, MADV_DONTNEED),
    }[leaves]
    leaves(machine.ram, 1, *child)
    if leaves is mremap:
        machine.touch(ELSEWHERE, STORE, pages=PAGES, cpu=1)
        assert machine.pfn(CHILD, ELSEWHERE) != machine.pfn(PARENT, ANON_VPN)
    machine.touch(ANON_VPN, STORE, pages=PAGES)
    table, index = where(machine, ANON_VPN)
    numbers = (machine.ram.must_show[table, index : index + PAGES] >> 34) - machine.ram.first_anon_logical
    assert machine.ram.anon_addresses[numbers].tolist() == [1] * PAGES


# --- MADV_FREE ----------------------------------------------------------------------------------------------


def dropped(machine):
    """Reclaim drops what was freed lazily and is clean."""
    machine.forget_tlb(0)
    machine.forget_tlb(1)
    for _ in range(3):
        machine.scan(512, LRU_INACTIVE_FILE)
    return machine.pte(PARENT, ANON_VPN) == 0


@pytest.mark.parametrize("kind", [LOAD, STORE])
def test_what_is_freed_lazily_may_go(small_machine, kind):
    machine = stored(small_machine)
    madvise(machine.ram, 0, PARENT, ANON_VPN, ANON_VPN + PAGES, MADV_FREE)
    assert dropped(machine)
    machine.touch(ANON_VPN, kind, pages=PAGES)


def test_what_is_stored_to_again_must_stay(small_machine):
    machine = stored(small_machine)
    madvise(machine.ram, 0, PARENT, ANON_VPN, ANON_VPN + PAGES, MADV_FREE)
    machine.touch(ANON_VPN, STORE, pages=PAGES, cpu=1)
    assert not dropped(machine)
    machine.touch(ANON_VPN, LOAD, pages=PAGES)


@pytest.mark.parametrize("kind", [LOAD, STORE])
def test_a_later_store_through_an_entry_that_was_not_flushed_is_lost(broken_machine, kind):
    """The entry says that the PTE is dirty: the store leaves no trace there, and reclaim drops the page."""
    machine = stored(broken_machine, "none:what=user")
    madvise(machine.ram, 0, PARENT, ANON_VPN, ANON_VPN + PAGES, MADV_FREE)
    machine.touch(ANON_VPN, STORE, cpu=1)
    assert dropped(machine)
    machine.touch(ANON_VPN + 1, kind)
    assert machine.violations() == [], "that one may go"
    machine.touch(ANON_VPN, kind)
    assert machine.violations() == LOST


def test_a_store_while_the_call_is_under_way_may_go(small_machine):
    """Nobody was told yet that the call is over."""
    machine = stored(small_machine)

    machine.on_hook("mapping_change", lambda *_: machine.touch(ANON_VPN, STORE, cpu=1))
    madvise(machine.ram, 0, PARENT, ANON_VPN, ANON_VPN + PAGES, MADV_FREE)
    assert dropped(machine)
    machine.touch(ANON_VPN, LOAD, pages=PAGES)


def test_a_page_that_was_freed_lazily_before_fork_may_go_in_both(small_machine):
    machine = stored(small_machine, mms=2)
    exit_mm(machine.ram, 1, CHILD)
    machine.run(PARENT, cpu=1)
    madvise(machine.ram, 0, PARENT, ANON_VPN, ANON_VPN + PAGES, MADV_FREE)
    dup_mm(machine.ram, 0, PARENT, CHILD)
    machine.run(CHILD, cpu=1)
    dropped(machine)
    for cpu in (0, 1):
        machine.touch(ANON_VPN, LOAD, pages=PAGES, cpu=cpu)


# --- devices ------------------------------------------------------------------------------------------------


def test_a_device_that_writes_to_a_page_its_process_has_no_more_loses_data(broken_machine):
    """let a direct read pin a page . fork take the right to write, though it is pinned . the process store,
    and get a copy . however the device writes to the old one
    """
    machine = stored(broken_machine)
    ram = machine.ram
    ram.task_mm[0], ram.task_process[0] = PARENT, 0
    ram.row_op[0], ram.row_kind[0], ram.row_region[0], ram.row_pages[0] = DIRECT_READ, 2, 0, 1
    ram.proc_file[0, 0] = FILE
    while int(ram.task_pins[0]) == 0:
        ram.cpu_clock[0] = max(ram.cpu_clock[0], ram.task_wait_ns[0])
        direct_io(ram, 0, 0, 0)
    clear_flag(ram, machine.pfn(PARENT, ANON_VPN), PG_EXCLUSIVE)
    plant(machine, ANON_VPN, machine.pte(PARENT, ANON_VPN) & ~PTE_WRITE)
    machine.touch(ANON_VPN, STORE)
    assert machine.violations() == LOST
