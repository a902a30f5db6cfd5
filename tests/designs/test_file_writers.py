"""Readers with a writer: threads or processes map a file read-only while another writes and truncates it,
under memory pressure.

Real CPU processes. What happens without each trigger is in test_luf.py, on planted schedules.
"""

import numpy as np
import pytest

from designs import design as design_named
from designs.linux import Linux
from designs.luf.luf import Luf
from emulator.experiment import run_design
from emulator.machine import load_machine
from workloads import validate
from workloads.rows import (
    CLONE,
    EXIT,
    JOIN,
    LOAD,
    MADV_PAGEOUT,
    MADVISE,
    ROW,
    SYNC,
    TRUNCATE,
    WRITE,
    Process,
    Region,
    Workload,
    control,
    visit,
)

FILE_PAGES, COLD_PAGES = 64, 6000


def readers_with_a_writer(change: int, rounds: int = 300, readers: int = 3) -> Workload:
    """`readers` processes read a small file again and again; one process changes it and sweeps cold memory
    for pressure.
    """
    shared = Region("hot", FILE_PAGES, file="hot", shared=True)
    # as long as the writer, in virtual time
    read = np.array([visit(LOAD, 0, 0, FILE_PAGES, 1000)] * (3 * rounds), ROW)
    change_rows = []
    for i in range(rounds):
        first = 200 * i % (COLD_PAGES - 200)
        change_rows += [
            control(change, page=i % FILE_PAGES, pages=1, region=0),
            visit(LOAD, 1, first, 200, 1),
        ]
        if change == WRITE and i % 16 == 0:
            change_rows.append(control(SYNC, page=0, pages=FILE_PAGES, region=0))
    cold = Region("cold", COLD_PAGES, file="cold", shared=True)
    processes = [Process(f"reader{k}", (shared,), (read,)) for k in range(readers)]
    return Workload("readers", (*processes, Process("writer", (shared, cold), (np.array(change_rows, ROW),))))


def small_machine():
    """Four CPUs and 16 MiB: the cold file does not fit."""
    return load_machine("guest-8cpu", cpus=4, overrides={"nodes.0.memory_mib": 8, "nodes.1.memory_mib": 8})


@pytest.mark.parametrize("change", [WRITE, TRUNCATE])
@pytest.mark.parametrize("design", [Linux, Luf])
def test_readers_see_every_change(design, change):
    """Vanilla and LUF: no reader sees an older version than was published before its load, whatever reclaim
    had left pending.
    """
    workload = readers_with_a_writer(change)
    validate(workload)
    result = run_design(design(), small_machine(), workload, leases=2)
    assert result.violations == []
    assert result.unaccounted == {}
    assert result.vmstat["pgsteal_file"] > 0


def pageout_then_write(rounds: int = 40) -> Workload:
    """Two threads read a file all the time; the main thread has its pages reclaimed (MADV_PAGEOUT), then
    writes one of them, and syncs it later: a dirty page would not be reclaimed.
    """
    file = Region("hot", FILE_PAGES, file="hot", shared=True)
    read = np.array([*[visit(LOAD, 0, 0, FILE_PAGES, 100)] * (40 * rounds), control(EXIT)], ROW)
    rows = [control(CLONE, page=1), control(CLONE, page=2)]
    for i in range(rounds):
        rows.append(visit(LOAD, 0, 0, FILE_PAGES, 1))
        rows.append(control(SYNC, page=7 * (i - 1) % FILE_PAGES, pages=1, region=0))
        rows.append((MADVISE, MADV_PAGEOUT, 0, FILE_PAGES, 0, 0))
        rows.append(control(WRITE, page=7 * i % FILE_PAGES, pages=1, region=0))
    rows.append(control(JOIN, pages=2))
    return Workload("pageout", (Process("p", (file,), (np.array(rows, ROW), read, read)),))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    "name, kinds",
    [("linux", set()), ("luf", set()), ("luf:sync=help", set()), ("luf_hold", set()),
     ("luf_v12:records=required", set()), ("luf_v12", {"stale read"})],
)  # fmt: skip
def test_readers_see_what_is_written_to_reclaimed_pages(name, kinds, seed):
    """Nothing is planted. As posted, luf_v12 leaves the readers with the bytes from before write(2), in every
    run.
    """
    workload = pageout_then_write()
    validate(workload)
    result = run_design(design_named(name), small_machine(), workload, leases=1, seed=seed)
    assert {violation["kind"] for violation in result.violations} == kinds
    assert result.unaccounted == {}
    assert result.unmap.ro > 0
