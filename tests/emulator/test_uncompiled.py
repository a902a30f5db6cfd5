"""NUMBA_DISABLE_JIT=1: whole runs of several CPUs as plain Python, under one lease."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emulator import load_machine, run_design
from tests.emulator.faulty_designs import faulty, looking

ROOT = Path(__file__).parents[2]
SCENARIOS = {  # design, workload, tokens
    "contended": ("luf", "munmap-storm:threads=4,pages=16", 2),
    "whole": ("linux", "churn:threads=3,pages=300", 1),
}


def scenario(name):
    """Run it; gives the fingerprint and what says that the run was worth it."""
    design, workload, tokens = SCENARIOS[name]
    machine = load_machine("guest-8cpu", scale=32, cpus=4)
    result = run_design(design, machine, workload, tokens=tokens, leases=1, seed=1)
    waits = sum(result.counters["lock_waits"])
    return [result.fingerprint, result.clean, waits, result.ipi.executed]


def looked_at():
    """Run a design that stops at a breakpoint in its first tick."""
    machine = load_machine("guest-8cpu", scale=32, cpus=3)
    run_design(faulty(looking), machine, "munmap-storm:threads=3,pages=4", tokens=4, leases=1, seed=1)


def plain(code, **options):
    """Run code of this module in a process without the JIT."""
    return subprocess.run(
        [sys.executable, "-c", f"import json; from tests.emulator import test_uncompiled as t; {code}"],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


@pytest.mark.parametrize("name", SCENARIOS)
def test_plain_python_does_what_compiled_code_does(name):
    """The same events, counters, clocks and hand-overs, to the last bit; with locks that CPUs wait for, and
    interrupts.
    """
    done = plain(f"print(json.dumps(t.scenario({name!r})))")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    _, clean, waits, executed = found
    assert clean
    assert executed > 50
    assert waits > 0 or name != "contended"
    assert found == scenario(name)


def test_several_cpus_at_a_time_are_refused():
    """Exit code 2 and a sentence: plain Python has no atomic operations."""
    for leases in (0, 2):
        done = plain(
            f"from emulator.cli import main; raise SystemExit(main(['run', 'linux', '--leases', '{leases}']))"
        )
        assert done.returncode == 2
        assert "'leases' must be 1 while NUMBA_DISABLE_JIT=1 is set" in done.stderr
        assert f"(got {leases})" in done.stderr


def test_pdb_has_the_terminal():
    """`breakpoint()` in a hook: commands come from the run's input, and answers go to its output."""
    done = plain("t.looked_at()", input="p 'cpu', cpu + 100\nc\nc\nc\nc\nc\nc\n")
    assert "-> state_of(ram).ticks[cpu] += 1" in done.stdout
    assert "('cpu', 10" in done.stdout
