"""Turn a table that was read from a file into its declared type, or say in one sentence which key of which
file breaks which rule.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
SHOWN = 80  # characters of a value that is refused
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
_BOUNDS = {">=": "at least", "<=": "at most", ">": "above", "<": "below"}


def converted(table: Any, kind: type[T], file: str, refusal: type[ValueError] = ValueError) -> T:
    """Return `table` as a `kind`; raises `refusal` with file, key, rule and value."""
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise refusal(_sentence(str(error), table, file)) from None


def _sentence(text: str, table: Any, file: str) -> str:
    where = (re.search(r"at `\$\.?([^`]*)`", text) or [None, ""])[1] or ""
    if missing := re.search(r"missing required field `(\w+)`", text):
        return f"{file}: '{where + '.' if where else ''}{missing[1]}' is missing"
    if unknown := re.search(r"unknown field `([^`]*)`", text):
        return f"{file}: '{where + '.' if where else ''}{unknown[1]}' is not a key that is known"
    got = clipped(_value_at(table, where))
    if bound := re.search(r"Expected `(\w+)` (>=|<=|>|<) ([\d.]+)", text):
        limit = bound[3].removesuffix(".0")
        return f"{file}: '{where}' must be {_BOUNDS[bound[2]]} {limit} (got {got})"
    if kind := re.search(r"Expected `([^`]*)`(?: of length (>=|<=)? ?(\d+))?", text):
        bounds = f"{_BOUNDS[kind[2]]} " if kind[2] else ""
        length = f" of {bounds}{kind[3]}{' character' * (kind[1] == 'str')}" if kind[3] else ""
        return f"{file}: '{where}' must be {_TYPES.get(kind[1], kind[1])}{length} (got {got})"
    return f"{file}: '{where}': {text}"


def clipped(value: Any) -> str:
    """Show a value in a sentence: all of it, or its beginning."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 4] + " ..."


def _value_at(table: Any, where: str) -> Any:
    for part in re.findall(r"\w+", where):
        if part.isdigit() and isinstance(table, list):
            table = table[int(part)]
        elif isinstance(table, dict):
            table = table.get(part)
    return table
