"""The litmus tests that ship, and finding one: by name, by name and parameters, by file."""

from __future__ import annotations

import difflib
import os
from functools import cache
from pathlib import Path

from inputs.text import clipped
from workloads.litmus.family import SUFFIX, Family, read_family
from workloads.litmus.sheet import LitmusError
from workloads.litmus.test import Litmus

TESTS = Path(__file__).with_name("tests")


@cache
def shipped() -> tuple[str, ...]:
    """Give the names of the files that ship."""
    return tuple(sorted(path.name.removesuffix(SUFFIX) for path in TESTS.glob(f"*{SUFFIX}")))


def is_litmus(name: str) -> bool:
    """Does it name a litmus test: a file, or one that ships as NAME.litmus?"""
    return name.partition(":")[0].endswith(SUFFIX)


def litmus_tests(name: str) -> list[Litmus]:
    """Give the tests of a file or a name: all of a family, or the one with the parameters behind a colon.
    Raises LitmusError.
    """
    base, _, given = name.partition(":")
    family = _family(base)
    if not given:
        return list(family.members())
    values = {}
    for part in given.split(","):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise LitmusError(
                f"{base}: parameters must be KEY=VALUE, with commas between (got {clipped(given)})"
            )
        values[key] = value
    return [family.member(values)]


def litmus_test(name: str) -> Litmus:
    """Give one test, the first one of a family."""
    return litmus_tests(name)[0]


def _family(base: str) -> Family:
    """Read a file, or one that ships, with or without its suffix."""
    if os.path.lexists(base) and base.endswith(SUFFIX):
        return read_family(base)
    name = base.removesuffix(SUFFIX)
    if name not in shipped():
        close = difflib.get_close_matches(name[:80], shipped(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        rule = f"a litmus test must be a file, FILE{SUFFIX}, or one of those that ship (luf litmus --list)"
        raise LitmusError(f"{rule} (got {clipped(base)}){hint}")
    return read_family(TESTS / f"{name}{SUFFIX}", name)
