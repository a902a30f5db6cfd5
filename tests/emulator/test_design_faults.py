"""What a hook does wrong at run time ends the run with a sentence: an exception and a crash in any run, what
only a check sees with check="bounds".
"""

from __future__ import annotations

import re

import pytest

from emulator import load_machine, run_design
from emulator.cli import main
from emulator.supervisor import DesignFault
from tests.emulator import faulty_designs
from tests.emulator.faulty_designs import faulty, line_of

WORKLOAD = "munmap-storm:threads=3,pages=4"
CPUS = 3


def run(name, **options):
    """One small run, one CPU at a time, of the design with this faulty hook."""
    machine = load_machine("guest-8cpu", scale=32, cpus=CPUS)
    design = faulty(getattr(faulty_designs, name))
    return run_design(design, machine, WORKLOAD, tokens=4, **({"leases": 1, "seed": 1} | options))


def fault(name, **options) -> str:
    """Run it, and give the sentence that it ends with."""
    with pytest.raises(DesignFault) as caught:
        run(name, **options)
    assert caught.value.design == name
    return str(caught.value)


def place(fault: str, function: str) -> str:
    return f"at {faulty_designs.__file__}:{line_of(fault)} ({function})"


CHECKED = {
    "far": ("far", "counted", r"index of 'ticks' must be from 0 to 2 \(got 100,00[0-2]\)"),
    "by_one": ("by one", "counted", r"index of 'ticks' must be from 0 to 2 \(got 3\)"),
    "negative": ("negative", "negative", r"column of 'table' must be from 0 to 1 \(got -1\)"),
    "of_a_row": ("of a row", "of_a_row", r"index of 'table' must be from 0 to 1 \(got 2\)"),
    "atomic": ("atomic", "atomic", r"index of 'zone_free' must be from 0 to 1 \(got 2\)"),
    "stranger": ("stranger", "stranger", r"pgfault\[[0-2]\] must be written by cpu[0-2] alone, its owner"),
    "zero": ("zero", "ratio", "ZeroDivisionError: integer division by zero"),
    "remainder": ("remainder", "remainder", "ZeroDivisionError: integer modulo by zero"),
}


@pytest.mark.parametrize("name", CHECKED)
def test_what_only_a_check_sees_is_found_with_its_line(name):
    """Hook, CPU, file, line, function; then field, index and size, or what was divided."""
    where, function, what = CHECKED[name]
    said = fault(name, check="bounds")
    assert re.fullmatch(rf"cpu[0-2] in hook tick {re.escape(place(where, function))}: {what}", said)


@pytest.mark.parametrize("name", ["by_one", "zero"])
def test_planted_nothing_is_found_without_the_check(name):
    """That is why the check is there: these runs end as if nothing were wrong, whatever was overwritten."""
    assert run(name).violations == []


def test_a_sound_design_is_clean_with_the_check():
    """The same counters as without: the check changes nothing else."""
    with_it, without = run("sound", check="bounds"), run("sound")
    assert with_it.clean
    assert with_it.fingerprint == without.fingerprint


@pytest.mark.parametrize("check", ["full", "bounds"])
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("claim", "AssertionError: this is not the first tick"),
        ("raising", r"ValueError: \('cpu', 10000[0-2]\)"),
    ],
)
def test_an_exception_in_a_hook_ends_any_run(name, what, check):
    """`assert` and `raise` work in hooks, with file and line."""
    said = fault(name, check=check)
    assert re.fullmatch(rf"cpu[0-2] in hook tick {re.escape(place(name, name))}: {what}", said)


def test_a_crash_names_hook_and_function():
    """A store to address 8: SIGSEGV, with the hook that the CPU was in and where its function stands."""
    code = faulty_designs.crash.function.__code__
    said = fault("crash")
    assert re.fullmatch(
        rf"cpu[0-2] crashed with SIGSEGV in hook tick \({code.co_filename}:{code.co_firstlineno} crash\)",
        said,
    )


DESIGN = """from designs.design import Design, hook
from designs.linux import Linux
from designs.design import replaced


@hook("tick")
def halve(ram, cpu, a, b, c, d):
    return cpu // a


class Mine(Linux):
    name = "mine"
    hooks = replaced(Linux.hooks, halve)
"""


def test_the_command_line_says_it_with_verdict_and_exit_code(tmp_path, monkeypatch, capsys):
    """Exit code 1: it is the design's doing, as a violation is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(DESIGN)
    small = f"--machine guest-8cpu --cpus 3 --scale 32 --workload {WORKLOAD} --tokens 4 --leases 1"
    assert main(["run", "mine.py:Mine", *small.split(), "--check", "bounds"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        rf"luf: the run was stopped: cpu\d in hook tick at {re.escape(str(tmp_path))}/mine.py:8 \(halve\): "
        "ZeroDivisionError: integer division by zero",
        said[-2],
    )
    assert said[-1] == "verdict             not clean, exit code 1: mine by the design's own code"
