"""Interrupts per second and what one shootdown takes, for N CPUs, k targets and L leases, beside bare
PUSH/PULL; hand-overs.

A logical IPI is a request that was executed and acked; messages may be fewer, since a queue that is not empty
gets none. A CPU that is not shooting visits pages, unless it is said to be idle. `leases` 0 is no gate. Runs
are repeated and the best counts: other programs on the host can only make one slower. Ungated runs have 64
processes that want a core, gated ones two: on a host that is busy otherwise compare their `cpu_seconds`.
Every run must account for every message and ack.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from typing import Any

import numpy as np

from benchmarks.bare import bare_push_pull
from benchmarks.storm import set_storm, shots_done, small_ram, storm
from cpus.atomics import host_ticks
from cpus.compiled import kernel
from cpus.events import EVENT_RING
from cpus.ipi import unaccounted_interrupts
from emulator.supervisor import Supervisor

LOOK_S = 0.002

# case: CPUs, targets, shots of each shooter, page visits between shots, and what else is unusual
UNGATED_SHOTS = 6  # where each takes many time slices of the host
CASES: dict[str, dict[str, Any]] = {
    "all-to-all storm": {"cpus": 64, "targets": 63, "shots": 20, "gap": 4096},
    "storm, a message per IPI": {"cpus": 16, "targets": 15, "shots": 150, "gap": 256, "strict": True},
    "sparse": {"cpus": 64, "targets": 3, "shots": 15, "gap": 100_000},
    "no shootdowns": {"cpus": 64, "targets": 0, "shots": 1, "gap": 1_500_000},
    "one initiator, others compute": {
        "cpus": 64,
        "targets": 63,
        "shots": 100,
        "gap": 4096,
        "shooters": 1,
        "slow_without_gate": True,
    },
    "the same beside a busy program": {
        "cpus": 64,
        "targets": 63,
        "shots": 60,
        "gap": 4096,
        "shooters": 1,
        "busy": 1,
        "slow_without_gate": True,
    },
    "one initiator, others idle": {
        "cpus": 64,
        "targets": 63,
        "shots": 100,
        "gap": 64,
        "shooters": 1,
        "others_compute": False,
    },
    "15 idle targets": {
        "cpus": 16,
        "targets": 15,
        "shots": 200,
        "gap": 64,
        "shooters": 1,
        "others_compute": False,
    },
    "1 idle target": {
        "cpus": 2,
        "targets": 1,
        "shots": 1000,
        "gap": 64,
        "shooters": 1,
        "others_compute": False,
    },
}


@kernel
def _ticks():
    return host_ticks()


def ticks_per_ms() -> float:
    """Calibrate the host's cycle counter."""
    _ticks()  # compiles
    began, first = time.perf_counter(), _ticks()
    while time.perf_counter() - began < 0.05:
        pass
    return (_ticks() - first) / ((time.perf_counter() - began) * 1000)


def cpu_seconds(pids: list[int]) -> float:
    """Give the CPU time that these processes have used, all threads (the kernel's clock number of a process,
    time.h).
    """
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def _burn() -> None:
    while True:
        pass


