"""A run that can be had again, in plain words: design, what runs on which machine, seed, schedule.

What runs is the text of a litmus test, which has its machine with it, or a workload and a machine by name.
Left out: workloads and machines that were made in Python; they are written as litmus tests first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from designs.ready import ReadyDesign
from emulator.experiment import Experiment
from emulator.litmus.machine import machine_of
from emulator.machine import load_machine
from emulator.order import LONG_SLICE_NS
from emulator.schedule import Schedule
from workloads.litmus.sheet import Sheet, lines_of, read_sheet
from workloads.litmus.test import Litmus, litmus_of

TEST = "test"  # what a test without a file is called in sentences


@dataclass(frozen=True, slots=True)
class Case:
    """One run, in controlled mode. `test` is the text of a litmus test; without one, `workload` runs on
    `machine`, at `scale`, with `cpus` CPUs and these `overrides`.
    """

    design: str
    test: str = ""
    workload: str = ""
    machine: str = ""
    cpus: int | None = None
    scale: float | None = None
    tokens: int = 2
    overrides: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 1
    check: str = "full"
    debug_luf: bool = False
    schedule: Schedule | None = None

    def sheet(self, name: str = TEST) -> Sheet:
        """Read its litmus test. Raises LitmusError."""
        return read_sheet(name, lines_of(name, self.test))

    def litmus(self, name: str = TEST) -> Litmus:
        """Give its litmus test. Raises LitmusError."""
        return litmus_of(self.sheet(name), name)

    def experiment(self, name: str = TEST, *, design: ReadyDesign | None = None) -> Experiment:
        """Give what runs; `design` is its design, if that has been loaded. Raises ValueError."""
        chosen = design or self.design
        how: dict[str, Any] = {
            "leases": 1, "seed": self.seed, "check": self.check, "debug_luf": self.debug_luf,
            "schedule": self.schedule, "slice_ns": LONG_SLICE_NS,
        }  # fmt: skip
        if self.test:
            litmus = self.litmus(name)
            return Experiment(chosen, machine_of(litmus), litmus.workload, **how)
        machine = load_machine(self.machine, scale=self.scale, cpus=self.cpus, overrides=dict(self.overrides))
        return Experiment(chosen, machine, self.workload, tokens=self.tokens, **how)
