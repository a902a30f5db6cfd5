"""Families of litmus tests: one file with parameters, of which each combination of values is a test.

    with:     pages = 1, 16, 64
    with:     change = again: munmap m; mmap m, protect: mprotect m PROT_READ

`{pages}` stands for the value wherever it is written, in a value of another parameter too; a value may have a
name before a colon. A test is named by its file and its values, `unmap:pages=16,change=again`; a parameter of
one value is not named, but may be given another one: `unmap:pages=8`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from inputs.file import MIB, read_bytes, shown
from inputs.text import clipped, is_odd
from workloads.litmus.columns import MADE_MAX
from workloads.litmus.sheet import HEAD, Line, LitmusError, lines_of, read_sheet
from workloads.litmus.test import Litmus, litmus_of

SUFFIX, WITH = ".litmus", "with"
MEMBERS_MAX, VALUE_MAX = 1000, 200
TEXT_MAX = 8 * MIB  # of a file, once for each of its tests: a second to read
PARAMETER = re.compile(r"([a-z_]+)\s*=\s*(.+)")
NAMED = re.compile(r"([\w-]+): +(.+)")
HOLE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Family:
    """A file: its lines with holes, and the values of its parameters."""

    file: str
    name: str
    lines: tuple[Line, ...]
    parameters: Mapping[str, tuple[str, ...]]

    def members(self) -> Iterator[Litmus]:
        """Make every test of the file."""
        made = 0
        for values in itertools.product(*self.parameters.values()):
            test = self.member(dict(zip(self.parameters, values, strict=True)))
            made += test.sheet.made
            if made > MADE_MAX:
                rule = f"calls of all its tests, with all repetitions, must be at most {MADE_MAX:,}"
                raise LitmusError(f"{self.file}: {rule} (got more)")
            yield test

    def member(self, given: Mapping[str, str]) -> Litmus:
        """Make the test with these values; parameters that are not given have their first one."""
        for name in given:
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none: it has no parameters"
                raise LitmusError(f"{self.file}: a parameter must be one of {known} (got {clipped(name)})")
        values = {
            name: self._value(name, given.get(name, known[0])) for name, known in self.parameters.items()
        }
        lines = [Line(line.number, self._filled(line, values)) for line in self.lines]
        told = [
            f"{name}={slug(value)}"
            for name, value in values.items()
            if len(self.parameters[name]) > 1 or value != self.parameters[name][0]
        ]
        return litmus_of(read_sheet(self.file, lines), ":".join(filter(None, (self.name, ",".join(told)))))

    def _value(self, name: str, given: str) -> str:
        """Give the value that a name's part stands for: one of the file's, or any other of one word."""
        if is_odd(given) or "\n" in given or "#" in given:
            rule = f"{name!r} must be one line without control characters and comments"
            raise LitmusError(f"{self.file}: {rule} (got {clipped(given)})")
        return next((value for value in self.parameters[name] if given in (value, slug(value))), given)

    def _filled(self, line: Line, values: Mapping[str, str]) -> str:
        def value(hole: re.Match[str]) -> str:
            """Fill a hole, and once more the holes of what fills it."""
            if hole[1] not in values:
                known = ", ".join(values) or "none"
                rule = f"what stands in braces must be a parameter, one of {known}"
                raise LitmusError(f"{self.file}:{line.number}: {rule} (got {clipped(hole[1])})")
            return HOLE.sub(lambda inner: meaning(values.get(inner[1], inner[0])), meaning(values[hole[1]]))

        return HOLE.sub(value, line.text)


def meaning(value: str) -> str:
    """Give a value without its name."""
    named = NAMED.fullmatch(value)
    return named[2] if named else value


def slug(value: str) -> str:
    """Write a value as a part of a name: its own name, if it has one."""
    named = NAMED.fullmatch(value)
    return named[1] if named else re.sub(r"[^\w.]+", "-", value).strip("-")


def read_family(path: str | Path, name: str = "") -> Family:
    """Read a file. Raises LitmusError."""
    file = shown(path)
    data = read_bytes(path, most=MIB, refusal=LitmusError)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise LitmusError(f"{file}: must be UTF-8 text") from None
    return family_of(file, name or Path(path).name.removesuffix(SUFFIX), text)


def family_of(file: str, name: str, text: str) -> Family:
    """Read the text of a file."""
    lines, parameters = lines_of(file, text), dict[str, tuple[str, ...]]()
    for line in lines:
        head = HEAD.fullmatch(line.text)
        if head is not None and head[1] == WITH:
            shape = PARAMETER.fullmatch((head[2] or "").strip())
            values = tuple(value.strip() for value in shape[2].split(",")) if shape else ()
            if not shape or not all(values) or any(len(value) > VALUE_MAX for value in values):
                rule = "'with' must be a parameter and its values, such as `with: pages = 1, 16`"
                raise LitmusError(f"{file}:{line.number}: {rule} (got {clipped(head[2])})")
            parameters[shape[1]] = values
    count = 1
    for values in parameters.values():
        count *= len(values)
    if count > MEMBERS_MAX:
        raise LitmusError(f"{file}: its parameters must make at most {MEMBERS_MAX} tests (got {count:,})")
    if count * len(text) > TEXT_MAX:
        rule = f"its text must be at most {TEXT_MAX:,} characters, counted for each of its {count:,} tests"
        raise LitmusError(f"{file}: {rule} (got {count * len(text):,})")
    return Family(file, name, tuple(lines), parameters)
