"""A script of one's own runs from the command line, from Python and from TOML, under any design."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from allocator.panic import SEGV_MAPERR
from emulator import load_machine, run_design
from emulator.cli import main
from emulator.judge.bad_access import BadAccess, explained
from emulator.supervisor import Panicked
from emulator.verdict import BAD_INPUT, CLEAN
from workloads import Process, Region, Workload
from workloads.rows import LOAD, MUNMAP, ROW, control, visit

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
    options = [
        "--machine",
        "guest-8cpu",
        "--cpus",
        "2",
        "--leases",
        "1",
        "--out",
        str(tmp_path / "runs"),
        "--json",
        str(file),
    ]
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
    reported = capsys.readouterr().err
    rule = "'pages' must be a whole number from 1 to 16 from page 0 of region 'file' on (got 80)"
    assert reported == f"luf: {tmp_path}/mine.toml: script 'mine': process 'p' thread 0 step 2: {rule}\n"


def test_a_cpu_that_the_machine_has_not(tmp_path, capsys):
    """Said with script, process and thread: the machine is known after the script has been checked."""
    (tmp_path / "mine.toml").write_text(TOML.replace("[0, 1]", "[0, 77]"))
    options = ["--machine", "guest-8cpu", "--out", str(tmp_path / "runs")]
    assert main(["run", "linux", "--workload", f"{tmp_path}/mine.toml", *options]) == BAD_INPUT
    reported = capsys.readouterr().err.splitlines()[-1]
    assert (
        reported
        == "luf: workload 'mine': process 'p' thread 1: 'cpus' must be below the machine's 8 CPUs (got 77)"
    )


HEAP = '[[region]]\nname = "heap"\npages = 16\nwritable = true\n'
OTHER = '[[process]]\nname = "other"\nthreads = [[["load", "heap"], ["load", "heap"]]]\n'
UNMAPPED = '["store", "heap"], ["post", "x"], ["munmap", "heap", 8, 4]'
ACCESSES = {
    "load": (
        UNMAPPED + ', ["load", "heap", 4, 8]',
        "3: LOAD of page 8 of region 'heap' must name mapped pages, but nothing is mapped there",
    ),
    "pin": (
        UNMAPPED + ', ["direct_read", "data", "heap", 0, 2, 9]',
        "3: DIRECT_READ of page 9 of region 'heap' must name mapped pages, but nothing is mapped there",
    ),
    "rights": (
        '["mprotect", "heap", "PROT_READ"], ["store", "heap", 5]',
        "1: STORE of page 5 of region 'heap' must name pages whose rights allow it, but they do not",
    ),
}


@pytest.mark.parametrize("access", ACCESSES)
def test_an_access_that_a_process_would_be_killed_for_is_bad_input(access, tmp_path, capsys):
    """The kernel knows a page number alone; the message names process, thread, step, region and page. The
    thread is not the first one.
    """
    steps, said = ACCESSES[access]
    data = '[[region]]\nname = "data"\npages = 16\nfile = "data"\nshared = true\n'
    process = f'[[process]]\nname = "p"\nthreads = [[["nanosleep", 1], ["nanosleep", 1]], [{steps}]]\n'
    file = tmp_path / "mine.toml"
    file.write_text(HEAP + data + OTHER + process)
    options = ["--machine", "guest-8cpu", "--cpus", "2", "--leases", "1", "--out", str(tmp_path / "runs")]
    assert main(["run", "linux", "--workload", str(file), *options]) == BAD_INPUT
    reported = capsys.readouterr().err.splitlines()[-1]
    assert reported == f"luf: workload 'mine': process 'p' thread 1 step {said} (SIGSEGV)"


def rows_that_touch_what_they_unmapped(name):
    """Give a workload of rows, which no script has made."""
    rows = np.array([control(MUNMAP, region=0, page=1, pages=1), visit(LOAD, 0, 1)], ROW)
    return Workload(
        name, (Process("p", (Region("heap", 4, writable=True),), (rows,), together=True),), exact=True
    )


def test_rows_have_no_steps():
    """For rows the message names the row."""
    with pytest.raises(
        BadAccess,
        match=r"^workload 'mine': process 'p' thread 0 row 1: "
        r"LOAD of page 1 of region 'heap' must name mapped",
    ):
        run_design(
            "linux", load_machine("guest-8cpu", cpus=2), rows_that_touch_what_they_unmapped("mine"), leases=1
        )


@pytest.mark.parametrize(
    ("name", "task", "code"), [("churn:threads=2", 0, SEGV_MAPERR), ("mine", -1, SEGV_MAPERR), ("mine", 0, 0)]
)
def test_what_is_not_the_users_fault_stays_a_panic(name, task, code):
    """A workload that ships with luf, a kernel thread, any other panic: the emulator is wrong."""
    ram = SimpleNamespace(cpu_task=[task], user_tasks=1)
    panic = Panicked("cpu0: ...", 0, code, 0x10001, 1)
    assert explained(panic, ram, rows_that_touch_what_they_unmapped(name)) is panic
