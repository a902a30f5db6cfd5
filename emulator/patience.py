"""Wait for CPU processes for a bounded time, of which only that counts in which they could have moved.

A process that the host does not let run (SIGSTOP, a debugger, a page that comes from a slow disk) is no fault
of the design or the emulator: it is named, and waited for. Nor does time count in which this process itself
was stopped, as by Ctrl-Z. Left out: a host that is so loaded that a process which may run does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

AWAKE_S = 1.0  # the longest that one look at the clock can count: looks are 0.05 s apart
HELD = {
    "T": "stopped by a signal such as SIGSTOP",
    "t": "stopped by a debugger",
    "D": "waiting for the host's disk",
}


class Patience:
    """A bound in seconds; `pids()` gives the processes that are waited for, by the names that are told."""

    def __init__(self, bound_s: float, pids: Callable[[], Mapping[str, int]], say: Callable[[str], None]):
        self.bound_s, self.pids, self.say = bound_s, pids, say
        self.told: set[str] = set()
        self.restart()

    def restart(self) -> None:
        """Something has moved: the whole bound is there again."""
        self.waited_s, self.looked = 0.0, time.monotonic()

    def is_over(self) -> bool:
        """Look at the clock, and at the processes when the bound is used up; to be called often."""
        now = time.monotonic()
        self.waited_s, self.looked = self.waited_s + min(now - self.looked, AWAKE_S), now
        if self.waited_s <= self.bound_s:
            return False
        held = {name: (pid, why) for name, pid in self.pids().items() if (why := held_by_host(pid))}
        for name, (pid, why) in held.items():
            if name not in self.told:
                self.told.add(name)
                self.say(f"luf: {name} (pid {pid}) is {why}: the run waits until the host lets it go on")
        if held:
            self.restart()
        return not held


def held_by_host(pid: int) -> str:
    """Say why the host does not let a process run; empty if it does, or if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return HELD.get(fields[0].decode(), "")
