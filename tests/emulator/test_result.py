"""Results go to JSON and back unchanged, and say which promises were kept."""

from __future__ import annotations

import json

import msgspec
import pytest

from emulator.report.text import report_text
from emulator.result import Result, ResultError, compare, from_json, read_comparison, to_json
from tests.emulator.fixed import REUSE, comparison, run


def test_json_round_trip_loses_nothing():
    """What is read back equals what was written, violations and all."""
    written = comparison(run("linux"), run("none", violations=[REUSE]))
    assert from_json(to_json(written)) == written
    assert msgspec.json.decode(to_json(run("luf")), type=Result) == run("luf")


def test_json_of_a_comparison_has_the_promised_keys():
    """Scripts rely on these names."""
    entry = json.loads(to_json(comparison()))["runs"][1]
    promised = """design tlb_shootdowns tlb_shootdowns_per_cpu dtlb_load_misses dtlb_store_misses
        itlb_load_misses runtime_ns ipi unmap flush_sites vmstat host_seconds violations counters seed leases
        machine workload tokens scale accounted startup_seconds series token_ns"""
    assert set(promised.split()) <= set(entry)
    assert entry["ipi"] == {"requests": 42, "messages": 32, "executed": 42, "acked": 42}
    assert entry["unmap"] == {"ro": 991, "rw": 9}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "this is not a result of luf: "),
        ("[]", "this is not a result of luf: it must be a table (got [])"),
        (
            '{"schema": "luf-comparison/9", "runs": []}',
            "'schema' must be 'luf-comparison/1' (got 'luf-comparison/9')",
        ),
        (
            '{"schema": "luf-comparison/1", "runs": [{"design": 3}]}',
            "this is not a result of luf: 'runs[0].design' must be text (got 3)",
        ),
        (
            '{"schema": "luf-comparison/1", "runs": [{}]}',
            "this is not a result of luf: 'runs[0].design' is missing",
        ),
        (
            '{"schema": "luf-comparison/1", "runs": []}',
            "this is not a result of luf: 'runs' must be a list of at least 1 (got [])",
        ),
        (
            to_json(comparison(run(tlb_shootdowns_per_cpu=[]))),
            (
                "this is not a result of luf: 'runs[0].tlb_shootdowns_per_cpu' must be a "
                "list of at least 1 (got [])"
            ),
        ),
    ],
)
def test_foreign_json_is_refused(text, sentence):
    """Another version's file, or no result at all, gets one sentence."""
    with pytest.raises(ResultError) as caught:
        from_json(text)
    assert str(caught.value).startswith(sentence)


def test_a_missing_folder_is_one_sentence(tmp_path):
    """`luf report` of a folder that is not there."""
    with pytest.raises(ResultError, match=r"nowhere: cannot be read \(No such file or directory\)$"):
        read_comparison(tmp_path / "nowhere")


def test_a_folder_without_a_result_is_one_sentence(tmp_path):
    """`luf report runs`: the folder is there, but it is no run's."""
    with pytest.raises(
        ResultError, match=r": must be a run's folder, such as runs/latest \(got one without result.json\)$"
    ):
        read_comparison(tmp_path)


def test_different_seeds_are_compared_and_told():
    """On the screen, and in what is read again."""
    found = compare([run("linux"), run("luf", seed=2)])
    assert "different seeds: linux 1, luf 2, oracle on" in report_text(found)
    assert from_json(to_json(found)) == found
    assert "seed 1, oracle on" in report_text(compare([run("linux"), run("luf")]))


def test_runs_of_different_things_are_not_compared():
    """Only design and seed may differ."""
    with pytest.raises(ValueError, match=r"^'scale' must be the same in all runs of a comparison \(got 1.0"):
        compare([run("linux"), run("luf", scale=1.0)])
    with pytest.raises(ValueError, match="at least one run"):
        compare([])


def test_designs_of_one_name_are_numbered():
    """Each keeps a column of its own, and no number takes a name that another design bears."""
    both = compare(
        [run("eight", host_seconds=1.0), run("eight", host_seconds=2.0), run("eight-2"), run("eight")]
    )
    assert [one.design for one in both.runs] == ["eight", "eight-3", "eight-2", "eight-4"]
    assert both.run("eight-3").host_seconds == 2.0


def test_clean_means_no_violation_and_everything_accounted_for():
    """Either failing makes a run, and its comparison, dirty."""
    assert comparison().clean
    assert not comparison(run("linux"), run("luf", violations=[REUSE])).clean
    lost = run("luf", accounted={"message": [40, 39], "frame": [200, 200]})
    assert lost.unaccounted == {"message": [40, 39]}
    assert not comparison(run("linux"), lost).clean


def test_derived_figures():
    """Mean runtime and read-only share, also of a run in which nothing ended and nothing was unmapped."""
    assert run("linux").runtime_mean_ns == 1_871_000_000
    assert run("linux").unmapped_read_only == 0.991
    empty = run("linux", runtime_ns=[], unmap=type(run().unmap)())
    assert (empty.runtime_mean_ns, empty.unmapped_read_only) == (0.0, None)
    assert comparison().run("luf").design == "luf"
