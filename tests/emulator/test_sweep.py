"""A sweep runs every combination once, keeps each run at once, and goes on where it was ended."""

from __future__ import annotations

import csv
import json
import os
import pickle
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from emulator.cli import main
from emulator.cli_arguments import parser
from emulator.stopped import CpuDied, Stuck
from emulator.sweep.child import Answer, Children, answer_of
from emulator.sweep.journal import SCHEMA, Head, Journal, Line
from emulator.sweep.plan import plan_of
from emulator.sweep.scheduler import TRIES, Room, run_here
from tests.emulator.fixed import REUSE, run

ROOT = Path(__file__).parents[2]
SMALL = ["--machine", "guest-8cpu", "--leases", "1", "--workload", "munmap-storm"]
HERE = Room(2, 1 << 40, 2)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def plan(*words):
    return plan_of(parser().parse_args(["sweep", *SMALL, *words]))


def result_of(experiment, **changes):
    """The figures of an experiment, which depend on nothing else."""
    figure = 100 * experiment.machine.cpus + experiment.seed
    per_cpu = [figure, 0, 0, 0]
    about = {"seed": experiment.seed, "leases": 1, "machine": experiment.machine.name}
    return run(
        experiment.design.name, tlb_shootdowns_per_cpu=per_cpu, tlb_shootdowns=figure, **about | changes
    )


class Emulation:
    """Stands in for the processes: remembers keys, ends the command after so many runs."""

    def __init__(self, most=None, answers=None):
        self.keys, self.most, self.answers = [], most, answers or {}

    def __call__(self, jobs, take, room):
        for job in jobs:
            if len(self.keys) == self.most:
                raise KeyboardInterrupt
            self.keys.append(job.key)
            take(job, self.answers.get(job.key) or Answer(result=result_of(job.experiment)))


def test_every_combination_has_each_seed_in_turn_and_the_other_way_round():
    keys = [job.key for job in plan("--vary", "cpus=2,4", "--seeds", "2", "--seed", "7").jobs]
    assert keys[:4] == [
        f"design={design} cpus={cpus} seed=7" for design in ("linux", "luf") for cpus in (2, 4)
    ]
    assert keys[4:] == [key.replace("seed=7", "seed=8") for key in reversed(keys[:4])]


def test_values_become_what_the_options_of_a_run_make_of_them():
    made = plan("--vary", "design=luf", "--vary", "sysctl.numa_balancing=0", "--vary", "check=off").jobs
    assert made[0].experiment.machine.overrides == {"sysctl.numa_balancing": 0}
    assert made[0].experiment.check == "off"


def test_a_file_is_the_same_as_options_and_options_go_before_it():
    Path("plan.toml").write_text(
        'seeds = 2\n[base]\nworkload = "munmap-storm"\nmachine = "guest-8cpu"\nleases = 1\n'
        '[vary]\ndesign = ["linux"]\nsysctl.numa_balancing = [0, 1]\n'
    )
    in_file = plan_of(parser().parse_args(["sweep", "plan.toml"]))
    words = ["--vary", "design=linux", "--vary", "sysctl.numa_balancing=0,1"]
    assert [job.key for job in in_file.jobs] == [job.key for job in plan(*words, "--seeds", "2").jobs]
    assert len(plan_of(parser().parse_args(["sweep", "plan.toml", "--seeds", "3"])).jobs) == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--vary", "memory"], "'--vary' must be KEY=VALUE,VALUE, such as memory=60%,80% (got 'memory')"),
        (["--vary", "memory=60"], "--vary: 'memory' must be a percentage from 1% to 1000% (got '60')"),
        (["--vary", "check=none"], "--vary: 'check' must be one of full, accesses"),
        (["--vary", "cpus=2,2"], "--vary: 'cpus' must have each value once (got '2' twice)"),
        (["--vary", "colour=red"], "must be design, a dotted key of the machine or one of check, cpus"),
        (["--vary", "seed=1,2"], "--vary: 'seed' is not varied itself"),
        (["--vary", "sysctl.nothing=1"], "sysctl.nothing"),
        (["--vary", "design=nobody"], "nobody"),
        (["a.toml"], "a.toml: 'vary.cpus' must be a list of values (got 2)"),
        (["b.toml"], "b.toml: 'base.colour' must be design"),
        (["c.toml"], "c.toml: 'seeds' must be at least 1 (got 0)"),
        (["d.toml"], "d.toml: 'vary' must be a table (got 3)"),
    ],
)
def test_what_cannot_be_varied_is_one_sentence(words, said, capsys):
    Path("a.toml").write_text("[vary]\ncpus = 2\n")
    Path("b.toml").write_text('[base]\ncolour = "red"\n')
    Path("c.toml").write_text("seeds = 0\n")
    Path("d.toml").write_text("vary = 3\n")
    emulate = Emulation()
    assert main(["sweep", *SMALL, *words], emulate=emulate) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not emulate.keys
    assert not Path("sweep").exists()


