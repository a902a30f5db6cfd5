"""What one run of a litmus test says: its outcome was allowed, forbidden, or the run is void, since what the
test needs did not happen.

A violation that was reported has happened, whatever else has: such a run is never void. A run that could not
be finished because its design is to blame (a panic, CPUs that wait for ever) counts as forbidden, too; one
that ran out of the machine's memory is void.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from inputs.text import clipped
from workloads.litmus.condition import Condition
from workloads.litmus.sheet import LitmusError
from workloads.litmus.test import Litmus

ALLOWED, FORBIDDEN, VOID = "allowed", "forbidden", "void"


@dataclass(frozen=True, slots=True)
class Run:
    """What a run did, as far as a litmus test asks. `figures`: counters, and the design's own as DESIGN.NAME.
    `found`: what was found wrong, in a word or two each; `stopped`: why it was not finished, if it was not;
    `small`: because the machine is too small for this test under this design.
    """

    figures: Mapping[str, int]
    found: tuple[str, ...] = ()
    stopped: str = ""
    small: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """`what` it is, and `why`."""

    what: str
    why: str


def judge(litmus: Litmus, run: Run) -> Verdict:
    """Judge a run."""
    if run.found:
        return Verdict(FORBIDDEN, run.found[0])
    if run.stopped:
        return Verdict(VOID if run.small else FORBIDDEN, run.stopped)
    if litmus.forbidden is not None and litmus.forbidden.figure in run.figures:
        if litmus.forbidden.holds(run.figures):
            return Verdict(FORBIDDEN, str(litmus.forbidden))
    for condition in litmus.needs:
        if not condition.holds(run.figures):
            return Verdict(VOID, f"not {condition}")
    return Verdict(ALLOWED, "")


def check_figures(litmus: Litmus, known: Mapping[str, object]) -> None:
    """Raise LitmusError for a condition on a counter that the kernel has not."""
    asked = (*litmus.needs, *litmus.possible, *([litmus.forbidden] if litmus.forbidden else []))
    for condition in asked:
        if not condition.design and condition.figure not in known:
            rule = "a figure must be a counter of the kernel, or DESIGN.NAME"
            raise LitmusError(f"{litmus.file}: {rule} (got {clipped(condition.figure)})")


@dataclass(slots=True)
class Tally:
    """The verdicts of many runs of a test under a design."""

    test: str
    design: str
    about: str
    waiting: list[Condition] = field(default_factory=list)  # what must be possible, and has not been seen
    runs: int = 0
    what: Counter[str] = field(default_factory=Counter)
    why: dict[str, Counter[str]] = field(
        default_factory=lambda: {FORBIDDEN: Counter(), VOID: Counter(), ALLOWED: Counter()}
    )

    def add(self, verdict: Verdict, run: Run) -> None:
        """Count one run."""
        self.runs += 1
        self.what[verdict.what] += 1
        self.why[verdict.what][verdict.why] += 1
        self.waiting = [
            one for one in self.waiting if not (one.figure in run.figures and one.holds(run.figures))
        ]

    @property
    def is_bad(self) -> bool:
        """Was something seen that is forbidden, or not seen what must be possible?"""
        return bool(self.what[FORBIDDEN] or (self.waiting and self.runs > self.what[VOID]))

    @property
    def is_void(self) -> bool:
        """Did no run mean anything?"""
        return self.runs == self.what[VOID]

    def line(self) -> str:
        """Say it in words: `37 of 10,000 forbidden, 12 void: reuse (37); not pgsteal_direct > 0 (12)`."""
        parts = [f"{self.what[FORBIDDEN]:,} of {self.runs:,} forbidden"]
        parts += [f"{self.what[VOID]:,} void"] * bool(self.what[VOID])
        parts += [f"never {condition}" for condition in self.waiting]
        reasons = [
            f"{why} ({count:,})" for what in (FORBIDDEN, VOID) for why, count in self.why[what].most_common(3)
        ]
        return ", ".join(parts) + (f": {'; '.join(reasons)}" if reasons else "")
