"""How many scheduling points a second, with one lease, by how often a decision is made.

The storm of unmappings that ships, and readers of a file under pressure, on four CPUs of one arena, with the
oracle on; `million_points_per_second` is of the time that CPUs ran, without laying memory out and judging.
With a distance of 0 CPUs hand over only where they wait. `plain_s` is the plain engine on the same workload,
`instrumented_s` a run without decisions at points: what the countdown itself costs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from emulator.experiment import Experiment
from emulator.machine import load_machine
from emulator.schedule import Schedule
from emulator.stress.arena import Arena

DISTANCES = (0, 1000, 300, 100, 30)
WORKLOADS = ("munmap-storm:pages=8", "read-only:50%")
SCALE, CPUS = 4096, 4


def run(*, quick: bool = False) -> list[dict[str, Any]]:
    """Measure each workload at each distance."""
    machine = load_machine("xeon6430-cxl", scale=SCALE, cpus=CPUS)
    times = 2 if quick else 5
    rows = []
    for workload in WORKLOADS:
        plain = Experiment("linux", machine, workload, tokens=1, leases=1)
        plain_s = _least(plain, times)[0]
        for distance in DISTANCES[: 2 if quick else None]:
            seconds, outcome = _least(replace(plain, schedule=Schedule(distance=distance)), times)
            rows.append({
                "benchmark": "points", "workload": workload, "distance": distance,
                "points": outcome.points, "handovers": outcome.handovers,
                "million_points_per_second": round(outcome.points / seconds / 1e6, 1),
                "handovers_per_second": round(outcome.handovers / seconds),
                "plain_s": round(plain_s, 4), "instrumented_s": round(seconds, 4),
            })  # fmt: skip
    return rows


def _least(experiment: Experiment, times: int) -> tuple[float, Any]:
    """Give the shortest of some runs, after one that nobody times: others can only make a run slower."""
    with Arena() as arena:
        arena.run(experiment)
        found = [arena.run(experiment) for _ in range(times)]
    return min(((one.seconds["run"], one) for one in found), key=lambda pair: pair[0])
