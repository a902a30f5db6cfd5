"""Read what a real Linux kernel did: a folder with golden.json, checked key by key before anything is
compared with it.

`micro` cells hold small operations (scenario, T threads, P pages) with [min, median, max] of each counter and
the mean number of `tlb:tlb_flush` events; `pressure` runs hold whole workloads. Left out: the series of
samples and the stack traces, which only people read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from msgspec import Meta

from cpus.abi.numbers import CPUS_MAX
from emulator.findings import Whole
from inputs.checked import Amount, Line, Natural, converted
from inputs.decode import read_json
from inputs.file import shown
from inputs.text import clipped, named, on_a_line

Key: TypeAlias = tuple[str, int, int]  # scenario, T, P
Range: TypeAlias = tuple[Natural, Natural, Natural]  # min, median, max over repetitions
PAGES_MAX = 2**20  # of one small operation: 4 GiB
Threads = Annotated[int, Meta(ge=1, le=CPUS_MAX)]  # each has a CPU
Pages = Annotated[int, Meta(ge=1, le=PAGES_MAX)]
Repetitions = Annotated[int, Meta(ge=1, le=10**6)]
Kilos = Annotated[int, Meta(ge=1, le=2**16)]  # MiB of a process, or how often it sweeps them
FILE = "golden.json"
SHIPPED = Path(__file__).parent
ABSENT: Range = (0, 0, 0)  # a counter that is not recorded was 0 in every repetition
EVENT = re.compile(r"[a-z_]+/(all0|all|[0-9]{1,18})")
SITE = re.compile(r"[^/\n]+/[^/\n]+")
# what Linux counts up and down; all other counters count events, and do not fall
UP_AND_DOWN = re.compile(r"nr_(?!tlb_)|workingset_nodes")
# ratios may be left out
DERIVED = ("shootdown_broadcasts", "pages_stolen_without_demoted", "pages_demoted", "pages_promoted")
# means are written with three decimals; times the repetitions they must still be a whole number
MEAN_SLACK = 0.005


class GoldenError(ValueError):
    """A recording that cannot be used: one sentence."""


@dataclass(frozen=True, slots=True)
class MicroCell:
    """What the emulator did in one cell: a value for each repetition. `problem` says why there is nothing to
    compare, or is empty.
    """

    counters: dict[str, list[int]]
    traced: dict[str, list[int]]
    clean: bool = True
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Traced:
    """Means of `tlb:tlb_flush` events over the first `reps` repetitions; "reason/pages" -> events per
    repetition.
    """

    reps: Repetitions
    events_per_rep: dict[str, Amount]


# "no event was recorded" is not "no event happened": such a cell has no rows of events
NOT_TRACED = Traced(0, {})


@dataclass(frozen=True, slots=True)
class RecordedCell:
    """What the real kernel did in one cell. Only counters that ever moved are there: ask `counter`."""

    scenario: Line
    T: Threads
    P: Pages
    reps: Repetitions
    counters: dict[str, Range]
    traced: Traced = NOT_TRACED
    env: str = ""

    @property
    def key(self) -> Key:
        return self.scenario, self.T, self.P

    def counter(self, name: str) -> Range:
        """Return [min, median, max] of a counter, zeros if it never moved."""
        return self.counters.get(name, ABSENT)

    def event_sum(self, name: str) -> int:
        """Return how many of these events all traced repetitions saw together: the mean is rounded."""
        return round(self.traced.events_per_rep.get(name, 0.0) * self.traced.reps)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a pressure run had in /proc/sys/kernel/numa_balancing and /sys/kernel/mm/numa/demotion_enabled."""

    numa_balancing: Annotated[str, Meta(pattern=r"\A(0|1|2)\Z")]
    demotion_enabled: Annotated[str, Meta(pattern=r"\A(true|false)\Z")]


@dataclass(frozen=True, slots=True)
class Broadcasts:
    """Shootdowns that sent IPIs; "actor/why" -> how many."""

    send_ipi_by_site: dict[str, Natural]


