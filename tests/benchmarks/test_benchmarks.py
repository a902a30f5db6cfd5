"""The benchmarks are found, and their tables can be read."""

from benchmarks.__main__ import modules, table


def test_every_module_with_a_run_is_found():
    """Interrupts and start-up at least; helpers without `run` are not benchmarks."""
    found = modules()
    assert {"ipi", "startup"} <= set(found)
    assert "storm" not in found


def test_rows_of_different_keys_make_one_table():
    """A column per key in order of appearance, numbers to the right with thousands marked, gaps where a row has nothing."""
    rows = [{"case": "short", "n": 5}, {"case": "a longer one", "ms": 1234.5}]
    assert table(rows).splitlines() == ["case          n  ms", "short         5", "a longer one     1,234.5"]
