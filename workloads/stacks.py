"""Follow the stacks of worker threads through a recorded run's system calls.

glibc keeps 40 MiB of stacks of ended threads. Beyond these a stack is unmapped when its thread ends, and a
new one is mapped for the next evaluation's thread. The recording numbers every stack ever mapped; here one
that is mapped after another was unmapped takes its place, so that the region is as large as the stacks that
live at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from inputs.file import shown
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
        if not len(self.first_page):
            return pages
        folded = pages.copy()
        mine = regions == self.region
        stack = np.searchsorted(self.first_page, pages[mine], side="right") - 1
        folded[mine] = self.place[stack] * self.stack_pages + pages[mine] - self.first_page[stack]
        return folded


def stack_events(trace: Recording) -> StackEvents:
    """Return the history of all stacks of `trace`."""
    region = trace.region("thread_stack")
    maps = sorted((m.first_page, m.pages, m.vpn) for m in trace.about.mappings if m.region == "thread_stack")
    size = maps[0][1] if maps else 1
    recorded = {one.i for one in trace.about.evals}
    calls = [
        (number, call)
        for number, call in enumerate(trace.about.memory_syscalls)
        if call.evaluation in recorded and call.name in ("mmap", "munmap", "madvise")
    ]
    events = StackEvents(
        region, size, np.array([m[0] for m in maps], np.int64), np.full(len(maps), -1, np.int64)
    )
    starts = np.array([vpn for _, _, vpn in maps], np.int64)
    free: list[int] = []
    ever = 0
    last = max(recorded)

    def find(address: int) -> int | None:
        inside = np.flatnonzero((starts <= address >> PAGE_SHIFT) & (address >> PAGE_SHIFT < starts + size))
        return int(inside[0]) if len(inside) else None

    # Threads are created before any of an evaluation ends: its mmaps come first. Stacks with no mmap in the
    # record are older.
    new = {find(call.address) for _, call in calls if call.name == "mmap"}
    for older in range(len(maps)):
        if older not in new:
            events.place[older], ever = ever, ever + 1
    live = set(range(len(maps))) - new
    for number, call in calls:
        stack = find(call.address)
        if stack is None:
            continue
        if call.name == "mmap" and events.place[stack] < 0:
            live.add(stack)
            if free:
                events.place[stack] = free.pop(0)
                first = int(events.place[stack]) * size
                events.mapped.setdefault(call.evaluation, []).append((region, first, size))
            else:
                events.place[stack], ever = ever, ever + 1
        elif stack not in live:
            _refuse(trace, number, "be about a stack that is mapped", call.address)
        elif call.name == "madvise" and call.third == MADV_DONTNEED:
            page, pages = (call.address >> PAGE_SHIFT) - maps[stack][2], call.length >> PAGE_SHIFT
            if not 1 <= pages <= size - page:
                _refuse(trace, number, f"end inside its stack of {size} pages", page + pages)
            first = int(events.place[stack]) * size + page
            events.dropped.setdefault((call.evaluation, call.thread), []).append((region, first, pages))
        elif call.name == "munmap" and call.evaluation != last:
            # At the end of the last evaluation everything goes: tear-down, which is not part of a program.
            live.remove(stack)
            first = int(events.place[stack]) * size
            events.unmapped.setdefault(call.evaluation, []).append((region, first, size))
            free.append(int(events.place[stack]))
    return events


def _refuse(trace: Recording, call: int, rule: str, got: int) -> None:
    about = shown(trace.path.with_suffix(".json"))
    raise ValueError(f"{about}: 'memory_syscalls[{call}]' must {rule} (got {got})")
