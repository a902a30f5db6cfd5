"""Shrinking a campaign's finding in a worker: its job as a case in words, the small case, how often that
repeats.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from designs.ready import ReadyDesign
from emulator.replay.case import Case
from emulator.replay.file import Recorded, design_digest, replay_text
from emulator.replay.seen import Seen, runner
from emulator.stress.arena import Arenas
from emulator.stress.job import ROUNDS, SMALL, Job
from emulator.stress.shrink import Run, shrink
from emulator.stress.task import Tried
from workloads.litmus.laid_out import text_of
from workloads.litmus.sheet import Line
from workloads.litmus.smaller import with_heads

REPEATS = 100  # of a small case, as far as there is time
RUN_LEAST_S, RUN_TIMES = 1.0, 4  # what takes longer than so many times the first run is given up
REPEATS_SHARE = 0.3  # of the time for a finding


@dataclass(frozen=True, slots=True)
class Small:
    """What a finding was shrunk to. `text` is a replay file, `seen` what its last run showed; `repeated` of
    `repetitions` runs did the same, event by event.
    """

    found: str  # signature in the campaign
    text: str
    seen: Seen
    size: Mapping[str, int]
    repeated: int
    repetitions: int
    runs: int
    seconds: float
    complete: bool


@dataclass(frozen=True, slots=True)
class Shrink:
    """Shrink what a job has found, in so many seconds."""

    tried: Tried
    design: str
    seconds: float

    def do(self, arenas: Arenas, designs: Mapping[str, ReadyDesign]) -> Small:
        """Do it, in a worker. What did not show itself again has no text."""
        run = runner(arenas, designs[self.design])
        case = case_of(self.tried.job, self.design)
        began = time.monotonic()
        first, found = run(case), None
        if first.signature:
            with arenas.bounded(RUN_LEAST_S + RUN_TIMES * (time.monotonic() - began)):
                found = shrink(case, run, first.signature, seconds=self.seconds * (1 - REPEATS_SHARE))
        if found is None:
            return Small(self.tried.signature, "", first, {}, 0, 0, 1, 0.0, complete=True)
        repeated, repetitions = _repeated(run, found.case, found.seen, self.seconds * REPEATS_SHARE)
        recorded = Recorded(
            found.case, found.seen.signature, found.seen.fingerprint, design_digest(self.design)
        )
        return Small(
            self.tried.signature, replay_text(recorded), found.seen, found.size, repeated, repetitions,
            found.runs, found.seconds, found.complete,
        )  # fmt: skip


def case_of(job: Job, design: str) -> Case:
    """Give a job as a case: of a litmus test its text, with the knobs among what it says of the machine."""
    how = Case(design, seed=job.seed, check=job.check, schedule=job.schedule)
    if test := job.test:
        knobs = [("machine", Line(1, f"{key} = {json.dumps(value)}")) for key, value in job.knobs]
        return replace(how, test=text_of(with_heads(test.sheet, [*test.sheet.heads, *knobs])))
    small: dict[str, Any] = SMALL
    return replace(
        how, workload=job.workload, machine=small["name_or_path"], cpus=small["cpus"], scale=small["scale"],
        tokens=ROUNDS, overrides=dict(job.knobs),
    )  # fmt: skip


def _repeated(run: Run, case: Case, seen: Seen, seconds: float) -> tuple[int, int]:
    """Run a case many times, as long as there is time; returns how many runs did the same, of how many."""
    until, same, runs = time.monotonic() + seconds, 0, 0
    while runs < REPEATS and (time.monotonic() < until or not runs):
        again = run(case)
        same += (again.signature, again.fingerprint) == (seen.signature, seen.fingerprint)
        runs += 1
    return same, runs
