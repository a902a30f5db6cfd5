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


ABOUT = json.loads(SHIPPED.with_suffix(".json").read_text())
MAPPINGS, REGIONS = ABOUT["mappings"], ABOUT["regions"]
FULL = np.zeros(71023, np.int64)
CALL = [2, 1, "madvise", 0, 4096, 4, 0]


def with_first(numbers, first):
    """Give an array with another number in front."""
    return np.concatenate([[first], numbers[1:]])


def one_more(entries, **changes):
    """Give a list with its first entry repeated, changed."""
    return [*entries, entries[0] | changes]


WRONG = [
    # numbers that rows cannot hold, from both sides
    ({"thread": with_first(FULL, -1)}, {}, "row 0: 'thread' must be from 0 to 255 (got -1)"),
    ({"thread": with_first(FULL, 2**32)}, {}, "row 0: 'thread' must be from 0 to 255 (got 4294967296)"),
    ({"region": with_first(FULL, -1)}, {}, "row 0: 'region' must be from 0 to 11 (got -1)"),
    ({"page": with_first(FULL, -1)}, {}, "row 0: 'page' must be from 0 to 4,294,967,295 (got -1)"),
    ({"page": with_first(FULL, 2**32)}, {}, "row 0: 'page' must be from 0 to 4,294,967,295 (got 4294967296)"),
    ({"page": with_first(FULL.astype(np.uint64), 2**63)}, {}, "'page' must be from 0 to 4,294,967,295 (got"),
    ({"count": with_first(FULL + 1, 2**40)}, {}, "row 0: 'count' must be from 1 to 4,294,967,295 (got 10995"),
    ({"kind": with_first(FULL, -1)}, {}, "row 0: 'kind' must be 0, 1 or 2 (got -1)"),
    ({"kind": with_first(FULL, 256)}, {}, "row 0: 'kind' must be 0, 1 or 2 (got 256)"),
    ({"eval_start": np.array([-1])}, {}, "row 0: 'eval_start' must be below 71023, the number of rows (got"),
    ({"mark_pos": np.array([-1]), "mark_thread": np.array([0]), "mark_id": np.array([1])}, {},
     "row 0: 'mark_pos' must be from 0 to 71023, the number of rows (got -1)"),
    ({"mark_pos": np.array([5, 4]), "mark_thread": np.array([0, 0]), "mark_id": np.array([1, 1])}, {},
     "row 1: 'mark_pos' must be at least that of the mark before (got 4)"),
    ({"mark_pos": np.array([5]), "mark_thread": np.array([-1]), "mark_id": np.array([1])}, {},
     "row 0: 'mark_thread' must be a thread of the trace (got -1)"),
    ({"mark_pos": np.array([5]), "mark_thread": np.array([0]), "mark_id": np.array([99])}, {},
     "row 0: 'mark_id' must be in mark_names (got 99)"),
    # a JSON of another shape
    ({}, {"mappings": [5]}, "'mappings[0]' must be a table (got 5)"),
    ({}, {"mappings": {}}, "'mappings' must be a list (got {})"),
    ({}, {"mappings": one_more(MAPPINGS, vpn=-1)}, f"'mappings[{len(MAPPINGS)}].vpn' must be at least 0 (go"),
    ({}, {"mappings": one_more(MAPPINGS, vpn=2**40)}, ".vpn' must be at most 34359738367 (got 1099511627776"),
    ({}, {"mappings": one_more(MAPPINGS, pages=2**60)}, ".pages' must be at most 134217728 (got 11529215046"),
    ({}, {"evals": -1}, "'evals' must be a list (got -1)"),
    ({}, {"evals": []}, "'evals' must be a list of at least 1 (got [])"),
    ({}, {"evals": [{"i": -1, "kind": "x"}]}, "'evals[0].i' must be at least 0 (got -1)"),
    ({}, {"evals": [{"i": 10**9, "kind": "x"}]}, "'evals[0].i' must be at most 4095 (got 1000000000)"),
    ({}, {"evals": [{"kind": "x"}]}, "'evals[0].i' is missing"),
    ({}, {"regions": [5]}, "'regions[0]' must be a table (got 5)"),
    ({}, {"regions": [REGIONS[0] | {"pages": 6 * 10**13}, *REGIONS[1:]]}, "'regions[0].pages' must be at mo"),
    ({}, {"regions": [REGIONS[0] | {"pages": True}, *REGIONS[1:]]}, "'regions[0].pages' must be a whole num"),
    ({}, {"mark_names": [1]}, "'mark_names' must be a table (got [1])"),
    ({}, {"mark_names": {"1": 5}}, "'mark_names.1' must be text (got 5)"),
    ({}, {"mark_names": {"one": "f"}}, "'mark_names' must have numbers as keys (got 'one')"),
    ({}, {"memory_syscalls": [[2, 1, "mmap"]]}, "'memory_syscalls[0]' must be a list of at least 7 (got "),
    ({}, {"memory_syscalls": [[2, -1, *CALL[2:]]]}, "'memory_syscalls[0][1]' must be at least 0 (got -1)"),
    ({}, {"model": 5}, "'model' must be a table (got 5)"),
    ({}, {"what": 5}, "'what' must be text (got 5)"),
    # what does not go together
    ({}, {"regions": [*REGIONS[:-1], REGIONS[-1] | {"id": 3}]}, "'regions[11].id' must be its number in the"),
    ({}, {"regions": [REGIONS[0] | {"name": "weight"}, *REGIONS[1:]]}, "'regions' must have one with the na"),
    ({}, {"regions": [*REGIONS[:-1], REGIONS[-1] | {"name": "kv"}]}, "'regions' must have a name each (got"),
    ({}, {"mappings": one_more(MAPPINGS, region="nowhere")}, ".region' must be one of the regions (got 'now"),
    ({}, {"mappings": one_more(MAPPINGS, first_page=110)}, " must end inside region 'main_rodata' of 113 pa"),
    ({}, {"mappings": one_more(MAPPINGS, region="thread_stack")}, "'mappings' must have stacks of one size"),
    ({}, {"mappings": [one for one in MAPPINGS if one["region"] != "thread_stack"]}, "inside region 'thread"),
]  # fmt: skip


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
        ({"region": np.full(71023, 12, np.uint8)}, {}, "row 0: 'region' must be from 0 to 11 (got 12)"),
        ({"kind": np.full(71023, 3, np.uint8)}, {}, "row 0: 'kind' must be 0, 1 or 2 (got 3)"),
        ({"count": np.zeros(71023, np.uint32)}, {}, "row 0: 'count' must be from 1 to 4,294,967,295 (got 0)"),
        ({"count": np.zeros(71023)}, {}, "'count' must be a row of integers (got float64 (71023,))"),
        ({"eval_start": np.array([80000])}, {}, "'eval_start' must be below 71023"),
        (
            {"eval_start": np.array([0, 9])},
            {},
            "'eval_start' must have as many entries as the JSON's evals, 1 (got 2)",
        ),
        ({}, {"page_size": 16384}, "'page_size' must be 4096 (got 16384)"),
        *WRONG,
        ({}, {"regions": None}, "'regions' is missing"),
    ],
)
def test_damaged_trace_is_refused(damaged, arrays: dict, about: dict, message: str):
    """The error names the file, the rule and the value."""
    path = damaged(arrays, about)
    with pytest.raises(ValueError) as refusal:
        replay(path)
    assert str(refusal.value).startswith(str(path.with_suffix("")))
    assert message in str(refusal.value)
    assert len(str(refusal.value)) < 300 + len(str(path))


