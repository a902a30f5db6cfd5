"""`luf litmus`: outcomes are counted, a run without what its test needs is void, and the exit code says if
something forbidden was seen.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.cli import main
from emulator.litmus.machine import machine_of
from emulator.litmus.run import experiment_of, run_tests
from emulator.litmus.verdict import ALLOWED, FORBIDDEN, VOID, Run, Tally, Verdict, judge
from emulator.verdict import BAD_INPUT, CLEAN, DIRTY
from workloads.litmus.family import family_of
from workloads.litmus.sheet import LitmusError

MUTANTS = Path(__file__).with_name("litmus_mutants.py")
ROWS = "region: m 4 writable\np @0 | p @1\nstore m | load m"


def made(heads="", rows=ROWS):
    return next(family_of("my.litmus", "my", heads + rows).members())


@pytest.mark.parametrize(
    ("heads", "run", "verdict"),
    [
        ("", Run({}), Verdict(ALLOWED, "")),
        ("", Run({}, ("reuse", "reuse")), Verdict(FORBIDDEN, "reuse")),
        ("", Run({}, (), "deadlock"), Verdict(FORBIDDEN, "deadlock")),
        ("", Run({}, (), "out of memory", small=True), Verdict(VOID, "out of memory")),
        ("needs: a > 0, b > 1\n", Run({"a": 1, "b": 1}), Verdict(VOID, "not b > 1")),
        ("needs: a > 0\n", Run({"a": 0}, ("reuse",)), Verdict(FORBIDDEN, "reuse")),
        ("needs: luf.a > 0\n", Run({"a": 0}), Verdict(ALLOWED, "")),
        ("forbidden: a > 2\n", Run({"a": 3}), Verdict(FORBIDDEN, "a > 2")),
        ("forbidden: a > 2\n", Run({"a": 2}), Verdict(ALLOWED, "")),
    ],
)
def test_a_run_is_allowed_forbidden_or_void(heads, run, verdict):
    """A violation that was reported has happened: then nothing else is needed."""
    assert judge(made(heads), run) == verdict


def test_a_tally_says_how_often_what_was_seen():
    """What must be possible and was never seen is as bad as what is forbidden."""
    tally = Tally("my", "luf", "", list(made("possible: a > 0, b > 0\n").possible))
    for count in range(1000):
        tally.add(
            Verdict(VOID, "not c > 0") if count % 100 == 0 else Verdict(ALLOWED, ""), Run({"a": 1, "b": 0})
        )
    assert tally.is_bad
    assert tally.line() == "0 of 1,000 forbidden, 10 void, never b > 0: not c > 0 (10)"
    tally.add(Verdict(FORBIDDEN, "reuse"), Run({"a": 0, "b": 1}))
    assert tally.line() == "1 of 1,001 forbidden, 10 void: reuse (1); not c > 0 (10)"
    assert tally.is_bad
    assert not tally.is_void


def test_a_test_says_what_machine_it_runs_on():
    """Pages are those that programs can have; the command line may change it further."""
    machine = machine_of(made("machine: cpus = 3, memory = 600 + 512, tlb.pcid = false\n"))
    assert (machine.cpus, machine.tlb.pcid, machine.cpu_nodes) == (3, False, [0, 0, 0])
    assert [zone.usable_pages for zone in machine.zones] == [600, 512]
    assert machine_of(made("machine: sockets = 512 + 512\n")).cpu_nodes == [0, 0, 1, 1]
    assert machine_of(made(), cpus=7, overrides={"tlb.asid_slots": 2}).tlb.asid_slots == 2
    for heads, message in (
        (
            "machine: memory = 100\n",
            "my.litmus: 'memory' must be from 512 to 1,048,576 pages a node (got 100)",
        ),
        ("machine: sysctl.swapiness = 1\n", "my.litmus: litmus.toml: 'sysctl.swapiness' is not a key"),
    ):
        with pytest.raises(LitmusError) as refused:
            machine_of(made(heads))
        assert message in str(refused.value)


def test_a_counter_that_is_not_there_is_refused():
    test = made("needs: pgfaults > 0\n")
    with pytest.raises(LitmusError, match="must be a counter of the kernel"):
        list(run_tests([(test, experiment_of(test, "linux"))], 1, 1, [0], lambda one: Run({"pgfault": 1})))


def test_the_command_counts_outcomes(tmp_path, capsys):
    """One line for each test and design; exit code 1 if something forbidden was seen."""
    file = tmp_path / "my.litmus"
    file.write_text("about: it.\nneeds: pgfault > 0\n" + ROWS, encoding="utf-8")

    def emulate(one):
        wrong = one.design.name == "none" and one.seed % 2 == 0
        return Run({"pgfault": 0 if one.seed == 3 else 1}, ("reuse",) if wrong else ())

    command = ["litmus", str(file), "--runs", "9", "--designs"]
    assert main([*command, "linux"], emulate=emulate) == CLEAN
    assert "my  linux       0 of 9 forbidden, 1 void: not pgfault > 0 (1)" in capsys.readouterr().out
    assert main([*command, "linux", "none"], emulate=emulate) == DIRTY
    out = capsys.readouterr().out
    assert "my  none        4 of 9 forbidden, 1 void: reuse (4); not pgfault > 0 (1)" in out
    assert "18 runs of 2 pairs of test and design: 1 with a forbidden outcome\n" in out
    assert main(["litmus", "nosuch"], emulate=emulate) == BAD_INPUT
    assert main(["litmus", "--list"]) == CLEAN
    assert "munmap:pages=16" in capsys.readouterr().out


def test_a_test_runs_on_the_emulator(capsys):
    """A design that interrupts nobody for the user is caught by a test that is clean under Linux."""
    command = ["litmus", "munmap:pages=16,access=try_load", "--runs", "2", "--designs"]
    assert main([*command, "linux"]) == CLEAN
    assert main([*command, f"{MUTANTS}:Spare:site=user"]) == DIRTY
    assert "2 of 2 forbidden: access after completion (2)" in capsys.readouterr().out


def test_a_test_is_a_workload_of_luf_run(tmp_path, capsys):
    """On its own machine, unless another one is asked for."""
    command = [
        "run",
        "linux",
        "--leases",
        "1",
        "--out",
        str(tmp_path),
        "--workload",
        "munmap.litmus:pages=16",
    ]
    assert main(command) == CLEAN
    assert capsys.readouterr().out.split()[:4] == ["machine", "litmus", "3", "CPUs,"]
