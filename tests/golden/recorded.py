"""Small recordings and a stand-in for the emulator that answers with what was recorded, or with what a test
plants.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulator.golden.command import Emulation
from emulator.golden.data import DERIVED, Key, MicroCell, RecordedCell


def cell(
    scenario: str = "a_munmap", T: int = 4, P: int = 16, ipis=(3, 3, 3), events=None, **counters
) -> dict[str, Any]:
    """Return a cell of golden.json; `ipis` is [min, median, max]."""
    events = {"remote_send_ipi/16": 1.0, "remote_shootdown/16": 3.0} if events is None else events
    traced = {"reps": 3, "events_per_rep": events}
    return {
        "scenario": scenario,
        "T": T,
        "P": P,
        "reps": 20,
        "traced": traced,
        "counters": {"tlb_ipi": list(ipis), **counters},
    }


def run(
    tag: str = "f8_d1n2", T: int = 8, ipis: int = 1000, kswapd: float = 0.4, **changes: Any
) -> dict[str, Any]:
    """Return a pressure run of golden.json."""
    entry = {
        "tag": tag,
        "T": T,
        "workload": "file_ro",
        "mb_per_proc": 384,
        "sweeps": 3,
        "page_touches": 100_000,
        "settings": {"demotion_enabled": "true", "numa_balancing": "2"},
        "env": "guest",
        "counters": {"tlb_ipi": ipis},
        "tlb_flush": {"send_ipi_by_site": {"kswapd/reclaim_unmap": 100}},
        "derived": {"kswapd_share_of_steal": kswapd, **dict.fromkeys(DERIVED, 100)},
    }
    return entry | changes


def write(folder: Path, micro=(), pressure=(), **more: Any) -> Path:
    """Write a recording and return its folder; the environments of its runs are there unless `more` has
    others.
    """
    folder.mkdir(exist_ok=True)
    environments = {run["env"]: {} for run in pressure if "env" in run}
    table = {"environments": environments, "micro": list(micro), "pressure": list(pressure), **more}
    (folder / "golden.json").write_text(json.dumps(table))
    return folder


@dataclass(frozen=True)
class PressureRow:
    name: str
    kind: str
    why: str
    path: tuple[str, str]

    def value(self, entry: dict[str, Any]) -> float | None:
        found = entry.get(self.path[0], {}).get(self.path[1])
        return None if found is None else float(found)


ROWS = (
    PressureRow("IPIs", "count", "broadcasts times the CPUs that run the mm", ("counters", "tlb_ipi")),
    PressureRow(
        "kswapd's share",
        "time",
        "balance_pgdat() against try_to_free_pages()",
        ("derived", "kswapd_share_of_steal"),
    ),
)


def same(cell: RecordedCell) -> MicroCell:
    """Return an emulation that did what was recorded: medians; means as three repetitions with that sum."""
    traced = {
        name: [cell.event_sum(name)] + [0] * (cell.traced.reps - 1) for name in cell.traced.events_per_rep
    }
    return MicroCell({name: [middle] * 3 for name, (_, middle, _) in cell.counters.items()}, traced)


@dataclass
class Fake:
    """An emulator that knows `cells` (what it does there) and `runs`; it remembers what it was asked."""

    cells: dict[Key, MicroCell] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)

    def emulate_micro(self, cells, *, seed=1, jobs=2, progress=None):
        self.asked.append((list(cells), seed, jobs))
        progress.update(len(cells), len(cells))
        return {key: self.cells[key] for key in cells if key in self.cells}

    def emulate_pressure(self, run, *, leases=2, seed=1, progress=None, changes=None):
        self.asked.append((run["tag"], seed, leases, *((changes,) if changes else ())))
        return {"clean": True, "host_seconds": 1.0, **self.runs[run["tag"]]}

    def emulation(self) -> Emulation:
        names = tuple(dict.fromkeys(scenario for scenario, _, _ in self.cells))
        return Emulation(
            lambda: names, self.emulate_micro, lambda raw: list(self.runs), self.emulate_pressure, ROWS
        )


def mirror(recording) -> Fake:
    """Return an emulator that is the recorded kernel."""
    return Fake(
        {one.key: same(one) for one in recording.micro}, {one.tag: one.entry for one in recording.pressure}
    )
