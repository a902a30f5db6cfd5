"""What a flush design declares: a name, its own shared fields, and its hooks.

Left out: anything at run time. Hooks run compiled, in the CPU processes; the object itself stays in the
supervisor.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, ClassVar

from allocator.hooks import HOOKS
from cpus.compiled import HOOK, Entry, entry
from cpus.layout import Sizes
from cpus.segment import DesignFields

HOOK_ARGUMENTS = 6


class DesignError(ValueError):
    """Something is wrong with a design: one sentence that names its file and line."""


def hook(name: str) -> Callable[[Callable], Entry]:
    """Make the decorated function the design's hook `name` ("pte_cleared", ...): f(ram, cpu, a, b, c, d) ->
    int.

    The four arguments may bear names that say what they are (allocator/hooks.py). Raises DesignError for a
    name that no hook has, and for a function of other than six arguments.
    """

    def decorate(function: Callable) -> Entry:
        code = function.__code__
        place = f"{code.co_filename}:{code.co_firstlineno}"
        if name not in HOOKS:
            close = difflib.get_close_matches(name, HOOKS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise DesignError(f"{place}: 'hook' must be one of {', '.join(HOOKS)} (got {name!r}){hint}")
        if code.co_argcount != HOOK_ARGUMENTS or code.co_kwonlyargcount:
            got = ", ".join(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
            wanted = HOOKS[name].signature
            raise DesignError(f"{place}: hook {name} must take six arguments, {wanted} (got {got})")
        return entry(HOOKS[name])(function)

    return decorate


def hooks(*names: str) -> Callable[[Callable], tuple[Entry, ...]]:
    """Make the decorated function several of the design's hooks, which it answers alike: a tuple of them."""
    return lambda function: tuple(hook(name)(function) for name in names)


def hook_places(hooks: tuple[Entry, ...]) -> dict[str, str]:
    """Give, by the hook's name, where its function stands, and what it is called."""
    places = {}
    for item in hooks:
        code = item.function.__code__
        places[item.text.name.removeprefix(HOOK)] = f"{code.co_filename}:{code.co_firstlineno} {item.name}"
    return places


def replaced(hooks: tuple[Entry, ...], *own: Entry) -> tuple[Entry, ...]:
    """Give the hooks of another design with `own` in the place of its functions for the same hooks."""
    taken = {item.text for item in own}
    return (*(item for item in hooks if item.text not in taken), *own)


class Design:
    """Base of all designs. `name` and the first line of the docstring are what users see.

    `parameters`: name -> value -> what that value means; the first value is the default. They are given as
    `luf:sync=help`; `given` has those, and `chosen` has them all.
    """

    name: str = ""
    parameters: ClassVar[dict[str, dict[str, str]]] = {}
    hooks: tuple[Entry, ...] = ()
    # rare branches that its safety depends on, so that a run which never took one proves little: names of
    # counters (groups EXERCISED and DEFERRED of cpus/declare.py, or any), or of figures of `statistics`
    relies_on: tuple[str, ...] = ()
    # what a run with LUF's debug feature adds (designs/luf/debug.py); () it cannot
    debug_hooks: tuple[Entry, ...] = ()

    def __init__(self, **given: str):
        """Make it with these parameters. Raises ValueError for one that the design has not."""
        self.given = given
        self.chosen = {name: next(iter(values)) for name, values in self.parameters.items()}
        for name, value in given.items():
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none: this design has no parameters"
                raise ValueError(f"'parameter of {self.name}' must be one of {known} (got {name!r})")
            if value not in self.parameters[name]:
                raise ValueError(
                    f"'{self.name}:{name}' must be one of {', '.join(self.parameters[name])} (got {value!r})"
                )
            self.chosen[name] = value
        if given:
            self.name = ":".join([self.name, *(f"{name}={value}" for name, value in given.items())])

    def fields(self, sizes: Sizes) -> DesignFields:
        """Give the design's own shared fields (int64): name -> shape. At most 48."""
        return {}

    def prepare(self, ram: Any) -> None:
        """Set initial values of the design's fields (`ram.design[name]` are numpy views), before the CPUs
        start.
        """

    def statistics(self, ram: Any) -> dict[str, Any]:
        """Give figures of the design's own about a run that is over; they stand in the result as
        `design_stats`, so as JSON has types.

        Numbers of numpy are none of these: int(...), float(...), .tolist(). "findings", if it is there, is a
        list of sentences: what the design itself found wrong; with one of them the run is not clean.
        """
        return {}
