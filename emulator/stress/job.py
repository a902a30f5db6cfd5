"""One run of a campaign by value: what runs, on which machine, with which seed and schedule. Its number and
the campaign's seed say it whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from emulator.experiment import Experiment
from emulator.litmus.machine import machine_of
from emulator.machine import Machine, load_machine
from emulator.order import LONG_SLICE_NS
from emulator.schedule import Schedule
from workloads.litmus.family import SUFFIX
from workloads.litmus.shelf import is_litmus, litmus_test, litmus_tests, shipped
from workloads.litmus.test import Litmus
from workloads.rows import Workload

SMALL = {"name_or_path": "guest-8cpu", "cpus": 4, "scale": 32}  # the machine of workloads that are no test
ROUNDS = 2  # of such a workload
GENERATED = (
    "churn", "munmap-storm:threads=4,pages=8", "readers-writer", "fork-storm", "direct-io", "uprobes",
    "read-only:50%",
)  # fmt: skip
SHAKEN = ("rules", "disturbs", "wraps")  # of a schedule, beside turns
Knobs = tuple[tuple[str, Any], ...]  # keys of a machine, with values


def cpus_of(name: str) -> int:
    """Give how many CPUs a workload's machine has."""
    return _parts(name, ())[0].cpus


@cache
def tests() -> dict[str, Litmus]:
    """Give all litmus tests that ship, by the name that names one: `munmap.litmus:pages=16`."""
    found = [test for name in shipped() for test in litmus_tests(name)]
    return {named(test.name): test for test in found}


def named(test: str) -> str:
    """Give a test's name as a workload is named."""
    base, colon, given = test.partition(":")
    return f"{base.removesuffix(SUFFIX)}{SUFFIX}{colon}{given}"


@dataclass(frozen=True, slots=True)
class Job:
    """`workload` is a litmus test or a generated workload, by name. `strategy` is the portfolio's name for
    how its schedule was drawn.
    """

    number: int
    workload: str
    strategy: str
    seed: int
    knobs: Knobs = ()
    check: str = "full"
    schedule: Schedule | None = None

    def experiment(self, design: Any) -> Experiment:
        """Describe its run under a design. Raises ValueError."""
        machine, workload = _parts(self.workload, self.knobs)
        return Experiment(
            design,
            machine,
            workload,
            leases=1,
            seed=self.seed,
            check=self.check,
            tokens=ROUNDS,
            schedule=self.schedule,
            slice_ns=LONG_SLICE_NS,
        )

    @property
    def possible(self) -> Job:
        """Give it without knobs that the machine of its workload cannot have, as a reserve larger than its
        memory.
        """
        try:
            _parts(self.workload, self.knobs)
        except ValueError:
            return replace(self, knobs=())
        return self

    def with_seed(self, seed: int) -> Job:
        """Give the same with another seed, of the schedule, too."""
        schedule = replace(self.schedule, seed=seed) if self.schedule else None
        return replace(self, seed=seed, schedule=schedule)

    @property
    def shaken(self) -> tuple[str, ...]:
        """Name what its schedule does beside turns."""
        return tuple(name for name in SHAKEN if self.schedule and getattr(self.schedule, name))

    @property
    def test(self) -> Litmus | None:
        """The litmus test that runs, if it is one."""
        return _test(self.workload) if is_litmus(self.workload) else None

    def command(self, design: str) -> str:
        """Give the command line that repeats it exactly."""
        words = ["luf run", design, "--workload", f"'{self.workload}'", f"--seed {self.seed} --leases 1"]
        if not is_litmus(self.workload):
            words.append(
                f"--machine {SMALL['name_or_path']} --cpus {SMALL['cpus']} --scale {SMALL['scale']} "
                f"--tokens {ROUNDS}"
            )
        words += [f"--set {key}={_plain(value)}" for key, value in self.knobs]
        if self.schedule:
            words.append(f"--schedule {self.schedule}")
        elif not is_litmus(self.workload):
            words.append(f"--slice {LONG_SLICE_NS}")
        words += [f"--check {self.check}"] * (self.check != "full")
        return " ".join(words)


@cache
def _test(name: str) -> Litmus:
    return tests().get(name) or litmus_test(name)


@cache
def _parts(name: str, knobs: Knobs) -> tuple[Machine, Workload | str]:
    """Give machine and workload, which many jobs share."""
    overrides: Mapping[str, Any] = dict(knobs)
    if is_litmus(name):
        test = _test(name)
        return machine_of(test, overrides=overrides), test.workload
    small: dict[str, Any] = SMALL | {"overrides": overrides}
    return load_machine(**small), name


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
