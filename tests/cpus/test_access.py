"""The access loop: what it counts, what it charges, when it returns."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cpus.abi.numbers import IFETCH, LOAD, STORE
from cpus.access import visit_pages
from cpus.page_table import PTE_ACCESSED, PTE_DIRTY, PTE_PRESENT, PTE_WRITE
from tests.cpus import bare_machine as bare
from tests.cpus.bare_machine import FAULT_MAPS_AND_BELL_RINGS, FAULT_WAITS, FRAME_OF_PAGE_0, counts

ACCESSES = {LOAD: "dtlb_loads", STORE: "dtlb_stores", IFETCH: "itlb_loads"}
MISSES = {LOAD: "dtlb_load_misses", STORE: "dtlb_store_misses", IFETCH: "itlb_load_misses"}


@pytest.fixture
def ram():
    ram = bare.build(bare.GOLDEN_COVE)
    for vpn in range(20):
        bare.map_page(ram, 0, vpn, FRAME_OF_PAGE_0 + vpn, vpn)
    yield ram
    ram.close()


@pytest.mark.parametrize("kind", [LOAD, STORE, IFETCH])
def test_counts_each_kind_under_its_own_name(ram, kind):
    """Each access is counted, each walk is a miss, and no other kind's counters move."""
    assert visit_pages(ram, 0, kind, 0, 5, 7, 0) == 5
    assert visit_pages(ram, 0, kind, 0, 5, 7, 0) == 5
    assert counts(ram, ACCESSES[kind], MISSES[kind], "stlb_hits", "page_visits") == [70, 5, 0, 10]
    others = [name for k in ACCESSES if k != kind for name in (ACCESSES[k], MISSES[k])]
    assert counts(ram, *others) == [0, 0, 0, 0]


def test_kinds_share_the_second_level_only(ram):
    """A fetch after a load misses its own first level and hits the second."""
    visit_pages(ram, 0, LOAD, 3, 1, 1, 0)
    visit_pages(ram, 0, IFETCH, 3, 1, 1, 0)
    assert counts(ram, "dtlb_load_misses", "itlb_load_misses", "stlb_hits") == [1, 0, 1]


def test_first_store_through_a_clean_entry_walks_and_sets_dirty(ram):
    """load (A) ... store walks again (A D) ... second store hits."""
    visit_pages(ram, 0, LOAD, 3, 1, 1, 0)
    assert bare.pte_of(ram, 0, 3) == (FRAME_OF_PAGE_0 + 3, PTE_PRESENT | PTE_WRITE | PTE_ACCESSED)
    visit_pages(ram, 0, STORE, 3, 1, 1, 0)
    assert bare.pte_of(ram, 0, 3)[1] == PTE_PRESENT | PTE_WRITE | PTE_ACCESSED | PTE_DIRTY
    visit_pages(ram, 0, STORE, 3, 1, 1, 0)
    assert counts(ram, "dtlb_load_misses", "dtlb_store_misses", "stlb_hits") == [1, 1, 0]
    assert bare.content_of(ram, FRAME_OF_PAGE_0 + 3) == (3, 2)


def test_a_store_to_a_read_only_page_faults(ram):
    """The entry of an earlier load does not let a store through."""
    bare.set_pte(ram, 0, 3, (FRAME_OF_PAGE_0 + 3) << 12 | PTE_PRESENT)
    visit_pages(ram, 0, LOAD, 3, 1, 1, 0)
    visit_pages(ram, 0, STORE, 3, 1, 1, 0)  # the fault maps it writable
    assert counts(ram, "pgfault", "dtlb_load_misses", "dtlb_store_misses") == [1, 1, 2]


def test_clock_is_exact_to_a_tenth_of_a_nanosecond(ram):
    """10 visits of 3 accesses: 3 x 0.5 + 3 lines x 5.3 = 17.4 ns each; 10 walks of 15 ns; nothing is rounded
    away on the way.
    """
    for vpn in range(10):
        visit_pages(ram, 0, LOAD, vpn, 1, 3, 0)
    assert (ram.cpu_clock[0], ram.cpu_tenths[0]) == (150 + 174, 0)
    visit_pages(ram, 0, LOAD, 0, 1, 100, 0)  # 50 + 64 lines x 5.3 = 389.2: a page has 64 lines
    assert (ram.cpu_clock[0], ram.cpu_tenths[0]) == (324 + 389, 2)


def test_pages_of_the_slow_node_cost_more_per_line(ram):
    """The frame decides: the same visit from CXL pays 10.6 ns a line."""
    bare.map_page(ram, 0, 50, FRAME_OF_PAGE_0 + 150, 50)
    visit_pages(ram, 0, LOAD, 50, 1, 1, 0)
    assert (ram.cpu_clock[0], ram.cpu_tenths[0]) == (15 + 11, 1)


def test_second_level_hit_costs_its_cycles(ram):
    visit_pages(ram, 0, LOAD, 0, 1, 1, 0)
    visit_pages(ram, 0, IFETCH, 0, 1, 1, 0)
    assert ram.cpu_clock[0] * 10 + ram.cpu_tenths[0] == (15 * 10 + 58) + (3 * 10 + 58)


