"""madvise, move_pages, truncation of mapped files, POSIX_FADV_DONTNEED: what each takes, keeps, flushes."""

import pytest

from allocator.filemap import fadvise
from allocator.flush_sites import LOCAL_SHOOTDOWN, REMOTE_SEND_IPI
from allocator.lru import LRU_INACTIVE_FILE, drop_page, lru_add_drain
from allocator.madvise import madvise
from allocator.migrate import move_pages
from allocator.page import PG_ACTIVE, PG_DIRTY, PG_SWAPBACKED, get_page, node_of, set_flag
from allocator.tlb_flush import ALL_PAGES
from allocator.unmap import unmap_mapping_range
from cpus.abi.numbers import LOAD, MADV_COLD, MADV_DONTNEED, MADV_FREE, MADV_PAGEOUT, STORE
from cpus.page_table import PTE_ACCESSED, PTE_DIRTY
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN, SHARED, SHARED_VPN

PAGES = 64


@pytest.fixture
def machine(small_machine):
    """One process on two CPUs, two nodes; its anonymous pages and those of the file are there and on their
    lists.
    """
    machine = small_machine(pages=(1024, 1024))
    machine.run(1, cpu=0)
    machine.run(1, cpu=1)
    machine.touch(ANON_VPN, STORE, pages=PAGES)
    machine.touch(FILE_VPN, LOAD, pages=PAGES)
    machine.ram.cpu_clock[:] += 1_000_000_000
    for cpu in (0, 1):
        machine.touch(FILE_VPN, LOAD, pages=PAGES, cpu=cpu)
        lru_add_drain(machine.ram, cpu)
    machine.asked()
    return machine


def frames(machine, vpn, mm=1):
    return [machine.pfn(mm, vpn + i) for i in range(PAGES)]


def test_dontneed_drops_pages_and_flushes_once(machine):
    madvise(machine.ram, 0, 1, ANON_VPN, ANON_VPN + PAGES, MADV_DONTNEED)
    assert frames(machine, ANON_VPN) == [0] * PAGES
    assert machine.asked() == [[1]]


def test_dontneed_of_what_was_never_touched_flushes_nobody(machine):
    madvise(machine.ram, 0, 1, ANON_VPN + 100, ANON_VPN + 200, MADV_DONTNEED)
    assert machine.asked() == []


def test_cold_takes_the_accessed_bits_and_flushes_once(machine):
    """Pages go to the inactive list; what was not accessed since needs no flush the second time."""
    set_flag(machine.ram, machine.pfn(1, ANON_VPN), 0)
    madvise(machine.ram, 0, 1, ANON_VPN, ANON_VPN + PAGES, MADV_COLD)
    assert not any(machine.pte(1, ANON_VPN + i) & PTE_ACCESSED for i in range(PAGES))
    assert machine.asked() == [[1]]
    assert not any(machine.flags(pfn) & PG_ACTIVE for pfn in frames(machine, ANON_VPN))
    madvise(machine.ram, 0, 1, ANON_VPN, ANON_VPN + PAGES, MADV_COLD)
    assert machine.asked() == []


def test_free_lets_reclaim_drop_what_nobody_writes_to_again(machine):
    """Page 0 is written again, page 1 is not: only that one goes, without IO, and reads as zeros."""
    first, second = machine.pfn(1, ANON_VPN), machine.pfn(1, ANON_VPN + 1)
    madvise(machine.ram, 0, 1, ANON_VPN, ANON_VPN + 2, MADV_FREE)
    assert machine.asked() == [[1]]
    assert not machine.pte(1, ANON_VPN) & (PTE_ACCESSED | PTE_DIRTY)
    assert not machine.flags(first) & PG_SWAPBACKED
    machine.touch(ANON_VPN, STORE)
    for _ in range(3):
        machine.scan(512, LRU_INACTIVE_FILE)
    assert machine.pfn(1, ANON_VPN) == first
    assert machine.flags(first) & PG_SWAPBACKED
    assert machine.pte(1, ANON_VPN + 1) == 0
    assert machine.count("pglazyfreed") == 1
    assert machine.count("unmaps_undone") == 1
    machine.touch(ANON_VPN + 1, LOAD)
    assert machine.pfn(1, ANON_VPN + 1) == machine.ram.zero_page != second


