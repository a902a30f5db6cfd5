"""`luf stress` finds what a wrong design does, repeats it, tries it on vanilla Linux, and says what it did;
jobs are the same whatever workers do; a worker that is lost is a sentence.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
from dataclasses import dataclass
from typing import Any

import pytest

from emulator.cli import main
from emulator.schedule import Schedule
from emulator.stopped import CpuDied
from emulator.stress.arena import Arenas
from emulator.stress.command import StressError, workloads_of
from emulator.stress.job import GENERATED, SHAKEN, Job, cpus_of
from emulator.stress.outcome import FINISHED, LIVELOCKED, PANICKED, STUCK, VIOLATED, Outcome
from emulator.stress.pool import Pool, WorkerFailed
from emulator.stress.portfolio import KNOBS, PLAIN, ROUND, STRATEGIES, Portfolio, Result
from emulator.stress.shrinking import case_of
from emulator.stress.signature import signature_of
from tests.emulator.test_supervisor import _left_here

WORKLOADS = [f"w{i}" for i in range(5)]
WAYS = [PLAIN, *STRATEGIES]
TEST = "munmap.litmus:pages=16,access=try_load"


# -- what is tried -------------------------------------------------------------------------------------------


def drawn(count, seed=1, finds=lambda job: "", late=0, handovers=lambda job: 0):
    """Draw so many jobs; each result is told when `late` more jobs have been drawn."""
    portfolio, jobs, waiting = Portfolio(seed, WORKLOADS, WAYS), [], []
    while len(jobs) < count:
        job = portfolio.next()
        if job is None or len(waiting) > late:
            told = waiting.pop(0)
            portfolio.tell(Result(told, finds(told), void=False, handovers=handovers(told)))
        if job is not None:
            jobs.append(job)
            waiting.append(job)
    return jobs


def finds_in_w3(job):
    return f"bug {job.number // 20}" if job.workload == "w3" else ""


def test_the_first_pass_has_each_workload_once_as_it_is():
    jobs = drawn(5)
    assert [(job.workload, job.strategy, job.knobs) for job in jobs] == [(w, PLAIN, ()) for w in WORKLOADS]


def test_job_number_k_is_the_same_however_late_results_come():
    """As with many workers, of which some are slow; and another seed draws others."""
    jobs = drawn(300, finds=finds_in_w3)
    assert drawn(300, finds=finds_in_w3, late=ROUND - 1) == jobs
    assert drawn(300, finds=finds_in_w3, seed=2)[5:] != jobs[5:]
    assert len({job.seed for job in jobs}) == len(jobs)
    assert {job.strategy for job in jobs} == set(WAYS)
    assert sum(bool(job.knobs) for job in jobs) > 30


def test_a_knob_that_a_machine_cannot_have_is_left_out():
    """A small machine refuses large watermarks, and a campaign does not end by it."""
    jobs = [Job(0, name, PLAIN, 5, knobs=((key, value),))
            for name in GENERATED for key, values in KNOBS for value in values]  # fmt: skip
    left_out = [job for job in jobs if not job.possible.knobs]
    assert {job.knobs[0][0] for job in left_out} == {"sysctl.watermark_scale_factor"}
    assert len(left_out) < len(jobs) / 10
    with pytest.raises(ValueError, match="must keep its watermarks below half"):
        left_out[0].experiment("linux")
    assert left_out[0].possible.experiment("linux").sized()


def test_a_workload_that_finds_something_new_is_drawn_more_often():
    """And not one that finds the same again and again."""
    often = [job.workload for job in drawn(600, finds=finds_in_w3)].count("w3")
    same = [job.workload for job in drawn(600, finds=lambda job: "one" * (job.workload == "w3"))].count("w3")
    assert often > 1.5 * same > 0


def test_what_costs_more_is_drawn_less_often():
    """A workload of a hundred times the hand-overs takes more time than another, but not a hundred times."""
    names = [job.workload for job in drawn(600, handovers=lambda job: 100 + 9900 * (job.workload == "w3"))]
    assert 1 / 8 < names.count("w3") / names.count("w1") < 1 / 2


def test_a_round_waits_for_results_that_it_goes_by():
    portfolio = Portfolio(1, WORKLOADS, WAYS)
    jobs = []
    while (job := portfolio.next()) is not None:
        jobs.append(job)
    assert len(jobs) == 2 * ROUND
    for job in jobs[1:]:
        portfolio.tell(Result(job, "", void=False))
    assert portfolio.next() is None
    portfolio.tell(Result(jobs[0], "", void=False))
    assert portfolio.next() is not None


def test_workloads_are_those_that_match():
    assert workloads_of("churn") == ["churn"]
    assert TEST in workloads_of("munmap*")
    assert workloads_of(None, without=["litmus"]) == list(GENERATED)
    with pytest.raises(StressError, match="'--only' must match a workload"):
        workloads_of("nothing*")


# -- by what findings are the same ---------------------------------------------------------------------------

LATE = {"kind": "access after completion", "access": "load", "taken": {"call": "munmap"}}


@pytest.mark.parametrize(
    ("outcome", "signature"),
    [
        (Outcome(FINISHED), ""),
        (Outcome(VIOLATED, violations=[LATE]), "access after completion: load, taken away by munmap"),
        (Outcome(PANICKED, "cpu1: page 17: it fell to -1", 5), "panicked: cpuN: page N: it fell to -N"),
        (Outcome(PANICKED, "cpu1: out of memory", 1), ""),
        (Outcome(STUCK, "nothing moved for 3 s: cpu0 waits"), "deadlock"),
        (Outcome(LIVELOCKED, "no thread got on for 9 scheduling points: cpu0 waits"), "livelock"),
        (Outcome(FINISHED, unaccounted=["frame: 3 of 7"]), "unaccounted: frame: N of N"),
        (Outcome(FINISHED, findings=["key 5 lost"]), "finding: key N lost"),
    ],
)  # fmt: skip
def test_a_signature_has_what_does_not_change_from_run_to_run(outcome, signature):
    assert signature_of(outcome) == signature


def test_a_read_in_a_window_of_linux_itself_is_no_finding():
    """The store of a truncation, between a batch's unmap and its flush."""
    job = Job(0, "truncate-against-fault.litmus", "walk", 7, schedule=Schedule(distance=300, seed=5))
    with Arenas() as arenas:
        outcome = arenas.run(job.experiment("linux"))
    assert outcome.is_clean
    assert outcome.windows > 8, "more than are kept"


