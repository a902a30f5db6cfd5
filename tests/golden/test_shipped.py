"""The recording that ships: complete, small, and compared so that every single planted deviation is found."""

from __future__ import annotations

import random

import pytest

from emulator.golden.bands import OUTSIDE, judge_runs
from emulator.golden.compare import AGREES, DIFFERS, judge_cells, tally
from emulator.golden.data import MicroCell, kernel_folder, kernels, read_recording
from emulator.golden.rules import read_explained, read_rules
from tests.golden.recorded import ROWS, mirror

KERNEL = "6.12"
SIZE_MAX = 200_000


@pytest.fixture(scope="module")
def recording():
    return read_recording(kernel_folder(KERNEL))


@pytest.fixture(scope="module")
def rules():
    return read_rules(kernel_folder(KERNEL))


def judged(recording, cells, rules, part=None):
    return judge_cells(
        part or recording.micro, cells, recording.scenarios, rules, read_explained(kernel_folder(KERNEL))
    )


@pytest.mark.parametrize("kernel", kernels())
def test_each_shipped_kernel_is_complete(kernel):
    """Recording, rules and explanations are read without a complaint; the recording says that kernel."""
    folder = kernel_folder(kernel)
    assert (folder / "golden.json").stat().st_size < SIZE_MAX
    assert (read_rules(folder).kernel, read_recording(folder).kernel) == (kernel, kernel)
    read_explained(folder)


def test_what_was_recorded_of_6_12(recording):
    """949 cells of 44 scenarios, 12 pressure runs; each run knows the zones of its guest."""
    assert (len(recording.micro), len(recording.scenarios), len(recording.pressure)) == (949, 44, 12)
    assert set(recording.scenarios) <= set(recording.docs)
    for run in recording.pressure:
        assert {zone["node"] for zone in run.entry["environment"]["zones_at_start"]} == {0, 1}


def test_the_kernel_agrees_with_itself(recording, rules):
    """An emulator that is the recorded kernel has no difference; what that kernel varied in is not counted as
    agreeing.
    """
    one = tally(judged(recording, mirror(recording).cells, rules))
    assert (one.differs, one.unknown) == (0, 0)
    assert one.agrees + one.varies == one.rows
    assert one.varies == 143


def test_every_deviation_is_found(recording, rules):
    """One more of any counter or event that the real kernel did not vary in, in any cell, is a difference;
    300 drawn ones are tried.
    """
    fake = mirror(recording)
    rows = [row for row in judged(recording, fake.cells, rules) if row.verdict == AGREES]
    by_key = {cell.key: cell for cell in recording.micro}
    for row in random.Random(1).sample(rows, 300):
        found = fake.cells[row.key]
        more = row.real[-1] + 1
        counters, traced = dict(found.counters), dict(found.traced)
        (counters if row.kind == "counter" else traced)[row.metric] = [int(more)] * 3
        changed = judged(recording, {row.key: MicroCell(counters, traced)}, rules, [by_key[row.key]])
        assert [one.metric for one in changed if one.verdict == DIFFERS] == [row.metric]


def test_the_band_holds_the_real_kernels_own_spread(recording):
    """Runs that were recorded twice are inside the band of each other."""
    by_tag = {run.tag: run for run in recording.pressure}
    again = {run.repeats: [run.entry] for run in recording.pressure if run.repeats != run.tag}
    assert set(again) == {"f4_d1n2", "f8_d1n2"}
    rows = judge_runs([by_tag[tag] for tag in again], again, ROWS, read_explained(kernel_folder(KERNEL)))
    assert [row for row in rows if row.verdict == OUTSIDE] == []
