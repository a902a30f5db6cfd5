"""The oracle on private memory: a page that is gone is told once, by whichever CPU finds it gone."""

import pytest

from cpus.lost_data import another_page, now_shows
from cpus.oracle import LOST_DATA, VERSION_BITS, set_content
from tests.cpus import bare_machine as bare
from tests.cpus.bare_machine import FRAME_OF_PAGE_0

VPN, TABLE, FILE, PRIVATE = 7, 4, 300, 1000
FRAME = FRAME_OF_PAGE_0 + VPN


@pytest.fixture
def ram():
    """An address must show the only anonymous page there is, which is in a frame no more."""
    ram = bare.build()
    set_content(ram, FRAME, PRIVATE, 0)
    now_shows(ram, 0, 0, VPN, TABLE, FRAME)
    yield ram
    ram.close()


def finds(ram, cpu, logical):
    """A CPU's walk finds a page there. Returns what was reported for it."""
    before = int(ram.run_violations[0])
    another_page(ram, cpu, 0, VPN, TABLE, logical << VERSION_BITS)
    return ram.violation[before : int(ram.run_violations[0]), 0].tolist()


def test_who_finds_a_page_of_a_file_in_its_place_reports_it(ram):
    assert finds(ram, 0, FILE) == [LOST_DATA]


def test_a_second_cpu_that_found_the_same_says_nothing_when_the_first_has_said_it(ram):
    """let cpu1 look at the word beside the PTE . let cpu0 look, report and forget . cpu1 goes on"""
    finds(ram, 0, FILE)
    assert finds(ram, 1, FILE) == []


def test_a_private_page_where_none_must_be_is_reported_by_all(ram):
    finds(ram, 0, FILE)
    assert finds(ram, 1, PRIVATE) == [LOST_DATA]