def measure(case: str, leases: int, per_ms: float, *, cpus: int, targets: int, shots: int, gap: int,
            strict: bool = False, shooters: int | None = None, others_compute: bool = True,
            busy: int = 0) -> dict[str, Any]:  # fmt: skip
    """Run one case once."""
    ram = small_ram(cpus, leases=leases, strict=strict, slice_ns=500_000, wait_bound_ms=60_000)
    set_storm(ram, shots=shots, targets=targets, gap=gap, shooters=shooters, others_compute=others_compute)
    others = [multiprocessing.get_context("fork").Process(target=_burn, daemon=True) for _ in range(busy)]
    try:
        for process in others:
            process.start()
        with Supervisor(ram, storm, label=case) as run:
            pids = [process.pid for process in run.processes]
            began, used = time.perf_counter(), cpu_seconds(pids)
            run.start()
            run.watch(shots_done, tick_s=LOOK_S)
            seconds, used = time.perf_counter() - began, cpu_seconds(pids) - used
            run.quiesce()
            run.finish()
    finally:
        for process in others:
            process.kill()
            process.join()
    faults = unaccounted_interrupts(ram)
    if faults:
        raise RuntimeError("; ".join(faults))
    requests, messages = (int(getattr(ram, name).sum()) for name in ("ipi_requests", "ipi_messages"))
    took = np.sort(ram.event[: shooters or cpus, : min(shots, EVENT_RING)].ravel()) / per_ms
    row = {
        "case": case, "cpus": cpus, "targets": targets, "leases": leases, "seconds": round(seconds, 3),
        "cpu_seconds": round(used, 2), "logical_ipis_per_s": round(requests / seconds), "messages": messages,
        "requests": requests, "million_visits_per_s": round(int(ram.page_visits.sum()) / seconds / 1e6, 1),
        "handovers": int(ram.run_handovers[0]),
    }  # fmt: skip
    if targets:
        row |= {
            "p50_ms": round(float(took[len(took) // 2]), 3),
            "p99_ms": round(float(took[int(len(took) * 0.99)]), 3),
        }
    ram.close()
    return row


def _best(case: str, leases: int, per_ms: float, turns: int, **shape: Any) -> dict[str, Any]:
    return min((measure(case, leases, per_ms, **shape) for _ in range(turns)), key=lambda row: row["seconds"])


def _bare(targets: int, shots: int) -> dict[str, Any]:
    took = np.sort(bare_push_pull(targets, shots)) * 1000
    count = targets * len(took)
    return {
        "case": "bare PUSH/PULL", "cpus": targets + 1, "targets": targets, "leases": "-",
        "seconds": round(took.sum() / 1000, 3), "logical_ipis_per_s": round(count / took.sum() * 1000),
        "messages": count, "requests": count, "p50_ms": round(float(took[len(took) // 2]), 3),
        "p99_ms": round(float(took[int(len(took) * 0.99)]), 3),
    }  # fmt: skip


def _handover(leases: int, turns: int, per_ms: float) -> dict[str, Any]:
    """64 CPUs that do next to nothing but hand the lease on: slices of 1 us."""
    best: dict[str, Any] = {}
    for _ in range(turns):
        ram = small_ram(64, leases=leases, slice_ns=1000)
        set_storm(ram, shots=1, targets=0, gap=5000)
        with Supervisor(ram, storm, label="hand-over") as run:
            began = time.perf_counter()
            run.start()
            run.watch(shots_done, tick_s=LOOK_S)
            seconds = time.perf_counter() - began
            run.quiesce()
            run.finish()
        count = int(ram.run_handovers[0])
        ram.close()
        if not best or seconds < best["seconds"]:
            best = {"case": "lease hand-over", "cpus": 64, "targets": 0, "leases": leases,
                    "seconds": round(seconds, 3), "handovers": count,
                    "us_per_handover": round(seconds * 1e6 / count, 1)}  # fmt: skip
    return best


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Measure all cases, ungated and with a lease per host core."""
    per_ms, turns = ticks_per_ms(), 1 if quick else 3
    cores = len(os.sched_getaffinity(0))
    rows = [_bare(targets, 100 if quick else 400) for targets in (1, 15, 63)]
    for case, usual in CASES.items():
        shape = usual | {"shots": max(1, usual["shots"] // (4 if quick else 1))}
        slow = shape.pop("slow_without_gate", False)
        ungated = (
            _best(case, 0, per_ms, 1, **shape | {"shots": UNGATED_SHOTS})
            if slow
            else _best(case, 0, per_ms, turns, **shape)
        )
        pair = [ungated, _best(case, cores, per_ms, turns, **shape)]
        if case in ("sparse", "no shootdowns"):
            for unit in ("seconds", "cpu_seconds"):
                pair[1][f"leases_cost_percent_of_{unit}"] = round(
                    100 * (pair[1][unit] / pair[0][unit] - 1), 1
                )
        rows += pair
    return rows + [_handover(leases, turns, per_ms) for leases in (1, cores)]
