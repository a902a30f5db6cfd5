"""Does `luf compare --seeds` see what is there, and nothing else?

    python -m tests.campaigns.chance [--times 20] [--seeds 6] [--leases 2]

Compares `linux` with itself so many times, with other seeds each time. Then it plants a change in one cost,
of 3 % and of none, and compares with 12 seeds a side. Exit code 0 if at most one comparison of equals shows a
difference, and the planted change is seen and the other is not. Runs are kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence

from emulator.machine import load_machine
from emulator.repeats.figures import samples
from emulator.repeats.spread import Difference, differences
from emulator.sweep.journal import Line
from emulator.sweep.plan import Job
from tests.campaigns.carried import carried, job

SMALL = {"nodes.0.memory_mib": 8, "nodes.1.memory_mib": 16}
UNDER_PRESSURE, LOOKUPS = "churn", "xsbench"  # the second spends its time in memory
COST, USUAL = "costs.line_cxl_tenths", 100
PLANTED_SEEDS, PERCENT = 12, (0, 3)


def main() -> int:
    """Run the campaign as the options say."""
    parser = argparse.ArgumentParser(description="equal and unequal designs, by luf compare's statistics")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--leases", type=int, default=2)
    options = parser.parse_args()
    pairs = [
        [
            side(UNDER_PRESSURE, range(first, first + options.seeds), options.leases)
            for first in (1 + 2 * i * options.seeds, 1 + (2 * i + 1) * options.seeds)
        ]
        for i in range(options.times)
    ]
    usual, others = range(1, PLANTED_SEEDS + 1), range(101, PLANTED_SEEDS + 101)
    planted = [
        [side(LOOKUPS, seeds, options.leases, **{COST: cost})
         for seeds, cost in ((usual, USUAL), (others, USUAL * (100 + percent) // 100))]
        for percent in PERCENT
    ]  # fmt: skip
    every = {one.key: one for pair in (*pairs, *planted) for jobs in pair for one in jobs}
    lines = carried("chance", list(every.values()))
    alarms = 0
    for i, (one, other) in enumerate(pairs):
        found = compared(lines, one, other)
        alarms += any(figure.seen for figure in found.values())
        print(f"{i + 1:3} linux beside linux: {told(found)}", flush=True)
    print(f"{alarms} of {options.times} comparisons of equals show a difference")
    right = alarms <= 1
    for percent, (one, other) in zip(PERCENT, planted, strict=True):
        found = compared(lines, one, other)
        right = right and found["runtime_mean_ns"].seen == (percent > 0)
        print(f"{COST} {percent:+} %: {told(found)}", flush=True)
    return 0 if right else 1


def side(workload: str, seeds: Iterable[int], leases: int, **changes: float) -> list[Job]:
    """Give the runs of linux with each seed, on a small machine with some keys changed."""
    machine = load_machine("guest-8cpu", overrides=SMALL | changes)
    return [job("linux", machine, workload, tokens=1, leases=leases, seed=seed) for seed in seeds]


def compared(lines: Mapping[str, Line], one: Sequence[Job], other: Sequence[Job]) -> dict[str, Difference]:
    """Compare two sides by what their runs did. Raises KeyError for one that has no result."""
    first, second = ([result for run in side if (result := lines[run.key].result)] for side in (one, other))
    if len(first) + len(second) < len(one) + len(other):
        raise KeyError("a run of linux was stopped")
    return differences(samples(first), samples(second))


def told(found: dict[str, Difference]) -> str:
    """Say which figures differ, and what the run time does."""
    seen = [name for name, figure in found.items() if figure.seen]
    runtime = found["runtime_mean_ns"]
    ratio, low, high = (f"{(one - 1) * 100:+.1f}" for one in (runtime.ratio, runtime.low, runtime.high))
    change = f"{ratio} [{low}, {high}] %"
    return f"{', '.join(seen) or 'nothing'} seen; runtime {change}, p = {runtime.p:.2g}"


if __name__ == "__main__":
    sys.exit(main())
