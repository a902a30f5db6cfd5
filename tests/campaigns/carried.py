"""Carry the runs of a campaign as `luf sweep` does: side by side, kept one by one; the same command goes on.

What is kept belongs to the sources that it was made by: others begin anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emulator.experiment import Experiment
from emulator.machine import Machine
from emulator.run_folder import command_line, versions
from emulator.sweep.carry import Emulate, carry
from emulator.sweep.facts import facts
from emulator.sweep.journal import SCHEMA, Head, Journal, Line
from emulator.sweep.plan import Job
from emulator.sweep.scheduler import room_here, run_here


def job(design: str, machine: Machine, workload: str, **options: Any) -> Job:
    """Make a run whose key says all that it is."""
    of_machine = {"machine": machine.name, "cpus": machine.cpus, "scale": machine.scale}
    given = of_machine | machine.overrides | options
    key = " ".join([design, workload, *(f"{name}={value}" for name, value in given.items())])
    return Job(key, {"design": design}, Experiment(design, machine, workload, **options))


def carried(campaign: str, jobs: Sequence[Job], run: Emulate = run_here) -> dict[str, Line]:
    """Run all jobs that were not run before; gives what is known of each, by its key."""
    made_by = hashlib.sha256(repr(sorted(facts().items())).encode()).hexdigest()[:12]
    folder = Path("runs") / f"{campaign}-{made_by}"
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder, Head(SCHEMA, made_by, versions(), command_line())) as journal:
        lost = carry(jobs, journal, room_here(None), run)
        return journal.done | {key: Line(key, stopped=why) for key, why in lost.items()}
