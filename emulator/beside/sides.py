"""Stored results beside each other, A, B and so on: each design of the first is compared with the same design
of the others; where each result has one design only, these are compared, whatever their names.

What goes together is a `Repeats` whose designs are the letters, so that whatever shows repeated runs shows
this. Machines, seeds and settings may differ: that is what such a comparison is for, and `settings` says in
which.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from emulator.repeats.figures import samples
from emulator.repeats.result import Repeats, read_result
from emulator.repeats.spread import ALPHA, RUNS_MIN, Difference, differences, least_p
from emulator.repeats.table import about, counted
from emulator.result import Comparison, Result, ResultError
from emulator.verdict import Verdict, of_comparison, of_repeats
from inputs.file import shown
from inputs.text import clipped

LETTERS = string.ascii_uppercase
NOT_COUNTED = ("host_seconds", "startup_seconds")
HEADLINES = {"dtlb_load_misses", "dtlb_store_misses", "itlb_load_misses", "ipi_messages", "tlb_shootdowns",
             "runtime_mean_ns"}  # fmt: skip
ENOUGH = next(n for n in range(RUNS_MIN, 99) if least_p(n, n) <= ALPHA)  # runs of a side, to see a difference
NONE_IS_0 = "flush_sites."

Found = Comparison | Repeats
Values = dict[str, list[float]]


@dataclass(frozen=True)
class Stored:
    """One result, and where it was read."""

    letter: str
    place: str
    found: Found

    @property
    def designs(self) -> list[str]:
        return list(dict.fromkeys(run.design for run in self.found.runs))

    @cached_property
    def settings(self) -> dict[str, str]:
        """Give what its runs were, by column of the table: all values that there are."""
        tables = [about(run) for run in self.found.runs]
        hosts = {f"host.{key}": str(value) for key, value in self.found.host.items()}
        versions = {f"version.{key}": value for key, value in self.found.versions.items()}
        columns = dict.fromkeys(column for table in tables for column in table)
        own = {
            column: _all_of([table.get(column) for table in tables])
            for column in columns
            if column != "design" and not column.startswith("design.")
        }
        return own | hosts | versions


@dataclass(frozen=True)
class Group:
    """What goes together: `runs` has the letters as its designs, the first of them is what others are
    compared with.
    """

    name: str
    runs: Repeats

    @property
    def few(self) -> bool:
        """Are there too few runs of one side to tell a change from chance?"""
        return min(len(self.runs.of(letter)) for letter in self.runs.designs) < ENOUGH

    def figures(self) -> dict[str, Values]:
        """Give the figures of the screen: by letter and name, a value for each run."""
        return {letter: samples(self.runs.of(letter)) for letter in self.runs.designs}

    def counters(self) -> dict[str, Values]:
        """Give all that the table has besides: by letter and name, a value for each run."""
        tables = {
            letter: [counted(run) for run in self.runs.of(letter) if not run.stopped]
            for letter in self.runs.designs
        }
        lines = [line for table in tables.values() for line in table]
        names = [name for name in dict.fromkeys(name for line in lines for name in line) if _counted(name)]
        common = [name for name in names if all(_is_number(_value(line, name)) for line in lines)]
        return {
            letter: {name: [_value(line, name) for line in table] for name in common} if table else {}
            for letter, table in tables.items()
        }


@dataclass(frozen=True)
class Beside:
    """All results, and the groups of their runs."""

    stored: list[Stored]
    groups: list[Group]

    def differing(self) -> dict[str, dict[str, str]]:
        """Give the settings that are not the same everywhere: name -> letter -> value."""
        names = dict.fromkeys(name for one in self.stored for name in one.settings)
        found = {name: {s.letter: s.settings.get(name, "none") for s in self.stored} for name in names}
        return {name: values for name, values in found.items() if len(set(values.values())) > 1}

    def alone(self) -> dict[str, list[str]]:
        """Give the designs that only one result has: letter -> names. None if they need not be the same."""
        grouped = {group.name for group in self.groups}
        left = {one.letter: [name for name in one.designs if name not in grouped] for one in self.stored}
        return {} if _one_each(self.stored) else {letter: names for letter, names in left.items() if names}

    def labelled(self) -> list[Result]:
        """Give all runs in order, the designs named `A linux`, `B linux`."""
        return [
            msgspec.structs.replace(run, design=f"{one.letter} {run.design}")
            for one in self.stored
            for run in one.found.runs
        ]


def read_beside(places: Sequence[str]) -> Beside:
    """Read results, and put them beside each other. Raises ResultError."""
    if len(places) > len(LETTERS):
        raise ResultError(f"at most {len(LETTERS)} results can stand beside each other (got {len(places)})")
    return beside([(place, read_result(place)) for place in places])


def beside(results: Iterable[tuple[str, Found]]) -> Beside:
    """Put results beside each other, each with a name of its place. Raises ResultError if none of their
    designs go together.
    """
    stored = [Stored(letter, shown(place), found) for letter, (place, found) in zip(LETTERS, results)]
    if _one_each(stored):
        names = list(dict.fromkeys(one.designs[0] for one in stored))
        return Beside(stored, [_group(", ".join(names), stored, None)])
    names = list(dict.fromkeys(name for one in stored for name in one.designs))
    groups = [
        _group(name, having, name)
        for name in names
        if len(having := [one for one in stored if name in one.designs]) > 1
    ]
    if not groups:
        got = "; ".join(f"{one.letter}: {', '.join(one.designs)}" for one in stored)
        raise ResultError(
            f"results must have a design in common, or one design each, to be compared (got {clipped(got)})"
        )
    return Beside(stored, groups)


def tested(values: Mapping[str, Values]) -> dict[str, dict[str, Difference]]:
    """Compare each letter but the first with that: letter -> name -> difference."""
    base, *others = values
    return {letter: differences(values[base], values[letter]) for letter in others}


def worst(found: Beside) -> Verdict:
    """Judge all results: what the worst of them is."""
    results = [one.found for one in found.stored]
    verdicts = [of_repeats(one) if isinstance(one, Repeats) else of_comparison(one) for one in results]
    return max(verdicts, key=lambda verdict: verdict.code)


def _one_each(stored: Sequence[Stored]) -> bool:
    return all(len(one.designs) == 1 for one in stored)


def _group(name: str, having: Sequence[Stored], design: str | None) -> Group:
    runs = [
        msgspec.structs.replace(run, design=one.letter)
        for one in having
        for run in one.found.runs
        if design in (None, run.design)
    ]
    return Group(name, Repeats(runs=runs))


def _all_of(values: Sequence[Any]) -> str:
    """Say all values that there are: 1 to 6, or each of them."""
    listed = list(dict.fromkeys(values))
    numbers = [value for value in listed if type(value) is int]
    if len(numbers) == len(listed) > 2 and max(numbers) - min(numbers) == len(numbers) - 1:
        return f"{min(numbers)} to {max(numbers)}"
    return ", ".join("none" if value in (None, "") else str(value) for value in listed)


def _counted(name: str) -> bool:
    return name not in NOT_COUNTED and name not in HEADLINES


def _value(line: Mapping[str, Any], name: str) -> Any:
    value = line.get(name)
    return 0 if value is None and name.startswith(NONE_IS_0) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
