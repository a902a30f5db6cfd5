"""The campaign of faults notices what it is there for; a small part of it is run here."""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.campaigns import faults
from tests.campaigns.disturbing import program
from tests.campaigns.disturbing.afterwards import Ending
from tests.campaigns.disturbing.cases import COMMANDS, SENT, Case, another_user, cases

SMALL_PART = (
    "TERM supervisor run run",
    "KILL supervisor run compare",
    "KILL cpu run run",
    "STOP+CONT group run run",
    "HUP supervisor audit run",
    "INT group report run",
    "QUIT supervisor start run",
    "nofile 24 run",
    "disk full at run: out",
    ">/dev/full run",
    "--out is a dangling link",
)
CLEAN = Ending(frozenset({0}))
REFUSED = Ending(frozenset({2}), says=True)
WRITES = "import os; os.makedirs('o/0001-run'); open('o/0001-run/result.json', 'w').write('{}'); "
RESULT = WRITES.replace("'{}'", "'{\"runs\": [1]}'")
DAEMON = "import os, signal\nif os.fork() == 0:\n    os.setsid()\n    signal.pause()\n"


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """Give a function that tries a program of one line in the place of luf, and says what is wrong."""
    monkeypatch.setattr(program, "END_S", 3.0)
    monkeypatch.setattr(program, "GONE_S", 0.3)

    def try_it(source: str, ending: Ending = CLEAN, **more) -> list[str]:
        case = Case("planted", ["-c", source], ending, luf=(sys.executable,), **more)
        return list(faults.tried(case, tmp_path).wrong)

    return try_it


