"""Run designs over many seeds and numbers of CPUs with the oracle on, and say which runs were not clean.

    python -m tests.campaigns.seeds --designs linux luf --cpus 4 16 64 --seeds 20

Exit code 0 if every run was clean and accounted for, 1 otherwise. One line per run that was not, and one per number of CPUs.
"""

from __future__ import annotations

import argparse
import sys
import time

from emulator.experiment import run_design
from emulator.machine import load_machine
from emulator.supervisor import RunStopped


def main() -> int:
    """Run the campaign as the options say."""
    parser = argparse.ArgumentParser(description="run designs over many seeds with the oracle on")
    parser.add_argument("--designs", nargs="+", default=["linux", "luf"])
    parser.add_argument("--cpus", nargs="+", type=int, default=[4, 16, 64])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--scale", type=float, default=1024)
    parser.add_argument("--tokens", type=int, default=1)
    parser.add_argument("--leases", type=int, default=2)
    parser.add_argument("--workload", default="llama3x15")
    options = parser.parse_args()
    bad = 0
    for cpus in options.cpus:
        for design in options.designs:
            began = time.monotonic()
            dirty = [seed for seed in range(1, options.seeds + 1) if not _clean(design, cpus, seed, options)]
            bad += len(dirty)
            verdict = "all clean" if not dirty else f"NOT clean: seeds {dirty}"
            print(f"{design:8} {cpus:3} CPUs  {options.seeds} seeds  {time.monotonic() - began:6.1f} s  {verdict}", flush=True)
    return 1 if bad else 0


def _clean(design: str, cpus: int, seed: int, options: argparse.Namespace) -> bool:
    machine = load_machine("xeon6430-cxl", scale=options.scale, cpus=cpus)
    try:
        result = run_design(design, machine, options.workload, tokens=options.tokens, leases=options.leases, seed=seed)
    except RunStopped as stopped:
        print(f"{design} {cpus} CPUs seed {seed}: {stopped}", flush=True)
        return False
    if not result.clean:
        first = result.violations[0] if result.violations else ""
        print(f"{design} {cpus} CPUs seed {seed}: {len(result.violations)} violations {first} unaccounted {result.unaccounted}", flush=True)
    return result.clean


if __name__ == "__main__":
    sys.exit(main())
