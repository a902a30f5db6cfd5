"""Page faults: anonymous and file pages, fault-around, who is asked before a mapping may be written, waiting
for the disk.
"""

import pytest

from allocator.flush_sites import REMOTE_SEND_IPI
from allocator.lru import lru_add_drain, unlock_and_drop
from allocator.page import PG_DIRTY, PG_LRU, PG_READAHEAD, PG_SWAPBACKED, lock_page, unlock_page
from allocator.page_cache import delete_from_page_cache, find_page
from allocator.program import ENDED
from allocator.readahead import read_pages
from allocator.unmap import zap_range
from cpus.abi.numbers import LOAD, STORE
from cpus.abi.row_kinds import POPULATE
from cpus.page_table import PTE_DIRTY, PTE_PRESENT, PTE_SPECIAL, PTE_WRITE
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN, LATER, SHARED, SHARED_VPN

CPU, REGION = 0, 256


@pytest.fixture
def machine(small_machine):
    """Process 1 runs on CPUs 0 and 1."""
    machine = small_machine()
    machine.run(1, cpu=0)
    machine.run(1, cpu=1)
    return machine


def mapped(machine, vpn, pages=REGION, mm=1):
    """Which pages of a region are mapped."""
    return [i for i in range(pages) if machine.pte(mm, vpn + i) & PTE_PRESENT]


def test_anonymous_memory_comes_zeroed_and_writable(machine):
    """A first store gets a page with a logical page of its own, zeroed and then written."""
    machine.touch(ANON_VPN + 3, STORE)
    pte = machine.pte(1, ANON_VPN + 3)
    assert pte & (PTE_PRESENT | PTE_WRITE | PTE_DIRTY) == PTE_PRESENT | PTE_WRITE | PTE_DIRTY
    logical, version = machine.content(pte >> 12)
    own = logical - machine.ram.first_anon_logical
    assert (machine.ram.anon_object[own], machine.ram.anon_index[own], version) == (2, 3, 2)
    machine.touch(ANON_VPN + 3, STORE)
    assert machine.content(pte >> 12) == (logical, 3)
    assert machine.count("pgfault") == 1
    lru_add_drain(machine.ram, CPU)
    assert machine.flags(pte >> 12) & (PG_LRU | PG_SWAPBACKED) == PG_LRU | PG_SWAPBACKED


def test_memory_that_is_only_read_shows_the_zero_page(machine):
    """Nobody counts it; all pages are the same frame, which no store can reach."""
    machine.touch(ANON_VPN, LOAD, pages=3)
    assert [machine.pfn(1, ANON_VPN + i) for i in range(3)] == [machine.ram.zero_page] * 3
    assert machine.ram.page_mapcount[machine.ram.zero_page] == machine.ram.mm_rss[:, 1].sum() == 0
    assert machine.pte(1, ANON_VPN) & (PTE_WRITE | PTE_SPECIAL) == PTE_SPECIAL


def test_a_store_to_the_zero_page_gets_a_page_and_flushes_the_old_translation(machine):
    """One page, on every CPU that runs the process (wp_page_copy, ptep_clear_flush); the neighbours stay."""
    machine.touch(ANON_VPN, LOAD, pages=3)
    machine.touch(ANON_VPN, LOAD, pages=3, cpu=1)
    machine.asked()
    machine.touch(ANON_VPN + 1, STORE)
    assert machine.asked() == [[1]]
    assert machine.pfn(1, ANON_VPN + 1) != machine.ram.zero_page
    assert machine.ram.page_mapcount[machine.pfn(1, ANON_VPN + 1)] == machine.ram.mm_rss[:, 1].sum() == 1
    assert machine.pfn(1, ANON_VPN + 2) == machine.ram.zero_page
    assert machine.events(REMOTE_SEND_IPI) == {1: 1}


def test_two_threads_that_touch_the_same_page_get_the_same_frame(machine):
    """CPU 1 faults while CPU 0 has its own new page in hand: CPU 0 finds the PTE taken and gives its page
    back.
    """

    def other_thread(cpu, *_):
        machine.on_hook("write_fault", lambda *_: 0)
        machine.touch(ANON_VPN, STORE, cpu=1)

    machine.on_hook("write_fault", other_thread)
    machine.touch(ANON_VPN, STORE, cpu=0)
    pfn = machine.pfn(1, ANON_VPN)
    assert (machine.ram.page_mapcount[pfn], machine.count("pgfree")) == (1, 1)
    assert machine.content(pfn)[1] == 3, "zeroed by CPU 1, written by CPU 1, written by CPU 0"
    assert machine.count("faults_too_late") == 1


