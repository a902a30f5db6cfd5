"""A value that is refused is shown, but not all of a large one."""

from __future__ import annotations

from typing import Annotated

import pytest
from msgspec import Meta, Struct

from emulator.golden.data import GoldenError, read_recording
from inputs.checked import Line, Natural, converted


class Table(Struct):
    cells: list[int]


class Shapes(Struct):
    by: dict[str, Natural]
    word: Annotated[str, Meta(pattern=r"\A(one|two)\Z")] = "one"
    name: Line = "x"


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


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"by": {"a\nb": -1}}, "'by.a\\nb' must be at least 0 (got -1)"),
        ({"by": {"right": 1, "a.b[7]": -1, "c": 2}}, "'by.a.b[7]' must be at least 0 (got -1)"),
        (
            {"by": {"x" * 500: "y"}},
            "'by." + "x" * 57 + " ... " + "x" * 60 + "' must be a",
        ),
        ({"by": [1]}, "'by' must be a table (got [1])"),
        ({"by": {}, "word": "other"}, "'word' must be one or two (got 'other')"),
        ({"by": {}, "name": "a\nb"}, "'name' must be text on one line (got 'a\\nb')"),
        ({"by": {}, "name": "x" * 501}, "'name' must be text of at most 500 characters (got 'xxx"),
        ([], "it must be a table (got [])"),
        ({}, "'by' is missing"),
    ],
)
def test_the_key_that_is_wrong_is_named(table, sentence):
    """Also the key of a table of any keys, whatever it consists of."""
    with pytest.raises(ValueError, match=r"^my\.json: ") as caught:
        converted(table, Shapes, "my.json")
    assert str(caught.value).startswith(f"my.json: {sentence}")


def test_a_file_may_be_named_by_its_key():
    with pytest.raises(ValueError, match=r"^file of by\.x: 'by\.x' must be at least 0 \(got -1\)$"):
        converted({"by": {"x": -1}}, Shapes, lambda key: f"file of {key}")