def stack_calls(*calls):
    """Give system calls on the first recorded stack: (name, offset in pages, pages)."""
    first = next(one["vpn"] for one in MAPPINGS if one["region"] == "thread_stack") << 12
    return [[2, 1, name, first + (page << 12), pages << 12, 4, 0] for name, page, pages in calls]


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        (stack_calls(("munmap", 0, 2049), ("mmap", 0, 2049)), "'memory_syscalls[0]' must be about a stack t"),
        (stack_calls(("madvise", 2000, 50)), "'memory_syscalls[0]' must end inside its stack of 2049 pages"),
        (stack_calls(("madvise", 2000, 0)), "'memory_syscalls[0]' must end inside its stack of 2049 pages ("),
        (stack_calls(("madvise", 2000, 2**40)), "'memory_syscalls[0]' must end inside its stack"),
        (stack_calls(("mmap", 0, 2049), ("madvise", 0, 49), ("mmap", 0, 2049)), ""),
    ],
)  # fmt: skip
def test_calls_on_stacks_that_cannot_be(damaged, calls, message):
    """A call on a stack that is not there, and one beyond its end."""
    path = damaged({}, {"memory_syscalls": calls})
    if not message:
        assert replay(path).processes
        return
    with pytest.raises(ValueError) as refusal:
        replay(path)
    assert str(refusal.value).startswith(f"{path.with_suffix('.json')}: {message}")


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
    assert (main["op"] == p.JOIN).sum() == len(trace.about.evals)
    # 14 workers, 4 stacks cached: ten unmapped and mapped again from one evaluation to the next.
    expected = 10 * (len(trace.about.evals) - 1) if trace.threads == 15 else 0
    assert (main["op"] == p.MUNMAP).sum() == (main["op"] == p.MMAP).sum() == expected
    visits = interleave(process)
    token = visits.select(visits.evaluation == 3)
    assert len(np.unique(token.region.astype(np.int64) << 32 | token.page)) == pytest.approx(
        distinct, rel=0.001
    )
