"""A run whose figures hang on how it is emulated says so; others do not."""

from __future__ import annotations

import pytest

from emulator.experiment import Experiment
from emulator.litmus.run import experiment_of
from emulator.machine import load_machine
from emulator.report.text import heading_text
from emulator.schedule import Schedule
from tests.emulator.fixed import comparison, run
from workloads.litmus.shelf import litmus_test

MACHINE = load_machine("guest-8cpu", cpus=2)


@pytest.mark.parametrize(
    ("how", "begins"),
    [
        ({}, ""),
        ({"leases": 16}, ""),
        ({"slice_ns": 10_000}, ""),
        ({"slice_ns": 500_000}, "--slice 500000: who is busy"),
        ({"leases": 0}, "--leases 0: the host decides"),
        ({"leases": 1, "schedule": Schedule()}, ""),
    ],
)
def test_an_order_that_leaves_the_bounds_is_told(how, begins):
    """Planted: a long slice, and none that decides."""
    said = Experiment("linux", MACHINE, "tiny8", **how).order_text
    assert said.startswith(begins)
    assert bool(said) == bool(begins)


def test_a_litmus_test_has_no_figures_that_could_hang_on_it():
    one = experiment_of(litmus_test("munmap"), "linux")
    assert (one.longest_slice_ns, one.order_text) == (500_000, "")


def test_the_screen_says_it():
    one, other = comparison(), comparison(run(order_text="--leases 0: the host decides"))
    assert "\norder " not in heading_text(one)
    assert "\norder     --leases 0: the host decides (docs/time.md)\n" in heading_text(other)
