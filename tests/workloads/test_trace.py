"""A replay must visit what was recorded, in each thread's order, and a damaged trace must be refused in one
clear sentence.

LUF_TRACES may name a folder with the long recordings (trace-t3, trace-7b1-t15), which are too large to ship.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.support.interleave import interleave
from tests.support.statistics import measure
from workloads import recording, workload
from workloads import rows as p
from workloads.catalogue import DATA
from workloads.trace import meetings, replay

SHIPPED = DATA / "trace-t3-first.npz"


def expanded(rows: np.ndarray) -> np.ndarray:
    """Return a program's visits one page a row, as (kind, page, count)."""
    rows = rows[rows["op"] == p.VISIT]
    return np.array([(r["kind"], r["page"] + k, r["count"]) for r in rows for k in range(r["pages"])])


def test_every_thread_keeps_its_visits_in_order():
    """Merged rows and control rows change nothing: expanded again, a thread's program is its part of the
    recording.
    """
    trace = recording.read(SHIPPED)
    process = workload("t3").processes[0]
    for thread, rows in enumerate(process.threads):
        mine = trace.arrays["thread"] == thread
        recorded = np.stack(
            [trace.arrays[name][mine].astype(np.int64) for name in ("kind", "page", "count")], axis=1
        )
        token = rows[int(np.flatnonzero(rows["op"] == p.MARK)[-1]) :] if thread == 0 else rows
        assert np.array_equal(expanded(token), recorded)


def test_meetings_are_sound():
    """237 points at which all three threads met; nobody was at one before all had been at the last."""
    trace = recording.read(SHIPPED)
    met = meetings(trace, 0, len(trace.arrays["thread"]))
    assert met.shape == (3, 237)
    assert (met.max(axis=0)[:-1] <= met.min(axis=0)[1:]).all()


def test_replay_has_the_recorded_figures():
    """The figures of the first generated token: 19,183 pages, and visits as they were counted when it was
    recorded.
    """
    found = measure(workload("t3"))
    assert found["working_set"] == 19183
    assert found["distinct"]["weights"] == 15541
    assert found["pages"]["weights"]["visits"] == 16847
    assert found["pages"]["main_stack"]["visits"] == 2510
    assert found["weights"]["readers"] == {1: 14258, 2: 1283, "more": 0}
    assert found["weights"]["run_median"] == 10
    assert found["pages"]["libs"]["ifetch_visits"] == pytest.approx(6885, rel=0.02)


def test_processes_have_weights_of_their_own():
    """Three replays share program and libraries, not the model."""
    trio = replay(SHIPPED, processes=3)
    files = [{region.file for region in process.regions} - {None} for process in trio.processes]
    assert set.intersection(*files) == {"main", "libs"}
    assert trio.working_set_pages() > 2.9 * workload("t3").working_set_pages()


@pytest.fixture
def damaged(tmp_path: Path):
    """Return a function that copies the shipped trace with arrays and JSON entries replaced, and reads it."""

    def build(arrays: dict | None = None, about: dict | None = None) -> Path:
        with np.load(SHIPPED) as archive:
            kept = {name: archive[name] for name in archive.files} | (arrays or {})
        np.savez(tmp_path / "bad.npz", **{name: array for name, array in kept.items() if array is not None})
        text = json.loads(SHIPPED.with_suffix(".json").read_text()) | (about or {})
        (tmp_path / "bad.json").write_text(
            json.dumps({name: entry for name, entry in text.items() if entry is not None})
        )
        return tmp_path / "bad.npz"

    return build


@pytest.mark.parametrize(
    ("arrays", "about", "message"),
    [
        ({"page": None}, {}, "'page' must be in the archive"),
        ({"page": np.zeros(3, np.uint32)}, {}, "'page' must be as long as 'thread', 71023 (got 3)"),
        (
            {"page": np.full(71023, 20000, np.uint32)},
            {},
            "row 0: 'page' must be inside its region (got 20000)",
        ),
        ({"region": np.full(71023, 12, np.uint8)}, {}, "row 0: 'region' must be below 12 (got 12)"),
        ({"kind": np.full(71023, 3, np.uint8)}, {}, "row 0: 'kind' must be 0, 1 or 2 (got 3)"),
        ({"count": np.zeros(71023, np.uint32)}, {}, "row 0: 'count' must be at least 1 (got 0)"),
        ({"count": np.zeros(71023)}, {}, "'count' must be a row of integers (got float64 (71023,))"),
        ({"eval_start": np.array([80000])}, {}, "'eval_start' must be below 71023"),
        (
            {"eval_start": np.array([0, 9])},
            {},
            "'eval_start' must have as many entries as the JSON's evals, 1 (got 2)",
        ),
        ({}, {"page_size": 16384}, "'page_size' must be 4096 (got 16384)"),
        ({}, {"regions": None}, "'regions' must be given"),
    ],
)
def test_damaged_trace_is_refused(damaged, arrays: dict, about: dict, message: str):
    """The error names the file, the rule and the value."""
    path = damaged(arrays, about)
    with pytest.raises(ValueError) as refusal:
        replay(path)
    assert str(refusal.value).startswith(str(path.with_suffix("")))
    assert message in str(refusal.value)


def test_what_is_no_trace(tmp_path: Path):
    """A missing file, a missing JSON, and a file that is something else are reported as such."""
    with pytest.raises(ValueError, match=r"none\.npz: trace must be"):
        replay(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.json: trace must be"):
        replay(tmp_path / "text.npz")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(ValueError, match=r"text\.json: is not JSON"):
        replay(tmp_path / "text.npz")
    (tmp_path / "text.json").write_text(SHIPPED.with_suffix(".json").read_text())
    with pytest.raises(
        ValueError,
        match=r"text\.npz: must be a numpy \.npz archive of plain arrays \(got: File is not a zip file\)$",
    ):
        replay(tmp_path / "text.npz")


@pytest.mark.skipif(
    "LUF_TRACES" not in os.environ, reason="LUF_TRACES must name a folder with the long recordings"
)
@pytest.mark.parametrize(
    ("name", "points", "distinct"), [("trace-t3", 237, 19181), ("trace-7b1-t15", 34, 35095)]
)
def test_long_recordings(name: str, points: int, distinct: int):
    """Whole runs replay: start-up, warm-up, prompt, tokens; workers come and go, stacks beyond the cache are
    unmapped.
    """
    path = Path(os.environ["LUF_TRACES"]) / f"{name}.npz"
    trace = recording.read(path)
    for _, first, end in trace.spans()[1:]:
        assert meetings(trace, first, end).shape[1] == points
    process = replay(path).processes[0]
    main = process.threads[0]
    assert (main["op"] == p.JOIN).sum() == len(trace.about["evals"])
    # 14 workers, 4 stacks cached: ten unmapped and mapped again from one evaluation to the next.
    expected = 10 * (len(trace.about["evals"]) - 1) if trace.threads == 15 else 0
    assert (main["op"] == p.MUNMAP).sum() == (main["op"] == p.MMAP).sum() == expected
    visits = interleave(process)
    token = visits.select(visits.evaluation == 3)
    assert len(np.unique(token.region.astype(np.int64) << 32 | token.page)) == pytest.approx(
        distinct, rel=0.001
    )
