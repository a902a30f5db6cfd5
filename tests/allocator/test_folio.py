"""Large folios: read, mapped, unmapped and freed as one; split when a page goes its own way; LUF flushes for
them at once.
"""

from __future__ import annotations

import pytest

from allocator.buddy import take_block
from allocator.filemap import truncate_file_page
from allocator.lru import LRU_ACTIVE_FILE, drop_page, lru_add_drain
from allocator.page import PG_LARGE, PG_LRU, get_page
from allocator.page_cache import find_page
from cpus.abi.numbers import STORE
from emulator.small_machine import FILE, FILE_VPN, SHARED, SHARED_VPN

ORDER, SIZE = 3, 8
ALL = range(SIZE)


def large(machine):
    """Files are cached in folios of eight pages; process 1 runs on CPUs 0 and 1."""
    for object in (FILE, SHARED):
        machine.ram.object_order[object] = ORDER
    for cpu in (0, 1):
        machine.run(1, cpu=cpu)
    return machine


@pytest.fixture
def machine(small_machine):
    return large(small_machine())


def folio(machine, object=FILE, first=0):
    return [machine.cached(object, first + i) for i in ALL]


def on_lru(machine, pages):
    lru_add_drain(machine.ram, 0)
    lru_add_drain(machine.ram, 1)
    return [bool(machine.flags(pfn) & PG_LRU) for pfn in pages]


def reclaim(machine, pages=SIZE, vpn=FILE_VPN, kind=0):
    """Two CPUs use the pages, then CPU 0 reclaims the file; gives the frames that they had."""
    for cpu in (0, 1):
        machine.use(vpn, pages, kind, cpu=cpu)
    frames = [machine.pfn(1, vpn + i) for i in range(pages)]
    machine.asked()
    machine.reclaim_file(FILE if vpn == FILE_VPN else SHARED)
    return frames


def test_a_read_brings_whole_folios(machine):
    """Eight frames in a row, aligned; the head alone is on the LRU, and counts for all; each page is mapped
    by itself.
    """
    machine.touch(FILE_VPN + 3, pages=2)
    pages = folio(machine)
    assert pages == list(range(pages[0], pages[0] + SIZE))
    assert pages[0] % SIZE == 0
    assert all(machine.flags(pfn) & PG_LARGE for pfn in pages)
    assert on_lru(machine, pages) == [True] + [False] * (SIZE - 1)
    cached = len(machine.cached_pages(FILE))
    assert cached % SIZE == 0
    assert machine.ram.lru_size[0].sum() == cached


def test_reclaim_unmaps_it_with_one_flush_and_frees_a_block(machine):
    """All pages were mapped: one round for the whole batch, and the frames are one block, or part of a larger
    one.
    """
    frames = reclaim(machine)
    assert machine.asked() == [[1]]
    free = set()
    for zone_order in range(ORDER, 11):
        pfn = int(machine.ram.free_first[0, zone_order])
        while pfn >= 0:
            free |= set(range(pfn, pfn + (1 << zone_order)))
            pfn = int(machine.ram.page_next[pfn])
    assert set(frames) <= free
    assert not any(machine.flags(pfn) & PG_LARGE for pfn in frames)


@pytest.mark.parametrize("design", ["luf", "luf_v12"])
def test_luf_flushes_at_once(small_machine, design):
    """Read-only, and yet no key is given and nothing is left pending; of single pages all would be."""
    machine = large(small_machine(design=design))
    frames = reclaim(machine)
    assert machine.asked() == [[1]]
    assert not any(machine.ram.page_key[pfn] for pfn in frames)
    assert machine.ram.zone_pending[0] == 0
    for object in (FILE, SHARED):
        machine.ram.object_order[object] = 0
    frames = reclaim(machine)
    assert machine.asked() == []
    assert all(machine.ram.page_key[pfn] for pfn in frames)


