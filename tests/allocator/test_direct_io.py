"""O_DIRECT: pages are pinned while the device works, what it writes is seen, what was cached is gone
everywhere, private copies stay.
"""

from __future__ import annotations

import pytest

from allocator.direct_io import PIN_PAGES, UNDER_WAY, direct_io
from allocator.fork import dup_mm
from allocator.gup import pin_if_still_there, unpin_page
from allocator.lru import LRU_ACTIVE_FILE
from allocator.madvise import madvise
from allocator.migrate import move_pages
from allocator.mmap import do_mmap, do_munmap, exit_mm
from allocator.outcome import NEXT, SLEEP
from allocator.page import PG_DIRTY, PIN_BIAS
from allocator.vma import VM_READ, VM_WRITE
from cpus.abi.numbers import LOAD, MADV_FREE, STORE
from cpus.abi.row_kinds import DIRECT_READ, DIRECT_WRITE
from cpus.page_table import LEVEL_MASK, PTE_WRITE, find_table
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN, SHARED, SHARED_VPN

FILE_REGION, SHARED_REGION, MEMORY = range(3)
PARENT, CHILD = 1, 2


@pytest.fixture
def machine(small_machine):
    """Process 1 runs on CPUs 0 and 1, process 2 on CPU 2; the task of CPU 0 is the one that calls."""
    machine = small_machine(cpus=3, mms=2, pages=(512, 512), node_of=(0, 1))
    for cpu, mm in ((0, 1), (1, 1), (2, 2)):
        machine.run(mm, cpu=cpu)
    machine.ram.task_mm[0], machine.ram.task_process[0] = 1, 0
    return machine


def begin(machine, op, region=FILE_REGION, page=0, pages=4, at=0, memory=MEMORY):
    """Begin the call on CPU 0; faults that wait for the disk are gone through. It returns asleep, with the
    device at work.
    """
    ram = machine.ram
    ram.row_op[0], ram.row_kind[0], ram.row_region[0] = op, memory, region
    ram.row_pages[0], ram.row_count[0], ram.row_page[0] = pages, at, page
    ram.proc_file[0, FILE_REGION], ram.proc_file[0, SHARED_REGION] = FILE, SHARED
    while (result := go_on(machine)) == SLEEP and ram.task_step[0] != UNDER_WAY:
        pass
    return result


def go_on(machine):
    """Execute the row once more when what its task waits for is there."""
    ram = machine.ram
    ram.cpu_clock[0] = max(ram.cpu_clock[0], ram.task_wait_ns[0])
    return int(direct_io(ram, 0, 0, 0))


def finish(machine):
    """Go on until the call returns; how often it slept."""
    sleeps = 1
    while go_on(machine) == SLEEP:
        sleeps += 1
        assert sleeps < 20
    assert (machine.ram.task_visit[0], machine.ram.task_step[0], machine.ram.task_pins[0]) == (0, 0, 0)
    return sleeps


def frames(machine, vpn, pages=4, mm=1):
    return [machine.pfn(mm, vpn + i) for i in range(pages)]


def references(machine, pages):
    return [int(machine.ram.page_refcount[pfn]) for pfn in pages]


# --- reading ------------------------------------------------------------------------------------------------


def test_what_a_read_brings_is_a_new_version_that_all_threads_see(machine):
    """CPU 1 keeps its translation, and reads the new bytes through it; nobody is interrupted."""
    machine.touch(ANON_VPN, STORE, pages=4)
    machine.touch(ANON_VPN, LOAD, pages=4, cpu=1)
    pages = frames(machine, ANON_VPN)
    before = [machine.content(pfn) for pfn in pages]
    machine.asked()
    assert begin(machine, DIRECT_READ) == SLEEP
    assert [machine.content(pfn) for pfn in pages] == before
    finish(machine)
    assert [machine.content(pfn) for pfn in pages] == [(logical, version + 1) for logical, version in before]
    faults = machine.count("pgfault")
    machine.touch(ANON_VPN, LOAD, pages=4, cpu=1)
    assert (machine.asked(), machine.count("pgfault") - faults) == ([], 0)
    assert machine.count("pgpgin") == 4 * 4


def test_pages_are_pinned_while_the_device_works(machine):
    """They are neither moved nor, given away lazily, dropped; afterwards both may happen."""
    machine.touch(ANON_VPN, STORE, pages=4)
    pages = frames(machine, ANON_VPN)
    free = references(machine, pages)
    begin(machine, DIRECT_READ)
    assert references(machine, pages) == [count + PIN_BIAS for count in free]
    assert move_pages(machine.ram, 1, 1, ANON_VPN, ANON_VPN + 4, 1) == 0
    madvise(machine.ram, 0, 1, ANON_VPN, ANON_VPN + 4, MADV_FREE)
    machine.scan(32, cpu=1)
    assert frames(machine, ANON_VPN) == pages
    finish(machine)
    assert all(machine.flags(pfn) & PG_DIRTY for pfn in pages), "what the device wrote must not be dropped"
    machine.scan(32, cpu=1)
    assert frames(machine, ANON_VPN) == pages
    assert move_pages(machine.ram, 0, 1, ANON_VPN, ANON_VPN + 4, 1) == 4