@pytest.mark.parametrize(
    ("source", "ending", "wrong"),
    [
        ("import signal; signal.pause()", CLEAN, "did not end"),
        ("raise SystemExit(5)", CLEAN, "exit code 5"),
        ("raise SystemExit(3)", REFUSED, "exit code 3"),
        ("import os; os.abort()", CLEAN, "exit code 134"),
        ("import os; os.mkdir(os.environ['TMPDIR'] + '/luf-abc')", CLEAN, "temporary luf-abc"),
        ("import os; os.makedirs('o/.0001.partial')", CLEAN, "half-written .0001.partial"),
        ("open('.g.json.7.partial', 'w')", CLEAN, "half-written .g.json.7.partial"),
        ("import os; os.mkdir('o')", CLEAN, "exit code 0 without a result"),
        (WRITES, CLEAN, "exit code 0 without a result"),
        ("raise SystemExit(130)", Ending(frozenset({130}), keeps=True), "a finished result is lost"),
        ("raise SystemExit(2)", Ending(frozenset({2}), prints=True),
         "the report of a finished run is not printed"),
        ("import sys; sys.stderr.write('luf: a\\nluf: b\\n'); sys.exit(2)", REFUSED, "2 sentences"),
        ("raise SystemExit(2)", REFUSED, "0 sentences"),
        ("1 / 0", Ending(frozenset({1})), "a traceback"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(tried, source, ending, wrong):
    """Whatever can be left, lost or said wrongly, once each, and nothing else of it."""
    assert wrong in tried(source, ending)


def test_a_process_that_is_left_is_found_and_ended(tried):
    """It has a session of its own and has lost its parent."""
    (wrong,) = tried(DAEMON)
    assert wrong.startswith("processes [")
    assert not os.path.exists(f"/proc/{wrong[11:-1]}/cwd")


@pytest.mark.parametrize(
    ("source", "ending"),
    [
        (RESULT, CLEAN),
        (RESULT + "raise SystemExit(130)", Ending(frozenset({130}), keeps=True)),
        ("import sys; sys.stderr.write('luf: a\\n'); sys.exit(2)", REFUSED),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Ending(frozenset({137}))),
        ("print('TLB shootdowns'); raise SystemExit(2)", Ending(frozenset({2}), prints=True)),
    ],
)
def test_what_is_right_is_no_fault(tried, source, ending):
    """A result, a refusal, a killed process, a report without its folder."""
    assert tried(source, ending) == []


def test_a_moment_is_reached_when_it_is_there(tried):
    """What is done is done when the program shows it, and never if it does not."""
    done = []

    def act(one) -> bool:
        reached = one.reaches(lambda one: "evaluations" in one.text())
        done.append(reached)
        if reached:
            os.kill(one.process.pid, 9)
        return reached

    shows = "import sys, signal; sys.stderr.write('1/9 evaluations'); sys.stderr.flush(); signal.pause()"
    assert tried(shows, Ending(frozenset({137})), act=act) == []
    assert tried("", act=act) == []
    assert done == [True, False]


def test_the_matrix_has_every_cell():
    """Each signal, process, moment and command; each name once; a disk that is full at each moment."""
    names = [case.name for case in cases()]
    assert Counter(names).most_common(1)[0][1] == 1
    assert len(names) > 300
    for word in SENT:
        for command in COMMANDS:
            assert {
                f"{word} {target} run {command}" for target in ("supervisor", "group", "cpu", "janitor")
            } <= {*names}
            assert {f"{word} group {moment} {command}" for moment in ("start", "audit", "report")} <= {*names}
    assert {f"disk full at {moment}: out" for moment in ("start", "run", "audit", "report")} <= {*names}
    assert set(SMALL_PART) <= {*names}


def test_a_small_part_of_the_matrix(capsys):
    """Nothing is left, lost or said wrongly."""
    with TemporaryDirectory(prefix="luf-", dir="/tmp") as base:  # pytest's is too long for sockets below it
        _nothing_is_at_fault(Path(base), capsys)


def _nothing_is_at_fault(base, capsys):
    chosen = [case for case in cases(os.getpid()) if case.name in SMALL_PART]
    found = faults.campaign(chosen, 2, base)
    assert [one.line() for one in found if one.wrong] == [], capsys.readouterr().out
    assert {one.skipped for one in found} <= {"", "skipped: needs root", faults.NO_MOMENT}
    assert sum(not one.skipped for one in found) >= len(SMALL_PART) - 3


def test_the_table_and_the_exit_code(monkeypatch, capsys):
    """A case at fault is shown with what was said, counted, and makes the exit code 1."""
    case = Case("TERM group run run", [], CLEAN)
    outcomes = {
        0: [faults.Outcome(case, 0)],
        1: [faults.Outcome(case, 5, ["exit code 5"], "", "luf: well\n")],
    }
    for code, outcome in outcomes.items():
        monkeypatch.setattr(faults, "cases", lambda number: [case])
        monkeypatch.setattr(faults, "tried", lambda case, base, outcome=outcome: outcome[0])
        assert faults.main([]) == code
        out = capsys.readouterr().out
        assert f"1 runs, {code} at fault, 0 skipped" in out
        assert ("    | luf: well\n" in out) == bool(code)


def test_another_user_may_read_and_not_more():
    """The command is put behind one that drops everything but the right to read."""
    assert another_user(["luf"])[-1] == "luf"
    assert replace(Case("x", [], CLEAN), luf=another_user(["luf"])).luf[0] == "setpriv"


def test_a_half_written_folder_of_a_killed_run_is_left_to_the_next(tmp_path, monkeypatch):
    """The next run is started, and what is still there after it is a fault."""
    made = "import os; os.makedirs('o/.0001.partial'); os.kill(os.getpid(), 9)"
    for sweeps, wrong in ((True, []), (False, ["half-written .0001.partial"])):
        nexts = f"import os, shutil; shutil.rmtree('o/.0001.partial') if {sweeps} else None"
        monkeypatch.setattr(faults, "COMMANDS", {"run": ["-c", nexts]})
        monkeypatch.setattr(program, "LUF", (sys.executable,))
        case = Case("planted", ["-c", made], Ending(frozenset({137}), swept=True), luf=(sys.executable,))
        assert list(faults.tried(case, tmp_path).wrong) == wrong
