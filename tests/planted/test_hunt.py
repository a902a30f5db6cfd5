"""Stress finds a planted bug, from the copy of the sources to the finding: one that takes a second.

All of them, and the hard ones, are the campaign's (tests/campaigns/planted.py).
"""

from __future__ import annotations

from tests.planted.bugs import all_bugs
from tests.planted.hunt import hunt

SECONDS = 40.0  # of a loaded host, at most


def test_stress_finds_it():
    """A copy on write that flushes nobody; scheduling points are not needed."""
    one = hunt(all_bugs()["cow-does-not-flush"], SECONDS, without=("points",), shrink=False)
    assert one.error == ""
    assert one.found
    assert one.signature.startswith("access after completion")