def test_returns_at_the_end_of_the_slice_and_goes_on_from_there(ram):
    """A visit takes 15 + 5.8 ns: five begin within 100 ns. The next slice does the rest and nothing twice."""
    ram.cpu_slice_end[0] = 100
    assert visit_pages(ram, 0, LOAD, 0, 20, 1, 0) == 5
    assert visit_pages(ram, 0, LOAD, 0, 20, 1, 5) == 5, "the slice is over: nothing is done"
    ram.cpu_slice_end[0] = bare.NEVER
    assert visit_pages(ram, 0, LOAD, 0, 20, 1, 5) == 20
    assert counts(ram, "dtlb_loads", "dtlb_load_misses") == [20, 20]


def test_returns_negative_when_the_fault_says_wait(ram):
    """Pages 0..2 are done, page 3 must be read from disk; afterwards the visit goes on with page 3."""
    bare.set_pte(ram, 0, 3, 0)
    ram.task_wait_ns[3] = FAULT_WAITS
    assert visit_pages(ram, 0, LOAD, 0, 6, 1, 0) == -1 - 3
    assert counts(ram, "dtlb_loads", "dtlb_load_misses", "pgfault") == [3, 4, 1]
    ram.task_wait_ns[3] = bare.FAULT_MAPS
    assert visit_pages(ram, 0, LOAD, 0, 6, 1, 3) == 6
    assert counts(ram, "dtlb_loads", "dtlb_load_misses", "pgfault") == [6, 8, 2]  # a fault is two walks


def test_a_fault_that_is_served_begins_the_visit_anew(ram):
    """One fault, two walks, one access counted, and the oracle sees a page filled by the fault."""
    assert visit_pages(ram, 0, STORE, 60, 1, 4, 0) == 1
    assert counts(ram, "pgfault", "dtlb_stores", "dtlb_store_misses") == [1, 4, 2]
    assert bare.content_of(ram, FRAME_OF_PAGE_0 + 60) == (60, 1)
    assert ram.run_violations[0] == 0


def test_a_bell_that_rang_before_is_served_before_the_first_visit(ram):
    visit_pages(ram, 0, LOAD, 0, 4, 1, 0)
    bare.ring(ram, 0, 1)
    visit_pages(ram, 0, LOAD, 0, 4, 1, 0)
    assert (ram.cpu_bell[0], ram.cpu_queue[0]) == (0, 0)
    assert ram.series[0, 0] == 4, "served when four visits had begun"
    assert counts(ram, "ipi_executed", "dtlb_load_misses") == [1, 8]


def test_a_bell_is_served_within_one_visit(ram):
    """The bell rings while page 63 is being visited, after three others: the handler runs before anything
    else is visited.
    """
    for vpn in range(60, 70):
        ram.task_wait_ns[vpn] = FAULT_MAPS_AND_BELL_RINGS if vpn == 63 else bare.FAULT_MAPS
    assert visit_pages(ram, 0, LOAD, 60, 10, 1, 0) == 10
    visits_begun = 2 * 3 + 1  # pages 60..62 faulted and began anew, and page 63 had begun
    assert ram.series[0].tolist()[:2] == [visits_begun, 7 * 15 + 3 * 58 // 10]
    assert counts(ram, "ipi_executed", "pgfault", "page_visits") == [1, 10, 10]
    visit_pages(ram, 0, LOAD, 60, 10, 1, 0)
    assert counts(ram, "dtlb_load_misses") == [20 + 3], "the handler flushed pages 60..62"


def test_without_the_oracle_contents_are_neither_read_nor_changed():
    ram = bare.build(check=0)
    ram.content[:] = -1
    bare.set_pte(ram, 0, 3, (FRAME_OF_PAGE_0 + 3) << 12 | PTE_PRESENT | PTE_WRITE)
    assert visit_pages(ram, 0, STORE, 3, 1, 1, 0) == 1
    assert ram.run_violations[0] == 0
    assert ram.content[FRAME_OF_PAGE_0 + 3] == -1
    ram.close()


def scenario():
    """Visit, flush, fault, wait and be interrupted on a machine with tiny TLBs; returns all that can be seen
    of it.
    """
    ram = bare.build()
    ram.task_wait_ns[:] = [
        FAULT_MAPS_AND_BELL_RINGS if vpn % 7 == 3 else bare.FAULT_MAPS for vpn in range(len(ram.task_wait_ns))
    ]
    done = [
        visit_pages(ram, 0, kind, 3 * i % 40, 1 + i % 9, 1 + i % 70, 0)
        for i in range(60)
        for kind in (LOAD, STORE, IFETCH)
    ]
    ram.content[FRAME_OF_PAGE_0 + 5] = 0
    visit_pages(ram, 0, LOAD, 0, 40, 1, 0)
    ram.task_wait_ns[150] = FAULT_WAITS
    done.append(visit_pages(ram, 0, LOAD, 148, 5, 1, 0))
    fields = (
        "counter",
        "cpu_clock",
        "cpu_tenths",
        "tlb_tag",
        "tlb_value",
        "tlb_logical",
        "tlb_age",
        "content",
        "version",
        "violation",
    )
    seen = [done, *(getattr(ram, name).tolist() for name in fields)]
    ram.close()
    return seen


def test_runs_uncompiled_with_the_same_result():
    """NUMBA_DISABLE_JIT=1: the same source as plain Python gives the same counts, clock, TLB, contents and
    violations.
    """
    code = "import json; from tests.cpus.test_access import scenario; print(json.dumps(scenario()))"
    environment, project = os.environ | {"NUMBA_DISABLE_JIT": "1"}, Path(__file__).parents[2]
    output = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=project, capture_output=True, text=True, timeout=60
    )
    assert output.returncode == 0, output.stderr
    assert json.loads(output.stdout) == scenario()
