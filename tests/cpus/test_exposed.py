"""The oracle on states: a frame that changes hands while a CPU would still use a translation to it is
reported, and nothing else is.
"""

import pytest

from cpus.abi.numbers import IFETCH, LOAD, STORE
from cpus.access import visit_pages
from cpus.exposed import (
    EXPOSURES_KEPT,
    FILLERS,
    FIRST,
    HANDED_OUT,
    LOADED,
    OTHERS,
    REACHED,
    SEVERAL,
    fills_of,
    frame_changes_hands,
)
from cpus.tlb import invalidate_page
from tests.cpus import bare_machine as bare
from tests.cpus.bare_machine import FRAME_OF_PAGE_0

VPN, LOGICAL, OTHER = 7, 300, 1
FRAME = FRAME_OF_PAGE_0 + VPN
BEHIND, NEWEST = 4, 5  # generations


def build(nr_cpus=2, geometry=bare.SMALL):
    """CPU 1 has page VPN in its TLB, and runs in its address space, which it has flushed up to BEHIND; the
    PTE is gone.
    """
    ram = bare.build(geometry, nr_cpus=nr_cpus)
    ram.set_constant("states", 1)
    ram.asid_mm[:] = -1
    for cpu in range(nr_cpus):
        ram.asid_mm[cpu, 0] = 0
    ram.asid_gen[:], ram.mm_tlb_gen[0] = BEHIND, NEWEST
    bare.map_page(ram, 0, VPN, FRAME, LOGICAL)
    return ram


@pytest.fixture
def ram():
    ram = build()
    visit_pages(ram, OTHER, LOAD, VPN, 1, 1, 0)
    bare.set_pte(ram, 0, VPN, 0)
    yield ram
    ram.close()


def exposures(ram, pfn=FRAME, cpu=0):
    """Have CPU 0 take the frame; returns the CPUs that were reported for it."""
    before = int(ram.run_exposures[0])
    frame_changes_hands(ram, cpu, pfn, HANDED_OUT)
    return ram.exposure[before : int(ram.run_exposures[0]), 1].tolist()


@pytest.mark.parametrize("kind", [LOAD, STORE, IFETCH])
def test_a_frame_that_a_running_cpu_has_in_its_tlb_is_exposed(kind):
    """let cpu1 fill an entry, PTE gone . then cpu1 flushes before the frame is handed out . however it did
    not
    """
    ram = build()
    visit_pages(ram, OTHER, kind, VPN, 1, 1, 0)
    bare.set_pte(ram, 0, VPN, 0)
    assert OTHER in exposures(ram)
    ram.close()


def test_the_details_name_cpu_entry_frame_address_space_and_why(ram):
    ram.cpu_clock[0], ram.cpu_task[0] = 5000, 3
    filled = int(ram.tlb_filled_ns[OTHER].max())
    exposures(ram)
    what, other, vpn, frame, expected, _, clock, filled_ns, mm, _, task, entry, by, why = ram.exposure[0, :14]
    assert (what, other, vpn, frame, mm, task, by, why) == (HANDED_OUT, OTHER, VPN, FRAME, 0, 3, 0, LOADED)
    assert (expected >> 34, clock, filled_ns) == (LOGICAL, 5000, filled)
    assert ram.tlb_value[OTHER, entry] >> 8 == FRAME


def test_a_cpu_that_flushed_in_time_is_not_reported_and_forgotten(ram):
    """The next look costs one load."""
    invalidate_page(ram, OTHER, VPN, ram.cpu_context[OTHER])
    assert exposures(ram) == []
    assert ram.frame_fills[FRAME, [FIRST, OTHERS]].tolist() == [0, 0]


def test_a_frame_that_is_still_mapped_there_is_another_checks_business(ram):
    bare.map_page(ram, 0, VPN, FRAME, LOGICAL)
    assert exposures(ram) == []


def test_the_own_cpu_is_looked_at_too(ram):
    assert exposures(ram, cpu=OTHER) == [OTHER, OTHER], "in both levels"


