"""Checks every access of the emulated kernel to shared memory against the rule that its field declares.

Without the JIT (NUMBA_DISABLE_JIT=1) kernels are plain Python and fields numpy arrays. `watch(ram)` puts a
`Watched` in the place of each array; from then on an access by a kernel that its rule does not allow raises
`RuleBroken`, in the CPU's own process, with field, index, CPU, operation and place. Who accesses is read off
the call stack: the nearest kernel that has a `cpu`. What tests and the emulator access is not looked at.
Left out: rules of reading and writing a design's own fields, which declare none; whether a lock is held long
enough; accesses through addresses (lock_slow, the host's system calls).
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np

import emulator.supervisor
from cpus.declare import BIT, OWNER, Field, Lock, Rule
from cpus.rules import READ, READING, WRITE, allowed, anybody

ROOT = Path(__file__).parents[2]
KERNELS = tuple(str(ROOT / room) for room in ("cpus", "allocator", "designs"))
ATOMICS, CPUMASKS = str(ROOT / "cpus/atomics.py"), str(ROOT / "cpus/cpumask.py")
DEPTH = 2  # frames from _judge to who accesses
# functions before a CPU is one, and of the supervisor
NOT_YET = {str(ROOT / "allocator/boot.py"), str(ROOT / "cpus/process.py")}


class RuleBroken(AssertionError):
    """An access that the declared rule of its field does not allow."""


def watch(ram: Any, instead: dict[str, Rule] | None = None) -> None:
    """Have all fields of this RAM watched from now on; `instead`: rules in the place of declared ones."""
    for name, declared in ram.layout.fields.items():
        if isinstance(declared, Lock) and declared.kind == BIT:
            continue
        if name in (instead or {}):
            declared = dataclasses.replace(declared, rule=(instead or {})[name], reads=None)
        setattr(ram, name, Watched(ram, declared, getattr(ram, name)))


def watch_cpus(monkeypatch: Any, instead: dict[str, Rule] | None = None) -> None:
    """Have every CPU process of the runs to come watch its accesses."""
    real = emulator.supervisor.cpu_process

    def watched(ram: Any, *rest: Any) -> None:
        watch(ram, instead)
        real(ram, *rest)

    monkeypatch.setattr(emulator.supervisor, "cpu_process", watched)


class Watched:
    """A field whose accesses are judged; to everybody but kernels the numpy array that it was."""

    def __init__(self, ram: Any, declared: Field | Lock, view: np.ndarray, row: int | None = None):
        self._ram, self._declared, self._view, self._row = ram, declared, view, row
        self._free = {
            READ: anybody(declared.reads or declared.rule, READ),
            WRITE: anybody(declared.rule, WRITE),
        }

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._view[index]
        if self._view.ndim == 2 and not isinstance(index, tuple):
            others = self._free[READ] and _cpu_of(sys._getframe(1)) != index  # who may look, and no more
            if self._declared.rule != OWNER or others:
                return Watched(self._ram, self._declared, self._view[index], int(index))
            self._judge(index, WRITE)  # a row of one's own: all that follows is as good as this
            return self._view[index]
        self._judge(index, READ)
        return self._view[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(index, slice):
            self._judge(index, WRITE)
        self._view[index] = value

    def __len__(self) -> int:
        return len(self._view)

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return np.asarray(self._view, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)

    def _judge(self, index: Any, access: str) -> None:
        if self._free[READ] and (access == READ or self._free[WRITE]):
            return
        frame = sys._getframe(DEPTH)
        operation = ""
        if frame.f_code.co_filename == ATOMICS:
            operation = frame.f_code.co_name
            frame = frame.f_back
        if frame is None or not frame.f_code.co_filename.startswith(KERNELS):
            return
        cpu = _cpu_of(frame)
        if cpu is None:
            return
        where = index if isinstance(index, tuple) else (index,)
        if self._row is not None:
            where = (self._row, *where)
        if any(isinstance(i, slice) for i in where):
            return  # numpy's, in plain Python
        where = tuple(int(i) for i in where)
        if operation and operation not in READING:
            access = WRITE
        rule = self._declared.rule
        if access == READ and self._declared.reads is not None:
            rule = self._declared.reads
        if not allowed(_Raw(self._ram), rule, where, cpu, access, operation):
            code = frame.f_code
            place = f"{Path(code.co_filename).relative_to(ROOT)}:{frame.f_lineno}"
            raise RuleBroken(
                f"{self._declared.name}[{', '.join(map(str, where))}]: {operation or access} by cpu{cpu}"
                f" in {code.co_name} ({place}), but the rule is {rule}"
            )


def _cpu_of(frame: Any) -> int | None:
    """Who executes this kernel: the nearest one that is given its CPU; None before CPUs run."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name in NOT_YET:
            return None
        if name.startswith(KERNELS) and name not in (ATOMICS, CPUMASKS):
            arguments = frame.f_code.co_varnames[: frame.f_code.co_argcount]
            if "cpu" in arguments:
                return int(frame.f_locals["cpu"])
        frame = frame.f_back
    return None


class _Raw:
    """The RAM with its fields as they were: the judge's own accesses are not judged."""

    def __init__(self, ram: Any):
        self._ram = ram

    def __getattr__(self, name: str) -> Any:
        field = getattr(self._ram, name)
        return field._view if isinstance(field, Watched) else field
