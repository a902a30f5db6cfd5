"""Text that is not ours, from files and command lines: made visible before it reaches a terminal or a file,
clipped in a sentence, read as a number.

A terminal obeys control characters (it moves, recolours, retitles), TOML and UTF-8 refuse some of them, and a
character that reverses the writing direction makes a line say something else. All of these are shown as
Python writes them, \\x1b.
"""

from __future__ import annotations

import re
from typing import Any

SHOWN = 80  # characters of a value that is refused
PATH_SHOWN = 400
# C0 and C1 controls but tab and line feed, lone surrogates, the two separators of lines, marks of direction
_ODD = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_DIGITS = re.compile(r"[0-9]{1,19}")


def visible(text: str, most: int | None = None) -> str:
    """Return text with what a terminal or a file would choke on written out; a long one loses its middle.

    >>> visible("red \\x1b[31m")
    'red \\\\x1b[31m'
    """
    if most is not None and len(text) > most:
        text = f"{text[: most // 2]} ... {text[-(most // 2) :]}"
    return _ODD.sub(lambda odd: ascii(odd[0])[1:-1], text)


def on_a_line(text: str, most: int) -> str:
    """Return text as a part of a sentence: visible, clipped, on one line."""
    return visible(text, most).replace("\n", "\\n").replace("\t", "\\t")


def visible_value(value: Any) -> Any:
    """Return a value of lists and tables with all its text made visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, (list, tuple)):
        return [visible_value(one) for one in value]
    if isinstance(value, dict):
        return {visible_value(key): visible_value(one) for key, one in value.items()}
    return value


def is_odd(text: str) -> bool:
    """Has it a character that `visible` would write out?"""
    return _ODD.search(text) is not None


def clipped(value: Any) -> str:
    """Show a value in a sentence: all of it, or its beginning."""
    try:
        text = repr(value)
    except ValueError:  # Python does not print whole numbers of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= SHOWN else text[: SHOWN - 4] + " ..."


def named(path: object) -> str:
    """Show a path that a user gave: all that a file system takes, as the name is what is wrong."""
    text = repr(str(path))
    return text if len(text) <= PATH_SHOWN else text[: PATH_SHOWN - 4] + " ..."


def whole_number(text: str) -> int | None:
    """Read a whole number as people write it, digits 0 to 9 and no more of them than 64 bits have; else None.

    >>> whole_number("12"), whole_number("-1"), whole_number("1_0"), whole_number("9" * 5000)
    (12, None, None, None)
    """
    return int(text) if _DIGITS.fullmatch(text) else None
