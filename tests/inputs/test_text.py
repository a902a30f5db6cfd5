"""Text that is not ours cannot move a terminal's cursor, nor stop a file from being written or read."""

from __future__ import annotations

import sys
import tomllib
import unicodedata

import pytest

from inputs.text import clipped, is_odd, visible, whole_number


def test_every_character_can_be_shown_and_written():
    """All of Unicode: no control character or lone surrogate is left, and the rest is as it was."""
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = visible(everything)
    shown.encode("utf-8")
    assert {unicodedata.category(one) for one in shown} & {"Cs", "Zl", "Zp"} == set()
    assert {one for one in shown if unicodedata.category(one) == "Cc"} == {"\t", "\n"}
    assert visible("tea 茶 – 10 % 🙂\n") == "tea 茶 – 10 % 🙂\n"
    assert visible(shown) == shown


@pytest.mark.parametrize("odd", ["\x7f", "\x1b", "\x9b", "\udcff", "\u202e", "\r", "\0"])
def test_what_is_odd_is_written_out(odd):
    assert is_odd(f"a{odd}b")
    assert visible(f"a{odd}b") == f"a{ascii(odd)[1:-1]}b"
    tomllib.loads(f"x = '{visible(odd)}'")


def test_a_long_text_loses_its_middle():
    assert visible("a" * 500 + "b" * 500, 10) == "aaaaa ... bbbbb"


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("007", 7), ("9" * 19, 10**19 - 1)]
    + [(text, None) for text in ("", "-1", "+1", " 1", "1_0", "1.0", "٣", "²", "9" * 20, "9" * 5000, "1\n")],
)
def test_whole_numbers_are_digits(text, number):
    """Not what `int` takes beside them, nor what `isdecimal` does."""
    assert whole_number(text) == number


def test_a_value_is_clipped():
    """Also a number that Python does not print."""
    assert clipped([1, "x"]) == "[1, 'x']"
    assert len(clipped(["x"] * 1000)) == 80
    assert clipped(16**5000) == "a number of thousands of digits"
