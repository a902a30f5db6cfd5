"""`Repeats`: several runs of each design, on the same machine and workload, with seeds of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from emulator.cli_arguments import SEEDS_MAX
from emulator.result import (
    FOREIGN,
    Comparison,
    Host,
    Result,
    ResultError,
    comparison_of,
    notebook_html,
    read_with,
    table_of,
    visible_run,
)
from emulator.result import SCHEMA as ONE_EACH
from emulator.result_rules import of_runs, unlike
from inputs.checked import converted
from inputs.text import clipped, visible_value

SCHEMA = "luf-repeats/1"


class Repeats(Struct, frozen=True, kw_only=True):
    """Runs in the order in which they were made. The design of the first is the one that others are compared
    with.
    """

    runs: Annotated[list[Result], Meta(min_length=1)]
    schema: str = SCHEMA
    command: list[str] = []
    versions: dict[str, str] = {}
    host: Host = {}
    folder: str = ""
    missing: dict[str, str] = {}  # runs that were asked for and have no result -> why

    def _repr_html_(self) -> str:
        """Show it in a notebook (page/small.py)."""
        return notebook_html(self)

    @property
    def designs(self) -> list[str]:
        """The designs, in the order of their first runs."""
        return list(dict.fromkeys(run.design for run in self.runs))

    def of(self, design: str) -> list[Result]:
        """Give the runs of a design; raises KeyError if it has none."""
        found = [run for run in self.runs if run.design == design]
        if not found:
            raise KeyError(f"'design' must be one of {', '.join(self.designs)} (got {design!r})")
        return found

    @property
    def clean(self) -> bool:
        return all(run.clean for run in self.runs) and not self.missing


def repeats(runs: Iterable[Result], columns: Sequence[str] = (), **about: Any) -> Repeats:
    """Put runs together that differ in nothing but design and seed. `columns` gives their designs other
    names, one a run: a design that is compared with itself is two. Raises ValueError.
    """
    listed = [visible_run(run) for run in runs]
    if not listed:
        raise ValueError("'runs' must have at least one run (got 0)")
    if difference := unlike(listed):
        raise ValueError(difference)
    named = [
        run if run.design == name else msgspec.structs.replace(run, design=name)
        for run, name in zip(listed, columns or [run.design for run in listed], strict=True)
    ]
    return Repeats(runs=named, **visible_value(about))


def read_result(path: str | Path) -> Comparison | Repeats:
    """Read what `luf run` or `luf compare` has left: a folder, or a JSON file. Raises ResultError."""
    return read_with(path, _from_json)


def _from_json(text: bytes) -> Comparison | Repeats:
    table = table_of(text, [ONE_EACH, SCHEMA])
    if table["schema"] == ONE_EACH:
        return comparison_of(table)
    found = converted(table, Repeats, FOREIGN, ResultError)
    if mistake := of_runs(found.runs) or unlike(found.runs):
        raise ResultError(f"this result contradicts itself: {mistake}")
    design, most = Counter(run.design for run in found.runs).most_common(1)[0]
    if most > SEEDS_MAX:
        raise ResultError(
            f"'runs' must be at most {SEEDS_MAX} of a design (got {most:,} of {clipped(design)})"
        )
    return found
