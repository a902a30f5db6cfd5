"""Lists that run through the pages, against Python's own."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator.page_list import NONE, list_add, list_add_tail, list_del, list_splice_tail
from cpus.compiled import kernel
from tests.cpus import bare_machine as bare

PAGES, LISTS = 8, 3
HEAD, TAIL, SPLICE = range(3)


@kernel
def change(ram, what, which, pfn):
    """Put a page on a list, at either end, or append a list to it (its pend list)."""
    if what == HEAD:
        list_add(ram, ram.free_first, ram.free_last, (0, which), pfn)
    elif what == TAIL:
        list_add_tail(ram, ram.free_first, ram.free_last, (0, which), pfn)
    else:
        list_splice_tail(ram, ram.free_first, ram.free_last, (0, which), ram.pend_first, ram.pend_last)


@kernel
def put_aside(ram, which, pfn):
    list_add_tail(ram, ram.pend_first, ram.pend_last, (0, which), pfn)


@kernel
def take(ram, which, pfn):
    list_del(ram, ram.free_first, ram.free_last, (0, which), pfn)


@pytest.fixture(scope="module")
def ram():
    ram = bare.build()
    yield ram
    ram.close()


def walk(ram, which):
    """Give the pages of a list from its head; from its tail they must be the same."""
    ends = (ram.free_first, ram.page_next), (ram.free_last, ram.page_prev)
    found = []
    for end, following in ends:
        pages, pfn = [], int(end[0, which])
        while pfn != NONE:
            pages.append(pfn)
            assert len(pages) <= 2 * PAGES
            pfn = int(following[pfn])
        found.append(pages)
    assert found[0] == found[1][::-1]
    return found[0]


@settings(deadline=None)  # kernels are compiled in the first example
@given(st.lists(st.tuples(st.integers(0, SPLICE), st.integers(0, LISTS - 1), st.integers(0, PAGES - 1))))
def test_any_sequence_of_changes_leaves_the_lists_that_python_has(ram, changes):
    """A page is put at an end, or taken off if it is on a list; a list of two pages is appended."""
    for table in (ram.free_first, ram.free_last, ram.pend_first, ram.pend_last):
        table[:] = NONE
    lists: list[list[int]] = [[] for _ in range(LISTS)]
    for what, which, pfn in changes:
        home = next((i for i, pages in enumerate(lists) if pfn in pages), None)
        if home is not None:
            take(ram, home, pfn)
            lists[home].remove(pfn)
        elif what == SPLICE:
            others = [page for page in range(PAGES, PAGES + 2) if not any(page in pages for pages in lists)]
            for page in others:
                put_aside(ram, which, page)
            if others:
                change(ram, SPLICE, which, 0)
                lists[which] += others
                assert (ram.pend_first[0, which], ram.pend_last[0, which]) == (NONE, NONE)
        else:
            change(ram, what, which, pfn)
            lists[which].insert(0 if what == HEAD else len(lists[which]), pfn)
        assert [walk(ram, i) for i in range(LISTS)] == lists
