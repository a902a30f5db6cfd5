"""Every counter counts: a run that makes every call of the kernel raises it, or a test that is named here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from cpus.declare import OURS, VMSTAT, Counter
from designs.memory_map import MACHINE
from emulator import run_script
from tests.support.every_call import every_call, small_machine_of_two_tiers

ROOT = Path(__file__).parents[2]
RUNS = ((2600, 3), (3400, 8))  # pages of the file, times that it is read
ELSEWHERE = {  # counter -> the test that raises it
    "numa_hint_faults_local": "tests/allocator/test_numa_balancing.py",
    "nr_vmscan_write": "tests/allocator/test_writeback.py",
    "pgscan_direct_throttle": "tests/allocator/test_vmscan.py",
}


@pytest.fixture(scope="module")
def results():
    """What the runs counted."""
    machine = small_machine_of_two_tiers()
    runs = [run_script("linux", machine, every_call(*sizes), leases=1, seed=1)[0] for sizes in RUNS]
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