def test_an_interrupted_sweep_goes_on_and_ends_as_one_that_was_not(capsys):
    words = ["sweep", *SMALL, "--vary", "cpus=2,4,8", "--seeds", "3"]
    first, second, whole = Emulation(most=7), Emulation(), Emulation()
    assert main([*words, "--out", "a"], emulate=first) == 130
    assert "7 of 18 runs are kept in a/journal.jsonl; the same command goes on" in capsys.readouterr().err
    assert main([*words, "--out", "a"], emulate=second) == 0
    assert main([*words, "--out", "b"], emulate=whole) == 0
    assert first.keys + second.keys == whole.keys
    assert len(set(whole.keys)) == 18
    for name in ("points.csv", "runs.csv"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
    table = list(csv.DictReader(Path("a/points.csv").read_text().splitlines()))
    row = next(one for one in table if one["design"] == "luf" and one["cpus"] == "4")
    assert [float(row[f"tlb_shootdowns{end}"]) for end in ("", ".low", ".high")] == [402, 401, 403]
    assert len(list(csv.DictReader(Path("a/runs.csv").read_text().splitlines()))) == 18
    assert Path("a/picture.png").stat().st_size > 1000
    third = Emulation()
    assert main([*words, "--out", "a"], emulate=third) == 0
    assert third.keys == []


class Planted(Emulation):
    """The second design has half of the shootdowns, with 4 CPUs alone; all else is equal."""

    def __call__(self, jobs, take, room):
        for job in jobs:
            one = job.experiment
            figure = (one.machine.cpus * 100 + one.seed) // (2 if job.point == PLANTED else 1)
            per_cpu = {"tlb_shootdowns_per_cpu": [figure, 0, 0, 0], "tlb_shootdowns": figure}
            result = run(**(per_cpu | {"seed": one.seed, "leases": 1, "machine": one.machine.name}))
            take(job, Answer(result=msgspec.structs.replace(result, design=one.design.name)))


PLANTED = {"design": "luf", "cpus": "4"}


def test_designs_are_tested_against_the_first_one_at_each_point(capsys):
    """The planted half is seen, with its interval, and nothing elsewhere; a page has it, too."""
    words = ["sweep", *SMALL, "--vary", "cpus=2,4", "--seeds", "5", "--html", "page.html"]
    assert main(words, emulate=Planted()) == 0
    lines = Path("sweep/points.csv").read_text().splitlines()
    table = {(row["design"], row["cpus"]): row for row in csv.DictReader(lines)}
    seen = table["luf", "4"]
    assert float(seen["tlb_shootdowns.ratio"]) == pytest.approx(0.5, abs=0.01)
    assert float(seen["tlb_shootdowns.p"]) < 0.01
    assert float(seen["tlb_shootdowns.ratio.low"]) <= 0.5 <= float(seen["tlb_shootdowns.ratio.high"])
    assert {row["tlb_shootdowns.p"] for place, row in table.items() if place[0] == "linux"} == {""}
    assert float(table["luf", "2"]["tlb_shootdowns.p"]) == 1
    printed = capsys.readouterr().out
    changes = printed[printed.index("Changes against linux at the same point") :].splitlines()
    assert [line.split()[:3] for line in changes if line.startswith("luf")] == [
        ["luf", "2", "no"],
        ["luf", "4", "-50.1"],
    ]
    assert "-50.1 % [" in Path("page.html").read_text()


def test_a_page_that_cannot_be_written_is_refused_before_anything_runs(capsys):
    emulate = Emulation()
    assert main(["sweep", *SMALL, "--html", "/nowhere/p.html"], emulate=emulate) == 2
    assert "'--html' must be a file in a folder that can be written to" in capsys.readouterr().err
    assert not emulate.keys


def test_a_violation_is_a_result_and_is_not_tried_again(capsys):
    words = ["sweep", *SMALL, "--vary", "design=none", "--seeds", "2"]
    bad = Answer(result=run("none", seed=1, violations=[REUSE], accounted={}, runtime_ns=[]))
    stuck = answer_of(_raising(Stuck("cpu1 waits for cpu2")))
    first = Emulation(answers={"design=none seed=1": bad, "design=none seed=2": stuck})
    assert main(words, emulate=first) == 1
    assert "2 runs not clean: design=none seed=1; design=none seed=2" in capsys.readouterr().out
    second = Emulation()
    assert main(words, emulate=second) == 1
    assert second.keys == []


def test_a_run_without_a_result_is_begun_again_by_the_next_command(capsys):
    words = ["sweep", *SMALL, "--vary", "design=linux", "--seeds", "2"]
    lost = answer_of(_raising(CpuDied("cpu1 was killed")))
    assert main(words, emulate=Emulation(answers={"design=linux seed=2": lost})) == 3
    assert "1 runs without a result: design=linux seed=2" in capsys.readouterr().out
    second = Emulation()
    assert main(words, emulate=second) == 0
    assert second.keys == ["design=linux seed=2"]


def _raising(error):
    def run_it():
        raise error

    return run_it


HEAD = Head(SCHEMA, "one")


def test_a_last_line_that_was_cut_off_is_no_line(tmp_path):
    """At whichever byte; and what is written next stands on a line of its own."""
    with Journal(tmp_path, HEAD) as journal:
        journal.add(Line("a", run()))
        journal.add(Line("b", run("luf")))
    whole = journal.path.read_bytes()
    second = whole.index(b'{"key":"b"')
    for end in (second, second + 1, len(whole) - 1):
        journal.path.write_bytes(whole[:end])
        with Journal(tmp_path, HEAD) as again:
            assert list(again.done) == ["a"]
            again.add(Line("b", run("luf")))
        assert journal.path.read_bytes() == whole


def test_a_journal_of_another_sweep_or_one_in_use_is_refused(capsys):
    words = ["sweep", *SMALL, "--vary", "cpus=2,4"]
    assert main(words, emulate=Emulation()) == 0
    assert main([*words, "--tokens", "2"], emulate=Emulation()) == 2
    assert "sweep/journal.jsonl: 'identity' must be of the same sweep" in capsys.readouterr().err
    more = Emulation()
    assert main(["sweep", *SMALL, "--vary", "cpus=2,4,8"], emulate=more) == 0
    assert more.keys == ["design=linux cpus=8 seed=1", "design=luf cpus=8 seed=1"]
    Path("other").mkdir()
    with Journal(Path("other"), HEAD):
        assert main([*words, "--out", "other"], emulate=Emulation()) == 2
    assert "must not be in use by another sweep" in capsys.readouterr().err


def test_a_line_that_is_none_is_named(capsys):
    words = ["sweep", *SMALL, "--vary", "cpus=2"]
    main(words, emulate=Emulation())
    file = Path("sweep/journal.jsonl")
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], '{"key": 3}', lines[2]]) + "\n")
    assert main(words, emulate=Emulation()) == 2
    assert "sweep/journal.jsonl, line 2: 'key' must be text (got 3)" in capsys.readouterr().err


