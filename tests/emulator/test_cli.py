"""The command line: what it asks of the experiment, what it leaves, its exit codes, and one sentence for each
mistake.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
from pathlib import Path

import pytest

from designs.shelf import SHELF
from emulator.cli import main
from emulator.machine import load_machine
from emulator.result import read_comparison
from tests.emulator.fixed import REUSE, Experiment

SMALL = ["--machine", "guest-8cpu", "--cpus", "4"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(capsys, arguments: list[str], experiment=None) -> str:
    """Return the one sentence that a bad command line gets."""
    try:
        code = main(arguments, emulate=experiment or Experiment())
    except SystemExit as leaving:
        code = leaving.code
    said = capsys.readouterr()
    assert code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("luf: ")
    return said.err.removeprefix("luf: ").rstrip()


def test_compare_runs_linux_and_luf_and_leaves_a_folder(capsys):
    """The default is the talk's pair; the report names the folder, which holds everything."""
    experiment = Experiment()
    assert main(["compare", *SMALL, "--leases", "2"], emulate=experiment) == 0
    assert [call["design"] for call in experiment.calls] == ["linux", "luf"]
    said = capsys.readouterr()
    assert "more: luf report runs/0001-compare" in said.out
    assert said.err == ""
    assert sorted(os.listdir("runs/0001-compare")) == [
        *[
            "config.json",
            "config.toml",
            "environment.json",
            "linux",
            "luf",
            "picture.png",
            "result.json",
            "timeline.png",
            "timeline.txt",
        ]
    ]
    assert read_comparison("runs/latest").folder == "runs/0001-compare"


def test_options_reach_the_experiment():
    """Each option arrives under its name; the machine arrives scaled and changed."""
    experiment = Experiment()
    line = (
        "run luf --machine guest-8cpu --scale 4 --cpus 3 --tokens 7 --leases 0 --seed 9 --check off "
        "--strict-ipi --set costs.ipi_send=77 --slice 2000"
    )
    assert main([*line.split(), "--workload", "tiny8"], emulate=experiment) == 0
    (call,) = experiment.calls
    machine = call["machine"]
    assert (machine.cpus, machine.pages, machine.costs.ipi_send) == (3, [16384, 32768], 77)
    assert (call["workload"], machine.scale) == ("tiny8", 4.0)
    assert {name: call[name] for name in ("tokens", "leases", "seed", "slice_ns", "check", "strict_ipi")} == {
        "tokens": 7,
        "leases": 0,
        "seed": 9,
        "slice_ns": 2000,
        "check": "off",
        "strict_ipi": True,
    }
    config = json.loads(Path("runs/0001-luf/config.json").read_text())
    assert (config["tokens"], config["set"], config["machine"]["scale"]) == (7, {"costs.ipi_send": 77}, 4.0)


def test_a_schedule_and_a_slice_are_not_given_together(capsys):
    """A schedule has a slice of its own."""
    line = ["run", "luf", *SMALL, "--leases", "1", "--schedule", "walk", "--slice", "9"]
    assert main(line, emulate=Experiment()) == 2
    said = "'--slice' must not be given with --schedule, which has slice_ns (got 9)"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("workload", ["read-only:50%", "llama3x15"])
def test_memory_is_a_share_of_what_runs(workload, capsys):
    """--memory measures a workload and runs that one, also if it goes by the machine's room; the screen says
    both scales.
    """
    pages = []
    for percent in (100, 300):
        experiment = Experiment()
        line = f"run linux --workload {workload} --cpus 4 --scale 1024 --memory {percent}%"
        assert main(line.split(), emulate=experiment) == 0
        (call,) = experiment.calls
        pages.append(sum(call["machine"].pages))
        assert call["workload"].name == workload
        assert pages[-1] == pytest.approx(percent / 100 * call["workload"].working_set_pages(), rel=0.01)
        shown = capsys.readouterr().out
        assert re.search(
            rf"^ +memory {percent} % +of the working set of the workload at scale 1/1024$", shown, re.M
        )
        assert f" scale 1/{call['machine'].scale:.4g} " in shown
    assert pages[1] == pytest.approx(3 * pages[0], rel=0.01)


