"""Collect the rows of all threads while a program is written: one list per thread, barriers, buffers that
take turns.
"""

from __future__ import annotations

import numpy as np

from workloads import address_space as at
from workloads.address_space import Layout
from workloads.matmul import ChunkStore
from workloads.rows import BARRIER, IFETCH, ROW, Section, control, visit

# Text pages of the ops, relative to the first: where each begins, and how many pages it runs through.
TEXT = {
    "mul_mat": (1, 5),
    "quantise": (6, 3),
    "rms_norm": (9, 3),
    "mul": (12, 1),
    "add": (13, 3),
    "rope": (15, 5),
    "copy": (18, 3),
}
TEXT |= {"soft_max": (20, 5), "unary": (24, 1), "get_rows": (25, 1), "loop": (26, 2)}


class Writer:
    """Holds what has been written of one process."""

    def __init__(self, place: Layout, seed: int, barriers_per_op: int) -> None:
        self.place, self.shape = place, place.shape
        self.threads = place.threads
        self.tensors = place.shape.tensors()
        self.chunks = ChunkStore(place)
        self.sections: list[Section] = []
        self.rng = np.random.default_rng((seed, 2))
        self.barriers_per_op = barriers_per_op
        self.barrier_id = 0
        self.op = 0  # numbers the ops of an evaluation: chooses buffers and tensor structs
        self.parts: list[list[np.ndarray]] = [[] for _ in range(self.threads)]
        self.rows: list[list[tuple[int, ...]]] = [[] for _ in range(self.threads)]

    def put(self, thread: int, *rows: tuple[int, ...]) -> None:
        """Add rows to a thread."""
        self.rows[thread].extend(rows)

    def put_array(self, rows: np.ndarray) -> None:
        """Add rows to main."""
        self._flush(0)
        self.parts[0].append(rows)

    def programs(self) -> tuple[np.ndarray, ...]:
        """Return the programs of all threads."""
        for thread in range(self.threads):
            self._flush(thread)
        return tuple(np.concatenate([np.zeros(0, ROW), *parts]) for parts in self.parts)

    def _flush(self, thread: int) -> None:
        if self.rows[thread]:
            self.parts[thread].append(np.array(self.rows[thread], ROW))
            self.rows[thread] = []

    def barrier(self) -> None:
        """Let all threads meet once; they spin on the shared state, which lies on main's stack."""
        spin = {"region": at.MAIN_STACK, "count": at.MAIN_STACK_PAGES - 3}
        for thread in range(self.threads):
            self.put(thread, control(BARRIER, self.barrier_id, self.threads, **spin))
        self.barrier_id += 1

    def text(self, op: str, instructions: int, pages: int = 9) -> tuple[int, ...]:
        """Return the instruction fetches of an op: all its pages, or the first `pages`."""
        first, most = TEXT[op]
        pages = min(most, pages)
        return visit(IFETCH, at.TEXT, at.OPS_TEXT_FIRST + first, pages, max(1, instructions // pages))

    def buffer(self, back: int = 0, tokens: int = 1, wide: bool = False) -> tuple[int, int]:
        """Return the activation buffer that this op (or one `back` ops ago) writes."""
        return self.place.buffer(self.op - back, tokens, wide)

    def struct(self) -> int:
        """Return the page of graph_meta that holds this op's tensor."""
        first, pages = self.place.tensor_structs
        return first + self.op // 8 % pages

    def begin(self, op: str, instructions: int, pages: int = 9) -> None:
        """Write what every thread does for an op in which only main has work: look at it, and meet."""
        self.op += 1
        for worker in range(1, self.threads):
            self.put(worker, self.text(op, 130, 3))
        self.put(0, self.text(op, instructions, pages))
        self.meet()

    def meet(self) -> None:
        """Let all threads meet as often as they do for one op."""
        for _ in range(self.barriers_per_op):
            self.barrier()
