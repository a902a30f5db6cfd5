"""A value that is refused is shown, but not all of a large one."""

from __future__ import annotations

import pytest
from msgspec import Struct

from emulator.golden.data import GoldenError, read_recording
from inputs.checked import converted


class Table(Struct):
    cells: list[int]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"cells": [1, "x"]}, "my.json: 'cells[1]' must be a whole number (got 'x')"),
        ({"cells": {"a": list(range(10_000))}}, "my.json: 'cells' must be a list (got {'a': [0, 1, 2, "),
    ],
)
def test_a_large_value_is_clipped(table, sentence):
    """One sentence fits a line or two, whatever the file holds."""
    with pytest.raises(ValueError, match=r"^my\.json: ") as caught:
        converted(table, Table, "my.json")
    assert str(caught.value).startswith(sentence)
    assert len(str(caught.value)) < 150


def test_a_golden_file_of_another_shape_is_not_printed_whole(tmp_path):
    """`luf golden --data`: cells as a table, thousands of them."""
    (tmp_path / "golden.json").write_text(f'{{"micro": {{"a": {list(range(10_000))}}}}}')
    with pytest.raises(GoldenError, match=r"'micro' must be a list \(got {'a': \[0, 1, 2") as caught:
        read_recording(tmp_path)
    assert len(str(caught.value)) < 150 + len(str(tmp_path))
