"""Turn a table that was read from a file into its declared type, or say in one sentence which key of which
file breaks which rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from inputs.text import clipped, on_a_line, whole_number

T = TypeVar("T")
LINE = r"\A[^\n\t]+\Z"
Line = Annotated[str, Meta(min_length=1, max_length=500, pattern=LINE)]  # a name, or what people read of it
Natural = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # what a counter of 64 bits can be
Amount = Annotated[float, Meta(ge=0, le=1e19)]  # what is measured: sums and products of some are numbers, too
KEY_SHOWN = 120
TRIED = 1000  # keys of a table, to find the one that is wrong
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


def converted(
    table: Any, kind: type[T], file: str | Callable[[str], str], refusal: type[ValueError] = ValueError
) -> T:
    """Return `table` as a `kind`; raises `refusal` with file, key, rule and value. `file` may be a function
    that names the file of a key.
    """
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        where, sentence = _told(str(error), table, kind)
    raise refusal(f"{file if isinstance(file, str) else file(where)}: {sentence}")


def _told(text: str, table: Any, kind: type) -> tuple[str, str]:
    """Give the key that is wrong, and the sentence about it."""
    place = re.search(r" - at `(key` in `)?\$(.*)`$", text, re.S)
    if place:
        text = text[: place.start()]
    where, value = _found(place[2] if place else "", table, kind)
    dot = "." * bool(where)
    if lacks := re.search(r"missing required field `(\w+)`", text):
        where += f"{dot}{lacks[1]}"
        return where, f"'{on_a_line(where, KEY_SHOWN)}' is missing"
    if unknown := re.search(r"unknown field `(.*)`", text, re.S):
        where += f"{dot}{unknown[1]}"
        return where, f"'{on_a_line(where, KEY_SHOWN)}' is not a key that is known"
    key = f"'{on_a_line(where, KEY_SHOWN)}'" if where else "it"
    if place and place[1]:
        return where, f"{key} must have keys of another kind ({on_a_line(text, KEY_SHOWN)})"
    return where, f"{key} must {_rule(text)} (got {clipped(value)})"


def _rule(text: str) -> str:
    """Give the rule that a value breaks, in plain words."""
    if bound := re.search(r"Expected `(\w+)` (>=|<=|>|<) ([\d.e+-]+)", text):
        return f"be {_BOUNDS[bound[2]]} {bound[3].removesuffix('.0')}"
    if form := re.search(r"matching regex '\\+A(.*)\\+Z'", text, re.S):
        words = re.fullmatch(r"\(([\w |]+)\)", form[1].rstrip("\\"))
        if words:
            return f"be {words[1].replace('|', ' or ')}"
        return "be text on one line" if "[^" in form[1] else f"have the form {form[1]}"
    text = text.replace("of at least length ", "of length >= ")
    if kind := re.search(r"Expected `([^`]*)`(?: of length (>=|<=)? ?(\d+))?", text):
        bounds = f"{_BOUNDS[kind[2]]} " if kind[2] else ""
        unit = f" character{'s' * (kind[3] != '1')}" if kind[1] == "str" else ""
        length = f" of {bounds}{kind[3]}{unit}" if kind[3] else ""
        return "be " + " or ".join(_TYPES.get(one, one) for one in kind[1].split(" | ")) + length
    return "be one of those that are known" if "enum value" in text else "be a number in range"


def _found(path: str, table: Any, kind: type) -> tuple[str, Any]:
    """Follow a path of msgspec's to the value that is wrong. For a key of a dict it has `[...]`: that is the
    key which is wrong alone, too.
    """
    steps: list[str | int] = []
    where, value = "", table
    for part in re.findall(r"\[\.\.\.\]|[^.\[\]]+", path):
        step: str | int | None = part
        if isinstance(value, list):
            number = whole_number(part)
            step = number if number is not None and number < len(value) else None
        elif part == "[...]":
            keys = list(value)[:TRIED]
            step = next((key for key in keys if _is_wrong(_only(table, steps, key), kind)), None)
        if step is None or (isinstance(value, dict) and step not in value):
            break
        where += f"[{step}]" if isinstance(value, list) else f"{'.' * bool(where)}{step}"
        if part == "[...]":
            table = _only(table, steps, str(step))
        steps.append(step)
        value = value[step]
    return where, value


def _is_wrong(table: Any, kind: type) -> bool:
    try:
        msgspec.convert(table, kind)
    except msgspec.ValidationError:
        return True
    return False


def _only(table: Any, steps: list[str | int], key: str) -> Any:
    """Return a table in which the one at the end of the steps has nothing but `key`."""
    if not steps:
        return {key: table[key]}
    changed = table.copy()
    changed[steps[0]] = _only(table[steps[0]], steps[1:], key)
    return changed
