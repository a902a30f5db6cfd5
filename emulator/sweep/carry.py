"""Bring a journal up to date: run what it has not, and say how far that is."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence

from emulator.report.progress import Progress
from emulator.run_folder import command_line
from emulator.streams import tell
from emulator.sweep.child import Answer
from emulator.sweep.journal import Journal, Line
from emulator.sweep.plan import Job, SweepError
from emulator.sweep.scheduler import Room, Take

Emulate = Callable[[Sequence[Job], Take, Room], None]


class RunFailed(Exception):
    """A run failed by a mistake of ours: its key and why."""


def carry(jobs: Sequence[Job], journal: Journal, room: Room, run: Emulate) -> dict[str, str]:
    """Run all jobs that the journal does not have; gives those that were lost, with why."""
    missing = [job for job in jobs if job.key not in journal.done]
    if len(missing) < len(jobs):
        tell(f"luf: {len(jobs) - len(missing):,} of {len(jobs):,} runs are in {journal.path}")
    lost: dict[str, str] = {}
    with Progress("sweep", unit="runs") as progress:
        began, ended = time.monotonic(), 0

        def take(job: Job, answer: Answer) -> None:
            nonlocal ended
            ended += 1
            _keep(journal, job, answer, lost)
            seconds = (time.monotonic() - began) / ended * (len(missing) - ended)
            left = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
            done = len(jobs) - len(missing) + ended
            progress.update(done, len(jobs))
            progress.phase(f"{done:,}/{len(jobs):,} runs, {left} left")

        try:
            run(missing, take, room)
        except KeyboardInterrupt as error:
            kept = f"{len(jobs) - len(missing) + ended:,} of {len(jobs):,} runs are kept"
            error.__notes__ = [f"{kept} in {journal.path}; the same command goes on: {again()}"]
            raise
    return lost


def _keep(journal: Journal, job: Job, answer: Answer, lost: dict[str, str]) -> None:
    if answer.refused:
        raise SweepError(f"{job.key}: {answer.refused}")
    if answer.failed:
        raise RunFailed(f"{job.key}: {answer.failed}")
    if answer.lost:
        lost[job.key] = answer.lost
        tell(f"luf: {job.key}: no result ({answer.lost})")
        return
    journal.add(Line(job.key, answer.result, answer.stopped, answer.by, answer.by_design))


def again() -> str:
    """Give the command that goes on."""
    return shlex.join(command_line())
