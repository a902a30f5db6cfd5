"""What happened between two snapshots comes under Linux's names; a real run's snapshots can be read when its
RAM is gone.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from allocator.flush_sites import LOCAL_MM_SHOOTDOWN, NR_SITES, REMOTE_SHOOTDOWN, SITE_FAULT, SITE_USER
from allocator.tlb_flush import ALL_PAGES, TRACE_PAGES, TRACE_REASONS
from designs.memory_map import MACHINE
from emulator import load_machine, run_script
from emulator.snapshots import Snapshots
from workloads import Region, Script

NAMES = [counter.name for counter in MACHINE.counters]
NR_COUNTERS = len(NAMES)


def ram_of_three():
    """A RAM with snapshots 0 and 1, between which something happened, and 2, which was not reached."""
    ram = SimpleNamespace(
        layout=MACHINE,
        snapshot=np.zeros((3, NR_COUNTERS), np.int64),
        snapshot_tlb=np.zeros((3, TRACE_REASONS * TRACE_PAGES), np.int64),
        snapshot_irq=np.array([[5, 1, 0], [5, 4, 2], [0, 0, 0]]),
        snapshot_site=np.zeros((3, NR_SITES), np.int64),
        snapshot_ns=np.array([100, 350, 0]),
    )
    ram.snapshot[:2, NAMES.index("pgfault")] = 10, 17
    for reason, pages, count in (
        (REMOTE_SHOOTDOWN, 33, 4),
        (REMOTE_SHOOTDOWN, ALL_PAGES, 1),
        (LOCAL_MM_SHOOTDOWN, 0, 2),
    ):
        ram.snapshot_tlb[1, reason * TRACE_PAGES + pages] = count
    ram.snapshot_site[:2, SITE_USER], ram.snapshot_site[:2, SITE_FAULT] = (3, 8), (2, 2)
    return ram


def script_of(*names):
    script = Script("s")
    script.snapshots = {name: number for number, name in enumerate(names)}
    return script


def test_differences_have_the_names_of_linux():
    """Only events and sites that happened are there; all counters are."""
    cost = Snapshots(ram_of_three(), script_of("a", "b", "c")).between("a", "b")
    assert cost.interrupts == (0, 3, 2)
    assert (cost.counters["pgfault"], cost.counters["pgmajfault"], len(cost.counters)) == (7, 0, NR_COUNTERS)
    assert cost.tlb_flush == {"remote_shootdown/33": 4, "remote_shootdown/all0": 1, "local_mm_shootdown/0": 2}
    assert cost.broadcasts == {"munmap/madvise": 5}
    assert cost.virtual_ns == 250


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("x", "b", r"'before' must be a snapshot of the script, one of a, b, c \(got 'x'\)"),
        ("a", "c", r"'after' must be a snapshot that was reached \(got 'c'\)"),
    ],
)
def test_a_snapshot_that_is_not_there_is_refused(before, after, message):
    with pytest.raises(ValueError, match=message):
        Snapshots(ram_of_three(), script_of("a", "b", "c")).between(before, after)


def two_threads(advice):
    """One thread spins while the other one works on its memory."""

    def main(t):
        yield [
            t.store("heap"),
            t.meet("ready", 2),
            t.snapshot("before"),
            t.madvise("heap", advice, 0, 4),
            t.snapshot("after"),
        ]
        yield t.post("stop")

    def other(t):
        yield [t.load("heap"), t.meet("ready", 2), t.spin("stop")]

    return Script("two", regions=[Region("heap", 8, writable=True)]).process(
        "main", [main, other], cpus=[0, 1]
    )


def test_a_run_can_be_read_when_it_is_over():
    """MADV_DONTNEED of 4 pages interrupts the one CPU that spins, for these 4 pages."""
    run, noted = run_script(
        "linux", load_machine("guest-8cpu", scale=16, cpus=2), two_threads("MADV_DONTNEED"), leases=1
    )
    cost = noted.between("before", "after")
    assert run.clean
    assert cost.interrupts == (0, 1)
    assert cost.tlb_flush == {"remote_shootdown/4": 1, "local_mm_shootdown/4": 1, "remote_send_ipi/4": 1}
    assert cost.broadcasts == {"munmap/madvise": 1}
    assert cost.virtual_ns > 0


def test_a_node_that_the_machine_has_not_is_refused():
    """Before anything runs."""
    script = Script("far", regions=[Region("heap", 8, writable=True)])
    script.process("main", [lambda t: iter([t.store("heap"), t.move_pages("heap", 2)])])
    with pytest.raises(
        ValueError,
        match=r"process 'main' thread 0 row 1: "
        r"'kind' of MOVE_PAGES must be a node of the machine, 0 to 1 \(got 2",
    ):
        run_script("linux", load_machine("guest-8cpu", scale=16, cpus=2), script, leases=1)