def test_a_design_that_defers_gets_them_back_page_by_page(small_machine):
    """`epoch` makes no exception: each frame is freed with the key, and nobody has it before its flush."""
    machine = large(small_machine(design="epoch"))
    frames = reclaim(machine)
    assert machine.asked() == []
    assert all(machine.ram.page_key[pfn] for pfn in frames)
    machine.touch(FILE_VPN, pages=SIZE, cpu=1)


def test_dirty_ones_are_written(machine):
    machine.use(SHARED_VPN, SIZE, STORE, cpu=0)
    logical = [machine.content(pfn)[0] for pfn in folio(machine, SHARED)]
    machine.reclaim_file(SHARED)
    assert [int(machine.ram.disk_version[page]) for page in logical] == [1] * SIZE


def test_one_page_in_use_keeps_all(machine):
    """Somebody holds a reference to the sixth: the folio stays whole, and mapped by nobody."""
    machine.use(FILE_VPN, SIZE)
    pages = folio(machine)
    get_page(machine.ram, pages[5])
    for _ in range(6):
        machine.scan(64, LRU_ACTIVE_FILE)
        machine.scan(64)
    assert folio(machine) == pages
    assert all(machine.flags(pfn) & PG_LARGE for pfn in pages)
    drop_page(machine.ram, 0, pages[5])
    machine.reclaim_file(FILE)


def test_truncation_of_one_page_splits_it(machine):
    """The others stay, each on the LRU by itself, and can be reclaimed."""
    machine.use(FILE_VPN, SIZE)
    pages = folio(machine)
    truncate_file_page(machine.ram, 0, FILE, 2)
    assert folio(machine) == [*pages[:2], -1, *pages[3:]]
    assert not any(machine.flags(pfn) & PG_LARGE for pfn in pages)
    assert on_lru(machine, [pages[0], pages[7]]) == [True, True]
    machine.reclaim_file(FILE)


def test_demotion_splits_it(small_machine):
    """The head moves to the slow node as a page of its own; the others follow when their turn comes."""
    machine = large(small_machine(pages=(512, 512), demotion=True))
    machine.use(FILE_VPN, SIZE)
    pages = folio(machine)
    for _ in range(4):
        machine.scan(64, LRU_ACTIVE_FILE)
        machine.scan(64)
    moved = folio(machine)
    assert moved != pages
    assert not any(machine.flags(pfn) & PG_LARGE for pfn in {*pages, *moved})


def test_without_a_block_pages_come_one_by_one(machine):
    """The buddy has single frames only: reading goes on page by page."""
    ram = machine.ram
    taken = []
    while (pfn := int(take_block(ram, 0, 0, ORDER))) >= 0:
        taken.append(pfn)
    ram.wmark_min[0] = ram.wmark_low[0] = ram.wmark_high[0] = 0
    for block in taken[-8:]:  # give every other frame of some blocks back
        for pfn in range(block, block + SIZE, 2):
            ram.page_refcount[pfn] = 1
            drop_page(ram, 0, pfn)
    machine.touch(FILE_VPN, pages=2)
    assert not machine.flags(machine.cached(FILE, 0)) & PG_LARGE
    machine.forget_wakeups()
    for block in taken[-8:]:
        for pfn in range(block + 1, block + SIZE, 2):
            ram.page_refcount[pfn] = 1
            drop_page(ram, 0, pfn)
    for block in taken[:-8]:
        for pfn in range(block, block + SIZE):
            ram.page_refcount[pfn] = 1
            drop_page(ram, 0, pfn)


def test_what_is_partly_cached_comes_one_by_one(machine):
    """Page 4 is cached already, as a page of its own: the others of its folio are read around it."""
    machine.ram.object_order[FILE] = 0
    machine.ram.readahead_pages = 1
    machine.touch(FILE_VPN + 4)
    alone = machine.cached(FILE, 4)
    machine.ram.object_order[FILE] = ORDER
    machine.touch(FILE_VPN, pages=4)
    pfn = int(find_page(machine.ram, 0, FILE, 4))
    drop_page(machine.ram, 0, pfn)
    assert pfn == alone
    assert not any(machine.flags(page) & PG_LARGE for page in folio(machine))
