"""What judging costs on the run of the talk: nothing judged, states alone, states and accesses.

Each row is `luf run` of linux or luf on three llama.cpp processes of 15 threads. The CPU time of all CPU
processes counts, of the best turn, since other programs on the host can only make a turn slower; `ratio` is
to the same run with nothing judged.
"""

from __future__ import annotations

import resource
from typing import Any

from emulator import run_design
from emulator.machine import load_machine

CHECKS = ("off", "states", "full")


def _cpu_seconds(design: str, check: str, scale: float) -> tuple[float, int]:
    """Run once: seconds of CPU time of its processes, and exposures."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = run_design(design, load_machine("xeon6430-cxl", scale=scale), "llama3x15", tokens=1, check=check)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, result.exposures


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Measure both designs with each way to judge."""
    scale, turns = (1024.0, 1) if quick else (256.0, 5)
    rows = []
    for design in ("linux", "luf"):
        _cpu_seconds(design, "full", 1024.0)  # compiles
        best = dict.fromkeys(CHECKS, float("inf"))
        found = dict.fromkeys(CHECKS, 0)
        for _ in range(turns):
            for check in CHECKS:
                seconds, found[check] = _cpu_seconds(design, check, scale)
                best[check] = min(best[check], seconds)
        rows += [
            {
                "design": design,
                "check": check,
                "cpu_s": round(best[check], 2),
                "ratio": round(best[check] / best["off"], 2),
                "exposures": found[check],
            }
            for check in CHECKS
        ]
    return rows
