"""An experiment is sent to a process that has none of its files, and does there what it does here."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from designs.design import Design, DesignError
from designs.luf.luf import Luf
from designs.shelf import ready
from emulator.experiment import Experiment
from emulator.machine import load_machine

ROOT = Path(__file__).parents[2]
DESIGN = """
import numpy as np

from designs.linux import Linux
from helper import NAME
from parts.inner import ROUNDS


class Mine(Linux):
    \"\"\"Vanilla, under another name.\"\"\"

    name = NAME
    parameters = {"speed": {"slow": "as ever", "fast": "at once"}}

    def statistics(self, ram):
        return {"rounds": ROUNDS, "speed": self.chosen["speed"], "own": getattr(self, "own", 0)}
"""
FILES = {
    "mine.py": DESIGN,
    "helper.py": 'NAME = "mine"\n',
    "parts/__init__.py": "",
    "parts/inner.py": "from .deep import ROUNDS\n",
    "parts/deep.py": "ROUNDS = 7\n",
    "other.py": "ignored = True\n",
}
PROGRAM = """
import pickle, sys
result = pickle.loads(open(sys.argv[1], "rb").read()).run()
print(result.design, result.clean, result.design_stats, result.fingerprint)
"""


@pytest.fixture
def here(tmp_path):
    """A folder with a user's design, of several files, and a script."""
    folder = tmp_path / "here"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "script.toml").write_text((ROOT / "examples" / "written.toml").read_text())
    return folder


def _elsewhere(sent: Experiment, tmp_path: Path) -> str:
    """Run what was sent in a fresh process, in a folder without its files."""
    there = tmp_path / "there"
    there.mkdir()
    (there / "sent").write_bytes(pickle.dumps(sent))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "sent"],
        cwd=there,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip()


def test_a_users_design_and_workload_run_where_their_files_are_not(here, tmp_path):
    """By value: the modules beside the design, its parameters, what its object holds, the workload; the files
    are gone, the fingerprint is the same.
    """
    design = ready(f"{here}/mine.py:Mine:speed=fast").design
    design.own = 5
    machine = load_machine("guest-8cpu", overrides={"costs.ipi_latency": 900})
    sent = Experiment(design, machine, f"{here}/script.toml", leases=1, seed=3)
    result = sent.run()
    for file in [path for path in here.rglob("*") if path.is_file()]:
        file.unlink()
    figures = {"rounds": 7, "speed": "fast", "own": 5}
    assert result.design_stats == figures
    assert _elsewhere(sent, tmp_path) == f"mine:speed=fast True {figures} {result.fingerprint}"


def test_what_a_design_imports_goes_with_it_and_nothing_else(here):
    """The text is that of the moment when the object was made."""
    made = ready(f"{here}/mine.py:Mine")
    (here / "helper.py").write_text('NAME = "changed"\n')
    assert made._code[1] == {name: text for name, text in FILES.items() if name != "other.py"}
    again = pickle.loads(pickle.dumps(made))
    assert (again.name, again.design.parameters) == ("mine", made.design.parameters)


def test_two_designs_with_a_helper_of_one_name_have_each_their_own(here, tmp_path):
    """In one process, one after the other: the second is not given the first one's module."""
    assert ready(f"{here}/mine.py:Mine").name == "mine"
    other = tmp_path / "other"
    for name, text in FILES.items():
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_text(text)
    (other / "helper.py").write_text('NAME = "another"\n')
    assert ready(f"{other}/mine.py:Mine").name == "another"


def test_a_design_of_the_shelf_goes_by_its_name(tmp_path):
    """As an object too; there is no text to send."""
    sent = ready(Luf(sync="each"))
    assert (sent._code[1], pickle.loads(pickle.dumps(sent)).name) == ({}, "luf:sync=each")


def test_what_cannot_be_sent_is_refused_when_it_is_sent(here):
    """A class of a notebook, or inside a function; an object that holds what does not pickle."""

    class Local(Design):
        name = "local"

    with pytest.raises(DesignError, match="'design' must be a class at the top of a file to be sent"):
        pickle.dumps(ready(Local()))
    design = ready(f"{here}/mine.py:Mine").design
    design.own = lambda: 0
    with pytest.raises(DesignError, match="'Mine' must be made of its parameters and hold what pickles"):
        pickle.dumps(ready(design))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"design": "lfu"}, "'design' must be one of .* did you mean 'luf'"),
        ({"design": "no.py:Mine"}, "there is no file 'no.py'"),
        ({"design": 3}, "'design' must be a name, FILE.py:CLASS or an object"),
        ({"workload": "no.toml"}, "no.toml"),
        ({"leases": 99}, "'leases' must be a whole number from 0 to"),
        ({"memory": 0.001}, "'memory' must be a number from 0.01"),
        ({"check": "maybe"}, "'check' must be one of full, accesses, states, bounds, off"),
        ({"debug_luf": True}, "'--debug-luf' looks at LUF's keys"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(changes, sentence):
    """When the experiment is described."""
    given = {"design": "linux", "machine": load_machine("guest-8cpu"), "workload": "tiny8"} | changes
    with pytest.raises((ValueError, OSError), match=sentence):
        Experiment(**given)


def test_memory_scales_the_machine_and_says_so():
    """The same from Python as from the command line; the workload is that of the machine's own scale."""
    machine = load_machine("xeon6430-cxl", scale=1024, cpus=4)
    one = Experiment("linux", machine, "llama3x15", memory=3.0).sized()
    pages = one.workload.working_set_pages()
    assert sum(one.machine.pages) == pytest.approx(3 * pages, rel=0.01)
    assert one.memory_text == "memory 300 %: of the working set of the workload at scale 1/1024"
    assert one.sized() == one
