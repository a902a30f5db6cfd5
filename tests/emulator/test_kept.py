"""What was found is kept, whatever ends the command or fails while it is written: results of earlier designs,
the report, and each file by itself.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.cli import main
from emulator.ending import Interrupted
from emulator.experiment import Experiment as Described
from emulator.experiment import StatisticsError
from emulator.machine import load_machine
from emulator.result import read_comparison
from emulator.stopped import CpuDied, Stuck
from tests.emulator.fixed import REUSE, Experiment

SMALL = ["--machine", "guest-8cpu", "--cpus", "4", "--leases", "2"]
COMPARE = ["compare", "linux", "luf", "none", *SMALL]
KEPT = "; the result of linux is kept: luf report runs/0001-compare\n"
PICTURES = ["picture.png", "timeline.png", "timeline.txt"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Ending(Experiment):
    """An experiment whose second design is ended."""

    def __init__(self, error: BaseException, **changes):
        super().__init__(**changes)
        self.ending = error

    def __call__(self, *given):
        self.error = self.ending if self.calls else None
        return super().__call__(*given)


def missing(why: str) -> dict[str, str]:
    return {"luf": why, "none": "it was not begun"}


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted(signal.SIGTERM), 143, "terminated"),
        (Interrupted(signal.SIGHUP), 129, "ended, as its terminal was closed"),
    ],
)
def test_a_signal_in_the_second_design_keeps_the_first_ones_result(capsys, error, code, word):
    """And says so; the folder says what is missing and why, and so do its report and its exit code."""
    assert main(COMPARE, emulate=Ending(error)) == code
    said = capsys.readouterr()
    assert said.err == f"luf: {word}{KEPT}"
    assert said.out == ""
    kept = read_comparison("runs/latest")
    assert [run.design for run in kept.runs] == ["linux"]
    assert kept.missing == missing(f"the command was {word}")
    assert not kept.clean
    assert main(["report", "runs/latest"]) == 1
    shown = capsys.readouterr().out
    assert f"\npartial             luf has no result: the command was {word}\n" in shown
    assert "\n                    none has no result: it was not begun\n" in shown
    assert "verdict             not clean, exit code 1: luf has no result" in shown


@pytest.mark.parametrize(
    ("error", "code", "why"),
    [
        (Stuck("cpu0 waits for cpu1"), 1, "stopped by a deadlock"),
        (CpuDied("cpu1 was killed"), 3, "stopped by the death of a CPU process"),
        (ValueError("'workload' must fit (got it)"), 2, "'workload' must fit (got it)"),
        (MemoryError("'RAM segment' must fit"), 2, "'RAM segment' must fit"),
        (OSError(errno.EMFILE, "Too many open files", "/tmp/x"), 3, "/tmp/x: Too many open files"),
        (RuntimeError("planted"), 3, "planted"),
    ],
)  # fmt: skip
def test_a_later_design_that_cannot_be_ended_does_not_lose_the_earlier_ones(capsys, error, code, why):
    """They are shown at once, with what is missing; the exit code is that of what happened, on the screen
    too. The JSON file is written.
    """
    assert main([*COMPARE, "--json", "out.json"], emulate=Ending(error)) == code
    said = capsys.readouterr()
    assert KEPT in said.err
    assert f"partial             luf has no result: {why}\n" in said.out
    assert f"verdict             not clean, exit code {code}: luf has no result ({why}); none has" in said.out
    assert json.loads(Path("out.json").read_text())["missing"] == missing(why)
    assert set(PICTURES) < set(os.listdir("runs/0001-compare"))


def test_what_ended_the_first_design_leaves_nothing(capsys):
    """Planted: with no result there is no folder, and nothing is said to be kept."""
    assert main(COMPARE, emulate=Experiment(error=KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "luf: interrupted; nothing was written\n"
    assert os.listdir(".") == []


KILLED = """
import sys, time
from emulator.cli import main
from tests.emulator.fixed import Experiment
class Slow(Experiment):
    def __call__(self, *given):
        if self.calls:
            print("second", flush=True)
            time.sleep(60)
        return super().__call__(*given)
sys.exit(main(sys.argv[1:], emulate=Slow()))
"""


def test_a_killed_command_keeps_what_had_ended(capsys):
    """SIGKILL in the second design: nobody can say why, but the folder is whole, and partial."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", KILLED, *COMPARE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as slow:
        assert slow.stdout.readline() == "second\n"
        assert main(["report", "runs/latest"]) == 1  # also while it runs
        slow.kill()
    assert sorted(os.listdir("runs")) == ["0001-compare", "latest"]
    assert main(["report", "runs/latest"]) == 1
    shown = capsys.readouterr().out
    assert shown.count("partial             luf has no result: it had not ended when this was written\n") == 2


