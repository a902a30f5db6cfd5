"""Stress finds a planted bug, from the copy of the sources to the finding: some that take a second.

All of them, and the hard ones, are the campaign's (tests/campaigns/planted.py).
"""

from __future__ import annotations

import pytest

from tests.planted.bugs import all_bugs
from tests.planted.hunt import hunt

SECONDS = 40.0  # of a loaded host, at most


@pytest.mark.parametrize(
    "name, kind",
    [
        ("cow-does-not-flush", "access after completion"),
        ("luf-batch-loses-its-key", "reuse"),
    ],
)
def test_stress_finds_it(name, kind):
    """A copy on write, and a design's key; scheduling points are not needed."""
    one = hunt(all_bugs()[name], SECONDS, without=("points",), shrink=False)
    assert one.error == ""
    assert one.found
    assert one.signature.startswith(kind)
