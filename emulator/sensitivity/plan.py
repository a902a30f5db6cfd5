"""What is run for a tornado: both designs as they were asked for, and again with each cost whose grade is
`order` halved, and doubled. Nothing else changes, seeds are the same.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from emulator.asked import experiments_of
from emulator.experiment import Experiment
from emulator.machine import ORDER, Machine
from emulator.sweep.plan import Job, Plan, Point, SweepError, identity_of
from emulator.sweep.points import DESIGN
from inputs.text import clipped

COSTS, AS_GIVEN = "costs", "as given"


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost, its value in the machine, and the two others: a half, not below its least, and the double."""

    name: str
    value: int
    half: int
    double: int

    @property
    def both(self) -> tuple[int, int]:
        return self.half, self.double

    @property
    def others(self) -> list[int]:
        return [value for value in self.both if value != self.value]


def costs_of(machine: Machine) -> list[Cost]:
    """Give the costs of a machine whose order of magnitude alone is known."""
    found = []
    for name, grade in machine.grades.items():
        value = getattr(machine.costs, name)
        if grade == ORDER and value:
            found.append(Cost(name, value, max(1, value // 2), 2 * value))
    return found


def sensitivity_plan(options: Namespace) -> tuple[Plan, list[Cost]]:
    """Make all jobs, and name the costs. Raises ValueError."""
    if len(options.designs) != 2 or len(set(options.designs)) != 2:
        rule = "must be asked of two designs, the first of which is what the other is compared with"
        raise SweepError(f"'--sensitivity' {rule} (got {clipped(' '.join(options.designs))})")
    if options.json:
        raise SweepError(f"'--json' must not be given with --sensitivity (got {clipped(options.json)})")
    asked = experiments_of(options)
    machine = asked[0].machine
    costs = costs_of(machine)
    if not costs:
        rule = f"must be asked of a machine that grades a cost as {ORDER!r} in [grades]"
        raise SweepError(f"'--sensitivity' {rule} (got {clipped(machine.name)}, which does not)")
    points = list(_points(asked, costs))
    jobs = []
    for i in range(options.seeds):
        for point, one in reversed(points) if i % 2 else points:
            seed = one.seed + i
            name = " ".join(f"{key}={value}" for key, value in point.items())
            jobs.append(Job(f"{name} seed={seed}", point, replace(one, seed=seed)))
    return Plan([DESIGN, COSTS], jobs, identity_of(options, {DESIGN: options.designs, COSTS: []})), costs


def _points(asked: Sequence[Experiment], costs: Sequence[Cost]) -> Iterator[tuple[Point, Experiment]]:
    """Give both designs with the costs as they are, and with each change of one."""
    machine = asked[0].machine
    changed = [(AS_GIVEN, machine)]
    changed += [(f"{c.name}={value}", _with(machine, c.name, value)) for c in costs for value in c.others]
    for name, machine in changed:
        for one in asked:
            yield {DESIGN: one.design.name, COSTS: name}, replace(one, machine=machine)


def _with(machine: Machine, cost: str, value: int) -> Machine:
    """Give a machine as --set costs.COST=VALUE would."""
    costs = msgspec.structs.replace(machine.costs, **{cost: value})
    overrides = {**machine.overrides, f"costs.{cost}": value}
    return msgspec.structs.replace(machine, costs=costs, overrides=overrides)