def full(path: str, *_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("changes", "code"), [({}, 2), ({"violations": [REUSE]}, 1)])
def test_a_full_disk_costs_the_folder_and_not_the_report(capsys, monkeypatch, changes, code):
    """The path is named, the report printed, the JSON file written where there is room; nothing half-made
    stays. The exit code is the verdict's unless that is 0.
    """
    monkeypatch.setattr("emulator.run_folder.write_in", full)
    arguments = ["run", "luf", *SMALL, "--json", "out.json"]
    assert main(arguments, emulate=Experiment(**changes)) == code
    said = capsys.readouterr()
    where = "runs/.0001.partial/config.json"
    assert said.err == f"luf: the run's folder cannot be written: {where}: No space left on device\n"
    assert "TLB shootdowns" in said.out
    assert "more: luf report" not in said.out
    assert read_comparison("out.json").folder == ""
    assert os.listdir("runs") == []


def test_a_disk_that_is_full_when_the_second_design_ends(capsys, monkeypatch):
    """The first one's result stays as it is, both are shown."""

    class Filling(Experiment):
        def __call__(self, *given):
            if self.calls:
                monkeypatch.setattr("emulator.run_folder.write_in", full)
            return super().__call__(*given)

    assert main(["compare", *SMALL], emulate=Filling()) == 2
    said = capsys.readouterr()
    assert "runs/0001-compare/config.json: No space left on device\n" in said.err
    assert "luf: no violation" in said.out
    kept = read_comparison("runs/0001-compare")
    assert ([run.design for run in kept.runs], list(kept.missing)) == (["linux"], ["luf"])


def test_a_disk_with_room_again_loses_nothing(capsys, monkeypatch):
    """What could not be kept of the first design is, when the second has ended; that is no failure then."""

    class Emptying(Experiment):
        def __call__(self, *given):
            if self.calls:
                monkeypatch.undo()
            else:
                monkeypatch.setattr("emulator.run_folder.write_in", full)
            return super().__call__(*given)

    place = Path.cwd()
    try:
        assert main(["compare", *SMALL, "--out", str(place / "runs")], emulate=Emptying()) == 0
    finally:
        os.chdir(place)
    assert [run.design for run in read_comparison(place / "runs" / "latest").runs] == ["linux", "luf"]


def test_a_real_limit_costs_only_what_is_larger():
    """A limit on the size of files: the result fits, the pictures do not; each is named, exit code 2."""
    program = (
        "import sys; from emulator.cli import main; from tests.emulator.fixed import Experiment; "
        "sys.exit(main(emulate=Experiment()))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", program, "run", "luf", *SMALL],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert done.returncode == 2
    assert done.stderr == "luf: no picture was drawn: runs/0001-luf/picture.png: File too large\n"
    assert "more: luf report runs/0001-luf" in done.stdout
    assert read_comparison("runs/latest").clean
    assert not any("partial" in name for name in (*os.listdir("runs"), *os.listdir("runs/0001-luf")))


def test_a_picture_that_cannot_be_drawn_costs_itself(capsys, monkeypatch):
    """Whatever the library raises."""

    def broken(*_):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("emulator.report.plot._sites", broken)
    assert main(["run", "luf", *SMALL], emulate=Experiment()) == 2
    said = capsys.readouterr()
    assert said.err == "luf: no picture was drawn: planted\n"
    assert "verdict             clean" in said.out
    assert sorted(os.listdir("runs/0001-luf")) == sorted(
        ["config.json", "config.toml", "environment.json", "luf", "result.json", "timeline.txt"]
    )


