"""States in whole runs: frames that a design exposes are told with a proof though no access went wrong, data
that are lost are found, and neither is said of a design that is right.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator import run_design
from emulator.findings import EXPOSED
from emulator.machine import load_machine
from emulator.report.proof import violation_text
from emulator.report.text import render
from emulator.result import compare, from_json, to_json
from emulator.verdict import of_comparison
from workloads import Region, Script

SMALL = {"nodes.0.memory_mib": 8, "nodes.1.memory_mib": 16}
STORED, COLD = 64, 7000


def machine(cpus: int = 3):
    return load_machine("guest-8cpu", cpus=cpus, overrides=SMALL)


def once_read(pages: int = 40):
    """A thread reads some pages once, and then waits while another one reads so much else that they are
    reclaimed: nobody ever uses an old translation.
    """

    def reader(t):
        yield [t.load("few"), t.post("read"), t.spin("done")]

    def other(t):
        yield [t.wait("read"), t.load("many"), t.load("many"), t.post("done")]

    regions = [Region("few", pages, file="few"), Region("many", COLD, file="many")]
    return Script("once", regions=regions).process("main", [reader, other], cpus=[0, 1]).workload()


def freed_lazily():
    """A thread frees its heap lazily; the other one, told, stores to it: these stores must survive. Then
    memory gets tight, and both read.
    """

    def frees(t):
        yield [t.store("heap"), t.meet("stored", 2), t.madvise("heap", "MADV_FREE"), t.meet("freed", 2)]
        yield [t.meet("again", 2), t.load("cold"), t.load("cold"), t.load("heap"), t.meet("read", 2)]

    def stores(t):
        yield [t.store("heap"), t.meet("stored", 2), t.meet("freed", 2), t.store("heap"), t.meet("again", 2)]
        yield [t.meet("read", 2), t.load("heap")]

    regions = [Region("heap", STORED, writable=True), Region("cold", COLD, file="cold", shared=True)]
    return Script("freed", regions=regions).process("main", [frees, stores], cpus=[0, 1]).workload()


@pytest.fixture(scope="module")
def exposed():
    return run_design("none", machine(), once_read(), leases=1, seed=1)


def test_a_frame_that_is_given_away_unflushed_is_found_though_nobody_reads(exposed):
    assert exposed.exposures > 0
    assert {violation["kind"] for violation in exposed.violations} == {EXPOSED}
    assert not exposed.accessed_wrongly
    assert exposed.blamed_by == {"the oracle": f"{exposed.exposures:,} exposures"}
    assert not exposed.clean
    assert exposed.accounted, "the run went on to its end"


def test_the_proof_names_the_cpu_its_entry_who_took_it_away_and_what_was_missing(exposed):
    first = exposed.violations[0]
    said = violation_text({"design": "none", "seed": 1, **first}, first["events"])
    frame = first["frame"]
    assert "VIOLATION  exposed: cpu0 could use memory that is about to belong to somebody else" in said
    assert f"cpu0 has 0x{first['address']:_x} (file few, page" in said
    assert "in a TLB entry filled at" in said
    assert "and would use it: it has mm 1 loaded, and runs in it" in said
    assert f"unmap frame {frame} from mm 1" in said
    assert f"hand out frame {frame}" in said
    assert f"cpu0 should have been flushed before frame {frame} was handed out." in said
    assert "cpu0 did not flush this page after that unmap." in said


def test_the_screen_tells_exposures_from_accesses(exposed):
    screen = render(compare([exposed])).plain
    assert f"none: exposed {exposed.exposures:,} times" in screen
    assert "violation" not in screen.partition("VIOLATION")[0]
    assert of_comparison(compare([exposed])).code == 1


def test_a_result_with_exposures_is_written_and_read(exposed):
    again = from_json(to_json(compare([exposed]))).runs[0]
    assert (again.exposures, again.violations) == (exposed.exposures, exposed.violations)


@pytest.mark.parametrize("design", ["linux", "luf", "epoch"])
@pytest.mark.parametrize("workload", [once_read, freed_lazily])
def test_a_design_that_flushes_in_time_exposes_and_loses_nothing(design, workload):
    result = run_design(design, machine(), workload(), leases=1, seed=1)
    assert (result.clean, result.exposures) == (True, 0)


def test_a_later_store_that_reclaim_drops_is_lost_data():
    """Nobody flushes the entry through which it goes, so it leaves no dirty bit."""
    result = run_design("none:what=user", machine(), freed_lazily(), leases=1, seed=1)
    assert [violation["kind"] for violation in result.violations] == ["lost data"]
    lost = result.violations[0]
    assert lost["expected"].startswith("anon heap of main, page")
    assert lost["page"] == 0x10000 + int(lost["expected"].split("page ")[1].split(",")[0])


def test_states_alone_are_judged_with_check_states():
    workload = once_read()
    result = run_design("none", machine(), workload, leases=1, seed=1, check="states")
    assert result.exposures > 0
    off = run_design("none", machine(), workload, leases=1, seed=1, check="off")
    assert (off.exposures, off.clean) == (0, True)
    said = of_comparison(compare([run_design("linux", machine(), workload, leases=1, check="states")])).said
    assert "the oracle did not judge accesses of linux" in said


def test_the_case_of_a_user_is_found():
    """The same as a file: a heap freed lazily by one thread and used by another one, ten times over."""
    case = Path(__file__).with_name("madv_free.toml")
    result = run_design("none:what=user", machine(), str(case), leases=1, seed=1)
    assert "lost data" in {violation["kind"] for violation in result.violations}
