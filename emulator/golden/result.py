"""What `luf golden` found, as one frozen value: rows, cells, pressure, directions and a summary; as JSON with
a schema version.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from emulator.golden.bands import (
    INSIDE,
    NOT_EMULATED,
    OPPOSITE,
    OUTSIDE,
    SAME,
    UNDECIDED,
    BandRow,
    Direction,
    band_verdict,
)
from emulator.golden.compare import (
    COUNTER,
    DIFFERS,
    UNKNOWN,
    Row,
    Tally,
    by_scenario,
    cells_of,
    counter_verdict,
    tally,
)
from emulator.golden.data import GoldenError, Repetitions
from emulator.golden.rules import Explained, Rules
from inputs.checked import Amount, Natural, converted
from inputs.decode import read_json
from inputs.file import shown
from inputs.text import clipped

SCHEMA = "luf-golden/2"


@dataclass(frozen=True)
class Fidelity:
    """One comparison of the emulator with one recording."""

    rules: Rules
    explained: Explained
    rows: list[Row]
    bands: list[BandRow]
    directions: list[Direction]
    docs: dict[str, str] = field(default_factory=dict)
    seed: int = 1
    repeat: int = 1
    jobs: int = 1
    only: str | None = None
    shipped: bool = True
    micro_seconds: float = 0.0
    pressure_seconds: float = 0.0

    @cached_property
    def tally(self) -> Tally:
        return tally(self.rows)

    @property
    def differing(self) -> list[Row]:
        return [row for row in self.rows if row.verdict == DIFFERS]

    @property
    def outside(self) -> list[BandRow]:
        return [row for row in self.bands if row.verdict == OUTSIDE]

    @property
    def judged_bands(self) -> list[BandRow]:
        return [row for row in self.bands if row.verdict in (INSIDE, OUTSIDE)]

    @property
    def judged_directions(self) -> list[Direction]:
        return [one for one in self.directions if one.verdict in (SAME, OPPOSITE)]

    @property
    def undecided(self) -> list[Direction]:
        return [one for one in self.directions if one.verdict == UNDECIDED]

    @property
    def seeds(self) -> str:
        """The seeds of pressure runs, as people say it: `seed 1`, `seeds 1 to 5`."""
        return (
            f"seed {self.seed}" if self.repeat == 1 else f"seeds {self.seed} to {self.seed + self.repeat - 1}"
        )

    @property
    def opposite(self) -> list[Direction]:
        return [one for one in self.directions if one.verdict == OPPOSITE]

    @property
    def differences(self) -> list[Row | BandRow | Direction]:
        """All that speaks against the emulator."""
        return [*self.differing, *self.outside, *self.opposite]

    @property
    def unknown_scenarios(self) -> dict[str, int]:
        """Recorded scenarios that the emulator does not know, with their number of cells."""
        rows = [row for row in self.rows if row.verdict == UNKNOWN]
        return {scenario: len(cells_of(group)) for scenario, group in by_scenario(rows).items()}

    @property
    def not_emulated(self) -> list[str]:
        """Tags of recorded pressure runs that the emulator did not run."""
        return list(dict.fromkeys(row.tag for row in self.bands if row.verdict == NOT_EMULATED))

    @property
    def outlived(self) -> list[str]:
        """Explanations that cover no difference any more; only a complete comparison with the recording that
        they are about can tell.
        """
        if self.only is not None or not self.shipped or not self.rows or not self.bands:
            return []
        used = {one.explanation for one in self.differences}
        return [
            f"{one.scenario} {one.metric}: {one.mechanism}"
            for one in self.explained.difference
            if one.mechanism not in used
        ]

    @property
    def agrees(self) -> bool:
        """True if something was judged, no row differs, none is outside its band and no direction is
        opposite.
        """
        judged = self.tally.judged + len(self.judged_bands)
        return bool(judged) and not self.differences

    def summary(self) -> dict[str, Any]:
        """Return the counts that matter, for machines."""
        return {
            "agrees": self.agrees,
            "micro": msgspec.to_builtins(self.tally)
            | {"judged": self.tally.judged, "share": self.tally.share},
            "scenarios": {
                name: msgspec.to_builtins(tally(rows)) for name, rows in by_scenario(self.rows).items()
            },
            "pressure": {
                "judged": len(self.judged_bands),
                "inside": len(self.judged_bands) - len(self.outside),
            },
            "directions": {
                "judged": len(self.judged_directions),
                "same": len(self.judged_directions) - len(self.opposite),
                "undecided": len(self.undecided),
            },
            "unexplained": sum(not one.explanation for one in self.differences),
            "unknown_scenarios": self.unknown_scenarios,
            "not_emulated": self.not_emulated,
            "outlived": self.outlived,
        }

    def to_json(self) -> str:
        """Return the whole comparison as indented JSON."""
        table = {
            "schema": SCHEMA,
            "kernel": self.rules.kernel,
            "rules": self.rules,
            "seed": self.seed,
            "repeat": self.repeat,
            "jobs": self.jobs,
            "only": self.only,
            "shipped": self.shipped,
            "host_seconds": {"micro": self.micro_seconds, "pressure": self.pressure_seconds},
            "summary": self.summary(),
            "rows": self.rows,
            "cells": cells_of(self.rows),
            "pressure": {"rows": self.bands, "directions": self.directions},
        }
        return msgspec.json.format(msgspec.json.encode(table), indent=1).decode() + "\n"


def read_fidelity(file: str | Path, rules: Rules, explained: Explained, docs: dict[str, str]) -> Fidelity:
    """Read what `to_json` wrote and explain it anew; raises GoldenError if it is something else, or of
    another kernel.
    """
    table = read_json(file, GoldenError)
    name = shown(file)
    if not isinstance(table, dict):
        raise GoldenError(f"{name}: must be a result of luf golden, a table (got {clipped(table)})")
    for key, value in (("schema", SCHEMA), ("kernel", rules.kernel)):
        if table.get(key) != value:
            raise GoldenError(f"{name}: '{key}' must be {value!r} (got {clipped(table.get(key))})")
    found = converted(table, _Written, name, GoldenError)
    for place, rule, got in _contradictions(found):
        raise GoldenError(f"{name}: '{place}' must {rule} (got {clipped(got)})")
    return Fidelity(
        rules=rules,
        explained=explained,
        rows=[
            replace(row, explanation=_why(row.verdict == DIFFERS, explained, row.scenario, row))
            for row in found.rows
        ],
        bands=[
            replace(row, explanation=_why(row.verdict == OUTSIDE, explained, row.tag, row))
            for row in found.pressure.rows
        ],
        directions=[
            replace(one, explanation=_why(one.verdict == OPPOSITE, explained, one.second, one))
            for one in found.pressure.directions
        ],
        docs=docs,
        seed=found.seed,
        repeat=found.repeat,
        jobs=found.jobs,
        only=found.only,
        shipped=found.shipped,
        micro_seconds=found.host_seconds.micro,
        pressure_seconds=found.host_seconds.pressure,
    )


def _contradictions(found: _Written) -> Iterator[tuple[str, str, object]]:
    """Give key, rule and value of what in rows cannot be, or is not what it was judged from."""
    for i, row in enumerate(found.rows):
        if len(row.real) != (3 if row.kind == COUNTER else 1):
            yield f"rows[{i}].real", "be [min, median, max] of a counter, [mean] of events", row.real
        elif row.kind == COUNTER:
            if sorted(row.real) != row.real:
                yield f"rows[{i}].real", "be [min, median, max] in this order", row.real
            if row.emulated is not None and not row.problem and row.verdict != UNKNOWN:
                least, middle, most = row.real
                if row.verdict != counter_verdict((least, middle, most), row.emulated):
                    yield f"rows[{i}].verdict", f"go with {row.emulated:g} in {row.real}", row.verdict
    for i, band in enumerate(found.pressure.rows):
        place = f"pressure.rows[{i}]"
        for key, spread in (("spread", band.spread), ("own", band.own)):
            if len(spread) == 1 or sorted(spread) != spread:
                yield f"{place}.{key}", "be [lowest, highest], or nothing", spread
        if not band.problem and band.verdict != NOT_EMULATED:
            judged = band_verdict(band.real, band.emulated, band.factor, band.spread)
            if band.verdict != judged:
                yield f"{place}.verdict", f"be {judged!r} by its figures", band.verdict
    for i, one in enumerate(found.pressure.directions):
        if one.verdict in (SAME, OPPOSITE) and (one.verdict == SAME) != (one.real * one.emulated > 0):
            yield (
                f"pressure.directions[{i}].verdict",
                f"go with {one.real:g} and {one.emulated:g}",
                one.verdict,
            )


def _why(wanted: bool, explained: Explained, scenario: str, row: Row | BandRow | Direction) -> str:
    return (
        explained.of(scenario, row.metric, row.T, row.P if isinstance(row, Row) else None) if wanted else ""
    )


class _Pressure(msgspec.Struct):
    rows: list[BandRow]
    directions: list[Direction]


class _Seconds(msgspec.Struct):
    micro: Amount
    pressure: Amount


class _Written(msgspec.Struct):
    seed: Natural
    repeat: Repetitions
    jobs: Repetitions
    only: str | None
    shipped: bool
    host_seconds: _Seconds
    rows: list[Row]
    pressure: _Pressure
