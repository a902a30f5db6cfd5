"""Repeat a controlled run and say whether it was the same each time: events, counters, clocks, schedule.

    python -m tests.campaigns.repeat --design luf --cpus 16 --times 20

Exit code 0 if all repeats of a seed agree and another seed differs.
"""

from __future__ import annotations

import argparse
import sys

from emulator.experiment import run_design
from emulator.machine import load_machine


def main() -> int:
    """Run the campaign as the options say."""
    parser = argparse.ArgumentParser(description="repeat a controlled run (one lease)")
    parser.add_argument("--design", default="luf")
    parser.add_argument("--cpus", type=int, default=16)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1024)
    options = parser.parse_args()

    def fingerprint(seed: int) -> str:
        machine = load_machine("xeon6430-cxl", scale=options.scale, cpus=options.cpus)
        return run_design(options.design, machine, tokens=1, leases=1, seed=seed).fingerprint

    same = {fingerprint(options.seed) for _ in range(options.times)}
    other = fingerprint(options.seed + 1)
    print(
        f"{options.design} {options.cpus} CPUs seed {options.seed}: {options.times} repeats, {len(same)} "
        f"fingerprint(s) {min(same)[:16]}"
    )
    print(f"seed {options.seed + 1}: {other[:16]}")
    return 0 if len(same) == 1 and other not in same else 1


if __name__ == "__main__":
    sys.exit(main())
