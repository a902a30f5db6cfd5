"""The page cache: look-ups, adding and removing, shadows and refaults, readahead windows."""

import pytest

from allocator.lru import drop_page, lru_add_drain
from allocator.page import (
    PG_ACTIVE,
    PG_DIRTY,
    PG_LOCKED,
    PG_READAHEAD,
    PG_UPTODATE,
    PG_WAITERS,
    end_read,
    lock_page,
    unlock_page,
)
from allocator.page_alloc import GFP_USER, alloc_page
from allocator.page_cache import add_to_page_cache, drop_failed_lookup, find_page, lookup, remove_mapping
from allocator.readahead import read_pages
from allocator.vma import VM_SEQ_READ
from cpus.abi.numbers import LOAD, STORE
from cpus.lease import BLOCKED, RUNNING, WAIT_PAGE
from cpus.oracle import publish, set_content
from emulator.small_machine import FILE, FILE_VPN, SHARED, SHARED_VPN

CPU, NODE, PAGES, WINDOW = 0, 0, 256, 32


@pytest.fixture
def machine(small_machine):
    machine = small_machine(mms=1)
    machine.run(1)
    return machine


def cached(machine):
    """Indices of the file's pages that are in the cache."""
    return [index for index in range(PAGES) if machine.cached(FILE, index) >= 0]


def marked(machine):
    """Where the next window begins to be read."""
    return [index for index in cached(machine) if machine.flags(machine.cached(FILE, index)) & PG_READAHEAD]


def evict(machine, index):
    """Remove a page as reclaim does; nobody maps it."""
    lru_add_drain(machine.ram, CPU)
    pfn = int(find_page(machine.ram, CPU, FILE, index))
    lock_page(machine.ram, CPU, pfn)
    gone = remove_mapping(machine.ram, CPU, pfn, FILE, True)
    unlock_page(machine.ram, CPU, pfn)
    if gone:
        machine.ram.page_refcount[pfn] = 1
    drop_page(machine.ram, CPU, pfn)
    return gone


def test_what_is_read_is_found(machine):
    """A look-up takes a reference; the page holds the file's page in the version on disk."""
    assert lookup(machine.ram, FILE, 7) == -1
    machine.ram.disk_version[7] = 3
    read_pages(machine.ram, CPU, FILE, 7, 1, -1)
    pfn = int(lookup(machine.ram, FILE, 7))
    assert machine.content(pfn) == (7, 3)
    assert machine.flags(pfn) & PG_UPTODATE
    assert machine.ram.page_refcount[pfn] == 3, "the cache's, the LRU batch's and ours"
    drop_page(machine.ram, CPU, pfn)


def test_a_version_comes_back_from_disk_with_all_its_bits(machine):
    """More stores than 24 bits can count."""
    machine.touch(SHARED_VPN, STORE)
    pfn, many = machine.pfn(1, SHARED_VPN), (1 << 24) + 5
    logical = machine.content(pfn)[0]
    set_content(machine.ram, pfn, logical, many)
    publish(machine.ram, logical, many)
    lru_add_drain(machine.ram, CPU)
    machine.reclaim_file(SHARED)
    assert machine.ram.disk_version[logical] == many
    machine.touch(SHARED_VPN, LOAD)
    assert machine.content(machine.pfn(1, SHARED_VPN)) == (logical, many)


def test_a_page_is_cached_once(machine):
    """Who comes second keeps his page, and must use the first one's."""
    read_pages(machine.ram, CPU, FILE, 7, 1, -1)
    first, second = machine.cached(FILE, 7), int(alloc_page(machine.ram, CPU, NODE, GFP_USER))
    assert not add_to_page_cache(machine.ram, CPU, second, FILE, 7)
    assert (machine.cached(FILE, 7), machine.ram.object_nrpages[FILE]) == (first, 1)
    drop_page(machine.ram, CPU, second)


def test_a_page_that_somebody_holds_is_not_removed(machine):
    read_pages(machine.ram, CPU, FILE, 7, 1, -1)
    pfn = int(find_page(machine.ram, CPU, FILE, 7))
    assert not evict(machine, 7)
    assert machine.count("removals_refused") == 1
    drop_page(machine.ram, CPU, pfn)
    assert evict(machine, 7)
    assert (cached(machine), machine.ram.object_nrpages[FILE]) == ([], 0)


def test_who_finds_a_page_too_late_frees_it(machine):
    """Its last reference was that of the look-up."""
    pfn, freed = int(alloc_page(machine.ram, CPU, NODE, GFP_USER)), machine.count("pgfree")
    machine.ram.page_refcount[pfn] = 0
    drop_failed_lookup(machine.ram, CPU, -2 - pfn)
    assert machine.count("lookups_too_late") == 1
    assert machine.count("pgfree") == freed + 1


