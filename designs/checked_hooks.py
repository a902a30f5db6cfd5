"""The code of a design compiled a second time, with every access and division checked: `--check bounds`.

Its hooks, and the kernels that they call by name, are copied: a copy is the same source, seen through the
checked type of the RAM (cpus/bounds.py). Kernels of the engine that it calls directly are checked where they
use the RAM, since they get it from the copy; what they reach through the text table is the engine as it
always is. Left out: divisions in a kernel of the design that is called as `module.kernel(...)`, whose name is
not looked up here.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import CellType, FunctionType
from typing import Any

import numba
from numba.core.dispatcher import Dispatcher

from cpus.bounds import CHECKED_ERRORS
from cpus.compiled import Entry, dispatcher
from cpus.ram import CHECKED, seen

ENGINE_ROOMS = ("cpus", "allocator")


class CheckedEntry(Entry):
    """A hook that is compiled with checks."""

    errors = CHECKED_ERRORS

    def _signature(self, segment_type: Any) -> Any:
        return super()._signature(seen(segment_type, CHECKED))


def checked_hooks(hooks: Iterable[Entry]) -> tuple[Entry, ...]:
    """Give the same hooks with checks. Raises ValueError where nothing is compiled."""
    if numba.config.DISABLE_JIT:
        rule = "must be full or off while NUMBA_DISABLE_JIT=1 is set"
        raise ValueError(f"'check' {rule}, since bounds are checked in compiled code (got 'bounds')")
    copies: dict[Any, Any] = {}
    return tuple(CheckedEntry(item.text, _filled(_copy(item.function), copies)) for item in hooks)


def _copy(function: Any) -> FunctionType:
    """Copy a function, with names and a closure of its own."""
    cells = tuple(CellType(cell.cell_contents) for cell in function.__closure__ or ())
    copy = FunctionType(
        function.__code__, dict(function.__globals__), function.__name__, function.__defaults__, cells
    )
    copy.__qualname__, copy.__module__ = function.__qualname__, function.__module__
    return copy


def _filled(copy: FunctionType, copies: dict[Any, Any]) -> FunctionType:
    """Have a copy name checked kernels, in its globals and its closure."""
    for name in copy.__code__.co_names:
        if name in copy.__globals__:
            copy.__globals__[name] = _checked(copy.__globals__[name], copies)
    for cell in copy.__closure__ or ():
        cell.cell_contents = _checked(cell.cell_contents, copies)
    return copy


def _checked(value: Any, copies: dict[Any, Any]) -> Any:
    """Give a kernel of the design with checks; anything else as it is."""
    if not isinstance(value, Dispatcher) or value.py_func.__module__.partition(".")[0] in ENGINE_ROOMS:
        return value
    if value not in copies:
        copy, inline = _copy(value.py_func), value.targetoptions.get("forceinline", False)
        copies[value] = dispatcher(copy, forceinline=inline, **CHECKED_ERRORS)
        _filled(copy, copies)  # after that: a kernel may call itself
    return copies[value]