def test_a_page_that_goes_while_its_fault_waits_for_the_lock_is_looked_up_again(machine):
    """CPU 1 truncates it, and lets go of the lock that CPU 0 waits for."""
    read_pages(machine.ram, 1, SHARED, 0, 1, -1)
    machine.ram.cpu_clock[:] += LATER
    pfn = int(find_page(machine.ram, 1, SHARED, 0))
    lock_page(machine.ram, 1, pfn)

    def truncate(_):
        delete_from_page_cache(machine.ram, 1, pfn, SHARED)
        unlock_and_drop(machine.ram, 1, pfn)

    machine.on_wait = truncate
    machine.touch(SHARED_VPN, STORE)
    assert machine.count("faults_on_a_lost_page") == 1
    assert machine.pfn(1, SHARED_VPN) == machine.cached(SHARED, 0)


def test_memory_that_was_dropped_comes_back_zeroed(machine):
    """MADV_DONTNEED and a new touch: nothing that was there is seen again."""
    machine.touch(ANON_VPN, STORE)
    before = machine.content(machine.pfn(1, ANON_VPN))
    zap_range(machine.ram, CPU, 1, ANON_VPN, ANON_VPN + 1)
    assert machine.pte(1, ANON_VPN) == 0
    machine.touch(ANON_VPN, LOAD)
    assert machine.pfn(1, ANON_VPN) == machine.ram.zero_page
    machine.touch(ANON_VPN, STORE)
    after = machine.content(machine.pfn(1, ANON_VPN))
    assert after[0] != before[0] or after[1] > before[1], "another page, or a newer version"


def test_a_read_fault_on_a_file_maps_sixteen_pages(machine):
    """The aligned 16 pages around the fault, of the 32 that were read; the next fault finds its page cached:
    no disk.
    """
    assert machine.touch(FILE_VPN + 5) == 1
    assert mapped(machine, FILE_VPN) == list(range(16))
    assert (machine.count("pgfault"), machine.count("pgmajfault")) == (1, 1), (
        "the wait for the disk is part of the one fault"
    )
    assert machine.touch(FILE_VPN + 16) == 0
    assert mapped(machine, FILE_VPN) == [i for i in range(32) if i != 24], (
        "the marked page is left to a fault of its own"
    )
    assert not any(machine.pte(1, FILE_VPN + i) & PTE_WRITE for i in range(32))


def test_fault_around_takes_no_page_that_it_would_wait_for(machine):
    """Left out: locked, still being read, marked for readahead, outside of the VMA."""
    machine.touch(FILE_VPN + 5)
    zap_range(machine.ram, CPU, 1, FILE_VPN, FILE_VPN + 16)
    locked, reading, marked = (machine.cached(FILE, i) for i in (1, 2, 3))
    lock_page(machine.ram, CPU, locked)
    machine.ram.page_io_ns[reading] = machine.ram.cpu_clock[CPU] + 1_000_000
    machine.ram.page_flags[marked] |= PG_READAHEAD
    machine.ram.vma_end[0] = FILE_VPN + 10
    machine.touch(FILE_VPN + 5)
    assert mapped(machine, FILE_VPN) == [0, 4, 5, 6, 7, 8, 9]
    unlock_page(machine.ram, CPU, locked)


def test_a_page_on_its_way_from_disk_is_waited_for_in_virtual_time(machine):
    """The task sleeps until the data are there: latency, and the pages of the transfer."""
    began = int(machine.ram.cpu_clock[CPU])
    assert machine.touch(FILE_VPN + 5) == 1
    assert machine.ram.cpu_clock[CPU] - began >= 80_000 + 32 * 1_000
    assert machine.touch(FILE_VPN + 6) == 0


def test_a_thread_that_comes_later_waits_for_the_same_transfer(machine):
    """CPU 1 faults on a neighbour at the same time: no second read."""
    machine.touch(FILE_VPN + 5, cpu=0)
    assert machine.touch(FILE_VPN + 21, cpu=1) == 1
    assert machine.count("pgmajfault") == 1
    assert machine.ram.run_disk_free_ns[0] <= machine.ram.cpu_clock[1]


