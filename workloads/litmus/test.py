"""A litmus test: what its file says, as a workload, a machine in plain keys, and how a run is judged.

The heads of a file, beside those of a family (workloads/litmus/family.py):

    about      what the test shows, a sentence
    covers     which triggers, invariants and hooks it is for
    catches    wrong designs that it notices
    machine    cpus, memory (pages of each node that programs can have: `1024 + 2048`, the later ones slower
               and without CPUs), sockets (the same, each node with its share of the CPUs), and keys of a
               machine such as tlb.pcid or sysctl.swappiness
    region     name, pages, and what it is: file=NAME, offset=N, order=N, of=PROCESS, writable, shared,
               executable, unmapped
    needs      what must have happened, or the run is void
    forbidden  `violation` (the default: of the oracle), or a comparison that must not hold
    possible   a comparison that must hold in some run

A call is written as in a script (workloads/calls.py), with blanks for commas; arguments may be sums and
products of numbers, parameters and the number of the time in a loop, `n` (from 0 on). `meet NAME` is for all
columns that have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inputs.decode import NotOneValue, toml_value
from workloads.litmus.columns import workload_of
from workloads.litmus.condition import Condition, conditions
from workloads.litmus.expression import number
from workloads.litmus.sheet import Line, LitmusError, Sheet
from workloads.rows import Workload

VIOLATION, CPUS = "violation", 4
NODES = ("memory", "sockets")
KEYS = ("about", "covers", "catches", "machine", "region", "needs", "forbidden", "possible", "with")


@dataclass(frozen=True, slots=True)
class Litmus:
    """One test. `machine` has `cpus`, `memory` (pages of each node), `sockets` (true: every node has CPUs),
    and `overrides`, dotted keys of a machine.
    """

    name: str
    file: str
    about: str
    covers: tuple[str, ...]
    catches: tuple[str, ...]
    machine: Mapping[str, Any]
    workload: Workload
    sheet: Sheet  # what it was made of, with the values of its parameters
    needs: tuple[Condition, ...] = ()
    forbidden: Condition | None = None  # None: a violation of the oracle
    possible: tuple[Condition, ...] = ()


def litmus_of(sheet: Sheet, name: str) -> Litmus:
    """Give sheet and name their meaning. Raises LitmusError."""
    heads: dict[str, list[Line]] = {key: [] for key in KEYS}
    for key, line in sheet.heads:
        if key not in heads:
            raise sheet.refuse(line.number, f"a head must be one of {', '.join(KEYS)}", key)
        heads[key].append(line)
    machine = _machine(sheet, heads["machine"])
    words = {key: _words(heads[key]) for key in ("covers", "catches")}
    forbidden = [] if _said(heads["forbidden"]) in ("", VIOLATION) else _conditions(sheet, heads["forbidden"])
    if len(forbidden) > 1:
        rule = f"'forbidden' must be {VIOLATION}, or one comparison"
        raise sheet.refuse(heads["forbidden"][0].number, rule, ", ".join(map(str, forbidden)))
    about = " ".join(line.text for line in heads["about"])
    return Litmus(
        name, sheet.file, about, words["covers"], words["catches"], machine,
        workload_of(sheet, name, about, heads["region"], machine["cpus"]), sheet,
        tuple(_conditions(sheet, heads["needs"])), forbidden[0] if forbidden else None,
        tuple(_conditions(sheet, heads["possible"])),
    )  # fmt: skip


def _said(lines: list[Line]) -> str:
    return ", ".join(line.text for line in lines)


def _words(lines: list[Line]) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in _said(lines).split(","))))


def _conditions(sheet: Sheet, lines: list[Line]) -> list[Condition]:
    found: list[Condition] = []
    for line in lines:
        try:
            found += conditions(line.text)
        except ValueError as error:
            raise LitmusError(f"{sheet.file}:{line.number}: it {error}") from None
    return found


# --- the machine --------------------------------------------------------------------------------------------


def _machine(sheet: Sheet, lines: list[Line]) -> dict[str, Any]:
    """Read `cpus = 3, memory = 1024 + 512, tlb.pcid = false`."""
    found: dict[str, Any] = {"cpus": CPUS, "memory": [], "sockets": False, "overrides": {}}
    for line in lines:
        for part in filter(None, (part.strip() for part in line.text.split(","))):
            key, equals, value = (word.strip() for word in part.partition("="))
            if not equals or not key or not value:
                raise sheet.refuse(line.number, "'machine' must be KEY = VALUE, with commas between", part)
            if key in NODES:
                found["memory"] = _pages(sheet, line, value)
                found["sockets"] = key == "sockets"
            elif key == "cpus":
                found["cpus"] = _whole(sheet, line, "cpus", value)
            else:
                found["overrides"][key] = _plain(value)
    return found


def _pages(sheet: Sheet, line: Line, text: str) -> list[int]:
    return [_whole(sheet, line, "memory", part.strip()) for part in text.split("+")]


def _whole(sheet: Sheet, line: Line, what: str, text: str) -> int:
    found = number(text, {})
    if found is None or found < 1:
        raise sheet.refuse(line.number, f"'{what}' must be a whole number of at least 1", text)
    return found


def _plain(text: str) -> Any:
    """Read the value of a machine's key as --set does."""
    known = number(text, {})
    if known is not None:
        return known
    try:
        return toml_value(text)
    except NotOneValue:
        return text
