"""Each planted bug applies to the sources as they are, once, and leaves a file that can be compiled."""

from __future__ import annotations

import subprocess
import sys

import pytest

from designs import design
from tests.planted.bugs import PROMISES, Bug, Change, all_bugs, plant

BUGS = all_bugs()


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_applies(name):
    """So that an edit which takes its text away is noticed at once, and not by a campaign that finds less."""
    bug = BUGS[name]
    assert all(bug.sources().values())
    assert bug.breaks in PROMISES
    assert design(bug.design).name == bug.design
    assert len(bug.wrong) < 200
    assert not bug.wrong.endswith(".")


def test_names_that_a_bug_leaves_undefined_are_none(tmp_path):
    """A bug that only ends the run with a NameError is none: all changed files, looked at by ruff."""
    for name, bug in BUGS.items():
        for file, text in bug.sources().items():
            changed = tmp_path / name / file.replace("/", "_")
            changed.parent.mkdir(exist_ok=True)
            changed.write_text(text)
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821,F823,E9", str(tmp_path)]
    looked = subprocess.run(ruff, capture_output=True, text=True, check=False)
    assert looked.returncode == 0, looked.stdout


def test_enough_of_each_kind():
    """The campaign asks for forty designs and forty engines; Linux's own come on top."""
    kinds = [bug.kind for bug in BUGS.values()]
    assert min(kinds.count("design"), kinds.count("engine")) >= 40
    assert kinds.count("historic") == 8
    changes = [bug.changes for bug in BUGS.values()]
    assert len(set(changes)) == len(changes), "two bugs are the same"


@pytest.mark.parametrize("old, found", [("x = 3\n", 0), ("x", 2)])
def test_a_bug_whose_text_was_edited_is_named(tmp_path, old, found):
    """Text that is there no more, or twice: the sentence names bug and file."""
    (tmp_path / "file.py").write_text("x = 1\ny = x\n")
    bug = Bug("planted-too-early", "", "D", "linux", (Change("file.py", old, "pass"),))
    with pytest.raises(ValueError, match=f"planted-too-early: .* file.py once .* {found} times"):
        bug.sources(tmp_path)


def test_a_planted_copy_is_what_runs(tmp_path):
    """Python imports the copy's changed file, and everything else from the copy too."""
    bug = BUGS["luf-compares-stamps-without-wrap"]
    folder = plant(bug, tmp_path / "copy")
    program = (
        "import designs.luf.ugen as ugen, cpus.ram as ram\n"
        "print(ugen.__file__, ram.__file__, ugen.before(-1, 1), sep='\\n')"
    )
    environment = {"PYTHONPATH": str(folder), "NUMBA_DISABLE_JIT": "1", "PATH": ""}
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    ugen, ram, before = ran.stdout.split()
    assert [ugen, ram] == [str(folder / "designs/luf/ugen.py"), str(folder / "cpus/ram.py")]
    assert before == "True"