def test_default_leases_are_the_hosts_cores():
    """And the talk's machine at its own scale."""
    experiment = Experiment()
    assert main(["run", "linux"], emulate=experiment) == 0
    assert experiment.calls[0]["leases"] == len(os.sched_getaffinity(0))
    assert experiment.calls[0]["machine"] == load_machine("xeon6430-cxl")


def test_a_large_host_gives_no_more_leases_than_there_are(monkeypatch):
    """The default is a value that --leases would take."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)))
    experiment = Experiment()
    assert main(["run", "linux", *SMALL], emulate=experiment) == 0
    assert experiment.calls[0]["leases"] == 62


def test_json_goes_to_a_file_or_to_stdout(capsys):
    """--json FILE beside the report; --json - instead of it."""
    assert main(["run", "linux", *SMALL, "--leases", "2", "--json", "out.json"], emulate=Experiment()) == 0
    assert [run["design"] for run in json.loads(Path("out.json").read_text())["runs"]] == ["linux"]
    capsys.readouterr()
    assert main(["run", "linux", *SMALL, "--leases", "2", "--json", "-"], emulate=Experiment()) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == "runs/0002-linux"


def test_a_violation_or_a_lost_message_is_exit_code_1(capsys):
    """The report proves it; the folder is kept."""
    assert main(["run", "none", *SMALL], emulate=Experiment(violations=[REUSE])) == 1
    assert "VIOLATION  reuse: cpu3" in capsys.readouterr().out
    assert main(["run", "luf", *SMALL], emulate=Experiment(accounted={"message": [2, 1]})) == 1
    assert "luf: message: expected 2, found 1" in capsys.readouterr().out
    assert main(["report", "runs/0001-none"]) == 1


def test_controlled_mode_is_said(capsys):
    """--leases 1 is not just slow: it is the mode that repeats."""
    assert main(["run", "luf", *SMALL, "--leases", "1", "--seed", "7"], emulate=Experiment()) == 0
    assert capsys.readouterr().err == (
        "luf: --leases 1 is the controlled mode: one CPU at a time, the run repeats exactly with --seed 7\n"
    )


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "compare --tokens 0",
            "argument --tokens: must be a whole number of at least 1 (got '0') (see luf compare --help)",
        ),
        ("compare --tokens few", "argument --tokens: must be a whole number of at least 1 (got 'few')"),
        ("compare --cpus 257", "argument --cpus: must be a whole number from 1 to 256 (got '257')"),
        ("compare --scale 0.1", "argument --scale: must be a number from 1 to 1,048,576 (got '0.1')"),
        ("compare --scale nan", "argument --scale: must be a number from 1 to"),
        (
            "compare --seed -1",
            "argument --seed: must be a whole number from 0 to 4,611,686,018,427,387,904 (got '-1')",
        ),
        ("compare --leases -1", "argument --leases: must be a whole number from 0 to 62 (got '-1')"),
        ("compare --leases 63", "argument --leases: must be a whole number from 0 to 62 (got '63')"),
        ("compare --json=", "argument --json: must be the name of a file or folder (got '')"),
        ("compare --out=", "argument --out: must be the name of a file or folder (got '')"),
        ("report x --picture=", "argument --picture: must be the name of a file or folder (got '')"),
        (
            "compare --set scale=3",
            "xeon6430-cxl.toml: 'scale' must be given as --scale, or be the file's 'default_scale' (got 3)",
        ),
        ("compare --cpus 4 --set cpus=0", "xeon6430-cxl.toml: 'cpus' must be at least 1 (got 0)"),
        ("compare --check maybe", "argument --check: invalid choice: 'maybe' (choose from"),
        (
            "compare --set costs.ipi_send",
            "argument --set: must be KEY=VALUE, such as sysctl.numa_balancing=0 (got 'costs.ipi_send')",
        ),
        (
            "compare --set costs.ipi_sned=3",
            "xeon6430-cxl.toml: 'costs.ipi_sned' is not a key of a machine; did you mean 'ipi_send'?",
        ),
        (
            "compare --machine xeon",
            "'machine' must be one of cpu-128, guest-8cpu, guest-8cpu-tcg, guest-8cpu-tcg-large, ",
        ),
        ("compare --machine no.toml", "there is no machine file 'no.toml'"),
        (
            "compare --scale 6000",
            "xeon6430-cxl.toml: 'nodes[0].memory_mib' must be at least 8 after scaling (got 7.2)",
        ),
        (
            "compare linux lfu",
            f"'design' must be one of {', '.join(kind.name for kind in SHELF)}, or FILE.py:CLASS "
            "(got 'lfu'); did you mean 'luf'?",
        ),
        (
            "run mine.py:Mine",
            "'design' must be a name or FILE.py:CLASS (got 'mine.py:Mine', and there is no file 'mine.py')",
        ),
        ("run", "the following arguments are required: DESIGN (see luf run --help)"),
        ("fly", "argument COMMAND: invalid choice: 'fly' (choose from"),
        (
            "compare --json nowhere/x.json",
            "'--json' must be a file in a folder that can be written to (got 'nowhere/x.json')",
        ),
        (
            f"compare --json {'x' * 300}",
            f"'--json' must be a file in a folder that can be written to (got '{'x' * 300}')",
        ),
        (
            "golden --json-a\x7fb",
            "unrecognized arguments: --json-a\\x7fb (see luf --help)",
        ),
        ("compare --out a-file", "'--out' must be a folder that can be written to (got 'a-file')"),
        ("compare --out /proc/luf", "'--out' must be a folder that can be written to (got '/proc/luf')"),
        (
            "compare --json /proc/luf.json",
            "'--json' must be a file in a folder that can be written to (got '/proc/luf.json')",
        ),
        ("report runs/7", "runs/7: cannot be read (No such file or directory)"),
    ],
)
def test_bad_input_gets_one_sentence(capsys, line, sentence):
    """Exit code 2, nothing on stdout, one line on stderr, no traceback, nothing run."""
    Path("a-file").touch()
    experiment = Experiment()
    assert refused(capsys, line.split(), experiment).startswith(sentence)
    assert experiment.calls == []
    assert os.listdir(".") == ["a-file"]


def test_an_error_of_another_room_is_one_sentence_too(capsys):
    """A workload that does not exist is found by the workloads."""
    sentence = "'workload' must be one of llama3x15, or the path of a .npz trace (got 'x')"
    assert refused(capsys, ["run", "luf", *SMALL], Experiment(error=ValueError(sentence))) == sentence


def test_a_failure_of_the_emulator_is_exit_code_3(capsys, monkeypatch):
    """One sentence that says how to see more; LUF_DEBUG=1 shows it."""
    experiment = Experiment(error=RuntimeError("cpu3 died"))
    assert main(["run", "luf", *SMALL], emulate=experiment) == 3
    assert (
        capsys.readouterr().err
        == "luf: the emulator failed: RuntimeError: cpu3 died (LUF_DEBUG=1 shows where)\n"
    )
    monkeypatch.setenv("LUF_DEBUG", "1")
    assert main(["run", "luf", *SMALL], emulate=experiment) == 3
    assert "Traceback" in capsys.readouterr().err


def test_a_stopped_run_says_what_the_supervisor_said(capsys):
    """A deadlock is a finding (1) and keeps the lines of its wait-for graph; a dead CPU process is a failure
    (3).
    """
    from emulator.supervisor import CpuDied, Stuck

    graph = "nothing moved for 10 s:\n  cpu3 waits for acks of cpu5\n  cpu5 spins on zone0.lock"
    assert main(["run", "luf", *SMALL], emulate=Experiment(error=Stuck(graph))) == 1
    verdict = "verdict             not clean, exit code"
    said = capsys.readouterr().err
    assert said == f"luf: the run was stopped: {graph}\n{verdict} 1: by a deadlock\n"
    assert main(["run", "luf", *SMALL], emulate=Experiment(error=CpuDied("cpu3 was killed by SIGKILL"))) == 3
    said = capsys.readouterr().err
    died = "cpu3 was killed by SIGKILL"
    assert said == f"luf: the run was stopped: {died}\n{verdict} 3: by the death of a CPU process\n"
    assert os.listdir(".") == []


def test_the_supervisors_interruption_keeps_its_code(capsys):
    """While CPUs run it is the supervisor that catches SIGTERM."""
    from emulator.supervisor import Interrupted

    assert main(["run", "luf", *SMALL], emulate=Experiment(error=Interrupted(signal.SIGTERM))) == 143
    assert capsys.readouterr().err == "luf: terminated; nothing was written\n"


def test_ctrl_c_is_130_and_leaves_nothing(capsys):
    """No folder, one sentence."""
    assert main(["run", "luf", *SMALL], emulate=Experiment(error=KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "luf: interrupted; nothing was written\n"
    assert os.listdir(".") == []


def test_a_json_file_that_turns_out_full_costs_neither_report_nor_folder(capsys, monkeypatch):
    """One sentence names option, file and cause, after the report."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("emulator.output_file.write_atomically", full)
    assert main(["run", "luf", *SMALL, "--leases", "2", "--json", "out.json"], emulate=Experiment()) == 2
    said = capsys.readouterr()
    assert (
        said.err
        == "luf: '--json' must be a file that can be written (got 'out.json': No space left on device)\n"
    )
    assert "more: luf report runs/0001-luf" in said.out
    assert read_comparison("runs/latest").clean


