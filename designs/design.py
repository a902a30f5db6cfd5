"""What a flush design declares: a name, its own shared fields, and its hooks.

Left out: anything at run time. Hooks run compiled, in the CPU processes; the object itself stays in the supervisor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from allocator.hooks import HOOKS, TEXT
from cpus.compiled import Entry, entry
from cpus.layout import Sizes
from cpus.segment import DesignFields


def hook(name: str) -> Callable[[Callable], Entry]:
    """Make the decorated function the design's hook `name` ("pte_cleared", ...): f(ram, cpu, a, b, c, d) -> int.

    Raises ValueError for a name that no hook has.
    """
    full = f"hook_{name}"
    if full not in HOOKS:
        known = ", ".join(key.removeprefix("hook_") for key in HOOKS)
        raise ValueError(f"'hook' must be one of {known} (got {name!r})")
    return entry(TEXT[full])


class Design:
    """Base of all designs. `name` and the first line of the docstring are what users see."""

    name: ClassVar[str] = ""
    hooks: ClassVar[tuple[Entry, ...]] = ()

    def fields(self, sizes: Sizes) -> DesignFields:
        """Give the design's own shared fields (int64): name -> shape. At most 48."""
        return {}

    def prepare(self, ram: Any) -> None:
        """Set initial values of the design's fields (`ram.design[name]` are numpy views), before the CPUs start."""