# --- who would not use it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"), [("cpu_lazy", 1), ("cpu_in_irq", 1), ("cpu_loaded_mm", 2), ("cpu_asid", 1)]
)
def test_a_cpu_that_will_flush_before_it_uses_it_is_none(ram, field, value):
    """Lazy, in an interrupt, or in another address space, and its slot is behind: it has the entry, so it
    stays noted, and is reported as soon as that is over.
    """
    was = int(getattr(ram, field)[OTHER])
    getattr(ram, field)[OTHER] = value
    assert exposures(ram) == []
    assert fills_of(ram, FRAME) == (1 << OTHER, VPN), "it stays noted"
    getattr(ram, field)[OTHER] = was
    assert OTHER in exposures(ram)


@pytest.mark.parametrize("field", ["cpu_lazy", "cpu_in_irq", "cpu_loaded_mm", "cpu_asid"])
def test_unless_its_slot_has_reached_the_newest_generation(ram, field):
    """Then nothing makes it flush when it comes back: the mask was read before tlb_gen was raised, say."""
    getattr(ram, field)[OTHER] = 1
    ram.asid_gen[OTHER, 0] = NEWEST
    assert OTHER in exposures(ram)
    assert ram.exposure[0, 13] == REACHED


def test_a_cpu_that_is_just_loading_an_address_space_is_none(ram):
    ram.cpu_switches[OTHER] = 1
    assert exposures(ram) == []
    ram.cpu_switches[OTHER] = 2
    assert OTHER in exposures(ram)


def test_entries_of_a_slot_that_was_given_away_are_dead(ram):
    ram.asid_context[OTHER, 0] = 9
    assert exposures(ram) == []


# --- finding it ---------------------------------------------------------------------------------------------


def test_entries_of_one_frame_at_several_pages_are_all_found():
    ram = build()
    for vpn in (VPN, VPN + 1, VPN + 2):
        bare.map_page(ram, 0, vpn, FRAME, LOGICAL)
        visit_pages(ram, OTHER, LOAD, vpn, 1, 1, 0)
    for vpn in (VPN, VPN + 1, VPN + 2):
        bare.set_pte(ram, 0, vpn, 0)
    assert ram.frame_fills[FRAME, FIRST] & SEVERAL
    assert exposures(ram) == [OTHER] * 6
    assert set(ram.exposure[:6, 2].tolist()) == {VPN, VPN + 1, VPN + 2}
    ram.close()


def test_cpus_that_share_a_bit_are_told_apart():
    ram = build(nr_cpus=FILLERS + 2)
    visit_pages(ram, FILLERS + 1, LOAD, VPN, 1, 1, 0)
    bare.set_pte(ram, 0, VPN, 0)
    assert set(exposures(ram)) == {FILLERS + 1}
    ram.close()


def test_an_entry_that_left_the_second_level_is_found_in_the_first(ram):
    tags = ram.tlb_tag[OTHER]
    tags[ram.stlb_base :] = 0
    assert exposures(ram) == [OTHER]


def test_a_run_without_state_checks_notes_nothing():
    ram = build()
    ram.set_constant("states", 0)
    visit_pages(ram, OTHER, LOAD, VPN, 1, 1, 0)
    bare.set_pte(ram, 0, VPN, 0)
    assert exposures(ram) == []
    assert ram.frame_fills[FRAME].tolist() == [0, 0, 0, 0]
    ram.close()


def test_states_are_judged_without_the_accesses():
    ram = build()
    ram.set_constant("check", 0)
    visit_pages(ram, OTHER, LOAD, VPN, 1, 1, 0)
    bare.set_pte(ram, 0, VPN, 0)
    assert OTHER in exposures(ram)
    ram.close()


def test_exposures_beyond_the_kept_ones_are_counted(ram):
    for _ in range(EXPOSURES_KEPT):
        exposures(ram)
    assert ram.run_exposures[0] == 2 * EXPOSURES_KEPT
    assert (ram.exposure[:EXPOSURES_KEPT, 0] == HANDED_OUT).all()


# --- a process that takes its own frame ---------------------------------------------------------------------


def test_a_process_may_take_back_what_it_has_unmapped_itself(ram):
    """Its program does not use that address any more, and would read its own memory."""
    ram.task_wait_ns[VPN] = bare.UNMAPPED_FOR_GOOD
    assert exposures(ram) == []
    ram.cpu_loaded_mm[0] = 2  # another process takes it
    assert OTHER in exposures(ram)