def test_a_dirty_page_is_not_removed(machine):
    read_pages(machine.ram, CPU, FILE, 7, 1, -1)
    machine.ram.page_flags[machine.cached(FILE, 7)] |= 8
    assert not evict(machine, 7)


def test_a_refault_within_the_working_set_is_active_at_once(machine):
    """
    ten pages are active; pages 50 and 60 are evicted     distance of 60:  1 <= 10: active
    then 20 more                                          distance of 50: 22 >  10: inactive
    """
    machine.ram.lru_size[NODE, 3] += 10  # ten active pages of other files
    read_pages(machine.ram, CPU, FILE, 50, 11, -1)
    assert evict(machine, 60)
    read_pages(machine.ram, CPU, FILE, 60, 1, -1)
    assert machine.flags(machine.cached(FILE, 60)) & PG_ACTIVE
    assert evict(machine, 50)
    machine.ram.node_age[NODE] += 20
    read_pages(machine.ram, CPU, FILE, 50, 1, -1)
    assert not machine.flags(machine.cached(FILE, 50)) & PG_ACTIVE
    assert (machine.count("workingset_refault_file"), machine.count("workingset_activate_file")) == (2, 1)
    lru_add_drain(machine.ram, CPU)
    machine.ram.lru_size[NODE, 3] -= 10


def test_a_first_miss_reads_around(machine):
    """A window of 32 pages, half of it before the fault; the mark stands at its last quarter."""
    machine.touch(FILE_VPN + 100)
    assert cached(machine) == list(range(84, 116))
    assert marked(machine) == [108]
    assert machine.count("pgmajfault") == 1


def test_the_window_is_cut_at_the_ends_of_the_file(machine):
    machine.touch(FILE_VPN)
    assert cached(machine) == list(range(32))
    machine.touch(FILE_VPN + PAGES - 1)
    assert cached(machine) == [*range(32), *range(239, 256)]


def test_reaching_the_mark_reads_the_next_window_ahead(machine):
    """Going on, nobody waits for the disk again but once per window at most: what is ahead is read before it
    is asked for.
    """
    machine.touch(FILE_VPN)
    assert marked(machine) == [24]
    machine.ram.cpu_clock[CPU] += 1_000_000
    machine.touch(FILE_VPN + 24)
    assert cached(machine) == list(range(64))
    assert marked(machine) == [32], "the whole of the new window is asynchronous"
    assert machine.count("pgmajfault") == 1


def test_a_sequential_reader_gets_windows_of_twice_the_size(machine):
    machine.ram.vma_flags[0] |= VM_SEQ_READ
    machine.touch(FILE_VPN + 100)
    assert cached(machine) == list(range(100, 164))
    assert marked(machine) == [132]


def test_after_many_misses_nothing_is_read_ahead(machine):
    """MMAP_LOTSAMISS: a random reader gets single pages."""
    machine.ram.vma_ra_miss[0] = 100
    machine.touch(FILE_VPN + 100)
    assert cached(machine) == [100]


def test_pages_that_are_there_are_not_read_again(machine):
    """Two runs of missing pages are two transfers."""
    read_pages(machine.ram, CPU, FILE, 10, 4, -1)
    read = machine.count("pgpgin")
    busy = int(machine.ram.run_disk_free_ns[0])
    read_pages(machine.ram, CPU, FILE, 8, 8, -1)
    assert cached(machine) == list(range(8, 16))
    assert machine.count("pgpgin") - read == 4 * 4
    assert machine.ram.run_disk_free_ns[0] - busy == 4 * 1000
    done = machine.ram.page_io_ns
    assert done[machine.cached(FILE, 8)] < done[machine.cached(FILE, 15)]


def test_reading_past_the_end_panics(broken_machine):
    machine = broken_machine(mms=1)
    machine.run(1)
    machine.ram.object_pages[FILE] = 10
    assert (
        machine.panic_of(lambda ram: machine.touch(FILE_VPN + 10))
        == "read past the end of file: page 10 of object 0 (SIGBUS)"
    )


@pytest.mark.parametrize("waits", [True, False])
def test_the_end_of_a_read_unlocks_and_wakes_who_waits(machine, waits):
    """One change of the flags: uptodate, unlocked, nobody waiting; other flags stay."""
    ram, pfn = machine.ram, int(alloc_page(machine.ram, CPU, NODE, GFP_USER))
    ram.page_flags[pfn] = PG_DIRTY | PG_LOCKED | (PG_WAITERS if waits else 0)
    ram.cpu_state[1], ram.cpu_wait_kind[1], ram.cpu_wait_object[1] = BLOCKED, WAIT_PAGE, pfn
    end_read(ram, CPU, pfn)
    assert machine.flags(pfn) == PG_DIRTY | PG_UPTODATE
    assert (ram.cpu_state[1] == BLOCKED) == (not waits)
    ram.cpu_state[1], ram.page_flags[pfn] = RUNNING, 0
    drop_page(ram, CPU, pfn)
