"""The ways in which a run is stopped before its work is done, and who is to blame. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class RunStopped(Exception):
    """The run ended before its work was done; the text is one sentence (and what the CPU said, if it did)."""

    design = ""  # whose run it was, if known
    schedule: object = None  # that it had, if it had one
    scheduled: Mapping[str, Any] = {}  # what a `Result` would have of it, to repeat the run
    by = "the emulator, which failed"  # who stopped it, for the verdict
    by_design = False  # is it what the design did?


class CpuDied(RunStopped):
    """A CPU process was killed, crashed or never got ready."""

    by = "the death of a CPU process"


class HostFault(RunStopped):
    """The host cannot carry the run: it has no process, no descriptor, no room for one more."""

    by = "the host"


class Panicked(RunStopped):
    """The emulated kernel stopped the run; `code`, `a` and `b` are as in the RAM."""

    by = "a panic of the emulated kernel"

    def __init__(self, sentence: str, cpu: int, code: int, a: int, b: int):
        super().__init__(sentence)
        self.cpu, self.code, self.a, self.b = cpu, code, a, b

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle whole: an exception of another process arrives as it was."""
        return type(self), (str(self), self.cpu, self.code, self.a, self.b), vars(self)


class DesignFault(RunStopped):
    """A hook of the design raised, or crashed its CPU process; the text says which, where and why."""

    by = "the design's own code"
    by_design = True


class Stuck(RunStopped):
    """Nothing moved for the bound of a wait; the text is the wait-for graph of all CPUs."""

    by = "a deadlock"
    by_design = True


class Livelock(Stuck):
    """CPUs ran, and no thread got on; the text says what each CPU does."""

    by = "a livelock"
