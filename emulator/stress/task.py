"""What a worker does with a job: run it, judge it, and try a finding again, under its own design and under
vanilla Linux.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from designs.ready import ReadyDesign
from emulator.litmus.verdict import FORBIDDEN, VOID, Run, judge
from emulator.stress.arena import Arenas
from emulator.stress.job import Job
from emulator.stress.outcome import FINISHED, Outcome
from emulator.stress.signature import signature_of

AGAIN = 3  # times that a finding is repeated
VANILLA_SEEDS = 20  # runs of vanilla Linux, the first with the same seed


@dataclass(frozen=True, slots=True)
class Tried:
    """A job's run. `signature` is empty if nothing was found; `void` says why the run means nothing."""

    job: Job
    outcome: Outcome
    signature: str = ""
    void: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of a finding: how often it came again in so many repetitions, and in how many of so many
    runs vanilla Linux showed the same.
    """

    job: Job
    signature: str
    repeated: int
    repetitions: int
    vanilla: int
    vanilla_runs: int


@dataclass(frozen=True, slots=True)
class Try:
    """Run a job under a design."""

    job: Job
    design: str

    def do(self, arenas: Arenas, designs: Mapping[str, ReadyDesign]) -> Tried:
        """Do it, in a worker."""
        return tried(arenas, self.job.possible, designs[self.design])


@dataclass(frozen=True, slots=True)
class Check:
    """Repeat a finding, and look for it under vanilla Linux, which is named if it is not its design."""

    tried: Tried
    design: str
    vanilla: str = ""

    def do(self, arenas: Arenas, designs: Mapping[str, ReadyDesign]) -> Checked:
        """Do it, in a worker."""
        first = self.tried
        same = sum(
            again.signature == first.signature and again.outcome.fingerprint == first.outcome.fingerprint
            for again in (tried(arenas, first.job, designs[self.design]) for _ in range(AGAIN))
        )
        runs = hits = 0
        while self.vanilla and runs < VANILLA_SEEDS and not hits:
            hits += tried(
                arenas, first.job.with_seed(first.job.seed + runs), designs[self.vanilla]
            ).signature == (first.signature)
            runs += 1
        return Checked(first.job, first.signature, same, AGAIN, hits, runs)


def tried(arenas: Arenas, job: Job, design: ReadyDesign) -> Tried:
    """Run a job and judge it. Most find nothing, and what is not asked for then is not read: thousands of
    hand-overs. A finding is run again, exactly, and has them.
    """
    one = _judged(job, arenas.run(job.experiment(design), brief=True))
    if one.signature and job.schedule:
        one = _judged(job, arenas.run(job.experiment(design)))
    return one


def _judged(job: Job, outcome: Outcome) -> Tried:
    signature, void = signature_of(outcome), outcome.sentence if outcome.is_void else ""
    if (test := job.test) and not signature and not void:
        verdict = judge(test, Run(outcome.counters))
        if verdict.what == FORBIDDEN:
            signature = f"forbidden outcome of {test.name}: {verdict.why}"
        elif verdict.what == VOID:
            void = verdict.why
    if outcome.ended != FINISHED and not (signature or void):
        raise AssertionError(f"a run that did not finish must be a finding or void (got {outcome})")
    return Tried(job, outcome, signature, void)
