"""A campaign: one design under the portfolio for a time, on all workers; what was found, how often, and what
was exercised.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from emulator.exercised import added
from emulator.stress.pool import Pool
from emulator.stress.portfolio import Portfolio, Result
from emulator.stress.shrinking import Shrink, Small
from emulator.stress.task import Check, Checked, Tried, Try

LOOK_S = 0.1
SHRINK_S = 20.0  # for one finding, at most
SHRINK_SHARE = 0.5  # of all workers' time, at its end, if there is something to shrink


@dataclass(slots=True)
class Finding:
    """What runs of one signature showed. `first` is the run that came first by number among those that were
    done when it was found; of later ones only the hits are counted.
    """

    signature: str
    first: Tried
    runs_before: int  # until it was found, with that run
    seconds: float  # host time until then
    hits: Counter[str] = field(default_factory=Counter)  # by workload
    checked: Checked | None = None
    small: Small | None = None

    @property
    def is_vanilla(self) -> bool:
        """Does vanilla Linux show the same in the same job, or with another seed?"""
        return self.checked is not None and self.checked.vanilla > 0


@dataclass(slots=True)
class Campaign:
    """What a design came to."""

    design: str
    reference: str  # what names it to a command
    seed: int
    workers: int
    seconds: float = 0.0
    runs: Counter[str] = field(default_factory=Counter)  # by workload
    void: Counter[str] = field(default_factory=Counter)
    why_void: dict[str, str] = field(default_factory=dict)
    cut_short: Counter[str] = field(default_factory=Counter)  # those of the void runs that were too long
    strategies: Counter[str] = field(default_factory=Counter)
    knobs: Counter[str] = field(default_factory=Counter)
    figures: Counter[str] = field(default_factory=Counter)
    exercised: dict[str, int] = field(default_factory=dict)  # rare branches, over all runs
    relies_on: tuple[str, ...] = ()  # those of them that the design's safety depends on
    handovers: int = 0
    points: int = 0
    windows: int = 0  # of Linux itself
    phases: Counter[str] = field(default_factory=Counter)  # host seconds of all workers, by what they were at
    findings: dict[str, Finding] = field(default_factory=dict)

    @property
    def own(self) -> list[Finding]:
        """What is put down to the design."""
        return [one for one in self.findings.values() if not one.is_vanilla]

    def add(self, tried: Tried, seconds: float) -> bool:
        """Count a run; is it a finding of a new signature?"""
        job, outcome = tried.job, tried.outcome
        self.runs[job.workload] += 1
        self.strategies[job.strategy] += 1
        self.knobs.update((*(key for key, _ in job.knobs), *job.shaken))
        self.figures.update(outcome.counters)
        self.exercised = added((self.exercised, outcome.exercised))
        self.relies_on = max(self.relies_on, outcome.relies_on, key=len)
        self.handovers += outcome.handovers
        self.points += outcome.points
        self.windows += outcome.windows
        self.phases.update(outcome.seconds)
        if outcome.is_cut_short:
            self.cut_short[job.workload] += 1
        if tried.void:
            self.void[job.workload] += 1
            self.why_void.setdefault(job.workload, tried.void)
        if not tried.signature:
            return False
        new = tried.signature not in self.findings
        if new:
            self.findings[tried.signature] = Finding(tried.signature, tried, self.runs.total(), seconds)
        self.findings[tried.signature].hits[job.workload] += 1
        return new


def run_campaign(
    pool: Pool,
    campaign: Campaign,
    vanilla: str,
    portfolio: Portfolio,
    seconds: float,
    *,
    first: bool = False,
    shrinks: bool = False,
    tell: Callable[[float], None] = lambda *_: None,
    found: Callable[[Finding], None] = lambda _: None,
) -> None:
    """Run jobs until the time is over, or with `first` until something is put down to the design. `vanilla`
    is the design that findings are tried on, if one is named. What is put down to the design is shrunk, if
    that is asked for. `tell` hears how it gets on, `found` of each new finding when it has been checked.
    """
    design = campaign.reference
    checks: list[Check] = []
    large: list[Finding] = []  # that are to be shrunk
    for_shrinking = SHRINK_SHARE * seconds * len(pool.cores)
    began = time.monotonic()

    def over() -> bool:
        return time.monotonic() - began >= seconds or (first and any(one.checked for one in campaign.own))

    def shrinking() -> bool:
        """Is it time to shrink what was found?"""
        return bool(large) and (over() or time.monotonic() - began >= (1 - SHRINK_SHARE) * seconds)

    while pool.is_busy or checks or large or not over():
        while pool.idle:
            if checks:
                pool.put(checks.pop())
            elif shrinking():
                given = min(SHRINK_S, for_shrinking / len(large))
                for_shrinking -= given
                pool.put(Shrink(large.pop(0).first, design, given))
            elif over() or (job := portfolio.next()) is None:
                break
            else:
                pool.put(Try(job, design))
        for result in pool.take(LOOK_S):
            passed = time.monotonic() - began
            if isinstance(result, Checked):
                finding = campaign.findings[result.signature]
                finding.checked = result
                found(finding)
                if shrinks and not finding.is_vanilla:
                    large.append(finding)
                continue
            if isinstance(result, Small):
                campaign.findings[result.found].small = result
                continue
            new = campaign.add(result, passed)
            outcome = result.outcome
            portfolio.tell(
                Result(
                    result.job,
                    result.signature,
                    bool(result.void),
                    tuple(outcome.cpu_points),
                    outcome.handovers,
                )
            )
            if new:
                checks.append(Check(result, design, vanilla))
        campaign.seconds = time.monotonic() - began
        tell(campaign.seconds)
