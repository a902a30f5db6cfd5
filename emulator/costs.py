"""The cost table of a machine file: one key for each cost that a module declares beside the code that charges
it (cpus/declare.py).

`Costs` is made when it is first asked for: the modules bring the compiler with them, and whoever only wants
the names of machines does not wait for that.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta

NS_MAX = 10**9
Nanoseconds = Annotated[int, Meta(ge=0, le=NS_MAX)]


@cache
def costs_type() -> Any:
    """Give the type of `machine.costs`."""
    from designs.memory_map import MACHINE

    fields = [(cost.name, Annotated[int, Meta(ge=cost.least, le=NS_MAX)]) for cost in MACHINE.costs]
    return msgspec.defstruct("Costs", fields, frozen=True, kw_only=True, module=__name__)


def __getattr__(name: str) -> Any:
    """`emulator.costs.Costs`, by which a machine that travels finds its type again."""
    if name == "Costs":
        return costs_type()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
