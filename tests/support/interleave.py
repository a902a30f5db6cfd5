"""Put the visits of all threads into one global order, as threads on equal CPUs would make them.

A simple simulation for statistics, not an engine: every thread has a clock that counts accesses, the thread
with the smallest clock visits its next page, whoever comes to a DRAW gets the next chunk, and a barrier sets
all clocks to the latest. Real threads never run at exactly the same speed, and who draws which chunk depends
on that, so each chunk's cost varies by `jitter` (a tenth of a chunk is what the recording's quantum of 5,000
instructions amounts to).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from workloads import rows as p


@dataclass(frozen=True, slots=True)
class Visits:
    """Visits in global order, one entry per page: what a recording of the run would hold."""

    thread: np.ndarray
    region: np.ndarray
    page: np.ndarray
    kind: np.ndarray
    count: np.ndarray
    evaluation: np.ndarray

    def select(self, mask: np.ndarray) -> Visits:
        """Return those for which `mask` is true, or that its indices name."""
        return Visits(*(getattr(self, name)[mask] for name in self.__slots__))

    def __len__(self) -> int:
        return len(self.thread)


@dataclass(slots=True)
class _Thread:
    rows: list[tuple[int, ...]]
    next: int = 0
    page: int = 0  # pages of its row that it has visited
    clock: float = 0.0
    drawing: int = -1  # section in which it draws chunks
    chunk: tuple[int, int] = (0, 0)  # what is left of its chunk
    speed: float = 1.0


def interleave(process: p.Process, seed: int = 1, jitter: float = 0.1) -> Visits:
    """Return the visits of one process, executed to its end."""
    run = _Run(process, np.random.default_rng(seed), jitter)
    run.run()
    thread, evaluation, source, within = (np.array(column, np.int64) for column in zip(*run.executed))
    rows = np.concatenate([*process.threads, process.chunk_rows])[source]
    return Visits(
        thread=thread.astype(np.uint8),
        region=rows["region"],
        page=rows["page"] + within.astype(np.uint32),
        kind=rows["kind"],
        count=rows["count"],
        evaluation=evaluation,
    )


class _Run:
    def __init__(self, process: p.Process, rng: np.random.Generator, jitter: float) -> None:
        self.process, self.rng, self.jitter = process, rng, jitter
        self.threads = [_Thread(rows.tolist()) for rows in process.threads]
        self.first_row = np.cumsum([0, *(len(rows) for rows in process.threads)]).tolist()
        self.chunk_rows = process.chunk_rows.tolist()
        self.drawn: dict[int, int] = {}  # section -> next chunk that nobody has
        self.waiting: dict[int, list[int]] = {}  # barrier -> threads at it
        self.ended: list[int] = []  # workers that have executed EXIT since the last JOIN
        self.joining = False
        self.ready: list[tuple[float, int]] = [(0.0, 0)]
        self.evaluation = 0
        self.executed: list[
            tuple[int, int, int, int]
        ] = []  # thread, evaluation, row in all programs and chunk rows, one after the other, page of it

    def run(self) -> None:
        while self.ready:
            clock, number = heapq.heappop(self.ready)
            thread = self.threads[number]
            thread.clock = max(thread.clock, clock)
            if self.step(number, thread):
                heapq.heappush(self.ready, (thread.clock, number))
        if self.waiting or self.joining:
            raise ValueError(
                f"process {self.process.name!r}: every thread must reach its end (got threads at barriers "
                f"{list(self.waiting)[:3]})"
            )

    def step(self, number: int, thread: _Thread) -> bool:
        """Execute the thread's next row; return whether it can go on."""
        if thread.drawing >= 0:
            return self.step_chunk(number, thread)
        if thread.next == len(thread.rows):
            return False
        row = thread.rows[thread.next]
        thread.next += 1
        op, _, _, pages, count, page = row
        if op == p.VISIT:
            if not self.visit(number, thread, self.first_row[number] + thread.next - 1, pages, count):
                thread.next -= 1
        elif op == p.DRAW:
            thread.drawing, thread.chunk = page, tuple(self.process.sections[page].chunks[count].tolist())
            self.drawn.setdefault(page, pages)
            self.new_speed(thread)
        elif op == p.BARRIER:
            return self.barrier(number, page, pages)
        elif op == p.CLONE:
            heapq.heappush(self.ready, (thread.clock, page))
        elif op == p.EXIT:
            self.ended.append(number)
            return self.join(thread.clock) if self.joining else False
        elif op == p.JOIN:
            self.joining = True
            if len(self.ended) < pages:
                return False
            self.joining, self.ended = False, []
        elif op == p.MARK:
            self.evaluation = page
        return True

    def visit(self, number: int, thread: _Thread, row: int, pages: int, count: int) -> bool:
        """Visit the next page of a row; return whether it was the last. Page by page, so that threads
        alternate within rows.
        """
        self.executed.append((number, self.evaluation, row, thread.page))
        thread.clock += count * thread.speed
        thread.page = (thread.page + 1) % pages
        return thread.page == 0

    def step_chunk(self, number: int, thread: _Thread) -> bool:
        first, end = thread.chunk
        if first < end:
            _, _, _, pages, count, _ = self.chunk_rows[first]
            if self.visit(number, thread, self.first_row[-1] + first, pages, count):
                thread.chunk = first + 1, end
            return True
        chunks = self.process.sections[thread.drawing].chunks
        following = self.drawn[thread.drawing]
        if following < len(chunks):
            self.drawn[thread.drawing] = following + 1
            thread.chunk = tuple(chunks[following].tolist())
            self.new_speed(thread)
        else:
            thread.drawing = -1
        return True

    def new_speed(self, thread: _Thread) -> None:
        thread.speed = 1.0 + self.jitter * (2.0 * self.rng.random() - 1.0)

    def barrier(self, number: int, barrier: int, parties: int) -> bool:
        here = self.waiting.setdefault(barrier, [])
        here.append(number)
        if len(here) < parties:
            return False
        del self.waiting[barrier]
        latest = max(self.threads[k].clock for k in here)
        for k in here:
            self.threads[k].clock = latest
            if k != number:
                heapq.heappush(self.ready, (latest, k))
        return True

    def join(self, clock: float) -> bool:
        """A worker has ended while main sleeps: wake main if it was the last."""
        main = self.threads[0]
        if len(self.ended) == main.rows[main.next - 1][3]:
            self.joining, self.ended = False, []
            heapq.heappush(self.ready, (max(clock, main.clock), 0))
        return False