@dataclass(frozen=True, slots=True)
class PressureRun:
    """One whole workload on the real kernel. `entry` is its part of golden.json, with its environment under
    "environment".

    All that is read of `entry` (emulator/golden/pressure.py) is a field here, so that it has been checked.
    """

    tag: Line
    T: Threads
    workload: Line
    mb_per_proc: Kilos
    sweeps: Kilos
    page_touches: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    settings: Settings
    env: Line
    counters: dict[str, Whole]
    tlb_flush: Broadcasts
    derived: dict[str, Amount | None]
    migrations: dict[str, dict[str, Natural]] = field(default_factory=dict)
    secs: Amount | None = None
    entry: dict[str, Any] = field(default_factory=dict)

    @property
    def repeats(self) -> str:
        """The tag of the run that this one repeats (X_rep2 repeats X); its own tag if it is the first."""
        return re.sub(r"_rep\d+$", "", self.tag)

    @property
    def policy(self) -> tuple[str, str]:
        """Demotion and NUMA balancing: what makes d0/d1 and n0/n1/n2 in a tag."""
        return self.settings.demotion_enabled, self.settings.numa_balancing


@dataclass(frozen=True, slots=True)
class Recording:
    """A whole folder. `raw` is golden.json as it is, each pressure run with its "environment"."""

    folder: Path
    docs: dict[str, str]
    micro: tuple[RecordedCell, ...]
    pressure: tuple[PressureRun, ...]
    raw: dict[str, Any]

    @property
    def kernel(self) -> str:
        """The version, such as 6.12, that the environments say; empty if they do not say one."""
        names = (
            re.search(r"\b(\d+\.\d+)\.\d+", str(one.get("uname", "")))
            for one in self.raw.get("environments", {}).values()
        )
        return next((name[1] for name in names if name), "")

    @property
    def scenarios(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.scenario for cell in self.micro))

    def only(self, pattern: str | None) -> Recording:
        """Return the part whose scenario or tag matches; raises GoldenError if nothing does."""
        if pattern is None:
            return self
        cells = tuple(cell for cell in self.micro if fnmatchcase(cell.scenario, pattern))
        runs = tuple(run for run in self.pressure if fnmatchcase(run.tag, pattern))
        if not cells and not runs:
            known = ", ".join((*self.scenarios, *(run.tag for run in self.pressure)))
            raise GoldenError(
                "'--only' must match a scenario or a tag of the recording "
                f"(got {clipped(pattern)}); there are {on_a_line(known, 500)}"
            )
        return Recording(self.folder, self.docs, cells, runs, self.raw)


def kernels(shipped: Path = SHIPPED) -> tuple[str, ...]:
    """Return the kernel versions that ship with a recording and rules."""
    return tuple(sorted(path.parent.name for path in shipped.glob("*/rules.toml")))


def kernel_folder(kernel: str, shipped: Path = SHIPPED) -> Path:
    """Return the folder of a kernel version; raises GoldenError if it is not among those that ship."""
    if kernel not in kernels(shipped):
        raise GoldenError(f"'--kernel' must be one of {', '.join(kernels(shipped))} (got {clipped(kernel)})")
    return shipped / kernel


def read_recording(folder: str | Path) -> Recording:
    """Read a folder in the format of golden.json; raises GoldenError with file, key, rule and value."""
    file = Path(folder) / FILE
    raw = _read(file)
    name = shown(file)
    environments = converted(
        raw.get("environments", {}), dict[str, dict[str, Any]], f"{name}: environments", GoldenError
    )
    cells = [_cell(entry, f"{name}: micro[{i}]") for i, entry in enumerate(_listed(raw, "micro", name))]
    runs = [
        _run(entry, environments, f"{name}: pressure[{i}]")
        for i, entry in enumerate(_listed(raw, "pressure", name))
    ]
    if not cells and not runs:
        raise GoldenError(f"{name}: 'micro' or 'pressure' must have at least one entry (got none)")
    _distinct([cell.key for cell in cells], "micro", "scenario, T and P", name)
    _distinct([run.tag for run in runs], "pressure", "tag", name)
    docs = converted(raw.get("docs", {}), dict[str, str], f"{name}: docs", GoldenError)
    raw = {**raw, "environments": environments, "pressure": [run.entry for run in runs]}
    return Recording(Path(folder), docs, tuple(cells), tuple(runs), raw)


