"""What `luf golden` found, as one frozen value: rows, cells, pressure, directions and a summary; as JSON with a schema version."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from emulator.golden_bands import INSIDE, NOT_EMULATED, OPPOSITE, OUTSIDE, SAME, BandRow, Direction
from emulator.golden_compare import DIFFERS, UNKNOWN, Row, Tally, by_scenario, cells_of, tally
from emulator.golden_rules import Explained, Rules

SCHEMA = "luf-golden/1"


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
        """Explanations that cover no difference any more; only a complete comparison can tell."""
        if self.only is not None or not self.rows or not self.bands:
            return []
        used = {one.explanation for one in self.differences}
        return [f"{one.scenario} {one.metric}: {one.mechanism}" for one in self.explained.difference if one.mechanism not in used]

    @property
    def agrees(self) -> bool:
        """True if something was judged, no row differs, none is outside its band and no direction is opposite."""
        judged = self.tally.judged + len(self.judged_bands)
        return bool(judged) and not self.differences

    def summary(self) -> dict[str, Any]:
        """Return the counts that matter, for machines."""
        return {
            "agrees": self.agrees,
            "micro": msgspec.to_builtins(self.tally) | {"judged": self.tally.judged, "share": self.tally.share},
            "scenarios": {name: msgspec.to_builtins(tally(rows)) for name, rows in by_scenario(self.rows).items()},
            "pressure": {"judged": len(self.judged_bands), "inside": len(self.judged_bands) - len(self.outside)},
            "directions": {"judged": len(self.judged_directions), "same": len(self.judged_directions) - len(self.opposite)},
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
            "seed": self.seed,
            "only": self.only,
            "host_seconds": {"micro": self.micro_seconds, "pressure": self.pressure_seconds},
            "summary": self.summary(),
            "rows": self.rows,
            "cells": cells_of(self.rows),
            "pressure": {"rows": self.bands, "directions": self.directions},
        }
        return msgspec.json.format(msgspec.json.encode(table), indent=1).decode() + "\n"
