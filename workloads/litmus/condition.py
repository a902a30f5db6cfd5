"""What must have happened in a run, or must not: a figure compared with a number, `pgsteal_direct > 0`.

A figure is a counter of the kernel, or `DESIGN.NAME`, one that a design counts itself; the latter says
nothing about runs of other designs.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from inputs.text import clipped

COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le, "=": operator.eq,
}  # fmt: skip
SHAPE = re.compile(r"([A-Za-z_][\w.]{0,79}) *(>=|<=|>|<|=) *([0-9]{1,15})")


@dataclass(frozen=True, slots=True)
class Condition:
    """`figure` compared with `number`."""

    figure: str
    comparison: str
    number: int

    @property
    def design(self) -> str:
        """Whose figure it is; empty: the kernel's."""
        return self.figure.rpartition(".")[0]

    def holds(self, figures: Mapping[str, int]) -> bool:
        """Does it hold for these figures? One that is not among them says nothing."""
        value = figures.get(self.figure)
        return value is None or COMPARISONS[self.comparison](value, self.number)

    def __str__(self) -> str:
        return f"{self.figure} {self.comparison} {self.number}"


def conditions(text: str) -> tuple[Condition, ...]:
    """Read `pgsteal_direct > 0, luf.flushes > 0`. Raises ValueError with rule and value."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        shape = SHAPE.fullmatch(part)
        if shape is None:
            rule = "must be a figure compared with a number, such as pgsteal_direct > 0"
            raise ValueError(f"{rule} (got {clipped(part)})")
        found.append(Condition(shape[1], shape[2], int(shape[3])))
    return tuple(found)
