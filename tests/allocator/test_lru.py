"""LRU lists: a batch on the way in, the right list, isolation, activation."""

import pytest

from allocator.lru import (
    FOLIO_BATCH,
    LRU_ACTIVE_ANON,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    drop_page,
    isolate_page,
    lru_add,
    lru_add_drain,
    putback_page,
    unlink_page,
)
from allocator.page import PG_ACTIVE, PG_SWAPBACKED
from allocator.page_alloc import GFP_USER, alloc_page

CPU, NODE = 0, 0


@pytest.fixture
def machine(small_machine):
    return small_machine(mms=0)


def new_pages(machine, count, flags=0):
    """Take pages and queue them for their list."""
    pages = [int(alloc_page(machine.ram, CPU, NODE, GFP_USER)) for _ in range(count)]
    for pfn in pages:
        machine.ram.page_flags[pfn] = flags
        lru_add(machine.ram, CPU, pfn)
    return pages


def drop(machine, pages):
    for pfn in pages:
        drop_page(machine.ram, CPU, pfn)


def isolated_on(machine):
    """Give the pages isolated from the node's anonymous and file lists."""
    return [int(table[:, NODE].sum()) for table in (machine.ram.isolated_anon, machine.ram.isolated_file)]


def on_list(machine, which):
    """Walk a list from its young end."""
    pages, pfn = [], int(machine.ram.lru_first[NODE, which])
    while pfn != -1:
        pages.append(pfn)
        pfn = int(machine.ram.page_next[pfn])
    assert len(pages) == machine.ram.lru_size[NODE, which]
    return pages


def test_pages_reach_their_list_when_the_batch_is_full(machine):
    """The batch holds a reference on each page until then."""
    pages = new_pages(machine, FOLIO_BATCH - 1)
    assert on_list(machine, LRU_INACTIVE_FILE) == []
    assert set(machine.ram.page_refcount[pages].tolist()) == {2}
    pages += new_pages(machine, 1)
    assert on_list(machine, LRU_INACTIVE_FILE) == pages[::-1], "the last one in is the youngest"
    assert set(machine.ram.page_refcount[pages].tolist()) == {1}
    drop(machine, pages)
    assert on_list(machine, LRU_INACTIVE_FILE) == []


@pytest.mark.parametrize(
    "flags, which",
    [
        (0, LRU_INACTIVE_FILE),
        (PG_ACTIVE, LRU_ACTIVE_FILE),
        (PG_SWAPBACKED, LRU_INACTIVE_ANON),
        (PG_SWAPBACKED | PG_ACTIVE, LRU_ACTIVE_ANON),
    ],
)
def test_flags_choose_the_list(machine, flags, which):
    pages = new_pages(machine, 1, flags)
    lru_add_drain(machine.ram, CPU)
    assert on_list(machine, which) == pages
    drop(machine, pages)


def test_a_page_dropped_while_in_the_batch_is_freed_by_the_drain(machine):
    """The batch's reference is the last one."""
    (pfn,) = new_pages(machine, 1)
    drop_page(machine.ram, CPU, pfn)
    assert machine.ram.page_refcount[pfn] == 1
    lru_add_drain(machine.ram, CPU)
    assert machine.ram.page_refcount[pfn] == 0
    assert on_list(machine, LRU_INACTIVE_FILE) == []


def test_an_isolated_page_is_nobody_elses(machine):
    """One more reference, off the list; who comes second gets nothing; putback brings it back as the
    youngest.
    """
    pages = new_pages(machine, 3)
    lru_add_drain(machine.ram, CPU)
    assert isolate_page(machine.ram, CPU, pages[0])
    assert not isolate_page(machine.ram, CPU, pages[0])
    assert (on_list(machine, LRU_INACTIVE_FILE), isolated_on(machine)) == (pages[:0:-1], [0, 1])
    assert machine.ram.page_refcount[pages[0]] == 2
    putback_page(machine.ram, CPU, pages[0])
    assert (on_list(machine, LRU_INACTIVE_FILE), isolated_on(machine)) == (
        [pages[0], pages[2], pages[1]],
        [0, 0],
    )
    drop(machine, pages)


def test_a_free_page_cannot_be_isolated(machine):
    assert not isolate_page(machine.ram, CPU, 5)


def test_taking_a_page_off_a_list_it_is_not_on_panics(broken_machine):
    machine = broken_machine(mms=0)
    machine.ram.page_prev[7] = -1
    assert machine.panic_of(unlink_page, NODE, LRU_ACTIVE_FILE, 7).startswith("lru: page 7 is on no list")
