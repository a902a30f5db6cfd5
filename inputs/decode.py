"""Decode TOML and JSON that a user hands in: plain values of bounded depth, or one sentence.

Decoders are other people's code, fed with anything: whatever they raise becomes the sentence. TOML is written
by people, so a character that no terminal can show is refused there; JSON is written by programs, which put
into it what others have printed, so there it is made visible.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inputs.file import MIB, InputError, read_bytes, shown
from inputs.text import clipped, is_odd, on_a_line, visible, visible_value

TOML_BYTES = 4 * MIB  # the decoder takes half a second for each MiB
JSON_BYTES = 64 * MIB  # twenty times that in memory
DEPTH = 64  # lists and tables inside each other; a script with one loop in another has 7
NO_TOML, NO_JSON = "is not TOML ({})", "is not JSON ({})"
WHOLE = 2**64  # larger numbers stand in no field
# A dotted key costs tomllib the square of its parts.
_LONG_KEY = re.compile(
    r"""(?<![A-Za-z0-9_-])(?:(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){%d}""" % DEPTH  # noqa: UP031
)


class NotOneValue(ValueError):
    """Text that is not one TOML value."""


@contextmanager
def decoding(name: str, sentence: str, refusal: type[ValueError] = InputError) -> Iterator[None]:
    """Turn whatever a decoder raises into `refusal`: name and sentence, in which {} is why."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (foreign code on any bytes: there is no list of what it raises)
        raise refusal(f"{name}: {sentence.format(_why(error))}") from None


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"it is nested more than {DEPTH} deep"
    if isinstance(error, MemoryError):
        return "there is no memory for it"
    if isinstance(error, ValueError) and "integer string conversion" in str(error):
        return "it has a number of thousands of digits"
    return visible(" ".join(str(error).split()), 200) or type(error).__name__


def read_toml(path: str | Path, refusal: type[ValueError] = InputError) -> dict[str, Any]:
    """Return a TOML file as a table; raises `refusal` with path, key, rule and value."""
    name = shown(path)
    data = read_bytes(path, most=TOML_BYTES, refusal=refusal)
    with decoding(name, NO_TOML, refusal):
        table = _toml(data.decode("utf-8"))
    if mistake := _mistake(table):
        raise refusal(f"{name}: {mistake}")
    return table


def toml_value(text: str) -> Any:
    """Return one TOML value. Raises NotOneValue if the text is something else, or more, and ValueError with
    the rule if it is a value that no key can have.

    The text stands in two documents, in brackets and without: what would close the brackets, or hide the rest
    in a comment, is a mistake in one of them.

    >>> toml_value("[1, 2]")
    [1, 2]
    """
    with decoding("the value", NO_TOML, ValueError):
        values = _one_value(text)
    if not values:
        raise NotOneValue(f"it must be one TOML value (got {clipped(text)})")
    if mistake := _mistake(values[0]):
        raise ValueError(mistake)
    return values[0]


def _one_value(text: str) -> list[Any]:
    """Give the value of a text in a list, which is empty if it is not one."""
    try:
        table, again = _toml(f"x = {text}"), _toml(f"x = [{text}]")
    except tomllib.TOMLDecodeError:
        return []
    one = "\n" not in text and list(table) == ["x"] and repr(again) == repr({"x": [table["x"]]})
    return [table["x"]] if one else []


def _toml(text: str) -> dict[str, Any]:
    if _LONG_KEY.search(text):
        raise ValueError(f"a key has more than {DEPTH} parts")
    return tomllib.loads(text)


def read_json(path: str | Path, refusal: type[ValueError] = InputError) -> Any:
    """Return what a JSON file holds, its text made visible; raises `refusal` with path, key and rule."""
    return json_value(read_bytes(path, most=JSON_BYTES, refusal=refusal), shown(path), refusal)


def json_value(data: str | bytes, name: str, refusal: type[ValueError] = InputError) -> Any:
    """Return what JSON says, its text made visible; raises `refusal`."""
    import msgspec

    with decoding(name, NO_JSON, refusal):
        value = msgspec.json.decode(data)
    if mistake := _mistake(value, text_is_made_visible=True):
        raise refusal(f"{name}: {mistake}")
    return visible_value(value)


def _mistake(value: Any, text_is_made_visible: bool = False) -> str:
    """Name the first key whose value no table may have, with rule and value; empty if there is none."""
    found = _found(value, 0, text_is_made_visible)
    if not found:
        return ""
    where, rule, got = found
    key = f"'{on_a_line(where, 60)}'" if where else "the value"
    return f"{key} must {rule}" + (f" (got {clipped(got)})" if got is not None else "")


def _found(value: Any, depth: int, lenient: bool) -> tuple[str, str, Any] | None:
    if depth > DEPTH:
        return "", f"be nested at most {DEPTH} deep", None
    if isinstance(value, dict):
        for key, one in value.items():
            if not lenient and is_odd(key):
                return key, "be a key without control characters", None
            if found := _found(one, depth + 1, lenient):
                return _joined(key, found[0]), found[1], found[2]
    elif isinstance(value, list):
        for i, one in enumerate(value):
            if found := _found(one, depth + 1, lenient):
                return _joined(f"[{i}]", found[0]), found[1], found[2]
    else:
        rule = _plain_rule(value, lenient)
        return ("", rule, value) if rule else None
    return None


def _joined(key: str, rest: str) -> str:
    return key + ("." if rest and not rest.startswith("[") else "") + rest


def _plain_rule(value: Any, lenient: bool) -> str:
    """Give the rule that a plain value breaks, empty if it breaks none."""
    if isinstance(value, str):
        return "be text without control characters" if not lenient and is_odd(value) else ""
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int):
        return "" if -WHOLE < value < WHOLE else "be a number of at most 64 bits"
    if isinstance(value, float):
        return "" if math.isfinite(value) else "be a finite number"
    return "be text, a number, true or false, a list or a table"
