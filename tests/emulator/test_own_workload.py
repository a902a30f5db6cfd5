"""A script of one's own runs from the command line, from Python and from TOML, under any design."""

from __future__ import annotations

import json

from emulator.cli import BAD_INPUT, CLEAN, main

PYTHON = """
from workloads import Region, Script

def reader(t):
    yield [t.load("file"), t.meet("read", 2), t.munmap("file", 0, 8)]

def idle(t):
    yield t.meet("read", 2)

def mine(pages=16):
    regions = [Region("file", pages, file="data", shared=True)]
    return Script("mine", "two threads, a file", regions).process("p", [reader, idle], cpus=[0, 1])
"""
TOML = """
name = "mine"
description = "two threads, a file"
[[region]]
name = "file"
pages = 16
file = "data"
shared = true
[[process]]
name = "p"
cpus = [0, 1]
threads = [[["load", "file"], ["meet", "read", 2], ["munmap", "file", 0, 8]], [["meet", "read", 2]]]
"""


def ran(tmp_path, workload):
    """Run it, and give what is in the JSON."""
    file = tmp_path / "result.json"
    options = ["--machine", "guest-8cpu", "--cpus", "2", "--leases", "1", "--out", str(tmp_path / "runs"), "--json", str(file)]
    assert main(["run", "linux", "--workload", workload, *options]) == CLEAN
    (run,) = json.loads(file.read_text())["runs"]
    return run


def test_python_and_toml_run_alike(tmp_path):
    """Same program, same seed: the same run, event by event."""
    (tmp_path / "mine.py").write_text(PYTHON)
    (tmp_path / "mine.toml").write_text(TOML)
    one, two = ran(tmp_path, f"{tmp_path}/mine.py:mine"), ran(tmp_path, f"{tmp_path}/mine.toml")
    assert (one["workload"], one["workload_text"]) == ("mine", "two threads, a file")
    assert one["fingerprint"] == two["fingerprint"]


def test_a_mistake_is_one_sentence_and_bad_input(tmp_path, capsys):
    (tmp_path / "mine.toml").write_text(TOML.replace("0, 8", "0, 80"))
    options = ["--machine", "guest-8cpu", "--out", str(tmp_path / "runs")]
    assert main(["run", "linux", "--workload", f"{tmp_path}/mine.toml", *options]) == BAD_INPUT
    told = capsys.readouterr().err
    rule = "'pages' must be a whole number from 1 to 16 from page 0 of region 'file' on (got 80)"
    assert told == f"luf: {tmp_path}/mine.toml: script 'mine': process 'p' thread 0 step 2: {rule}\n"