def test_a_changed_file_makes_another_sweep(capsys):
    text = (ROOT / "examples" / "eager.py").read_text()
    Path("mine.py").write_text(text)
    words = ["sweep", *SMALL, "--vary", "design=linux,mine.py:Eager"]
    assert main(words, emulate=Emulation()) == 0
    Path("mine.py").write_text(text + "\n")
    assert main(words, emulate=Emulation()) == 2


# -- side by side ------------------------------------------------------------------------------------------


def test_as_many_run_at_a_time_as_there_is_room_for():
    """Two runs meet in a barrier that only two can pass; a third never joins them."""
    jobs = plan("--vary", "design=linux", "--seeds", "6").jobs
    pairs, most, now, lock = threading.Barrier(2, timeout=60), [0], [0], threading.Lock()

    def one(sent):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        pairs.wait()
        with lock:  # a real run unpickles in a process of its own
            now[0] -= 1
            return msgspec.json.encode(Answer(result=result_of(pickle.loads(sent))))

    taken = []
    run_here(
        jobs, lambda job, answer: taken.append((job.key, answer.failed or answer.result.seed)), HERE, one
    )
    assert sorted(taken) == [(f"design=linux seed={seed}", seed) for seed in range(1, 7)]
    assert most == [2]


@pytest.mark.parametrize("room", [Room(1, 1 << 40, 9), Room(9, 1, 9), Room(9, 1 << 40, 1)])
def test_without_leases_memory_or_jobs_for_two_one_runs_at_a_time(room):
    now = []

    def one(sent):
        now.append(1)
        assert len(now) == 1
        now.pop()
        return msgspec.json.encode(Answer(result=result_of(pickle.loads(sent))))

    taken = []
    run_here(plan("--seeds", "3").jobs, lambda job, answer: taken.append(answer.failed), room, one)
    assert taken == [""] * 6