def test_pageout_reclaims_what_only_this_process_maps(machine):
    """In batches of 31 with a flush each, and one for the rest."""
    madvise(machine.ram, 0, 1, FILE_VPN, FILE_VPN + PAGES, MADV_PAGEOUT)
    assert frames(machine, FILE_VPN) == [0] * PAGES
    assert [machine.cached(FILE, i) for i in range(PAGES)] == [-1] * PAGES
    assert machine.events(REMOTE_SEND_IPI) == machine.events(LOCAL_SHOOTDOWN) == {ALL_PAGES: 3}


def test_pageout_leaves_what_others_map_too(small_machine):
    machine = small_machine()
    for mm in (1, 2):
        machine.run(mm, cpu=mm - 1)
        machine.touch(FILE_VPN, LOAD, pages=16, cpu=mm - 1)
    lru_add_drain(machine.ram, 0)
    madvise(machine.ram, 0, 1, FILE_VPN, FILE_VPN + 16, MADV_PAGEOUT)
    assert all(machine.cached(FILE, i) >= 0 for i in range(16))
    assert machine.asked() == []


def test_pageout_of_anonymous_memory_without_swap_keeps_it(machine):
    before = frames(machine, ANON_VPN)
    madvise(machine.ram, 0, 1, ANON_VPN, ANON_VPN + PAGES, MADV_PAGEOUT)
    assert frames(machine, ANON_VPN) == before
    assert machine.asked() == []


def test_moved_pages_lie_on_the_other_node_after_one_flush(machine):
    assert move_pages(machine.ram, 0, 1, ANON_VPN, ANON_VPN + PAGES, 1) == PAGES
    assert [int(node_of(machine.ram, pfn)) for pfn in frames(machine, ANON_VPN)] == [1] * PAGES
    assert machine.asked() == [[1]]
    assert move_pages(machine.ram, 0, 1, ANON_VPN, ANON_VPN + PAGES, 1) == 0
    machine.touch(ANON_VPN, STORE, pages=PAGES)


def test_a_page_that_somebody_holds_is_mapped_again_where_it_was(machine):
    pfn = machine.pfn(1, ANON_VPN)
    get_page(machine.ram, pfn)
    assert move_pages(machine.ram, 0, 1, ANON_VPN, ANON_VPN + 2, 1) == 1
    assert machine.pfn(1, ANON_VPN) == pfn
    assert machine.count("moves_undone") == 1
    drop_page(machine.ram, 0, pfn)


def test_more_than_512_pages_move_in_batches(small_machine):
    """NR_MAX_BATCHED_MIGRATION: 512 at a time, a flush for each batch."""
    machine = small_machine(pages=(2048, 2048), region=1100)
    for cpu in (0, 1):
        machine.run(1, cpu=cpu)
    machine.touch(ANON_VPN, STORE, pages=1100)
    machine.asked()
    assert move_pages(machine.ram, 0, 1, ANON_VPN, ANON_VPN + 1100, 1) == 1100
    assert len(machine.asked()) == 3


def test_unmapping_a_range_of_a_file_flushes_every_process_once(small_machine):
    """unmap_mapping_range: three processes on three CPUs, one of them ours."""
    machine = small_machine(cpus=3, mms=3)
    for mm in (1, 2, 3):
        machine.run(mm, cpu=mm - 1)
        machine.touch(SHARED_VPN, LOAD, pages=16, cpu=mm - 1)
    machine.asked()
    unmap_mapping_range(machine.ram, 0, SHARED, 4, 8, True)
    assert sorted(machine.asked()) == [[1], [2]]
    assert [[i for i in range(16) if not machine.pte(mm, SHARED_VPN + i)] for mm in (1, 2, 3)] == [
        [4, 5, 6, 7]
    ] * 3


def test_fadvise_drops_clean_pages_that_nobody_maps(small_machine):
    machine = small_machine()
    machine.run(1)
    machine.touch(SHARED_VPN, LOAD, pages=16)
    machine.ram.cpu_clock[:] += 1_000_000_000
    madvise(machine.ram, 0, 1, SHARED_VPN, SHARED_VPN + 8, MADV_DONTNEED)
    set_flag(machine.ram, machine.cached(SHARED, 3), PG_DIRTY)
    fadvise(machine.ram, 0, SHARED, 0, 256)
    assert [i for i in range(16) if machine.cached(SHARED, i) >= 0] == [3, *range(8, 16)]
