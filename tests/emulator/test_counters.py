"""Every counter counts: a run that makes every call of the kernel raises it, or a test that is named here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from cpus.declare import OURS, VMSTAT, Counter
from designs.memory_map import MACHINE
from emulator import run_script
from emulator.order import LONG_SLICE_NS
from tests.support.every_call import every_call, small_machine_of_two_tiers

ROOT = Path(__file__).parents[2]
RUNS = ((2600, 3), (3400, 8))  # pages of the file, times that it is read
ALLOCATOR, DESIGNS = "tests/allocator/test_{}.py", "tests/designs/test_{}.py"
ELSEWHERE = {  # counter -> the test that raises it
    "copies_in_vain": ALLOCATOR.format("fork"),
    "faults_on_a_lost_page": ALLOCATOR.format("memory"),
    "faults_on_a_moving_page": ALLOCATOR.format("rmap"),
    "faults_too_late": ALLOCATOR.format("memory"),
    "flushed_before_io": DESIGNS.format("linux"),
    "fork_copied_pinned": ALLOCATOR.format("direct_io"),
    "held_closed": DESIGNS.format("held"),
    "held_forced": DESIGNS.format("held"),
    "held_safe_already": DESIGNS.format("held"),
    "kept_with_pending": DESIGNS.format("luf"),
    "lookups_too_late": ALLOCATOR.format("page_cache"),
    "luf_spared": DESIGNS.format("luf"),
    "luf_triggered": DESIGNS.format("luf"),
    "merged_pending": ALLOCATOR.format("buddy"),
    "moves_undone": ALLOCATOR.format("madvise"),
    "nr_vmscan_write": ALLOCATOR.format("writeback"),
    "numa_hint_faults_local": ALLOCATOR.format("numa_balancing"),
    "pgscan_direct_throttle": ALLOCATOR.format("vmscan"),
    "removals_refused": ALLOCATOR.format("page_cache"),
    "slot_recycled": ALLOCATOR.format("tlb_flush"),
    "taken_pending": DESIGNS.format("luf"),
    "unmapped_used_again": DESIGNS.format("held"),
    "unmaps_undone": ALLOCATOR.format("madvise"),
}


@pytest.fixture(scope="module")
def results():
    """What the runs counted."""
    machine = small_machine_of_two_tiers()
    runs = [
        run_script("linux", machine, every_call(*sizes), leases=1, seed=1, slice_ns=LONG_SLICE_NS)[0]
        for sizes in RUNS
    ]
    assert all(result.clean for result in runs)
    return runs


def silent(layout, runs):
    """Give a sentence for each counter that no run has raised, and that no test is named for."""
    return [
        f"{module}: counter {counter.name} is declared, and no run of {__name__} raises it"
        for module, counter in layout.declared("COUNTERS")
        if counter.name not in ELSEWHERE and not any(sum(run.counters.get(counter.name, [])) for run in runs)
    ]


def test_every_counter_counts(results):
    assert silent(MACHINE, results) == []


def test_tests_that_are_named_raise_their_counter():
    """In an assertion, with a number that is not 0."""
    for counter, path in ELSEWHERE.items():
        assert counter in {one.name for one in MACHINE.counters}
        assert counter.removeprefix("numa_hint_faults") in (ROOT / path).read_text(), counter


def test_a_counter_that_no_run_raises_is_named(results):
    lost = Counter("pglost", OURS, "pages lost")
    layout = SimpleNamespace(declared=lambda _: [*MACHINE.declared("COUNTERS"), ("allocator.lost", lost)])
    assert silent(layout, results) == [
        f"allocator.lost: counter pglost is declared, and no run of {__name__} raises it"
    ]


def test_vmstat_prints_what_linux_counts_and_nothing_else(results):
    """The counters of that group, and the present state (`_gauges`)."""
    ours = {counter.name for counter in MACHINE.counters if counter.group != VMSTAT}
    linux = {counter.name for counter in MACHINE.counters if counter.group == VMSTAT}
    printed = set(results[0].vmstat)
    assert linux <= printed
    assert not ours & printed
    assert all(name.startswith("nr_") for name in printed - linux)
