"""The scenarios of the recording are sound workloads, in the recording's order of slots, and all their
threads keep step.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from workloads import rows as p
from workloads.scenario_parts import FIRST_SLOT, NR_SLOTS, SLOT_PAGES
from workloads.scenarios import (
    BY_NAME,
    PROCESSES,
    SCENARIOS,
    SLEEP,
    SPIN,
    SWITCH,
    TIMES,
    Repetitions,
    first_slots,
    scenario_script,
    snapshot_name,
    workload,
)

PAGES = (1, 34, 600)
MOMENTS = ("vm0", "trace0", "irq0", "irq1", "trace1", "vm1")  # snapshots of a repetition, as the recording's
CELLS = [
    (s.name, threads, pages)
    for s in SCENARIOS
    for threads in (1, 4)
    for pages in PAGES
    if pages <= s.pages_max
]


def rows_of(process, thread, op):
    rows = process.threads[thread]
    return rows[rows["op"] == op]


def test_names_are_those_of_the_recording():
    """No scenario twice, each with a line that says what it is."""
    assert len(BY_NAME) == len(SCENARIOS) == 51
    assert all(scenario.text and "\n" not in scenario.text for scenario in SCENARIOS)


@pytest.mark.parametrize(("name", "threads", "pages"), CELLS)
def test_every_cell_is_a_sound_workload(name, threads, pages):
    """It ends whatever the schedule (validate tries it), has a thread for each CPU, and main alone takes all
    snapshots, in order.
    """
    script = scenario_script(BY_NAME[name], threads, [Repetitions(pages, 1, 2)])
    made = script.workload()
    assert sorted({cpu for process in made.processes for cpu in process.cpus}) == list(range(threads))
    assert list(script.snapshots) == [
        snapshot_name(pages, repetition, moment) for repetition in range(2) for moment in MOMENTS
    ]
    assert rows_of(made.processes[0], 0, p.SNAPSHOT)["page"].tolist() == list(range(2 * len(MOMENTS)))
    others = [
        rows
        for process in made.processes
        for rows in process.threads
        if rows is not made.processes[0].threads[0]
    ]
    assert not any((rows["op"] == p.SNAPSHOT).any() for rows in others)


@pytest.mark.parametrize("name", BY_NAME)
def test_main_and_the_others_keep_step(name):
    """Whenever main has waited for the others, each of them has done its part once more; all of them do the
    same.
    """
    made = scenario_script(
        BY_NAME[name], 4, [Repetitions(8, 1, 3)] if name != "nop" else [Repetitions(1, 1, 3)]
    ).workload()
    main = made.processes[0]
    if BY_NAME[name].kind == PROCESSES:
        others = [process.threads[0] for process in made.processes[1:]]
    else:
        others = list(main.threads[1:])
    assert len(others) == 3
    assert all(np.array_equal(others[0], other) for other in others)
    go = next(row["page"] for row in main.threads[0] if row["op"] == p.POST)
    waits = [row["pages"] for row in others[0] if row["op"] == p.SPIN and row["page"] == go]
    steps = int((rows_of(main, 0, p.POST)["page"] == go).sum())
    assert waits == list(range(1, steps + 1))
    done = next(row["page"] for row in others[0] if row["op"] == p.POST)
    assert int((others[0]["page"][others[0]["op"] == p.POST] == done).sum()) == steps
    assert [row["pages"] for row in rows_of(main, 0, p.SPIN) if row["page"] == done] == [
        3 * k for k in range(1, steps + 1)
    ]


def test_what_the_others_do_meanwhile():
    """They spin, fall asleep, or fall asleep while another process runs on their CPUs."""
    for name, others in (
        ("a_munmap_iso", SPIN),
        ("k_sleep_munmap_iso", SLEEP),
        ("k_switch_munmap_iso", SWITCH),
    ):
        made = workload(name, 4, 8)
        assert BY_NAME[name].others == others
        assert (len(rows_of(made.processes[0], 1, p.WAIT_FOR)) > 0) == (others != SPIN)
        assert [process.name for process in made.processes] == ["main"] + ["stranger"] * (others == SWITCH)
    assert made.processes[1].cpus == (1, 2, 3)


def test_slots_follow_the_order_of_the_recording():
    """Each scenario goes on where the one before it in its part of the recording has ended, P by P."""
    slots = [(name, pages, slot) for name in BY_NAME for pages, slot in first_slots(name, PAGES).items()]
    together = [one for one in slots if BY_NAME[one[0]].kind != PROCESSES and BY_NAME[one[0]].slots]
    assert together[0] == ("nop", 1, 0)
    for (name, pages, slot), (_, _, following) in pairwise(together):
        # no P is large enough for fewer repetitions
        assert following - slot == BY_NAME[name].slots * TIMES, (name, pages)
    assert {slot for name, _, slot in slots if BY_NAME[name].slots == 0} == {0}
    # recorded by a program of its own
    assert first_slots("m_truncate", PAGES) == {1: 0, 34: TIMES, 600: 2 * TIMES}
    # slow: three times
    assert first_slots("f_cow_write", (4096,))[4096] + 3 == first_slots("f_cow_reuse", (4096,))[4096]


def test_a_repetition_takes_the_next_slot():
    """Mappings that lie alone begin a GiB each, and go round when all slots are used up."""
    made = scenario_script(
        BY_NAME["a_munmap_iso"], 1, [Repetitions(8, NR_SLOTS - 2, 3)], leftover=False
    ).workload()
    places = rows_of(made.processes[0], 0, p.PLACE)
    vpns = [int(row["count"]) << 32 | int(row["page"]) for row in places if row["kind"] == 0]
    assert vpns == [FIRST_SLOT + slot * SLOT_PAGES for slot in (NR_SLOTS - 2, NR_SLOTS - 1, 0)]


def test_an_unknown_scenario_is_refused():
    with pytest.raises(
        ValueError, match=r"'scenario' must be one of nop, a_munmap_iso, .* \(got 'a_nothing'\)"
    ):
        workload("a_nothing", 1, 1)
