"""Running without the JIT (NUMBA_DISABLE_JIT=1): every kernel is plain Python, to be looked at with pdb.

One CPU executes at a time then, the controlled mode of one lease, for the atomic operations of plain Python
are none (atomics.py). The same seed gives the same run, and the same fingerprint, as compiled. `breakpoint()`
works in any kernel and hook: what a CPU process reads and writes is not the terminal, so pdb is given the
terminal of the supervisor. Left out: two CPUs at a breakpoint at once, which one lease excludes.
"""

from __future__ import annotations

import os
import pdb
import sys
from dataclasses import dataclass
from typing import Any, Self

import numba
import numpy as np

from cpus.declare import Field, Racy, Struct

FIELDS = (
    Struct("one", "stop", (
        Field("run_debugger", Racy("one CPU executes at a time without the JIT"),
              "1: somebody looks into a CPU with pdb, and nothing moves meanwhile"),
    )),
)  # fmt: skip

UNCOMPILED = bool(numba.config.DISABLE_JIT)
IN, OUT = 0, 1


def refuse_many(leases: int) -> None:
    """Raise ValueError if a run without the JIT is to execute several CPUs at a time."""
    if UNCOMPILED and leases != 1:
        rule = "must be 1 while NUMBA_DISABLE_JIT=1 is set, since plain Python has no atomic operations"
        raise ValueError(f"'leases' {rule} (got {leases})")


@dataclass(frozen=True, slots=True)
class Terminal:
    """File descriptors of the supervisor's input and output, for the CPU processes that it will fork."""

    read: int
    write: int

    @classmethod
    def of_this_process(cls) -> Self:
        """Duplicate them: a forked process has its input closed."""
        return cls(os.dup(IN), os.dup(OUT))

    def close(self) -> None:
        """Give them back."""
        os.close(self.read)
        os.close(self.write)


def ready(ram: Any, terminal: Terminal) -> None:
    """Make numbers behave in this CPU process as in compiled code, but for a division by zero, and let
    `breakpoint()` reach the terminal.
    """
    np.seterr(over="ignore", divide="raise")

    def stop_here(*_: Any, **__: Any) -> None:
        ram.run_debugger[0] = 1  # nothing will move meanwhile: the watchdog reads it
        pdb.Pdb(
            stdin=os.fdopen(terminal.read, closefd=False),
            stdout=os.fdopen(terminal.write, "w", closefd=False),
        ).set_trace(sys._getframe(1))

    sys.breakpointhook = stop_here
