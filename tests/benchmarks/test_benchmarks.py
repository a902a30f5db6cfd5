"""The benchmarks are found, and their tables can be read."""

import shutil

import pytest

from benchmarks import access
from benchmarks.__main__ import modules, table


def test_every_module_with_a_run_is_found():
    """Interrupts and start-up at least; helpers without `run` are not benchmarks."""
    found = modules()
    assert {"ipi", "startup"} <= set(found)
    assert "storm" not in found


def test_rows_of_different_keys_make_one_table():
    """A column per key in order of appearance, numbers to the right with thousands marked, gaps where a row
    has nothing.
    """
    rows = [{"case": "short", "n": 5}, {"case": "a longer one", "ms": 1234.5}]
    assert table(rows).splitlines() == ["case          n  ms", "short         5", "a longer one     1,234.5"]


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is needed to build the twin")
def test_the_c_twin_does_what_the_loop_does():
    """Counters, clock and TLB are the same in every case; `run` raises where they are not."""
    assert all("speed_of_c" in row for row in access.run(quick=True))
