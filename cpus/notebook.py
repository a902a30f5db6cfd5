"""Kernels of a notebook: code without a file, whose cells are run again, changed, while the process lives on.

numba compiles what a function's names mean when it is first called, for good: a kernel goes on calling the
old version of a helper whose cell was run again. Here a kernel without a file looks at its names, and at
those of the kernels without a file that it calls, before it is called or compiled into another one. If one of
them means something else than when it was compiled, it is compiled again.

Left out: an array that is changed in place (its elements are constants of the compiled code), and functions
that are compiled by numba's own decorators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from numba.core.registry import CPUDispatcher

Meanings = list[tuple[str, Any]]
PLAIN = (bool, int, float, complex, str, bytes)


def meanings(function: Callable) -> Meanings:
    """Give what the names in a function's code mean now, and in that of the notebook's kernels among them."""
    found: Meanings = []
    known, todo = {function}, [function]
    while todo:
        looked_at = todo.pop()
        for name, value in _names(looked_at):
            found.append((name, value))
            if isinstance(value, CellKernel) and value.py_func not in known:
                known.add(value.py_func)
                todo.append(value.py_func)
    return found


def _names(function: Callable) -> Iterator[tuple[str, Any]]:
    codes = [function.__code__]
    for code in codes:
        codes.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))
        yield from (
            (name, function.__globals__[name]) for name in code.co_names if name in function.__globals__
        )
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        yield name, cell.cell_contents


def same(some: Any, others: Any) -> bool:
    """Tell whether two meanings are the same: one object, or equal plain values."""
    if some is others:
        return True
    if type(some) is not type(others):
        return False
    if isinstance(some, list | tuple):
        return len(some) == len(others) and all(map(same, some, others))
    return isinstance(some, PLAIN) and some == others


class CellKernel(CPUDispatcher):
    """A compiled function without a file."""

    _meant: Meanings | None = None  # what its names meant when it was last compiled

    def __call__(self, *arguments: Any) -> Any:
        """Run it as it is to be now."""
        self._renew()
        return super().__call__(*arguments)

    def get_call_template(self, arguments: Any, keywords: Any) -> Any:
        """Say, to the caller that is being compiled, what a call of it is now."""
        self._renew()
        return super().get_call_template(arguments, keywords)

    def _renew(self) -> None:
        now = meanings(self.py_func)
        if not same(now, self._meant):
            self._meant = now
            self._make_finalizer()()
            self._reset_overloads()
            self._compiler._failed_cache.clear()  # a name that was missing may be there now
