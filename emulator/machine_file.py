"""Read the TOML of a machine: the file at hand, and those that it is `like`, of which each changes the next.

A mistake is told of the file at hand and, if it stands in another one, of that too. The config.toml of a run
folder holds that run's machine in full; the scale that it had is its default.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inputs.decode import read_toml
from inputs.file import shown
from inputs.text import clipped, named, whole_number

MACHINES = Path(__file__).with_name("machines")
LIKE_MAX = 16  # files, each like the next
# a key of older files, which meant nothing: every cost is in ns
FORMER = "cpu_mhz"


class MachineError(ValueError):
    """A machine that cannot be: one sentence with file, key, rule and value."""


@dataclass(slots=True)
class MachineTable:
    """What the files say together, and where each key comes from."""

    layers: list[tuple[str, dict[str, Any]]]  # name and table of the file at hand, of the one it is like, ...
    table: dict[str, Any]
    changed: dict[str, Any]  # what a run's machine had overridden

    @property
    def at_hand(self) -> str:
        return self.layers[0][0]

    def named(self, key: str) -> str:
        """Name the file at hand, and the one where a key stands that is wrong, or where it is missing."""
        parts = _parts(key)
        if any(parts[: len(own)] == own[: len(parts)] for own in map(_parts, self.changed)):
            return self.at_hand  # --set has given it
        holds = (name for name, table in self.layers if _has(table, parts))
        name = next(holds, self.layers[-1][0])
        return self.at_hand if name == self.at_hand else f"{self.at_hand} (like {name})"

    def override(self, key: str, value: Any) -> None:
        """Change what a dotted key names, as in nodes.1.memory_mib."""
        place: Any = self.table
        *path, last = key.split(".")
        for part in path:
            place = _inside(place, part)
        number = whole_number(last)
        if isinstance(place, list) and number is not None and number < len(place):
            place[number] = value
        elif isinstance(place, dict):
            place[last] = value
        else:
            self._not_there(key, last if place is not None else _first_missing(self.table, path))
        self.changed[key] = value

    def _not_there(self, key: str, part: str) -> None:
        rule = f"{clipped(key)} must name a key of the machine (got {clipped(part)}, which is not there)"
        raise MachineError(f"{self.at_hand}: {rule}")


def read_machine(name: str) -> MachineTable:
    """Read a machine that ships, by its name, or a TOML file; raises MachineError."""
    layers: list[tuple[str, dict[str, Any]]] = []
    changed: dict[str, Any] = {}
    seen: list[str] = []
    path: Path | None = _find(name)
    while path is not None:
        where = f"{layers[0][0]}: 'like' leads to a file that cannot be used: " if layers else ""
        try:
            table, more = _run_machine(path, read_toml(path, MachineError))
        except MachineError as error:
            raise MachineError(f"{where}{error}") from None
        changed |= more
        seen.append(os.path.realpath(path))
        layers.append((shown(path.name), table))
        path = _next(layers, table, seen)
    merged: dict[str, Any] = {}
    if len(layers) > 1:  # what changes another one is not that one
        layers[0][1].setdefault("name", Path(layers[0][0]).stem)
    for _, table in reversed(layers):
        merged = _merge(merged, table)
    merged.pop(FORMER, None)
    return MachineTable(layers, merged, changed)


def _next(layers: list[tuple[str, dict[str, Any]]], table: dict[str, Any], seen: list[str]) -> Path | None:
    """Find the file that the last one is like, if it is like one."""
    like = table.pop("like", None)
    if like is None:
        return None
    hand, name = layers[0][0], layers[-1][0]
    here = hand if hand == name else f"{hand} (like {name})"
    if not isinstance(like, str):
        raise MachineError(f"{here}: 'like' must be the name of a machine (got {clipped(like)})")
    path = _find(like, here)
    if os.path.realpath(path) in seen or len(seen) == LIKE_MAX:
        chain = " -> ".join([*(name for name, _ in layers), shown(path.name)])
        raise MachineError(f"{hand}: 'like' must not lead back to the file itself (got {chain})")
    return path


def _find(name: str, like: str = "") -> Path:
    """Find a machine by name or path; `like` names the file that is like it, if one is."""
    if name.endswith(".toml") or "/" in name:
        if not os.path.lexists(name):
            where = f"{like}: 'like' leads nowhere: " if like else ""
            raise MachineError(f"{where}there is no machine file {named(name)}")
        return Path(name)
    path = MACHINES / f"{name}.toml"
    if not os.path.isfile(path):  # also a name that no file can have
        known = sorted(p.stem for p in MACHINES.glob("*.toml"))
        asked = f"{like}: 'like'" if like else "'machine'"
        raise MachineError(
            f"{asked} must be one of {', '.join(known)}, or a .toml file "
            f"(got {clipped(name)}){did_you_mean(name, known)}"
        )
    return path


def did_you_mean(word: str, known: list[str]) -> str:
    """Give a hint for a word that is nearly a known one."""
    close = difflib.get_close_matches(word[:80], known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _run_machine(path: Path, table: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give the machine of a run's config.toml, and what it had overridden; any other table as it is."""
    run = table.get("machine")
    if not isinstance(run, dict):
        return table, {}
    changed = run.pop("overrides", {})
    if not isinstance(changed, dict):
        rule = "'machine.overrides' must be a table"
        raise MachineError(f"{shown(path)}: {rule} (got {clipped(changed)})")
    return run | {"default_scale": run.pop("scale", run.get("default_scale"))}, changed


def _merge(base: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        old = base.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _parts(key: str) -> list[str]:
    return re.findall(r"[^.\[\]]+", key)


def _inside(place: Any, part: str) -> Any:
    """Give what a part of a key names there, or None."""
    if isinstance(place, dict):
        return place.get(part)
    number = whole_number(part)
    if isinstance(place, list) and number is not None and number < len(place):
        return place[number]
    return None


def _has(table: Any, parts: list[str]) -> bool:
    for part in parts:
        table = _inside(table, part)
    return table is not None


def _first_missing(table: Any, parts: list[str]) -> str:
    return next(part for i, part in enumerate(parts) if not _has(table, parts[: i + 1]))
