"""Access after completion: what munmap, mprotect and fork promise, each broken on purpose, and what must not
be reported.
"""

import pytest

from cpus.abi.numbers import IFETCH, LOAD, STORE
from cpus.access import visit_pages
from cpus.completion import (
    CHANGES_KEPT,
    UNMAPPED,
    WRITE_PROTECTED,
    change_begins,
    change_is_complete,
    look_for_completed_changes,
)
from cpus.oracle import LATE, REUSE, STALE, publish, set_content
from cpus.tlb import invalidate_page
from tests.cpus import bare_machine as bare

VPN, FRAME, LOGICAL = 5, 30, 77


@pytest.fixture
def ram():
    """CPU 0 has read and written page VPN of address space 0: its TLBs hold it with the right to write."""
    ram = bare.build()
    bare.map_page(ram, 0, VPN, FRAME, LOGICAL)
    for kind in (LOAD, STORE, IFETCH):
        visit_pages(ram, 0, kind, VPN, 1, 1, 0)
    yield ram
    ram.close()


def late(ram, kind, cpu=0):
    """Visit the page; is that an access after completion?"""
    before = int(ram.run_violations[0])
    look_for_completed_changes(ram, cpu)
    visit_pages(ram, cpu, kind, VPN, 1, 1, 0)
    assert all(what == LATE for what in ram.violation[before : int(ram.run_violations[0]), 0])
    return int(ram.run_violations[0]) - before == 1


def change(ram, taken=UNMAPPED, start=VPN, end=VPN + 1):
    """Change mappings and forget to flush."""
    change_is_complete(ram, 0, 0, change_begins(ram, 0), start, end, taken)


@pytest.mark.parametrize("kind", [LOAD, STORE, IFETCH])
def test_an_unmapped_page_must_not_be_used(ram, kind):
    """The frame has no new owner and no new content: nothing else would tell."""
    change(ram)
    assert late(ram, kind)


def test_a_write_protected_page_may_be_read_and_not_written(ram):
    change(ram, WRITE_PROTECTED)
    assert not late(ram, LOAD)
    assert late(ram, STORE)
    assert bare.content_of(ram, FRAME) == (LOGICAL, 1), "the write did not happen"


def test_what_was_write_protected_and_then_unmapped_may_not_be_read_either(ram):
    """Both changes were seen, one look after the other; the later one counts, a third takes nothing back."""
    change(ram, WRITE_PROTECTED)
    assert not late(ram, LOAD)
    change(ram)
    assert late(ram, LOAD)
    change(ram, WRITE_PROTECTED)
    assert late(ram, LOAD)


@pytest.mark.parametrize("logical, published, what", [(LOGICAL, 50, STALE), (LOGICAL + 1, 0, REUSE)])
def test_a_read_through_a_write_protected_entry_is_judged_as_any_other(ram, logical, published, what):
    """The page has a newer version somewhere else, or the frame has gone to another page."""
    change(ram, WRITE_PROTECTED)
    assert not late(ram, LOAD)
    publish(ram, LOGICAL, published)
    set_content(ram, FRAME, logical, 1)
    visit_pages(ram, 0, LOAD, VPN, 1, 1, 0)
    assert [int(n) for n in ram.violation[: int(ram.run_violations[0]), 0]] == [what]


def test_a_mark_in_the_second_level_follows_into_the_first(ram):
    """The first level has lost the entry, the second still holds it."""
    change(ram)
    look_for_completed_changes(ram, 0)
    ram.tlb_tag[0, : ram.stlb_base] = 0
    ram.tlb_age[0, : ram.stlb_base] = 0
    assert late(ram, LOAD)


def test_before_it_is_complete_a_stale_use_is_legal(ram):
    """That is what deferring means."""
    number = change_begins(ram, 0)
    assert not late(ram, LOAD)
    change_is_complete(ram, 0, 0, number, VPN, VPN + 1, UNMAPPED)
    assert late(ram, LOAD)


def test_flushed_in_time_is_no_violation(ram):
    number = change_begins(ram, 0)
    invalidate_page(ram, 0, VPN, ram.cpu_context[0])
    change_is_complete(ram, 0, 0, number, VPN, VPN + 1, UNMAPPED)
    assert not any(late(ram, kind) for kind in (LOAD, STORE, IFETCH))


def test_a_fill_that_overlaps_the_change_is_not_judged(ram):
    """It may have read the new PTE: no false alarms."""
    number = change_begins(ram, 0)
    invalidate_page(ram, 0, VPN, ram.cpu_context[0])
    assert not late(ram, LOAD)  # fills it
    change_is_complete(ram, 0, 0, number, VPN, VPN + 1, UNMAPPED)
    assert not late(ram, LOAD)


def test_other_pages_and_other_address_spaces_are_not_meant(ram):
    change(ram, start=VPN + 1, end=VPN + 100)
    change(ram, start=0, end=VPN)
    change_is_complete(ram, 0, 1, change_begins(ram, 1), 0, 1000, UNMAPPED)
    assert not late(ram, LOAD)


def test_another_slot_is_judged_when_its_address_space_runs_again(ram):
    """Its entries lie in the TLB all the time."""
    bare.switch(ram, 1)
    change(ram)
    bare.map_page(ram, 1, VPN, FRAME + 1, LOGICAL + 1)
    assert not late(ram, LOAD)
    bare.switch(ram, 0)
    assert late(ram, LOAD)


def test_older_changes_than_the_ring_holds_are_let_go(ram):
    """Not judged, and nothing invented: the ring's oldest is the first that counts."""
    change(ram)
    for _ in range(CHANGES_KEPT):
        change(ram, start=500, end=501)
    assert not late(ram, LOAD)
    change(ram)
    assert late(ram, LOAD)


def test_a_slot_that_is_being_written_is_looked_at_later(ram):
    change(ram)
    number = int(ram.mm_change[0, 0])
    ram.mm_change[0, 0] = 0
    assert not late(ram, LOAD)
    ram.mm_change[0, 0] = number
    assert late(ram, LOAD)