@pytest.mark.parametrize("where", ["emulator.report.text.print_styled", "emulator.report.plot._sites"])
def test_ctrl_c_while_it_is_shown_says_where_it_is(capsys, monkeypatch, where):
    """Everything was kept before."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted)
    assert main(["run", "luf", *SMALL], emulate=Experiment()) == 130
    said = capsys.readouterr().err
    assert said == "luf: interrupted; the result of luf is kept: luf report runs/0001-luf\n"
    assert read_comparison("runs/latest").clean


def test_ctrl_c_while_it_is_written_writes_it_then(capsys, monkeypatch):
    """The half-made folder goes, a whole one comes."""
    from emulator import run_folder

    real, raised = run_folder._write_setup, []

    def interrupted(*given):
        if not raised:
            raised.append(True)
            raise KeyboardInterrupt
        real(*given)

    monkeypatch.setattr("emulator.run_folder._write_setup", interrupted)
    assert main(["run", "luf", *SMALL], emulate=Experiment()) == 130
    assert "interrupted; the result of luf is kept: luf report runs/0001-luf\n" in capsys.readouterr().err
    assert sorted(os.listdir("runs")) == ["0001-luf", "latest"]
    assert read_comparison("runs/latest").missing == {}


def test_a_second_ctrl_c_loses_nothing_that_was_kept(capsys, monkeypatch):
    """It arrives while the first one is answered."""
    from emulator.kept import Kept

    def interrupted(*_):
        raise KeyboardInterrupt

    keep = Kept._keep
    monkeypatch.setattr(
        Kept, "_keep", lambda self, why: keep(self, why) if self.written == 0 else interrupted()
    )
    assert main(COMPARE, emulate=Ending(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == f"luf: interrupted{KEPT}"
    assert read_comparison("runs/latest").missing == missing("it had not ended when this was written")


def test_names_that_no_file_can_have_are_kept(capsys):
    """Bytes that are no letters, half surrogate pairs, control characters: in the design's name, the machine,
    paths and the command. All are shown as a shell would have them.
    """
    odd = os.fsdecode(b"o\xff\x1b[2J")
    experiment = Experiment(workload_text=odd, design_stats={"say": "\ud800", odd: 1})
    assert main(["run", "luf", *SMALL, "--out", odd], emulate=experiment) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "o\\udcff\\x1b[2J" in said.out
    kept = read_comparison(Path(odd) / "latest")
    assert (kept.runs[0].workload_text, kept.runs[0].design_stats["say"]) == ("o\\udcff\\x1b[2J", "\\ud800")


@pytest.mark.parametrize("there", [True, False])
def test_a_link_as_the_folder_of_runs(there):
    """To a folder that is there, or is yet to be made."""
    if there:
        Path("far").mkdir()
    Path("link").symlink_to("far")
    assert main(["run", "luf", *SMALL, "--out", "link"], emulate=Experiment()) == 0
    assert sorted(os.listdir("far")) == ["0001-luf", "latest"]


def test_a_link_to_where_nothing_can_be_made_is_refused_before_anything_runs(capsys):
    """With the path that was given."""
    Path("link").symlink_to("/proc/nothing/there")
    experiment = Experiment()
    assert main(["run", "luf", *SMALL, "--out", "link"], emulate=experiment) == 2
    rule = "'--out' must be a folder that can be written to (got 'link')"
    assert (capsys.readouterr().err, experiment.calls) == (f"luf: {rule}\n", [])


def test_the_hosts_one_core_is_not_called_a_mode_that_was_asked_for(capsys, monkeypatch):
    """Planted: --leases 1 is."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert main(["run", "luf", *SMALL[:4]], emulate=Experiment()) == 0
    assert capsys.readouterr().err == ""
    assert main(["run", "luf", *SMALL[:4], "--leases", "1"], emulate=Experiment()) == 0
    assert "--leases 1 is the controlled mode" in capsys.readouterr().err


MINE = """
from designs.design import Design

class Mine(Design):
    name = "mine"

    def statistics(self, ram):
        {}
"""


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("return {'x': 1 // 0}", "mine.py:8: ZeroDivisionError"),
        ("return 5", "mine.py:7: statistics must return a dict"),
        ("return {'clock': ram.cpu_clock[0]}", "mine.py:7: statistics must return a dict"),
        ("raise SystemExit", "mine.py:8: SystemExit"),
    ],
)
def test_a_design_that_cannot_give_its_figures_does_not_lose_the_others(capsys, body, why):
    """The run was over: everything is kept, and the design is found fault with. In Python it is an exception
    that has the result.
    """
    Path("mine.py").write_text(MINE.format(body))
    arguments = ["run", "mine.py:Mine", "--workload", "tiny8", "--machine", "guest-8cpu", "--cpus", "2"]
    assert main([*arguments, "--leases", "1", "--tokens", "1"]) == 1
    said = capsys.readouterr()
    assert why in said.err.splitlines()[-1]
    assert "found by itself     mine: its statistics cannot be had: " in said.out
    assert "verdict             not clean, exit code 1: mine by the design itself (1 finding)" in said.out
    kept = read_comparison("runs/latest").runs[0]
    assert why in kept.design_findings[0]
    one = Described("mine.py:Mine", load_machine("guest-8cpu", cpus=2), "tiny8", tokens=1, leases=1)
    with pytest.raises(StatisticsError, match=why) as caught:
        one.run()
    assert caught.value.result.fingerprint == kept.fingerprint


TOO_MUCH = """
[[region]]
name = "heap"
pages = 40000
writable = true
[[process]]
name = "p"
threads = [[["store", "heap"]]]
"""


def test_a_machine_that_is_too_small_is_bad_input(capsys):
    """The memory of the emulated machine is the user's choice, as the workload is."""
    Path("heap.toml").write_text(TOO_MUCH)
    size = ["--machine", "guest-8cpu", "--cpus", "2", "--scale", "16", "--leases", "2"]
    assert main(["run", "linux", "--workload", "heap.toml", *size]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "luf: out of memory of the emulated machine, under design 'linux': no page of node 0 "
    )
    assert said.endswith("; give the machine more memory or the workload less\n")