def test_memory_that_is_not_there_is_faulted_in_writable(machine):
    """One page shows the zero page, the others nothing: all get frames that may be written."""
    machine.touch(ANON_VPN, LOAD)
    begin(machine, DIRECT_READ)
    finish(machine)
    assert all(machine.pte(1, ANON_VPN + i) & PTE_WRITE for i in range(4))
    assert machine.ram.zero_page not in frames(machine, ANON_VPN)


def test_a_page_that_others_share_is_copied_before_it_is_pinned(machine):
    """The child of a fork does not see what its parent reads from disk."""
    exit_mm(machine.ram, 2, CHILD)
    machine.touch(ANON_VPN, STORE, pages=4)
    dup_mm(machine.ram, 0, PARENT, CHILD)
    begin(machine, DIRECT_READ)
    finish(machine)
    assert not set(frames(machine, ANON_VPN)) & set(frames(machine, ANON_VPN, mm=CHILD))


def test_fork_leaves_a_pinned_page_to_the_parent(machine):
    """The child gets a copy at once; the parent goes on writing in place, where the device writes."""
    exit_mm(machine.ram, 2, CHILD)
    machine.touch(ANON_VPN, STORE, pages=6)
    pages = frames(machine, ANON_VPN, 6)
    begin(machine, DIRECT_READ, at=1)
    dup_mm(machine.ram, 1, PARENT, CHILD)
    child = frames(machine, ANON_VPN, 6, mm=CHILD)
    assert [mine == other for mine, other in zip(pages, child)] == [True, False, False, False, False, True]
    assert machine.count("fork_copied_pinned") == 4
    finish(machine)
    machine.touch(ANON_VPN, STORE, pages=6)
    assert frames(machine, ANON_VPN, 6)[1:5] == pages[1:5]
    machine.run(CHILD, cpu=2)
    machine.touch(ANON_VPN, LOAD, pages=6, cpu=2)


def test_memory_unmapped_meanwhile_is_freed_when_the_device_is_done(machine):
    machine.touch(ANON_VPN, STORE, pages=4)
    pages = frames(machine, ANON_VPN)
    begin(machine, DIRECT_READ)
    do_munmap(machine.ram, 1, 1, ANON_VPN, ANON_VPN + 4)
    assert references(machine, pages) == [PIN_BIAS + 1] * 4, "the pin, and the reference of an LRU batch"
    finish(machine)


def test_a_read_writes_dirty_pages_first(machine):
    """What somebody stored through a mapping is on disk when the device reads."""
    machine.touch(SHARED_VPN, STORE, pages=2, cpu=2)
    begin(machine, DIRECT_READ, region=SHARED_REGION)
    assert not machine.flags(machine.cached(SHARED, 0)) & PG_DIRTY
    logical, version = machine.content(machine.cached(SHARED, 0))
    assert machine.ram.disk_version[logical] == version == 1
    finish(machine)


def test_a_long_call_goes_in_pieces(machine):
    assert begin(machine, DIRECT_READ, pages=2 * PIN_PAGES + 3) == SLEEP
    assert machine.ram.task_pins[0] == PIN_PAGES
    assert finish(machine) == 3


def test_a_pin_that_comes_too_late_is_taken_back(machine):
    """The PTE was read; then its page is unmapped, or loses its write bit, or its frame is frozen: nothing is
    pinned.
    """
    ram = machine.ram
    machine.touch(ANON_VPN, STORE, pages=3)
    pages = frames(machine, ANON_VPN, 3)
    table, index = int(find_table(ram, ram.mm_pgd[1], ANON_VPN)), ANON_VPN & LEVEL_MASK
    ram.frame_word[table, index] &= ~PTE_WRITE
    assert pin_if_still_there(ram, 0, table, index, pages[0], True) == -1
    assert pin_if_still_there(ram, 0, table, index, pages[1], False) == -1, "it shows another frame now"
    ram.page_refcount[pages[2]], count = 0, int(ram.page_refcount[pages[2]])
    assert pin_if_still_there(ram, 0, table, index + 2, pages[2], False) == -1
    ram.page_refcount[pages[2]] = count
    assert references(machine, pages) == [count] * 3
    assert pin_if_still_there(ram, 0, table, index, pages[0], False) == pages[0]
    unpin_page(ram, 0, pages[0])


# --- writing ------------------------------------------------------------------------------------------------