def _read(file: Path) -> dict[str, Any]:
    if not os.path.lexists(file):
        raise GoldenError(f"'--data' must be a folder with a file {FILE} (got {named(file.parent)})")
    raw = read_json(file, GoldenError)
    if not isinstance(raw, dict):
        raise GoldenError(
            f"{shown(file)}: must be a table with 'micro' and 'pressure' (got a {type(raw).__name__})"
        )
    return raw


def _listed(raw: dict[str, Any], key: str, file: str) -> list[Any]:
    entries = raw.get(key, [])
    if not isinstance(entries, list):
        raise GoldenError(f"{file}: '{key}' must be a list (got {clipped(entries)})")
    return entries


def _cell(entry: Any, where: str) -> RecordedCell:
    cell = converted(entry, RecordedCell, where, GoldenError)
    if cell.traced.reps > cell.reps:
        rule = f"be at most reps, {cell.reps}"
        raise GoldenError(f"{where}: 'traced.reps' must {rule} (got {cell.traced.reps})")
    for name, (least, median, most) in cell.counters.items():
        if not least <= median <= most:
            raise GoldenError(
                f"{where}: 'counters.{on_a_line(name, 60)}' must be [min, median, max] in this order "
                f"(got {[least, median, most]})"
            )
    for event, mean in cell.traced.events_per_rep.items():
        if not EVENT.fullmatch(event):
            raise GoldenError(
                f"{where}: 'traced.events_per_rep' must have keys reason/pages, pages a "
                f"number or all0 (got {clipped(event)})"
            )
        if abs(mean * cell.traced.reps - cell.event_sum(event)) > MEAN_SLACK * cell.traced.reps:
            rule = f"be a mean of {cell.traced.reps} whole numbers"
            raise GoldenError(f"{where}: 'traced.events_per_rep.{event}' must {rule} (got {mean})")
    return cell


def _run(entry: Any, environments: dict[str, dict[str, Any]], where: str) -> PressureRun:
    run = converted(entry, PressureRun, where, GoldenError)
    if run.env not in environments:
        raise GoldenError(
            f"{where}: 'env' must be one of "
            f"{on_a_line(', '.join(environments), 200) or 'none, as there are none'} (got {clipped(run.env)})"
        )
    for name, count in run.counters.items():
        if count < 0 and not UP_AND_DOWN.match(name):
            rule = "be at least 0, as it counts events"
            raise GoldenError(f"{where}: 'counters.{on_a_line(name, 60)}' must {rule} (got {count})")
    for name in DERIVED:
        if run.derived.get(name) is None:
            raise GoldenError(
                f"{where}: 'derived.{name}' "
                + ("must be a number (got None)" if name in run.derived else "is missing")
            )
    for site in run.tlb_flush.send_ipi_by_site:
        if not SITE.fullmatch(site):
            raise GoldenError(
                f"{where}: 'tlb_flush.send_ipi_by_site' must have keys actor/why (got {clipped(site)})"
            )
    return replace(run, entry={**entry, "environment": environments[run.env]})


def _distinct(keys: Sequence[Any], part: str, what: str, file: str) -> None:
    seen: set[Any] = set()
    for key in keys:
        if key in seen:
            raise GoldenError(
                f"{file}: '{part}' must not have two entries of the same {what} (got {clipped(key)} twice)"
            )
        seen.add(key)
