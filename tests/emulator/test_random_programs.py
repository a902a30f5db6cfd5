"""Random programs of all calls under every design: oracle and audit have nothing to say. A small part of the
campaign (tests/campaigns/programs.py), which also says where it comes from.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cpus.abi.row_kinds import ROW_KINDS
from emulator import load_machine
from tests.campaigns.programs import all_designs
from tests.support.program import Part, Program, generated, run, shrunk
from tests.support.random_programs import random_program
from tests.support.random_rows import random_rows
from workloads import Region
from workloads.script_toml import script_from_toml

SEED = 1
FEW, MANY = 4, 24


def found(design, count, make=random_program, seed=SEED):
    """Give what is wrong with so many programs."""
    findings = []

    def look(program):
        finding = run(program, design)
        if finding:
            findings.append(f"{finding.kind}\n{finding.text}\n{program.workload_toml()}")

    generated(make, look, seed, count)
    return findings


def made(count, make=random_program):
    """Give so many programs."""
    programs = []
    generated(make, lambda program: programs.append(program), SEED, count)
    return programs


@pytest.mark.parametrize("design", all_designs())
def test_programs_of_calls_are_clean(design):
    """What linux does is right by definition, and every design must give programs the same."""
    assert found(design, MANY if design == "linux" else FEW) == []


def test_programs_of_rows_are_clean():
    assert found("linux", FEW, random_rows) == []


def test_who_never_flushes_after_reclaim_is_caught():
    """The programs are no vacuous test: there is pressure, and somebody uses what was taken away."""
    kinds = [finding.partition("\n")[0] for finding in found("none", MANY)]
    assert kinds.count("violation reuse") >= 3


def test_every_kind_of_row_is_made():
    """By scripts or as rows."""
    ops: Counter[int] = Counter()
    for program in [*made(150), *made(40, random_rows)]:
        for process in program.workload().processes:
            for rows in (*process.threads, process.chunk_rows):
                ops.update(rows["op"].tolist())
    assert {kind.name for number, kind in ROW_KINDS.items() if not ops[number]} == set()


def test_what_is_written_as_toml_is_the_same_program(tmp_path):
    """The same rows and the same machine, so that `luf run` shows what the campaign saw."""
    for number, program in enumerate(made(20)):
        program.keep(tmp_path, str(number), "linux")
        read = script_from_toml(tmp_path / f"{number}.toml").workload()
        for one, other in zip(program.workload().processes, read.processes, strict=True):
            assert (one.regions, one.cpus, one.forked) == (other.regions, other.cpus, other.forked)
            for rows, again in zip(one.threads, other.threads, strict=True):
                assert np.array_equal(rows, again)
        machine, again = program.machine(), load_machine(tmp_path / f"{number}-machine.toml", scale=None)
        for what in ("cpus", "pages", "watermarks", "zones", "sysctl", "costs", "tlb", "distances", "scale"):
            assert getattr(machine, what) == getattr(again, what)


NOISE = (("load", "heap", 0, 4), ("nanosleep", 5), ("madvise", "heap", "MADV_COLD"))


def test_a_finding_is_shrunk_to_what_shows_it():
    """Two mappings of one call are refused; all else goes, and what is left shows the same."""
    rights = (("mprotect", "heap", 1, 4, 4), ("mremap", "heap", "room", 0, 8))
    regions = (Region("heap", 16, writable=True), Region("room", 16, writable=True, mapped=False))
    busy = Part("busy", regions, ((NOISE, NOISE),))
    both = Part("both", regions, (((*NOISE, rights[0], *NOISE), (*NOISE, rights[1], *NOISE)),))
    program = Program((busy, both), "guest-8cpu", 2)
    finding = run(program, "linux")
    assert finding
    assert finding.kind.startswith("BadAccess")
    smaller = shrunk(program, finding, "linux")
    kept = [
        step[0] for part in smaller.parts for thread in part.threads for phase in thread for step in phase
    ]
    assert kept == ["mprotect", "mremap"], "without what changes mappings a program may be stopped rightly"
    again = run(smaller, "linux")
    assert again
    assert again.kind == finding.kind
