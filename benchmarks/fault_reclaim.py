"""What a page costs from its fault to its reclaim, on one CPU, with nobody to interrupt.

One thread goes through more memory than there is, page by page, on the real kernel with the oracle on;
whenever kswapd is woken it runs on the same core until it sleeps. Everything is in the figure: the accesses,
too.

  file       a file twice as large as memory, in a circle: fault (one for 16 pages), readahead, page cache,
             LRU, rmap; reclaim
  tiered     the same with demotion: each page is moved to the slow node first, and reclaimed from there
  anonymous  memory is written while both nodes are full: fault, zeroing, LRU; anonymous pages move to the
             slow node, where pages of a file are reclaimed to make room

`million_pages_per_second` counts pages that came in; as many went out, but for the anonymous ones, which only
moved. Virtual time is not looked at; the disk delivers at once as far as the host is concerned. The CPU time
of the best turn counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from allocator.kswapd import AWAKE, kswapd_falls_asleep, kswapd_step
from allocator.sched import DONE
from allocator.tlb_flush import switch_mm
from allocator.unmap import zap_range
from cpus.abi.numbers import LOAD, STORE
from cpus.access import visit_pages
from cpus.compiled import kernel
from cpus.lease import RUNNING
from designs.shelf import ready
from emulator.build import RunOptions, build
from emulator.judge.audit import audit_text
from emulator.machine import load_machine
from workloads.rows import ROW, Process, Region, Workload

NEVER = 1 << 50
CPU, MM, FILE, ANONYMOUS = 0, 1, 0, 1
BETWEEN = 128  # pages visited between two looks at kswapd
SCALE = 2048  # DRAM 21 MiB + CXL 48 MiB
CASES = ("file", "tiered", "anonymous")
REACHED = ("pgsteal_kswapd", "pgsteal_direct", "pgmigrate_success", "pgfault")


@kernel
def balance(ram, cpu):
    """Run every kswapd that is awake until it sleeps."""
    for node in range(ram.nr_nodes):
        if ram.kswapd_state[node] == AWAKE:
            while kswapd_step(ram, cpu, node) != 0:
                pass
            kswapd_falls_asleep(ram, cpu, node)
            # it was queued here, and has run
            ram.queue_count[cpu] = ram.queue_first[cpu] = ram.queue_last[cpu] = 0


@kernel
def go_through(ram, cpu, kind, vpn, pages):
    """Visit pages in order, waiting for the disk in virtual time only."""
    done = 0
    while done < pages:
        stop = min(done + BETWEEN, pages)
        while done < stop:
            done = visit_pages(ram, cpu, kind, vpn, stop, 1, done)
            if done < 0:
                done = -1 - done
                ram.cpu_clock[cpu] = ram.task_wait_ns[ram.cpu_task[cpu]]
        balance(ram, cpu)


def build_machine(case: str) -> Any:
    """Give the RAM of the Xeon at 1/SCALE with one CPU; its process maps a file and anonymous memory."""
    machine = load_machine(
        "xeon6430-cxl", scale=SCALE, cpus=1, overrides={"sysctl.demotion_enabled": case != "file"}
    )
    total = sum(machine.pages)
    regions = (Region("file", 2 * total, file="file"), Region("memory", machine.pages[1], writable=True))
    work = Workload("pages", (Process("pages", regions, (np.zeros(0, ROW),)),))
    ram = build(machine, work, ready("linux"), RunOptions(leases=0, seed=1, slice_ns=NEVER))
    ram.cpu_slice_end[CPU], ram.cpu_state[CPU], ram.poll_set[:] = NEVER, RUNNING, -1
    for name in ("queue_count", "queue_first", "queue_last"):
        getattr(ram, name)[:] = 0  # its program is empty: we are the thread
    ram.cpu_task[CPU] = 0
    switch_mm(ram, CPU, MM)
    return ram


def one_turn(ram: Any, case: str) -> tuple[int, Callable[[], None]]:
    """Prepare a turn; returns the pages that it brings in, and the turn itself."""
    first = [int(page) for page in ram.proc_region[0, :2]]
    pages = [int(ram.vma_end[vma] - ram.vma_start[vma]) for vma in ram.mm_vma[MM, :2]]
    if case != "anonymous":
        return pages[FILE], lambda: go_through(ram, CPU, LOAD, first[FILE], pages[FILE])
    zap_range(ram, CPU, MM, first[ANONYMOUS], first[ANONYMOUS] + pages[ANONYMOUS])
    go_through(ram, CPU, LOAD, first[FILE], pages[FILE])
    return pages[ANONYMOUS], lambda: go_through(ram, CPU, STORE, first[ANONYMOUS], pages[ANONYMOUS])


def measure(ram: Any, case: str, turns: int) -> dict[str, Any]:
    """Make `turns` turns after one to warm up; one dict, with what the last one moved."""
    best, pages, counts = float("inf"), 0, np.zeros(len(REACHED), np.int64)
    for turn in range(turns + 1):
        pages, go = one_turn(ram, case)
        before = np.array([getattr(ram, name)[CPU] for name in REACHED])
        began = time.thread_time_ns()
        go()
        spent = time.thread_time_ns() - began
        counts = np.array([getattr(ram, name)[CPU] for name in REACHED]) - before
        best = min(best, spent) if turn else best
    ram.task_state[0], ram.run_tasks_left[0] = DONE, 0
    wrong = audit_text(ram)
    if ram.run_violations[0] or ram.ipi_requests[CPU] or wrong:
        raise ValueError(f"'{case}' must end without violation and interrupt, all accounted for ({wrong})")
    return {
        "case": case, "pages": pages, "ns_per_page": round(best / pages, 1),
        "million_pages_per_second": round(pages / best * 1000, 2),
        "reclaimed": int(counts[0] + counts[1] - counts[2]), "moved": int(counts[2]),
        "faults": int(counts[3]),
    }  # fmt: skip


def run(quick: bool) -> list[dict]:
    """Measure all cases; one dict each."""
    rows = []
    for case in CASES:
        ram = build_machine(case)
        try:
            rows.append({"benchmark": "fault_reclaim", **measure(ram, case, 4 if quick else 15)})
        finally:
            ram.close()
    return rows
