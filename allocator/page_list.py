"""Lists of pages that run through the pages themselves (include/linux/list.h; page->lru, page->buddy_list,
page->pcp_list).

A page is on one list at a time: `page_next` and `page_prev` belong to it, and the lock of the list protects
them. A list has its ends in two tables, in the same place `at` of both; NONE is where it ends.
"""

from cpus.compiled import inlined

NONE = -1  # no page; also no block, no index, no VMA


@inlined
def _add(end, other, inward, outward, at, pfn):
    """Put a page at one end of a list; its neighbour lies `inward`."""
    neighbour = end[at]
    inward[pfn], outward[pfn] = neighbour, NONE
    end[at] = pfn
    if neighbour == NONE:
        other[at] = pfn
    else:
        outward[neighbour] = pfn


@inlined
def list_add(ram, first, last, at, pfn):
    """Put a page at the head of a list."""
    _add(first, last, ram.page_next, ram.page_prev, at, pfn)


@inlined
def list_add_tail(ram, first, last, at, pfn):
    """Put a page at the tail of a list."""
    _add(last, first, ram.page_prev, ram.page_next, at, pfn)


@inlined
def list_del(ram, first, last, at, pfn):
    """Take a page off the list that it is on."""
    before, after = ram.page_prev[pfn], ram.page_next[pfn]
    if before == NONE:
        first[at] = after
    else:
        ram.page_next[before] = after
    if after == NONE:
        last[at] = before
    else:
        ram.page_prev[after] = before


@inlined
def list_splice_tail(ram, first, last, at, other_first, other_last):
    """Append another list, which is not empty and is left so, to a list (list_splice_tail_init)."""
    before, head = last[at], other_first[at]
    ram.page_prev[head] = before
    if before == NONE:
        first[at] = head
    else:
        ram.page_next[before] = head
    last[at] = other_last[at]
    other_first[at], other_last[at] = NONE, NONE