def test_a_store_to_a_shared_file_maps_one_page_dirty(machine):
    machine.touch(SHARED_VPN + 5, STORE)
    assert mapped(machine, SHARED_VPN) == [5]
    assert machine.pte(1, SHARED_VPN + 5) & (PTE_WRITE | PTE_DIRTY) == PTE_WRITE | PTE_DIRTY
    assert machine.flags(machine.cached(SHARED, 5)) & PG_DIRTY


def test_a_store_after_a_read_makes_the_mapping_writable(machine):
    """The page was mapped read-only by fault-around."""
    machine.touch(SHARED_VPN + 5, LOAD)
    pte = machine.pte(1, SHARED_VPN + 6)
    assert not pte & PTE_WRITE
    machine.touch(SHARED_VPN + 6, STORE)
    assert machine.pte(1, SHARED_VPN + 6) == pte | PTE_WRITE | PTE_DIRTY
    assert machine.flags(machine.cached(SHARED, 6)) & PG_DIRTY


@pytest.mark.parametrize(
    "vpn, kind, object",
    [(ANON_VPN + 7, STORE, 2), (SHARED_VPN + 7, STORE, SHARED)],
    ids=["anonymous", "file"],
)
@pytest.mark.parametrize("read_before", [False, True])
def test_the_design_is_asked_before_a_mapping_may_be_written(machine, vpn, kind, object, read_before):
    """What it has pending for the mm or the file must be done when the writable PTE can first be seen."""
    if read_before:
        machine.touch(vpn, LOAD)
    seen = []
    machine.on_hook(
        "write_fault",
        lambda cpu, mm, vma, page, of: seen.append((mm, page, of, machine.pte(1, vpn) & PTE_WRITE)),
    )
    machine.touch(vpn, kind)
    assert set(seen) == {(1, vpn, object, 0)}, "perhaps twice, but never too late"
    assert machine.pte(1, vpn) & PTE_WRITE


def test_a_read_asks_nobody(machine):
    seen = []
    machine.on_hook("write_fault", lambda *args: seen.append(args))
    machine.touch(FILE_VPN + 7)
    machine.touch(SHARED_VPN + 7)
    assert seen == []


def test_the_design_is_told_of_populated_pages_too(machine):
    """MAP_POPULATE goes through handle_mm_fault as an access does, once for all that fault-around maps."""
    ram, reported = machine.ram, []
    machine.on_hook(
        "fault_done", lambda cpu, mm, vma, page, store: reported.append((mm, page - FILE_VPN, store))
    )
    ram.task_row[CPU], ram.task_end[CPU], ram.cpu_slice_end[CPU] = 0, 1, 1 << 50
    ram.row_op[0], ram.row_region[0], ram.row_page[0], ram.row_pages[0] = POPULATE, 0, 64, 32
    while machine.enter("run_user", CPU, CPU) != ENDED:
        ram.cpu_clock[CPU] = max(ram.cpu_clock[CPU], ram.task_wait_ns[CPU])
    assert set(reported) >= {(1, 64, 0), (1, 80, 0)}
    assert mapped(machine, FILE_VPN) == list(range(64, 96))


def test_page_tables_are_built_once(machine):
    """Three levels below the top for the first page of a region, none for its neighbours."""
    before = machine.count("pgalloc_normal")
    machine.touch(ANON_VPN, STORE)
    assert machine.count("pgalloc_normal") - before == 4
    machine.touch(ANON_VPN + 1, STORE)
    assert machine.count("pgalloc_normal") - before == 5


def test_no_mapping_there_is_a_sentence(broken_machine):
    machine = broken_machine()
    machine.run(1)
    assert (
        machine.panic_of(lambda ram: machine.touch(ANON_VPN + REGION))
        == "page fault at vpn 0x30100 of mm 1: no mapping there (SIGSEGV)"
    )


def test_a_write_to_read_only_memory_is_a_sentence(broken_machine):
    machine = broken_machine()
    machine.run(1)
    assert (
        machine.panic_of(lambda ram: machine.touch(FILE_VPN, STORE))
        == "write to read-only mapping at vpn 0x10000 of mm 1 (SIGSEGV)"
    )