# -- workers -------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """Say which process does it, or end it."""

    how: str = ""

    def do(self, *_: Any) -> int:
        if self.how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "refuses":
            raise ValueError("'this' must be that")
        if self.how == "breaks":
            raise KeyError("a mistake")
        return os.getpid()


def asked(how):
    with Pool([0, 0]) as pool:
        pool.put(Answer(how))
        while pool.is_busy:
            pool.take(1.0)


def test_workers_do_tasks_and_are_gone_with_the_block():
    before = _left_here()
    with Pool([0, 0, 0]) as pool:
        found = set()
        for _ in range(3):
            pool.put(Answer())
        assert pool.idle == 0
        while pool.is_busy:
            found |= set(pool.take(1.0))
        assert found == {worker.pid for worker in pool.workers}
    assert not _left_here() - before


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ("dies", CpuDied, r"worker \d \(pid \d+\) was killed by SIGKILL"),
        ("refuses", ValueError, "'this' must be that"),
        ("breaks", WorkerFailed, "KeyError: 'a mistake'"),
    ],
)
def test_what_a_worker_cannot_do_is_a_sentence(how, error, said):
    before = _left_here()
    with pytest.raises(error, match=said):
        asked(how)
    assert not _left_here() - before


# -- the command ---------------------------------------------------------------------------------------------


def stress(tmp_path, *words):
    """Run the command; returns its exit code and findings.json."""
    code = main(["stress", *words, "--out", str(tmp_path), "--jobs", "1"])
    (found,) = tmp_path.glob("*-stress/findings.json")
    return code, json.loads(found.read_text())


