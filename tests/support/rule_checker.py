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
from cpus.declare import (
    BIT,
    OWNER,
    RWSEM,
    SPIN,
    AnyCpu,
    Atomic,
    Config,
    Exclusive,
    Field,
    Held,
    Lock,
    OneOf,
    OwnerOf,
    Racy,
    Rule,
)
from cpus.locks import WAITERS

ROOT = Path(__file__).parents[2]
KERNELS = tuple(str(ROOT / room) for room in ("cpus", "allocator", "designs"))
ATOMICS, CPUMASKS = str(ROOT / "cpus/atomics.py"), str(ROOT / "cpus/cpumask.py")
READ, WRITE = "read", "write"
DEPTH = 2  # frames from _judge to who accesses
READING = {"load_acquire"}
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
            if self._declared.rule != OWNER:
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
        if not allowed(self._ram, rule, where, cpu, access, operation):
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


# --- rules --------------------------------------------------------------------------------------------------


def anybody(rule: Rule, access: str) -> bool:
    """Does the rule allow this to any CPU at any time? (Most accesses read such fields.)"""
    if isinstance(rule, OneOf):
        return any(anybody(one, access) for one in rule.rules)
    if isinstance(rule, Config | Atomic):
        return access == READ
    return isinstance(rule, AnyCpu | Racy) or (isinstance(rule, Exclusive) and rule.references is None)


def allowed(ram: Any, rule: Rule, where: tuple[int, ...], cpu: int, access: str, operation: str) -> bool:
    """May this CPU do that, now?"""
    if isinstance(rule, OneOf):
        return any(allowed(ram, one, where, cpu, access, operation) for one in rule.rules)
    if isinstance(rule, AnyCpu | Racy):
        return True
    if isinstance(rule, Config):
        return access == READ
    if isinstance(rule, Atomic):
        return access == READ or operation in rule.operations
    if isinstance(rule, OwnerOf):
        return owner(ram, rule, where) == cpu
    if isinstance(rule, Exclusive):
        return rule.references is None or int(_raw(ram, "page_refcount")[where[0]]) <= rule.references
    assert isinstance(rule, Held)
    return held(ram, rule, where, cpu)


def owner(ram: Any, rule: OwnerOf, where: tuple[int, ...]) -> int:
    """Give the CPU that owns a row."""
    at = where[rule.index]
    for name in rule.by:
        if name != "scan":
            at = int(_raw(ram, name)[at])
        elif at >= ram.nr_cpus:
            at = int(_raw(ram, "task_cpu")[_raw(ram, "kswapd_task")[at - ram.nr_cpus]])
    return at


def held(ram: Any, rule: Held, where: tuple[int, ...], cpu: int) -> bool:
    """Does this CPU hold the lock that the rule means?"""
    lock = ram.layout.locks[rule.lock]
    words = _raw(ram, lock.word or lock.name)
    if rule.at == "any":
        return any(_holds(lock, int(word), cpu, rule.shared) for word in words.reshape(-1))
    if rule.at == "zone":
        at: tuple[int, ...] = (int(np.searchsorted(_raw(ram, "zone_end"), where[0], side="right")),)
    elif rule.at == "node":
        at = (int(np.searchsorted(_raw(ram, "node_end"), where[0], side="right")),)
    elif rule.at == "one":
        at = (0,)
    elif rule.at:
        at = (int(_raw(ram, rule.at)[where[0]]),)
    else:
        at = where[: words.ndim]
    return at[0] >= 0 and _holds(lock, int(words[at]), cpu, rule.shared)


def _holds(lock: Lock, word: int, cpu: int, shared: bool) -> bool:
    if lock.kind == SPIN:
        return word & (WAITERS - 1) == cpu + 1
    if lock.kind == RWSEM:
        return word == -1 or (shared and word > 0)
    return (word >> lock.bit) & 1 == 1


def _raw(ram: Any, name: str) -> np.ndarray:
    field = getattr(ram, name)
    return field._view if isinstance(field, Watched) else field
