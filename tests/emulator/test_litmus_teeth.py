"""Litmus tests notice the design that they are for: each of the wrong ones is seen by one of them in a few
runs, while right ones pass. tests/campaigns/litmus.py does the same for all of them.
"""

from __future__ import annotations

import os

import pytest

from emulator.litmus.run import experiment_of, run_tests
from emulator.litmus.verdict import FORBIDDEN
from tests.campaigns.litmus import CLASSES, INSIDE, design_of
from tests.emulator.litmus_mutants import Spare, WrongLinux, WrongLuf
from workloads.litmus.shelf import litmus_test, litmus_tests, shipped

RUNS = 6
NOTICED_BY = {
    "none": "wilcox-slab",
    "none:what=user": "munmap-part",
    "spare:site=user": "mprotect-several",
    "spare:site=fault": "cow-read",
    "spare:site=file": "write-back",
    "spare:site=direct": "reclaim-reuse",
    "spare:site=numa": "numa-hint",
    "spare:site=last": "uprobe",
    "wrong_linux:wrong=tlb_gen": "reclaim-reuse",
    "wrong_luf:wrong=write_fault": "hansen-second-mapping",
    "wrong_luf:wrong=file_write": "hansen-file-written",
    "wrong_luf:wrong=truncate": "hansen-direct-write",
    "wrong_luf:wrong=mapping_change": "lazy-then",
    "wrong_luf:wrong=take": "pcp-again",
    "wrong_luf:wrong=page_freed": "five-takers",
    "wrong_luf:wrong=no_key": "reclaim-reuse",
    "wrong_luf:wrong=all_deferred": "init-on-free",
    "luf_v12": "hansen-file-written",
}


def tallied(design, tests):
    made = design_of(design)
    planned = [(test, experiment_of(test, made)) for test in tests]
    return list(run_tests(planned, RUNS, 1, sorted(os.sched_getaffinity(0))))


@pytest.mark.parametrize("design", NOTICED_BY)
def test_a_wrong_design_is_noticed(design):
    """By the test that is named here, which names it itself among those that it catches."""
    test = litmus_test(NOTICED_BY[design])
    assert design in test.catches
    (tally,) = tallied(design, [test])
    assert tally.what[FORBIDDEN], tally.line()


@pytest.mark.parametrize("design", ["linux", "luf"])
def test_right_designs_pass(design):
    """The same tests, all of each family."""
    tests = [test for name in sorted(set(NOTICED_BY.values())) for test in litmus_tests(name)]
    assert [
        f"{tally.test}: {tally.line()}" for tally in tallied(design, tests) if tally.is_bad or tally.is_void
    ] == []


def test_what_tests_say_that_they_catch_is_there():
    """Designs of the shelf, or mutants; and every mutant is somebody's."""
    caught = {
        name.removeprefix(INSIDE) for one in shipped() for test in litmus_tests(one) for name in test.catches
    }
    for name in caught:
        design_of(name)
    mutants = {
        f"{kind.name}:{parameter}={value}"
        for kind in (Spare, WrongLinux, WrongLuf)
        for parameter, values in kind.parameters.items()
        for value in values
    }
    assert {name.partition(":")[0] for name in mutants} == set(CLASSES)
    assert mutants - caught == set()