def test_list_names_everything_with_one_line_each(capsys):
    """Machines, workloads, designs; or one kind."""
    assert main(["list"], emulate=Experiment()) == 0
    said = capsys.readouterr().out
    assert re.findall(r"^\w+$", said, re.M) == ["machines", "workloads", "designs"]
    assert re.search(r"^  llama3x15 +the talk", said, re.M)
    assert re.search(r"^  none +\S", said, re.M)
    assert main(["list", "machines"], emulate=Experiment()) == 0
    assert "workloads" not in capsys.readouterr().out


def test_declarations_are_listed_when_they_are_asked_for(capsys):
    """Each with all that is declared of it; they are no part of what ships."""
    assert main(["list", "rows"]) == 0
    said = capsys.readouterr().out
    assert "  MADVISE       madvise(2)\n" in said
    assert (
        " " * 16 + "region: a region; page: the first of its pages; pages: how many of them; kind: MADV_*\n"
        in said
    )
    assert " " * 16 + "call: madvise\n" in said
    assert main(["list", "hooks"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^  take_check +a block with a key was found$", said, re.M)
    assert re.search(
        r"^ +held: zone_lock of zone or some pcp_lock\n +result: 1: it may be taken now$", said, re.M
    )
    assert main(["list", "sysctls"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^ +vm.swappiness: from 0 to 200; kernels read ram.swappiness$", said, re.M)


def test_report_shows_and_draws_a_finished_run(capsys):
    """The same screen again from the folder, and a picture on request."""
    assert main(["compare", *SMALL, "--leases", "2"], emulate=Experiment()) == 0
    first = capsys.readouterr().out
    assert main(["report", "runs/latest"]) == 0
    assert capsys.readouterr().out == first
    assert main(["report", "runs/latest", "--picture", "again.svg"]) == 0
    assert os.path.getsize("again.svg") > 10_000
    assert capsys.readouterr().out == ""
    assert main(["report", "runs/latest", "--picture", "more.svg", "--timeline"]) == 0
    assert os.path.getsize("more.svg") > 10_000
    assert "timeline" in capsys.readouterr().out


def test_help_of_a_command_is_about_that_command(capsys):
    """Its own examples, the limits of its options."""
    shown = {}
    for verb in ("report", "list", "run"):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        shown[verb] = capsys.readouterr().out
    examples = {verb: set(re.findall(r"^  luf (\w+)", text, re.M)) for verb, text in shown.items()}
    assert (examples["report"], examples["list"]) == ({"report"}, {"list"})
    options = " ".join(shown["run"].split())
    assert "At most 507 (a context of 512, 5 of them the prompt)" in options
    assert "execute at a time, at most 62;" in options


def test_version(capsys):
    """As programs have it: name, version, 0."""
    from importlib.metadata import version

    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out == f"luf {version('luf-emulator')}\n"