def test_a_lost_process_is_replaced_and_counted_once_and_one_that_always_dies_is_given_up():
    jobs = plan("--vary", "design=linux", "--seeds", "3").jobs
    tries = []

    def one(sent):
        experiment = pickle.loads(sent)
        tries.append(experiment.seed)
        if experiment.seed == 3 or tries.count(experiment.seed) < experiment.seed:
            return msgspec.json.encode(Answer(lost="its process was killed by SIGKILL"))
        return msgspec.json.encode(Answer(result=result_of(experiment)))

    taken = []
    run_here(jobs, lambda job, answer: taken.append((job.key[-1], bool(answer.lost))), HERE, one)
    assert sorted(taken) == [("1", False), ("2", False), ("3", True)]
    assert sorted(tries) == [1, 2, 2, *[3] * TRIES]


def test_a_killed_process_is_lost_and_none_is_left_when_the_sweep_ends(tmp_path):
    """The first kills itself; the second says through a pipe that it runs, and would wait for ever."""
    program = [sys.executable, "-c", "import os, sys; sys.stdin.read(); os.kill(os.getpid(), 9)"]
    assert "SIGKILL" in msgspec.json.decode(Children(program)(b""), type=Answer).lost
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    waits = f"import os, signal; open({str(pipe)!r}, 'w').write(str(os.getpid())); signal.pause()"
    children, answers = Children([sys.executable, "-c", waits]), []
    asked = threading.Thread(target=lambda: answers.append(children(b"")))
    asked.start()
    pid = int(pipe.read_text())
    children.end()
    asked.join()
    assert "SIGTERM" in json.loads(answers[0])["lost"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert "has ended" in json.loads(children(b""))["lost"]


def test_bad_input_and_mistakes_of_ours_end_the_sweep(capsys):
    words = ["sweep", *SMALL, "--vary", "design=linux"]
    for error, code, said in ((ValueError("no room"), 2, "no room"), (KeyError("x"), 3, "KeyError: 'x'")):
        answers = {"design=linux seed=1": answer_of(_raising(error))}
        assert main(words, emulate=Emulation(answers=answers)) == code
        assert f"design=linux seed=1: {said}" in capsys.readouterr().err
