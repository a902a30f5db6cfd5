"""What to try next: workloads, ways to schedule and knobs, drawn from one seed, more often those that found
something new.

The first pass runs each workload once as it is, since most wrong designs need no more. Then every job draws a
workload and a strategy, by how much these have found in how many runs, and for a part of the jobs a knob of
the machine. Jobs are drawn in rounds; a round goes by what all rounds but the last had found, and each job by
a stream of its own. So job number k of a seed is the same run on any number of workers, however fast these
are.
Left out: how long a run takes, of which the host alone knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from emulator.stress.job import Job, Knobs

ROUND = 32  # jobs
PATIENCE = 12  # runs without anything new that make a workload half as likely
VOID_WEIGHT = 0.25  # of a workload whose runs never met what it is about
KNOB_SHARE = 0.3  # of the jobs behind the first pass
PLAIN = "none"  # the strategy that leaves the engine as it is: CPUs hand over where they wait
KNOBS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("sysctl.tlb_single_page_flush_ceiling", (1, 4, 1_000_000)),
    ("sysctl.watermark_scale_factor", (1, 100, 1000)),
    ("sysctl.fault_around_bytes", (4096, 65536)),
    ("sysctl.init_on_free", (True,)),
    ("tlb.pcid", (False, True)),
    ("tlb.asid_slots", (1, 2)),
    ("tlb.stlb.entries", (128, 4096)),
)


class Portfolio:
    """Draws jobs, and learns from what they found. `workloads` and `strategies` are names."""

    def __init__(self, seed: int, workloads: Sequence[str], strategies: Sequence[str], check: str = "full"):
        self.seed, self.check = seed, check
        self.workloads, self.strategies = list(workloads), list(strategies)
        self.drawn = 0
        self.told: dict[int, tuple[Job, str, bool]] = {}  # by number: its signature, was it void
        self._jobs: dict[int, list[Job]] = {}

    def next(self) -> Job | None:
        """Give the next job; None while a result is missing that it goes by."""
        number, first = self.drawn % ROUND, self.drawn // ROUND
        if first not in self._jobs:
            known = (first - 1) * ROUND
            if any(n not in self.told for n in range(max(0, known - ROUND), known)):
                return None
            self._jobs = {first: self._round(first, max(0, known))}
        self.drawn += 1
        return self._jobs[first][number]

    def tell(self, job: Job, signature: str, void: bool) -> None:
        """Learn from a job: what did it find, if anything? Did it mean nothing?"""
        self.told[job.number] = job, signature, void

    def _round(self, number: int, known: int) -> list[Job]:
        """Draw a round by the results of the first `known` jobs."""
        seen, results = {""}, []
        for job, signature, void in (self.told[n] for n in range(known)):
            results.append((job, signature not in seen, void))  # new to all jobs of a smaller number
            seen.add(signature)
        weights = _weights(self.workloads, [(job.workload, new, void) for job, new, void in results])
        ways = _weights(self.strategies, [(job.strategy, new, False) for job, new, _ in results])
        return [self._job(number * ROUND + i, weights, ways) for i in range(ROUND)]

    def _job(self, number: int, weights: np.ndarray, ways: np.ndarray) -> Job:
        def draw(stream: str) -> np.random.Generator:
            return np.random.default_rng(np.random.SeedSequence([self.seed, number, *stream.encode()]))

        seed = int(draw("seed").integers(1, 2**31))
        if number < len(self.workloads):
            return Job(number, self.workloads[number], PLAIN, seed, check=self.check)
        workload = self.workloads[draw("workload").choice(len(weights), p=weights)]
        strategy = self.strategies[draw("strategy").choice(len(ways), p=ways)]
        return Job(number, workload, strategy, seed, self._knobs(draw("knobs")), self.check)

    def _knobs(self, random: np.random.Generator) -> Knobs:
        if random.random() >= KNOB_SHARE:
            return ()
        key, values = KNOBS[random.integers(len(KNOBS))]
        return ((key, values[random.integers(len(values))]),)


def _weights(names: Sequence[str], results: Sequence[tuple[str, bool, bool]]) -> np.ndarray:
    """Give the chance of each name: it grows with what is new, and falls with runs that find nothing new."""
    runs, new, meant = Counter[str](), Counter[str](), Counter[str]()
    for name, found, void in results:
        runs[name] += 1
        new[name] += found
        meant[name] += not void
    weights = [
        (1 + new[name]) / (1 + runs[name] / PATIENCE)
        * (VOID_WEIGHT if runs[name] and not meant[name] else 1.0)
        for name in names
    ]  # fmt: skip
    return np.array(weights) / sum(weights)
