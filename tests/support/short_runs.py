"""Runs that take no time, for tests of what carries runs: each says that it began, and one can be held. The
engine is not loaded.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from emulator.machine import Machine
from emulator.result import Result
from emulator.stopped import Stuck
from tests.emulator.fixed import REUSE, run


@dataclass(frozen=True)
class ShortRun:
    """Stands in for an Experiment; `does` says how it ends, `folder` is where it leaves word."""

    design: str
    machine: Machine
    seed: int
    folder: Path
    does: str = ""
    leases: int = 1

    def run(self) -> Result:
        with open(self.folder / "began", "a") as file:
            file.write(f"{self.design} {self.seed}\n")
        if self.does == "held" and not (self.folder / "go").exists():
            with open(self.folder / "pipe", "w") as pipe:  # until its process ends
                pipe.write(f"{os.getppid()}\n")
                pipe.flush()
                signal.pause()
        if self.does == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.does == "stuck":
            raise Stuck("cpu1 waits for cpu2")
        if self.does == "refused":
            raise ValueError("no room")
        wrong = {"violations": [REUSE], "accounted": {}} if self.does == "dirty" else {}
        figure = 1000 * len(self.design) + self.seed
        per_cpu = [figure, 0, 0, 0]
        figures = {"tlb_shootdowns": figure, "tlb_shootdowns_per_cpu": per_cpu}
        return run(self.design, seed=self.seed, **figures, **wrong)


def began(folder: Path) -> Counter[str]:
    """Count how often each has begun."""
    return Counter((folder / "began").read_text().splitlines())
