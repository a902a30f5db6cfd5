"""Follow the stacks of worker threads through a recorded run's system calls.

glibc keeps 40 MiB of stacks of ended threads. Beyond these a stack is unmapped when its thread ends, and a
new one is mapped for the next evaluation's thread. The recording numbers every stack ever mapped; here one
that is mapped after another was unmapped takes its place, so that the region is as large as the stacks that
live at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from workloads.recording import Recording

MADV_DONTNEED = 4
PAGE_SHIFT = 12


@dataclass(slots=True)
class StackEvents:
    """Where each recorded stack lies, what happens to it in which evaluation, as (region, page, pages)."""

    region: int
    stack_pages: int
    first_page: np.ndarray  # of each recorded stack, in the recording's numbering
    place: np.ndarray  # of each recorded stack: which place it takes
    mapped: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    unmapped: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    dropped: dict[tuple[int, int], list[tuple[int, int, int]]] = field(default_factory=dict)

    @property
    def pages(self) -> int:
        """Return the size of the folded region."""
        return max(1, (int(self.place.max()) + 1) * self.stack_pages) if len(self.place) else 1

    def fold(self, regions: np.ndarray, pages: np.ndarray) -> np.ndarray:
        """Return `pages` with those of stacks moved to the place of their stack."""
        folded = pages.copy()
        mine = regions == self.region
        stack = np.searchsorted(self.first_page, pages[mine], side="right") - 1
        folded[mine] = self.place[stack] * self.stack_pages + pages[mine] - self.first_page[stack]
        return folded


def stack_events(trace: Recording) -> StackEvents:
    """Return the history of all stacks of `trace`."""
    region = trace.region("thread_stack")
    maps = sorted(
        (m["first_page"], m["pages"], m["vpn"])
        for m in trace.about["mappings"]
        if m["region"] == "thread_stack"
    )
    if len({pages for _, pages, _ in maps}) > 1:
        raise ValueError(
            f"{trace.path}: stacks must all have the same size "
            f"(got {sorted({pages for _, pages, _ in maps})})"
        )
    size = maps[0][1] if maps else 1
    recorded = {int(entry["i"]) for entry in trace.about["evals"]}
    calls = [
        call
        for call in trace.about["memory_syscalls"]
        if call[0] in recorded and call[2] in ("mmap", "munmap", "madvise")
    ]
    events = StackEvents(
        region, size, np.array([m[0] for m in maps], np.int64), np.full(len(maps), -1, np.int64)
    )
    free: list[int] = []
    ever = 0
    last = max(recorded)

    def find(address: int) -> int | None:
        vpn = address >> PAGE_SHIFT
        return next((k for k, (_, pages, start) in enumerate(maps) if start <= vpn < start + pages), None)

    # Threads are created before any of an evaluation ends: its mmaps come first. Stacks with no mmap in the
    # record are older.
    new = {find(call[3]) for call in calls if call[2] == "mmap"}
    for older in range(len(maps)):
        if older not in new:
            events.place[older], ever = ever, ever + 1
    for call in calls:
        number, thread, name, address, length = call[:5]
        stack = find(address)
        if stack is None:
            continue
        if name == "mmap" and events.place[stack] < 0:
            if free:
                events.place[stack] = free.pop(0)
                events.mapped.setdefault(number, []).append((region, int(events.place[stack]) * size, size))
            else:
                events.place[stack], ever = ever, ever + 1
        elif name == "madvise" and call[5] == MADV_DONTNEED:
            page = int(events.place[stack]) * size + (address >> PAGE_SHIFT) - maps[stack][2]
            events.dropped.setdefault((number, thread), []).append((region, page, length >> PAGE_SHIFT))
        elif name == "munmap" and number != last:
            # At the end of the last evaluation everything goes: tear-down, which is not part of a program.
            events.unmapped.setdefault(number, []).append((region, int(events.place[stack]) * size, size))
            free.append(int(events.place[stack]))
    return events
