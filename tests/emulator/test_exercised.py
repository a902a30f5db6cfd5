"""What "no violation" is worth: the rare branches that a run has taken stand beside it."""

from __future__ import annotations

import pytest

from cpus.declare import EXERCISED, OURS, Counter
from designs.design import DesignError
from designs.linux import Linux
from designs.memory_map import MACHINE
from emulator import run_design
from emulator.exercised import added, exercised, never, sentence, unproven, warning
from emulator.machine import load_machine
from emulator.report.text import report_text
from emulator.result import Comparison, compare
from tests.emulator.fixed import run
from workloads import Region, Script

COUNTERS = (Counter("rare", EXERCISED, ""), Counter("rarer", EXERCISED, ""), Counter("often", OURS, ""))
TOTAL = {"rare": 3, "rarer": 0, "often": 9}


def test_branches_are_those_of_the_kernel_and_what_the_design_names():
    taken = exercised(COUNTERS, TOTAL, ("often", "waits"), {"waits": 0})
    assert taken == {"rare": 3, "rarer": 0, "often": 9, "waits": 0}
    assert never(taken) == ["rarer", "waits"]
    assert unproven(taken, ("often", "waits")) == ["waits"]
    assert sentence(taken) == "2 of 4 rare branches; never: rarer, waits"
    assert warning(taken, ("often", "waits")) == "its safety relies on what never happened here: waits"
    assert warning(taken, ("often",)) == ""


def test_several_runs_are_added_up():
    assert added([{"rare": 1, "rarer": 0}, {"rare": 2}]) == {"rare": 3, "rarer": 0}


def test_a_long_list_is_cut_on_the_screen():
    assert sentence({f"b{i}": 0 for i in range(9)}).endswith("never: b0, b1, b2, b3, b4, b5 and 3 more")


@pytest.mark.parametrize("figures", [{}, {"waits": "many"}, {"waits": True}, {"waits": -1}])
def test_what_a_design_relies_on_must_be_counted(figures):
    with pytest.raises(DesignError, match=r"'relies_on' must name counters, .* \(got 'waits'\)"):
        exercised(COUNTERS, TOTAL, ("waits",), figures)


def test_every_shipped_design_relies_on_what_is_declared():
    declared = {counter.name for counter in MACHINE.counters}
    assert set(Linux.relies_on) <= declared


def unmapped(reclaims: bool):
    """A script whose second thread still has what the first has had reclaimed, and then unmaps."""

    def main(t):
        yield [t.load("file"), t.post("mapped"), t.spin("used")]
        yield [t.madvise("file", "MADV_PAGEOUT") if reclaims else [], t.munmap("file"), t.post("over")]

    def other(t):
        yield [t.spin("mapped"), t.load("file"), t.post("used"), t.spin("over")]

    script = Script("unmapped", regions=[Region("file", 16, file="file")])
    return script.process("main", [main, other], cpus=[0, 1]).workload()


@pytest.mark.parametrize("reclaims", [True, False])
def test_a_run_says_whether_it_took_a_branch(reclaims):
    """What is pending is completed by munmap; where nothing was reclaimed that says nothing."""
    machine = load_machine("guest-8cpu", cpus=2, overrides={"nodes.0.memory_mib": 8, "nodes.1.memory_mib": 8})
    result = run_design("linux", machine, unmapped(reclaims), leases=1)
    assert result.clean
    assert (result.exercised["pending_completed"] > 0) is reclaims
    missing = result.relies_on if not reclaims else [n for n in result.relies_on if n != "pending_completed"]
    assert unproven(result.exercised, result.relies_on) == missing
    screen = report_text(compare([result]))
    assert f"exercised           linux: {sentence(result.exercised)[:20]}" in screen
    assert "relies on what never happened here" in screen


class Boastful(Linux):
    """relies on what nobody counts"""

    name = "boastful"
    relies_on = ("luck",)


def test_a_design_that_relies_on_what_nobody_counts_is_found_fault_with():
    machine = load_machine("guest-8cpu", cpus=2, overrides={"nodes.0.memory_mib": 8, "nodes.1.memory_mib": 8})
    with pytest.raises(DesignError, match=r"'relies_on' must name counters, .* \(got 'luck'\)"):
        run_design(Boastful(), machine, unmapped(True), leases=1)


def screen(**changes) -> str:
    comparison: Comparison = compare([run("linux", **changes)])
    return report_text(comparison)


def test_the_screen_says_it_beside_the_verdict_and_warns():
    taken = {"rare": 3, "rarer": 0}
    assert "exercised           linux: 1 of 2 rare branches; never: rarer" in screen(exercised=taken)
    assert "relies on" not in screen(exercised=taken, relies_on=["rare"])
    assert "linux: its safety relies on what never happened here: rarer" in screen(
        exercised=taken, relies_on=["rarer"]
    )
    assert "exercised" not in screen(), "a result of an older luf"
