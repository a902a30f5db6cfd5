"""The oracle on states: a call that takes mappings or rights away may not return while a CPU would still use
them.
"""

import pytest

from cpus.abi.numbers import IFETCH, LOAD, STORE
from cpus.access import visit_pages
from cpus.completion import UNMAPPED, WRITE_PROTECTED, change_begins
from cpus.exposed import LOADED, REACHED
from cpus.exposed_changes import FEW_PAGES, PROTECTED, TAKEN_AWAY, call_returns
from cpus.page_table import PTE_PFN_SHIFT, PTE_PRESENT
from cpus.tlb import invalidate_page
from tests.cpus import bare_machine as bare
from tests.cpus.bare_machine import FRAME_OF_PAGE_0

VPN, LOGICAL, OTHER = 7, 300, 1
FRAME = FRAME_OF_PAGE_0 + VPN
READ_ONLY = (FRAME << PTE_PFN_SHIFT) | PTE_PRESENT
BEHIND, NEWEST = 4, 5  # generations
RANGES = [(VPN, VPN + 1), (0, VPN + 10 * FEW_PAGES)]  # looked up, and all entries read


@pytest.fixture
def ram():
    """Two CPUs run in an address space in which a page is mapped; CPU 1 is behind its newest generation."""
    ram = bare.build(bare.SMALL, nr_cpus=2)
    ram.set_constant("states", 1)
    ram.asid_mm[:] = -1
    for cpu in range(2):
        ram.asid_mm[cpu, 0] = 0
    ram.asid_gen[:], ram.mm_tlb_gen[0] = BEHIND, NEWEST
    bare.map_page(ram, 0, VPN, FRAME, LOGICAL)
    yield ram
    ram.close()


def returns(ram, number, taken, start=VPN, end=VPN + 1):
    """CPU 0 says that its call is over; what is found of it: (occasion, CPU, why)."""
    before = int(ram.run_exposures[0])
    call_returns(ram, 0, 0, number, start, end, taken)
    return [(row[0], row[1], row[13]) for row in ram.exposure[before : int(ram.run_exposures[0])].tolist()]


def unmapped_without_a_flush(ram, kind=LOAD):
    visit_pages(ram, OTHER, kind, VPN, 1, 1, 0)
    number = change_begins(ram, 0)
    bare.set_pte(ram, 0, VPN, 0)
    return number


@pytest.mark.parametrize(("start", "end"), RANGES)
@pytest.mark.parametrize("kind", [LOAD, STORE, IFETCH])
def test_what_a_call_has_unmapped_must_be_gone(ram, kind, start, end):
    number = unmapped_without_a_flush(ram, kind)
    found = returns(ram, number, UNMAPPED, start, end)
    assert found
    assert set(found) == {(TAKEN_AWAY, OTHER, LOADED)}


@pytest.mark.parametrize(("start", "end"), RANGES)
def test_what_was_flushed_or_lies_elsewhere_is_none_of_it(ram, start, end):
    number = unmapped_without_a_flush(ram)
    assert returns(ram, number, UNMAPPED, end, end + FEW_PAGES) == []
    invalidate_page(ram, OTHER, VPN, ram.cpu_context[OTHER])
    assert returns(ram, number, UNMAPPED, start, end) == []


def test_what_was_filled_since_the_change_began_is_not_the_calls(ram):
    """Somebody has mapped the page again, and reclaim has taken it."""
    number = change_begins(ram, 0)
    visit_pages(ram, OTHER, LOAD, VPN, 1, 1, 0)
    bare.set_pte(ram, 0, VPN, 0)
    assert returns(ram, number, UNMAPPED) == []


@pytest.mark.parametrize(
    ("field", "value"), [("cpu_lazy", 1), ("cpu_in_irq", 1), ("cpu_loaded_mm", 2), ("cpu_switches", 1)]
)
def test_a_cpu_that_flushes_before_it_goes_on_may_have_it(ram, field, value):
    number = unmapped_without_a_flush(ram)
    getattr(ram, field)[OTHER] = value
    assert returns(ram, number, UNMAPPED) == []


def test_one_that_comes_back_without_a_flush_may_not(ram):
    number = unmapped_without_a_flush(ram)
    ram.cpu_loaded_mm[OTHER], ram.asid_gen[OTHER, 0] = 2, NEWEST
    assert set(returns(ram, number, UNMAPPED)) == {(TAKEN_AWAY, OTHER, REACHED)}


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(("start", "end"), RANGES)
def test_a_right_to_store_must_be_gone_whenever_it_was_filled(ram, early, start, end):
    """let cpu0 flush before it takes the right . then cpu1 stores, and has it again"""
    number = 0 if early else change_begins(ram, 0)
    visit_pages(ram, OTHER, STORE, VPN, 1, 1, 0)
    number = number or change_begins(ram, 0)
    bare.set_pte(ram, 0, VPN, READ_ONLY)
    assert set(returns(ram, number, WRITE_PROTECTED, start, end)) == {(PROTECTED, OTHER, LOADED)}


def test_a_right_that_the_page_table_still_gives_may_stay(ram):
    """A page that a device writes to stays its process' own when it forks."""
    visit_pages(ram, OTHER, STORE, VPN, 1, 1, 0)
    assert returns(ram, change_begins(ram, 0), WRITE_PROTECTED) == []


def test_who_can_only_read_may_go_on_when_a_page_is_write_protected(ram):
    visit_pages(ram, OTHER, LOAD, VPN, 1, 1, 0)
    number = change_begins(ram, 0)
    bare.set_pte(ram, 0, VPN, READ_ONLY)
    assert returns(ram, number, WRITE_PROTECTED) == []
