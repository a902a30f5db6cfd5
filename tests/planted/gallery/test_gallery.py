"""The gallery's bugs apply, its page shows them as they are; one is caught, and only with the bug."""

from __future__ import annotations

import pytest

from tests.planted.gallery.show import INTRO, OUTSIDE, PAGE, exhibits, section
from workloads.litmus.shelf import litmus_test

EXHIBITS = exhibits()


@pytest.mark.parametrize("name", EXHIBITS)
def test_the_page_shows_test_and_change_as_they_are(name):
    """Who edits one of them, or the engine around a change, renews the page."""
    one = EXHIBITS[name]
    text = PAGE.read_text(encoding="utf-8")
    before, _, _ = section(one, "").partition("The proof:")
    assert before in text
    assert litmus_test(str(one.litmus)).about


def test_the_page_begins_and_ends_as_it_is_written():
    """Renewed with the words around the exhibits, too."""
    text = PAGE.read_text(encoding="utf-8")
    assert text.startswith(INTRO.format(first=next(iter(EXHIBITS))))
    assert text.endswith(OUTSIDE)


def test_a_bug_is_caught_and_nothing_without_it():
    """One that is a design; the proof names what happened. (Changes of the engine are compiled anew, which
    tests/planted/test_hunt.py does for one.)
    """
    one = EXHIBITS["asid-transition"]
    code, proof = one.proof()
    assert code == 1
    assert proof.startswith("VIOLATION")
    assert one.proof(planted=False) == (0, "")
