"""Every screen ends with one line: clean, or not clean and by whom, and the command's exit code."""

from __future__ import annotations

import json

import pytest

from emulator.cli import main
from emulator.report.text import report_text
from emulator.supervisor import CpuDied, Panicked, Stuck
from tests.emulator.fixed import REUSE, Experiment, comparison, run

RUN = ["run", "luf", "--machine", "guest-8cpu", "--cpus", "4", "--leases", "2"]
LOST = {"accounted": {"message": [40, 39], "frame": [200, 200], "ack": [40, 41]}}
DEBUGGED = {"debug_luf": {"records": 9, "checks": 9, "findings": 3}}
ITS_OWN = {"design_stats": {"findings": ["a ring ran over", "a key was lost"]}}
FAULTS = [
    ({"violations": [REUSE]}, "luf by the oracle (1 violation)"),
    (LOST, "luf by the audit (message, ack)"),
    (DEBUGGED, "luf by LUF's debug feature (3 findings)"),
    (ITS_OWN, "luf by the design itself (2 findings)"),
    ({"violations": [REUSE, REUSE]} | LOST, "luf by the oracle (2 violations) and the audit (message, ack)"),
]


def last(text: str) -> str:
    return text.splitlines()[-1]


def verdict(said: str) -> str:
    return f"verdict             {said}"


def test_a_clean_screen_says_so():
    """With and without a folder; what nobody judged is said."""
    assert last(report_text(comparison())) == verdict("clean, exit code 0")
    blind = comparison(run("linux"), run("luf", check="off"))
    assert last(report_text(blind)) == verdict("clean, exit code 0: the oracle did not judge luf")


@pytest.mark.parametrize(("fault", "blame"), FAULTS, ids=[blame for _, blame in FAULTS])
def test_each_fault_is_in_the_verdict_and_in_the_exit_code(fault, blame, capsys, tmp_path, monkeypatch):
    """Of the run, of its report and of its timeline: who found it, what, and the code that was returned."""
    monkeypatch.chdir(tmp_path)
    expected = verdict(f"not clean, exit code 1: {blame}")
    for command in (RUN, ["report", "runs/latest"], ["report", "runs/latest", "--timeline"]):
        assert main(command, emulate=Experiment(**fault)) == 1
        assert last(capsys.readouterr().out) == expected


def test_of_several_designs_each_is_blamed_for_its_own():
    """The clean one is not named."""
    runs = [run("linux"), run("none", violations=[REUSE]), run("mine", **LOST)]
    said = "not clean, exit code 1: none by the oracle (1 violation); mine by the audit (message, ack)"
    assert last(report_text(comparison(*runs))) == verdict(said)


def test_what_the_design_itself_found_is_on_the_screen():
    """Its sentences stand where the audit's do."""
    text = report_text(comparison(run("luf", **ITS_OWN)))
    assert "found by itself     luf: a ring ran over\n                    luf: a key was lost\n" in text


@pytest.mark.parametrize(
    ("error", "code", "by"),
    [
        (Stuck("nothing moved"), 1, "a deadlock"),
        (Panicked("cpu0: no memory", 0, 1, 0, 0), 3, "a panic of the emulated kernel"),
        (CpuDied("cpu3 was killed by SIGKILL"), 3, "the death of a CPU process"),
    ],
)
def test_a_run_that_was_stopped_has_a_verdict_too(error, code, by, capsys, tmp_path, monkeypatch):
    """Behind the sentence that says what stopped it, on the same stream; stdout stays free for JSON."""
    monkeypatch.chdir(tmp_path)
    error.design = "luf"
    assert main(RUN, emulate=Experiment(error=error)) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert last(said.err) == verdict(f"not clean, exit code {code}: luf by {by}")


def test_json_is_not_followed_by_a_verdict(capsys, tmp_path, monkeypatch):
    """What goes to a program is JSON and nothing else."""
    monkeypatch.chdir(tmp_path)
    assert main([*RUN, "--json", "-"], emulate=Experiment(violations=[REUSE])) == 1
    assert [run["design"] for run in json.loads(capsys.readouterr().out)["runs"]] == ["luf"]
