"""Judge the emulator by what a real kernel did: pure functions from a recording and an emulation to rows with
a verdict.

A row is one metric of one cell. A counter agrees if the emulator's median is inside the real kernel's
min..max (equal, if it never varied). An event agrees if its mean is the real mean, a whole number. Where the
real kernel itself varied, the recording has no range of the events: such a row "varies" and is counted apart.
It can be refuted (no traced repetition can have had more than all of them together), never confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Annotated

from msgspec import Meta

from emulator.golden.data import Key, MicroCell, Pages, RecordedCell, Threads
from emulator.golden.rules import Explained, Rules
from inputs.checked import Amount, Line

AGREES, DIFFERS, VARIES, UNKNOWN = "agrees", "differs", "varies", "unknown"
TLB_ROW = "tlb_ipi"
MEAN_EXACT = 1e-6
COUNTER, EVENT = "counter", "event"


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of one cell: `real` is [min, median, max] of a counter, [mean] of an event; `emulated` is
    None if there is nothing.
    """

    scenario: Line
    T: Threads
    P: Pages
    metric: Line
    kind: Annotated[str, Meta(pattern=r"\A(counter|event)\Z")]
    real: Annotated[list[Amount], Meta(min_length=1, max_length=3)]
    emulated: Amount | None
    verdict: Annotated[str, Meta(pattern=r"\A(agrees|differs|varies|unknown)\Z")]
    explanation: str = ""
    problem: str = ""

    @property
    def key(self) -> Key:
        return self.scenario, self.T, self.P

    @property
    def middle(self) -> float:
        """The real median, or mean."""
        return self.real[1] if self.kind == COUNTER else self.real[0]

    @property
    def difference(self) -> float | None:
        return None if self.emulated is None else self.emulated - self.middle

    @property
    def nothing(self) -> bool:
        """True if neither did anything: such a row agrees cheaply, and is counted apart."""
        return not any(self.real) and self.emulated == 0


@dataclass(frozen=True, slots=True)
class Cell:
    """All rows of a cell: it differs if one row does, agrees if all do, and varies if all that can be judged
    do.
    """

    scenario: str
    T: int
    P: int
    verdict: str
    agrees: int
    judged: int


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows and cells by verdict; `nothing` of the agreeing rows are 0 on both sides."""

    rows: int
    agrees: int
    differs: int
    varies: int
    unknown: int
    nothing: int
    explained: int
    cells: int
    cells_agree: int
    cells_differ: int
    cells_vary: int

    @property
    def judged(self) -> int:
        return self.agrees + self.differs

    @property
    def share(self) -> float | None:
        """Share of the judged rows that agree; None if none was judged."""
        return self.agrees / self.judged if self.judged else None


def judge_cells(
    recorded: Sequence[RecordedCell],
    emulated: Mapping[Key, MicroCell],
    known: Sequence[str],
    rules: Rules,
    explained: Explained,
) -> list[Row]:
    """Return every row of every recorded cell; a scenario that is not `known` to the emulator gives rows of
    verdict "unknown".
    """
    rows: list[Row] = []
    for cell in recorded:
        if cell.scenario not in known:
            rows += _rows(cell, None, rules, explained, UNKNOWN, "the emulator does not know this scenario")
            continue
        found = emulated.get(cell.key)
        if found is None or found.problem or not found.clean:
            problem = (
                "the emulator returned nothing"
                if found is None
                else found.problem or "the emulation was not clean"
            )
            rows += _rows(cell, None, rules, explained, DIFFERS, problem)
        else:
            rows += _rows(cell, found, rules, explained)
    return rows


def _rows(
    cell: RecordedCell,
    found: MicroCell | None,
    rules: Rules,
    explained: Explained,
    verdict: str = "",
    problem: str = "",
) -> list[Row]:
    rows: list[Row] = []

    def add(metric: str, kind: str, real: list[float], value: float | None, judged: str) -> None:
        why = explained.of(cell.scenario, metric, cell.T, cell.P) if judged == DIFFERS else ""
        rows.append(Row(cell.scenario, cell.T, cell.P, metric, kind, real, value, judged, why, problem))

    for name in rules.names.counters:
        real = cell.counter(name)
        value = None if found is None else float(median(found.counters.get(name) or [0]))
        add(
            name, COUNTER, [float(one) for one in real], value, verdict or counter_verdict(real, value or 0.0)
        )
    events = cell.traced.events_per_rep
    for name in sorted({*events, *(found.traced if found else ())}) if cell.traced.reps else ():
        mean = None if found is None else fmean(found.traced.get(name) or [0])
        if name not in events and not mean:
            continue  # the emulator counted it and saw none, the kernel too: not a row
        add(
            name,
            EVENT,
            [float(events.get(name, 0.0))],
            mean,
            verdict or event_verdict(cell, name, mean or 0.0),
        )
    return rows


def counter_verdict(real: tuple[float, float, float], emulated: float) -> str:
    """Agree inside min..max; that is equality where the real kernel never varied."""
    return AGREES if real[0] <= emulated <= real[2] else DIFFERS


def event_verdict(cell: RecordedCell, event: str, emulated: float) -> str:
    """Agree if the means are equal; where the kernel varied, differ only if impossible and never agree."""
    total, reps = cell.event_sum(event), cell.traced.reps
    least, _, most = cell.counter(TLB_ROW)
    if total % reps or least != most:
        return DIFFERS if emulated > total + MEAN_EXACT else VARIES
    return AGREES if abs(emulated - total / reps) < MEAN_EXACT else DIFFERS


def cells_of(rows: Sequence[Row]) -> list[Cell]:
    """Return the cells of rows, each with its verdict."""
    grouped: dict[Key, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.key, []).append(row)
    cells = []
    for (scenario, threads, pages), group in grouped.items():
        found = {row.verdict for row in group}
        verdict = next((one for one in (UNKNOWN, DIFFERS, VARIES) if one in found), AGREES)
        agrees = sum(row.verdict == AGREES for row in group)
        cells.append(
            Cell(
                scenario,
                threads,
                pages,
                verdict,
                agrees,
                agrees + sum(row.verdict == DIFFERS for row in group),
            )
        )
    return cells


def tally(rows: Sequence[Row]) -> Tally:
    """Count rows and cells by verdict."""
    cells = cells_of(rows)
    count = {
        verdict: sum(row.verdict == verdict for row in rows) for verdict in (AGREES, DIFFERS, VARIES, UNKNOWN)
    }
    return Tally(
        rows=len(rows),
        agrees=count[AGREES],
        differs=count[DIFFERS],
        varies=count[VARIES],
        unknown=count[UNKNOWN],
        nothing=sum(row.verdict == AGREES and row.nothing for row in rows),
        explained=sum(row.verdict == DIFFERS and bool(row.explanation) for row in rows),
        cells=len(cells),
        cells_agree=sum(cell.verdict == AGREES for cell in cells),
        cells_differ=sum(cell.verdict == DIFFERS for cell in cells),
        cells_vary=sum(cell.verdict == VARIES for cell in cells),
    )


def by_scenario(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each scenario, in the order of the recording."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.scenario, []).append(row)
    return grouped
