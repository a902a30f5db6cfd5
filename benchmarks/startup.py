"""What a run costs before it runs: import, engine from the cache or compiled, and 64 CPU processes until all
are ready.

Each row is a process of its own that builds the whole machine of `luf compare` (DRAM, CXL, three llama.cpp
processes, all at scale 1/1024) under LUF and starts its CPUs. `cold` has an empty cache of compiled code and
is left out with --quick.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BOUND_S = 600
PROGRAM = """
import json, sys, time
began = time.perf_counter()
from cpus.cache_place import cache_root
from designs import shelf
from emulator.build import RunOptions, build
from allocator.cpu import cpu_loop
from emulator.machine import load_machine
from emulator.supervisor import Supervisor
from workloads import workload
imported = time.perf_counter()
machine = load_machine("xeon6430-cxl", scale=1024, cpus=int(sys.argv[1]))
program = workload("llama3x15", scale=1024, tokens=1, seed=1)
generated = time.perf_counter()
ram = build(machine, program, shelf.ready("luf"), RunOptions(leases=2, seed=1))
built = time.perf_counter()
with Supervisor(ram, cpu_loop, label="startup") as run:
    ready = time.perf_counter()
    memory = []
    for process in run.processes:
        rollup = open(f"/proc/{process.pid}/smaps_rollup", encoding="utf-8")
        fields = dict(line.split(":", 1) for line in rollup if ":" in line)
        memory.append(int(fields["Private_Dirty"].split()[0]))
    files = max(len(__import__("os").listdir(f"/proc/{process.pid}/fd")) for process in run.processes)
print(json.dumps({"import_s": imported - began, "workload_s": generated - imported,
                  "engine_s": built - generated, "cpus_ready_s": ready - built, "total_s": ready - began,
                  "private_mib_per_cpu": sum(memory) / len(memory) / 1024, "files_per_cpu": files}))
"""


def measure(case: str, cpus: int, cache: str | None) -> dict[str, Any]:
    """Start one machine in a fresh interpreter."""
    environment = os.environ | ({"LUF_CACHE_DIR": cache} if cache else {}) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, str(cpus)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=BOUND_S, check=True
    )
    figures = {name: round(value, 2) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}
    return {"case": case, "cpus": cpus} | figures


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Measure warm starts of 4, 16 and 64 CPUs, and a cold one."""
    rows = []
    if not quick:
        with tempfile.TemporaryDirectory(prefix="luf-cold-") as cache:
            rows.append(measure("cold", 64, cache))
    measure("first", 4, None)  # fills the cache
    for cpus in (4, 16, 64):
        turns = [measure("warm", cpus, None) for _ in range(1 if quick else 3)]
        rows.append(min(turns, key=lambda row: row["cpus_ready_s"]))
    return rows
