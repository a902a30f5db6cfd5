"""What agrees, what differs, and what cannot be judged and is never counted as agreeing."""

from __future__ import annotations

import msgspec
import pytest

from emulator.golden.compare import (
    AGREES,
    DIFFERS,
    UNKNOWN,
    VARIES,
    cells_of,
    counter_verdict,
    event_verdict,
    judge_cells,
    tally,
)
from emulator.golden.data import MicroCell, RecordedCell, kernel_folder
from emulator.golden.rules import Explained, Explanation, read_rules
from tests.golden.recorded import cell, same

RULES = read_rules(kernel_folder("6.12"))
WHY = "flush_tlb_mm_range() is not asked."


def recorded(*args, **kwargs) -> RecordedCell:
    return msgspec.convert(cell(*args, **kwargs), RecordedCell)


def judged(one: RecordedCell, found: MicroCell | None, known=("a_munmap",), explained=Explained()):  # noqa: B008
    cells = {} if found is None else {one.key: found}
    return judge_cells([one], cells, known, RULES, explained)


def verdicts(rows) -> dict[str, str]:
    return {row.metric: row.verdict for row in rows}


@pytest.mark.parametrize(
    ("real", "emulated", "verdict"),
    [
        ((3, 3, 3), 3, AGREES),
        ((3, 3, 3), 4, DIFFERS),
        ((6, 12, 24), 24, AGREES),
        ((6, 12, 24), 25, DIFFERS),
        ((0, 0, 0), 0.5, DIFFERS),
    ],
)
def test_a_counter_is_exact_or_inside_its_range(real, emulated, verdict):
    """[min, median, max] of the real kernel against the emulator's median."""
    assert counter_verdict(real, emulated) == verdict


@pytest.mark.parametrize(
    ("mean", "ipis", "emulated", "verdict"),
    [
        (3.0, (3, 3, 3), 3, AGREES),
        (3.0, (3, 3, 3), 2, DIFFERS),
        (3.0, (3, 3, 3), 8 / 3, DIFFERS),  # the emulator varied where the kernel did not
        (8.667, (3, 3, 3), 8.667, VARIES),  # 26 events in three repetitions: nobody knows of which
        (8.667, (3, 3, 3), 26, VARIES),
        (8.667, (3, 3, 3), 27, DIFFERS),  # more than all repetitions together
        (3.0, (3, 3, 6), 3, VARIES),  # the TLB row varied
        (3.0, (3, 3, 6), 10, DIFFERS),
        (0.0, (3, 3, 6), 1, DIFFERS),  # an event that no traced repetition saw
    ],
)
def test_an_event_is_exact_or_not_judged(mean, ipis, emulated, verdict):
    """Where the real kernel varied, a row can be refuted and never confirmed."""
    assert event_verdict(recorded(ipis=ipis, events={"a/1": mean}), "a/1", emulated) == verdict


def test_a_cell_that_was_not_traced_has_no_rows_of_events():
    """Its events are not known: taken for none, they would differ from whatever is emulated."""
    one = cell()
    del one["traced"]
    found = MicroCell({"tlb_ipi": [3, 3, 3]}, {"remote_send_ipi/16": [1, 1, 1]})
    assert {row.kind for row in judged(msgspec.convert(one, RecordedCell), found)} == {"counter"}


def test_rows_of_a_cell_are_counters_and_the_events_of_both():
    """What one side does not have is 0; a counter that neither has still is a row, an event that neither has
    is not.
    """
    found = MicroCell(
        {"tlb_ipi": [3, 3, 9]},
        {"remote_send_ipi/16": [1, 1, 1], "local_shootdown/all0": [0, 0, 3], "never/1": [0, 0, 0]},
    )
    rows = judged(recorded(), found)
    assert {row.metric: (row.real, row.emulated, row.verdict) for row in rows} == {
        "tlb_ipi": ([3, 3, 3], 3, AGREES),
        "pgfault": ([0, 0, 0], 0, AGREES),
        "local_shootdown/all0": ([0], 1, DIFFERS),
        "remote_send_ipi/16": ([1], 1, AGREES),
        "remote_shootdown/16": ([3], 0, DIFFERS),
    }
    assert [row.difference for row in rows] == [0, 0, 1, 0, -3]
    assert [row.nothing for row in rows] == [False, True, False, False, False]


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (None, "the emulator returned nothing"),
        (MicroCell({}, {}, problem="no free frame"), "no free frame"),
        (MicroCell({}, {}, clean=False), "the emulation was not clean"),
    ],
)
def test_a_cell_that_failed_differs_in_every_row(found, problem):
    """Also in those that would be 0 on both sides."""
    rows = judged(recorded(), found)
    assert set(verdicts(rows).values()) == {DIFFERS}
    assert {row.problem for row in rows} == {problem}
    assert {row.emulated for row in rows} == {None}


def test_a_scenario_that_is_not_known_is_listed_and_not_judged():
    """All its rows are there, none counts for or against."""
    rows = judged(recorded("z_new"), None)
    assert verdicts(rows) == dict.fromkeys(
        ("tlb_ipi", "pgfault", "remote_send_ipi/16", "remote_shootdown/16"), UNKNOWN
    )
    one = tally(rows)
    assert (one.judged, one.share, one.unknown, one.cells, one.cells_agree) == (0, None, 4, 1, 0)


def test_only_differences_are_explained():
    """An explanation is no excuse for a row that agrees, and does not make one agree."""
    explained = Explained(difference=[Explanation(scenario="a_*", metric="remote_*", mechanism=WHY)])
    rows = judged(recorded(), MicroCell({"tlb_ipi": [3]}, {"remote_send_ipi/16": [1]}), explained=explained)
    assert {row.metric: row.explanation for row in rows if row.explanation} == {"remote_shootdown/16": WHY}
    assert (tally(rows).differs, tally(rows).explained) == (1, 1)


def test_a_cell_takes_its_worst_row():
    """Differs before varies before agrees."""
    varied = recorded(ipis=(3, 3, 6))
    assert [one.verdict for one in cells_of(judged(recorded(), same(recorded())))] == [AGREES]
    assert [(one.verdict, one.agrees, one.judged) for one in cells_of(judged(varied, same(varied)))] == [
        (VARIES, 2, 2)
    ]
    worst = MicroCell({"tlb_ipi": [99]}, {})
    assert [one.verdict for one in cells_of(judged(varied, worst))] == [DIFFERS]