def test_a_wrong_design_is_found_repeated_and_not_vanillas(tmp_path, capsys):
    code, data = stress(tmp_path, "none:what=user", "--first", "--only", TEST)
    assert code == 1
    (design,) = data["designs"]
    (finding,) = design["findings"]
    assert finding["signature"] == "access after completion: load, taken away by munmap"
    assert finding["repeated"] == [3, 3]
    assert finding["vanilla_runs"] == [0, 20]
    said = capsys.readouterr().out
    assert "taken away by cpu0" in said
    shrunk = finding["shrunk"]
    assert 0 < shrunk["calls"] <= 12
    assert shrunk["replays"][0] == shrunk["replays"][1] > 0
    assert "  shrunk to " in said
    (case,) = tmp_path.glob("*-stress/none_what_user-1.toml")
    assert case.read_text() == shrunk["text"]
    assert main(["replay", str(case)]) == 1
    assert "as stored, to the event" in capsys.readouterr().out
    assert "verdict      not clean, exit code 1: none:what=user (1)" in said
    again = Job(0, TEST, PLAIN, finding["seed"]).command("none:what=user")
    assert f"again: {again}" in said
    words = [word.strip("'") for word in again.split()[1:]]
    assert main([*words, "--out", str(tmp_path), "--json", "-"]) == 1
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["fingerprint"] == finding["fingerprint"]


def test_a_job_as_a_case_is_the_same_run():
    """Of a litmus test its text, with the knobs in it; of a generated workload its name."""
    for job in (
        Job(0, TEST, PLAIN, 5, knobs=(("tlb.pcid", False), ("sysctl.watermark_scale_factor", 100))),
        Job(0, TEST, "walk", 5, schedule=Schedule(distance=40, seed=9)),
        Job(0, "munmap-storm:threads=4,pages=8", PLAIN, 5, knobs=(("tlb.asid_slots", 2),)),
    ):
        with Arenas() as arenas:
            outcome = arenas.run(job.experiment("linux"))
            again = arenas.run(case_of(job, "linux").experiment())
        assert again.fingerprint == outcome.fingerprint, job


def test_what_vanilla_linux_shows_too_is_not_put_down_to_the_design(tmp_path, capsys, monkeypatch):
    """Here `none` stands in for a vanilla Linux that has the bug, too."""
    monkeypatch.setattr("emulator.stress.command.VANILLA", "none:what=all")
    code, data = stress(tmp_path, "none:what=user", "--seconds", "1", "--only", TEST)
    assert code == 0
    assert data["designs"][0]["clean"]
    assert data["designs"][0]["findings"][0]["vanilla"]
    assert "vanilla Linux has this, too: access after completion" in capsys.readouterr().out


def test_a_right_design_is_told_what_was_exercised(tmp_path, capsys):
    code, data = stress(tmp_path, "linux", "--seconds", "1", "--only", TEST)
    assert code == 0
    assert data["designs"][0]["runs"] >= 1
    said = capsys.readouterr().out
    assert "nothing found" in said
    assert "exercised   1 workloads" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["linux", "linux"], "each design must be named once (got 'linux' twice)"),
        (["nothing"], "'design' must be one of"),
        (["linux", "--only", "nothing*"], "'--only' must match a workload of the portfolio"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(words, said, tmp_path, capsys):
    assert main(["stress", *words, "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# -- the printed command -------------------------------------------------------------------------------------


def asked_for(command, tmp_path):
    """Give the experiment that a command line runs, without running it."""
    found = []

    def emulate(experiment, progress):
        found.append(experiment)
        raise CpuDied("that is enough")

    main([*shlex.split(command)[1:], "--out", str(tmp_path)], emulate=emulate)
    return found[0]


def described(experiment):
    """Give what of an experiment a run goes by."""
    rows = [thread.tobytes() for process in experiment.made().processes for thread in process.threads]
    return experiment.machine, rows, experiment.options()


def test_the_printed_command_asks_for_the_very_run(tmp_path):
    """Of each strategy, with knobs and what shakes a run; with another seed it asks for another one."""
    portfolio = Portfolio(4, [TEST, "cow-read.litmus", "churn"], [PLAIN, *STRATEGIES], cpus=cpus_of)
    jobs = {}
    for _ in range(120):
        job = portfolio.next()
        portfolio.tell(Result(job, "", void=False, cpu_points=(900, 20, 3000, 0)))
        jobs.setdefault((job.strategy, job.shaken), job)
    assert {strategy for strategy, _ in jobs} == {PLAIN, *STRATEGIES}
    assert any(job.schedule and job.schedule.expected for job in jobs.values())
    assert {name for job in jobs.values() for name in job.shaken} == set(SHAKEN)
    for job in jobs.values():
        asked = asked_for(job.command("linux"), tmp_path)
        assert described(asked) == described(job.experiment("linux")), job
        other = asked_for(job.with_seed(job.seed + 1).command("linux"), tmp_path)
        assert described(other) != described(asked)
