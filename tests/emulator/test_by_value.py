"""An experiment is sent to a process that has none of its files, and does there what it does here."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.by_value import experiment_of
from emulator.machine import load_machine

ROOT = Path(__file__).parents[2]
DESIGN = """
from designs.linux import Linux


class Mine(Linux):
    \"\"\"Vanilla, under another name.\"\"\"

    name = "mine"
"""
PROGRAM = """
import pickle, sys
result = pickle.loads(open(sys.argv[1], "rb").read()).run()
print(result.design, result.clean, result.fingerprint)
"""


def test_a_users_design_and_workload_run_where_their_files_are_not(tmp_path):
    """By value: a fresh process, in a folder without the files, which are gone; the same fingerprint."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "mine.py").write_text(DESIGN)
    (here / "script.toml").write_text((ROOT / "examples" / "written.toml").read_text())
    machine = load_machine("guest-8cpu", overrides={"costs.ipi_latency": 900})
    sent = experiment_of(f"{here}/mine.py:Mine", machine, f"{here}/script.toml", leases=1, seed=3)
    result = sent.run()
    (there / "sent").write_bytes(pickle.dumps(sent))
    for file in here.iterdir():
        file.unlink()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, "sent"]
    done = subprocess.run(
        command, cwd=there, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["mine", "True", result.fingerprint]


def test_what_cannot_be_sent_is_refused(tmp_path):
    """In a sentence, before anything is sent."""
    machine = load_machine("guest-8cpu")
    with pytest.raises(ValueError, match="'observe' must be left to run_design"):
        experiment_of("linux", machine, "tiny8", observe=print)
    with pytest.raises(ValueError, match="'design file' must exist"):
        experiment_of(f"{tmp_path}/no.py:Mine", machine, "tiny8")
    with pytest.raises(ValueError, match="'design' must be one of"):
        experiment_of("lfu", machine, "tiny8")
