"""Notices that CPUs move and no thread gets on: livelock, or a CPU that a schedule starves.

In a run with scheduling points somebody always runs, so that clocks and leases moving means nothing. A thread
gets on when it comes to another row, visits or handles another page. Left out: proof that it never would.
"""

from __future__ import annotations

from typing import Any

from emulator.judge.wait_graph import wait_graph
from emulator.stopped import Livelock

POINTS_MAX = 200_000_000  # between two steps of any thread: some ten seconds
HANDOVERS_MAX = 1_000_000
STEPS = ("page_visits", "pgfault", "pgfree")  # counters that only move if a thread gets on


class ProgressBound:
    """Counts points and hand-overs since a thread last got on."""

    def __init__(self, ram: Any):
        self.ram, self.points, self.handovers = ram, POINTS_MAX, HANDOVERS_MAX
        self.got_on: tuple[int, ...] = ()
        self.began = (0, 0)

    def look(self) -> None:
        """Raise Livelock if too much has happened since a thread last got on."""
        ram = self.ram
        state = (
            *(int(getattr(ram, name).sum()) for name in STEPS),
            int(ram.task_row.sum()),
            int(ram.task_visit.sum()),
        )
        points, handovers = int(ram.run_points[0]), int(ram.run_handovers[0])
        if state != self.got_on:
            self.got_on, self.began = state, (points, handovers)
        elif points - self.began[0] > self.points or handovers - self.began[1] > self.handovers:
            raise Livelock(
                f"no thread got on for {points - self.began[0]:,} scheduling points and "
                f"{handovers - self.began[1]:,} hand-overs: {wait_graph(ram)}"
            )
