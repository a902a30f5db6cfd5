"""What the runs of a sweep say together: at each point the samples of its runs, and whether they differ from
those of the first design at the same point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from emulator.repeats.figures import samples
from emulator.repeats.spread import Difference, Sample, differences
from emulator.result import Result
from emulator.sweep.plan import Point

DESIGN = "design"


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended, and the point that it belongs to."""

    point: Point
    result: Result


@dataclass(frozen=True, slots=True)
class At:
    """The runs of a point. `changes` are of each figure against `first`, the runs of the first design at the
    same values of all else; both are empty for that design itself, and where it has no run.
    """

    point: Point
    runs: list[Result]
    taken: Mapping[str, Sample]
    first: Mapping[str, Sample] = field(default_factory=dict)
    changes: Mapping[str, Difference] = field(default_factory=dict)

    def counts(self, figure: str) -> tuple[int, int]:
        """Give how many runs a figure's change is of."""
        return len(self.first[figure]), len(self.taken[figure])


def points_of(ended: Sequence[Ended]) -> list[At]:
    """Put the runs of each point together, in the order in which points first come."""
    found: dict[tuple[str, ...], tuple[Point, list[Result]]] = {}
    for one in ended:
        found.setdefault(tuple(one.point.values()), (one.point, []))[1].append(one.result)
    bare = [At(point, runs, samples(runs)) for point, runs in found.values()]
    bases = {_place(at.point): at.taken for at in bare if at.point[DESIGN] == first_design(bare)}
    return [
        At(at.point, at.runs, at.taken, base, differences(base, at.taken))
        if (base := bases.get(_place(at.point), at.taken)) is not at.taken
        else at
        for at in bare
    ]


def first_design(points: Sequence[At]) -> str:
    """Name the design that others are compared with."""
    return points[0].point[DESIGN]


def _place(point: Point) -> tuple[str, ...]:
    return tuple(value for key, value in point.items() if key != DESIGN)
