"""Replay a recorded trace of llama.cpp: the same visits in the same order within each thread, with what
orders the threads.

The recorded global order is that of threads on equal CPUs with no TLB, cache or fault delays. A replay keeps
each thread's own order, and of the order between threads what the program enforces: workers run between their
creation and their end, and all meet at the entries of functions that every thread calls equally often in an
evaluation (mul_mat twice, rms_norm, mul, rope, soft_max, unary, add: 237 meetings a token with 8 layers).
ggml spins at a barrier before each of these; in the recordings no thread ever entered one before all had
entered the one before, and `meetings` drops any point for which that isn't so.
A dynamic chunk stays with the thread that drew it when it was recorded.

What the record doesn't contain is added: MAP_POPULATE of the weights; and for a trace without its start-up
one store to each page that is written or anonymous, as start-up did, in evaluation 0. Stacks are folded: a
stack mapped after another was unmapped takes its place.

Leaves out: system calls other than MAP_POPULATE and those on stacks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inputs.file import shown
from inputs.text import visible
from workloads import recording
from workloads.recording import Recording
from workloads.rows import (
    BARRIER,
    CLONE,
    DONTNEED,
    EXIT,
    JOIN,
    MARK,
    MMAP,
    MUNMAP,
    POPULATE,
    ROW,
    STORE,
    VISIT,
    Process,
    Region,
    Workload,
    control,
)
from workloads.rules.whole import validate
from workloads.stacks import StackEvents, stack_events

FILES = {"main_text": "main", "main_rodata": "main", "libs": "libs"}
LIBS_DATA = "libs_data"


def replay(path: str | Path, processes: int = 1) -> Workload:
    """Return the recorded run as a workload of `processes` equal processes, each with a weights file of its
    own.
    """
    if processes < 1:
        raise ValueError(f"'processes' must be at least 1 (got {processes})")
    trace = recording.read(path)
    writer = _Replay(trace)
    programs = writer.programs()
    model = trace.about.model.file or trace.path.stem
    found = tuple(
        Process(f"replay{k}", writer.regions(f"{model}.{k}"), programs) for k in range(1, processes + 1)
    )
    tokens = sum(one.kind == "generation" for one in trace.about.evals)
    workload = Workload(visible(trace.path.stem), found, trace.about.what, tokens)
    try:
        validate(workload)
    except ValueError as error:
        raise ValueError(f"{shown(path)}: {error}") from None
    return workload


def meetings(trace: Recording, first: int, end: int) -> np.ndarray:
    """Give the points in rows first..end-1 where all threads met: row numbers of shape (threads, points)."""
    marks = trace.arrays["mark_pos"].astype(np.int64)
    inside = (marks >= first) & (marks < end)
    marks, thread, function = (
        marks[inside],
        trace.arrays["mark_thread"][inside],
        trace.arrays["mark_id"][inside],
    )
    plain = {int(number) for number, name in trace.about.mark_names.items() if name == "ggml_compute_forward"}
    points = [np.zeros((trace.threads, 0), np.int64)]
    for one in np.unique(function):
        calls = [marks[(function == one) & (thread == k)] for k in range(trace.threads)]
        # The dispatcher is called for every op, also for those that only one thread happens to take.
        if int(one) not in plain and len({len(call) for call in calls}) == 1:
            points.append(np.stack(calls))
    met = np.concatenate(points, axis=1)
    met = met[:, np.argsort(met[0], kind="stable")]
    sound = np.ones(met.shape[1], bool)
    last = np.full(trace.threads, -1)
    for k in range(met.shape[1]):
        sound[k] = met[:, k].min() >= last.max() and (met[:, k] >= last).all()
        if sound[k]:
            last = met[:, k]
    return met[:, sound]


class _Replay:
    """Collects, for every thread, its visits and the control rows between them."""

    def __init__(self, trace: Recording) -> None:
        self.trace = trace
        self.stacks: StackEvents = stack_events(trace)
        self.weights = trace.region("weights")
        libs, column = trace.region("libs"), trace.arrays
        stores = np.unique(column["page"][(column["region"] == libs) & (column["kind"] == STORE)])
        # Of the libraries' private mappings, pages that were ever written are anonymous memory, the others
        # the file's.
        self.region = column["region"].astype(np.uint16)
        self.region[(column["region"] == libs) & np.isin(column["page"], stores)] = len(trace.regions)
        self.page = self.stacks.fold(column["region"], column["page"])
        self.inserts: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in range(trace.threads)]
        self.barrier_id = 0
        # Threads spin on the shared state, which lies on main's stack: its page used most.
        self.spin_region = trace.region("main_stack")
        pages, visits = np.unique(self.page[column["region"] == self.spin_region], return_counts=True)
        self.spin_page = int(pages[visits.argmax()]) if len(pages) else 0
        self._insert_control()

    def regions(self, weights_file: str) -> tuple[Region, ...]:
        """Return the mappings: those of the JSON in its order, and the written part of the libraries."""
        found = []
        text = next((region.pages for region in self.trace.regions if region.name == "main_text"), 0)
        for region in self.trace.regions:
            name, pages = region.name, region.pages
            if name == "weights":
                found.append(Region(name, pages, weights_file, shared=True))
            elif name in FILES:
                offset = text if name == "main_rodata" else 0
                found.append(
                    Region(name, pages, FILES[name], offset, executable=name in ("main_text", "libs"))
                )
            elif name == "thread_stack":
                found.append(Region(name, self.stacks.pages, writable=True))
            else:
                # main_data too: a private file mapping whose pages start-up relocates or fills.
                found.append(Region(name, pages, writable=True))
        libs = self.trace.regions[self.trace.region("libs")].pages
        return (*found, Region(LIBS_DATA, libs, writable=True))

    # -- control rows, by the row of the trace before which they stand ---------------------------------------

    def _put(self, thread: int, before: int, *rows: tuple[int, ...]) -> None:
        self.inserts[thread].extend((before, row) for row in rows)

    def _insert_control(self) -> None:
        spans = self.trace.spans()
        self._put(
            0,
            0,
            control(MARK, 0),
            control(POPULATE, region=self.weights, pages=self.trace.regions[self.weights].pages),
        )
        if spans[0][0] > 0:
            self._put(0, 0, *self._first_touch())
        for number, first, end in spans:
            if number > 0:
                self._put(0, first, control(MARK, number))
            if number >= 0:
                self._evaluation(number, first, end)

    def _evaluation(self, number: int, first: int, end: int) -> None:
        thread = self.trace.arrays["thread"][first:end]
        began, ended = [], []
        for worker in range(1, self.trace.threads):
            rows = np.flatnonzero(thread == worker)
            if not len(rows):
                raise ValueError(
                    f"{shown(self.trace.path)}: worker {worker} must have rows in evaluation {number} "
                    "(got none)"
                )
            began.append(first + int(rows[0]))
            ended.append(first + int(rows[-1]) + 1)
        # Main writes the descriptor at the top of a new stack, and reads those of ended threads, before they
        # are unmapped.
        own = first + np.flatnonzero(
            (thread == 0) & (self.trace.arrays["region"][first:end] == self.stacks.region)
        )
        before, after = min([*began, *own[:1]], default=end), max([*ended, *(own[-1:] + 1)], default=end)
        self._put(
            0,
            before,
            *(control(MMAP, region=r, page=p, pages=n) for r, p, n in self.stacks.mapped.get(number, [])),
        )
        met = meetings(self.trace, first, end)
        latest = int(met[0].min()) if met.shape[1] else end
        for worker, row in enumerate(began, 1):
            # A worker's first visit may come after main has reached the first meeting: it had been created by
            # then.
            self._put(0, min(row, latest), control(CLONE, worker))
            for region, page, pages in self.stacks.dropped.get((number, worker), []):
                self._put(worker, ended[worker - 1], control(DONTNEED, region=region, page=page, pages=pages))
            self._put(worker, ended[worker - 1], control(EXIT))
        for point in met.T:
            for one in range(self.trace.threads):
                meeting = control(
                    BARRIER, self.barrier_id, self.trace.threads, self.spin_page, self.spin_region
                )
                self._put(one, int(point[one]), meeting)
            self.barrier_id += 1
        if began:
            self._put(0, max(ended), control(JOIN, pages=len(began)))
        gone = self.stacks.unmapped.get(number, [])
        self._put(0, after, *(control(MUNMAP, region=r, page=p, pages=n) for r, p, n in gone))

    def _first_touch(self) -> list[tuple[int, ...]]:
        """Return one store to every page that start-up would have written before the trace begins."""
        rows: list[tuple[int, ...]] = []
        for index, region in enumerate(self.regions("")):
            if region.writable and region.name != "thread_stack":
                pages = np.unique(self.page[self.region == index]).astype(np.int64)
                runs = np.split(pages, np.flatnonzero(np.diff(pages) != 1) + 1) if len(pages) else []
                rows += [(VISIT, STORE, index, len(run), 1, int(run[0])) for run in runs]
        return rows

    # -- programs --------------------------------------------------------------------------------------------

    def programs(self) -> tuple[np.ndarray, ...]:
        """Return the programs of all threads."""
        return tuple(self._program(thread) for thread in range(self.trace.threads))

    def _program(self, thread: int) -> np.ndarray:
        at = np.flatnonzero(self.trace.arrays["thread"] == thread)
        rows = np.zeros(len(at), ROW)
        rows["op"], rows["pages"] = VISIT, 1
        rows["kind"], rows["count"] = self.trace.arrays["kind"][at], self.trace.arrays["count"][at]
        rows["region"], rows["page"] = self.region[at], self.page[at]
        # Stable: control rows before the same row keep the order in which they were put.
        inserts = sorted(self.inserts[thread], key=lambda entry: entry[0])
        positions = np.searchsorted(at, [before for before, _ in inserts])
        rows, positions = _merge(rows, positions)
        return np.insert(rows, positions, np.array([row for _, row in inserts], ROW))


def _merge(rows: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join neighbouring rows that visit consecutive pages in the same way, but across no insert position."""
    if not len(rows):
        return rows, positions
    same = (rows["page"][1:] == rows["page"][:-1] + np.uint32(1)) & (rows["kind"][1:] == rows["kind"][:-1])
    same &= (rows["region"][1:] == rows["region"][:-1]) & (rows["count"][1:] == rows["count"][:-1])
    begins = np.concatenate([[True], ~same])
    begins[positions[positions < len(rows)]] = True
    first = np.flatnonzero(begins)
    merged = rows[first]
    merged["pages"] = np.diff(first, append=len(rows))
    return merged, np.searchsorted(first, positions)