def test_a_write_takes_the_pages_out_of_the_cache_and_all_processes(machine):
    """Who maps them is interrupted before and not at the end; the next access reads what was written."""
    machine.touch(FILE_VPN, LOAD, pages=4, cpu=1)
    machine.touch(FILE_VPN, LOAD, pages=4, cpu=2)
    machine.asked()
    begin(machine, DIRECT_WRITE)
    assert not {0, 1, 2, 3} & set(machine.cached_pages(FILE))
    assert sorted(map(tuple, machine.asked())) == [(1,), (2,)]
    finish(machine)
    assert machine.asked() == []
    for cpu, mm in ((1, 1), (2, 2)):
        machine.touch(FILE_VPN, LOAD, pages=4, cpu=cpu)
        assert [machine.content(pfn)[1] for pfn in frames(machine, FILE_VPN, mm=mm)] == [1] * 4


def test_what_is_cached_while_the_device_works_is_dropped_when_it_is_done(machine):
    begin(machine, DIRECT_WRITE)
    machine.touch(FILE_VPN, LOAD, pages=4, cpu=2)
    assert machine.content(machine.pfn(2, FILE_VPN))[1] == 0, "the device is not done"
    machine.asked()
    finish(machine)
    assert machine.asked() == [[2]]
    machine.touch(FILE_VPN, LOAD, pages=4, cpu=2)
    assert machine.content(machine.pfn(2, FILE_VPN))[1] == 1


def test_private_copies_stay(machine):
    """Process 2 has written to its private mapping of page 1: that is its own, also after the file has
    changed (unmap_mapping_pages).
    """
    ram = machine.ram
    do_munmap(ram, 2, 2, FILE_VPN, FILE_VPN + 256)
    ram.proc_flags[1, 0], ram.proc_anon[1, 0] = VM_READ | VM_WRITE, 3
    do_mmap(ram, 2, 2, 0, 0, 256)
    machine.touch(FILE_VPN, LOAD, pages=4, cpu=2)
    machine.touch(FILE_VPN + 1, STORE, cpu=2)
    mine = machine.pfn(2, FILE_VPN + 1)
    begin(machine, DIRECT_WRITE)
    finish(machine)
    assert [machine.pfn(2, FILE_VPN + i) for i in range(4)] == [0, mine, 0, 0]
    machine.touch(FILE_VPN, LOAD, pages=4, cpu=2)
    machine.touch(FILE_VPN + 1, STORE, cpu=2)
    assert machine.pfn(2, FILE_VPN + 1) == mine


def test_a_page_stored_to_after_it_was_synced_is_written_through_the_cache(machine):
    """The store comes when the page's clean mappings are taken away: it is dirty and stays, so the call falls
    back.
    """
    machine.touch(SHARED_VPN, LOAD, pages=4, cpu=1)
    machine.touch(SHARED_VPN, LOAD, pages=4, cpu=2)
    done = []

    def store(cpu, targets):
        if not done:
            done.append(cpu)
            machine.touch(SHARED_VPN + 2, STORE, cpu=2)

    machine.on_send = store
    assert begin(machine, DIRECT_WRITE, region=SHARED_REGION) == NEXT
    assert done
    assert 2 in machine.cached_pages(SHARED)
    logical, version = machine.content(machine.cached(SHARED, 2))
    assert machine.ram.disk_version[logical] == version == machine.ram.version[logical] == 2


def test_who_stores_while_the_device_works_has_the_last_word(machine):
    """His page is dirty and stays cached; nobody who reads it later reads what the store overwrote (the
    oracle would say so).
    """
    begin(machine, DIRECT_WRITE, region=SHARED_REGION)
    machine.touch(SHARED_VPN, STORE, cpu=2)
    pfn = machine.pfn(2, SHARED_VPN)
    finish(machine)
    assert machine.cached(SHARED, 0) == pfn
    machine.touch(SHARED_VPN, LOAD, pages=4, cpu=2)
    machine.touch(SHARED_VPN, LOAD, pages=4, cpu=1)


def test_old_bytes_written_back_after_the_device_are_the_content(machine):
    """Somebody's dirty page reaches the disk behind the device's pages, and leaves the cache: those bytes are
    what the file holds.
    """
    ram = machine.ram
    logical = int(ram.object_logical[FILE])
    begin(machine, DIRECT_WRITE)

    def write_back(*_):
        ram.disk_version[logical] = 0

    machine.on_hook("truncated", write_back)
    finish(machine)
    assert [int(ram.version[logical + i]) for i in range(4)] == [0, 1, 1, 1]
    machine.touch(FILE_VPN, LOAD, pages=4, cpu=2)


def test_a_file_page_that_is_pinned_is_kept(machine):
    """A write from a mapped file: reclaim may unmap the source pages, and keeps them, since a device reads
    them.
    """
    machine.use(SHARED_VPN, 4, cpu=0)
    begin(machine, DIRECT_WRITE, memory=SHARED_REGION)
    for _ in range(4):
        machine.scan(64, LRU_ACTIVE_FILE, cpu=1)
        machine.scan(64, cpu=1)
    assert set(machine.cached_pages(SHARED)) == {0, 1, 2, 3}
    finish(machine)
    machine.reclaim_file(SHARED, cpu=1)
