"""What to try next: workloads, ways to schedule and knobs, drawn from one seed, more often those that found
something new.

The first pass runs each workload once as it is, since most wrong designs need no more. Then every job draws a
workload and a strategy, by how much these have found in how many runs, and for a part of the jobs a knob of
the machine. Jobs are drawn in rounds; a round goes by what all rounds but the last had found, and each job by
a stream of its own. So job number k of a seed is the same run on any number of workers, however fast these
are. What a run costs is reckoned by its hand-overs, not by the host's clock: a tenth of all tests would take
two thirds of the time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import numpy as np

from emulator.schedule import Schedule
from emulator.stress.job import Job, Knobs

ROUND = 32  # jobs
PATIENCE = 12  # runs without anything new that make a workload half as likely
CHEAP = 700  # hand-overs of a run that make it cost twice what it costs to lay out and to judge
VOID_WEIGHT = 0.25  # of a workload whose runs never met what it is about
KNOB_SHARE = 0.3  # of the jobs behind the first pass
PLAIN = "none"  # the strategy that leaves the engine as it is: CPUs hand over where they wait
KNOBS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("sysctl.tlb_single_page_flush_ceiling", (1, 4, 1_000_000)),
    ("sysctl.watermark_scale_factor", (1, 100, 1000)),
    ("sysctl.min_free_kbytes", (256, 1024)),
    ("sysctl.fault_around_bytes", (4096, 65536)),
    ("sysctl.init_on_free", (True,)),
    ("tlb.pcid", (False, True)),
    ("tlb.asid_slots", (1, 2)),
    ("tlb.stlb.entries", (128, 4096)),
)


DISTANCES = (10, 30, 100, 300, 1000, 3000)  # scheduling points between two decisions, on average
POINTS = 20_000  # of a run, until one has been counted
TICKS_NS = (100_000, 500_000, 4_000_000)  # the last is Linux's
POINTS_MAX = 3_000_000  # of a run: some seconds
RULES_SHARE = 0.1  # of the runs with points hold accesses against the kernel's own rules
# of these runs, how many have drains and idle moments at ticks, which come often then; and begin with numbers
# that are about to wrap around
DISTURBED_SHARE, WRAPS_SHARE = 0.25, 0.1
OFTEN_NS = (2_000, 10_000, 50_000)
# how CPUs take turns in the engine with scheduling points (cpus/strategies.py)
STRATEGIES = (
    *(f"walk {distance}" for distance in DISTANCES),
    *(f"pct {depth}" for depth in (1, 2, 3, 5)),
    "surw 100", "surw 1000", "starve 300", "hooks 3", "hooks 10",
    "places 30", "places 100", "places 300", "places 1000",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """What the portfolio hears of a job."""

    job: Job
    signature: str  # of what was found, if anything
    void: bool  # it meant nothing
    cpu_points: tuple[int, ...] = ()  # scheduling points of each CPU
    handovers: int = 0  # by which what a run costs is reckoned


class Portfolio:
    """Draws jobs, and learns from what they found. `workloads` and `strategies` are names; `cpus` gives how
    many CPUs a workload's machine has.
    """

    def __init__(
        self,
        seed: int,
        workloads: Sequence[str],
        strategies: Sequence[str],
        *,
        check: str = "full",
        cpus: Callable[[str], int] = lambda _: 1,
    ):
        self.seed, self.check, self.cpus = seed, check, cpus
        self.workloads, self.strategies = list(workloads), list(strategies)
        self.drawn = 0
        self.told: dict[int, Result] = {}  # by the job's number
        self._points: dict[str, tuple[int, ...]] = {}  # of each CPU, by workload
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

    def tell(self, result: Result) -> None:
        """Learn from a job."""
        self.told[result.job.number] = result

    def _round(self, number: int, known: int) -> list[Job]:
        """Draw a round by the results of the first `known` jobs."""
        seen, workloads, strategies = {""}, [], []
        for result in (self.told[n] for n in range(known)):
            new = result.signature not in seen  # to all jobs of a smaller number
            seen.add(result.signature)
            workloads.append((result.job.workload, new, result))
            strategies.append((result.job.strategy, new, replace(result, void=False, handovers=0)))
            if result.cpu_points:
                self._points[result.job.workload] = result.cpu_points
        weights, ways = _weights(self.workloads, workloads), _weights(self.strategies, strategies)
        return [self._job(number * ROUND + i, weights, ways) for i in range(ROUND)]

    def _job(self, number: int, weights: np.ndarray, ways: np.ndarray) -> Job:
        def draw(stream: str) -> np.random.Generator:
            return np.random.default_rng(np.random.SeedSequence([self.seed, number, *stream.encode()]))

        seed = int(draw("seed").integers(1, 2**31))
        if number < len(self.workloads):
            return Job(number, self.workloads[number], PLAIN, seed, check=self.check)
        workload = self.workloads[draw("workload").choice(len(weights), p=weights)]
        strategy = self.strategies[draw("strategy").choice(len(ways), p=ways)]
        schedule = self._schedule(strategy, workload, seed, draw("schedule"))
        if schedule:
            schedule = _shaken(schedule, draw("shaken"))
        return Job(number, workload, strategy, seed, self._knobs(draw("knobs")), self.check, schedule)

    def _schedule(
        self, strategy: str, workload: str, seed: int, random: np.random.Generator
    ) -> Schedule | None:
        """Make the schedule that a strategy of the portfolio stands for."""
        if strategy == PLAIN:
            return None
        kind, _, number = strategy.partition(" ")
        counted = self._points.get(workload, ())
        given: dict[str, Any] = {"seed": seed, "tick_ns": TICKS_NS[random.integers(len(TICKS_NS))]}
        given |= {"points_max": POINTS_MAX}
        if kind == "places":
            given |= {"distance": DISTANCES[random.integers(len(DISTANCES))], "places": int(number)}
        elif kind == "pct":
            given |= {"depth": int(number), "points": max(1, sum(counted) or POINTS)}
        else:
            given |= {"distance": int(number)}
        if kind == "surw":
            given |= {"expected": counted}
        if kind == "starve":
            given |= {"cpu": int(random.integers(self.cpus(workload)))}
        return Schedule(kind, **given)

    def _knobs(self, random: np.random.Generator) -> Knobs:
        if random.random() >= KNOB_SHARE:
            return ()
        key, values = KNOBS[random.integers(len(KNOBS))]
        return ((key, values[random.integers(len(values))]),)


def _shaken(schedule: Schedule, random: np.random.Generator) -> Schedule:
    """Draw what else happens in a run, or is looked at."""
    rules, disturbed, wraps = random.random(3) < (RULES_SHARE, DISTURBED_SHARE, WRAPS_SHARE)
    given: dict[str, Any] = {"rules": int(rules), "wraps": int(wraps)}
    if disturbed:
        given |= {"disturbs": 1, "tick_ns": OFTEN_NS[random.integers(len(OFTEN_NS))]}
    return replace(schedule, **given)


def _weights(names: Sequence[str], results: Sequence[tuple[str, bool, Result]]) -> np.ndarray:
    """Give the chance of each name: it grows with what is new, and falls with runs that find nothing new, and
    with what these cost.
    """
    runs, new, meant, handed = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for name, found, result in results:
        runs[name] += 1
        new[name] += found
        meant[name] += not result.void
        handed[name] += result.handovers
    weights = [
        (1 + new[name]) / (1 + runs[name] / PATIENCE)
        * (VOID_WEIGHT if runs[name] and not meant[name] else 1.0)
        / sqrt(1 + handed[name] / max(1, runs[name]) / CHEAP)
        for name in names
    ]  # fmt: skip
    return np.array(weights) / sum(weights)
