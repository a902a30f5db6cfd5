"""Share out one matrix multiplication among threads, and write down the pages that each share visits.

llama.cpp (ggml_compute_forward_mul_mat) gives K-quants out in chunks of 64 rows (16 for a batch), drawn from
a shared counter, if that makes at least four per thread; else, and always for Q4_0, Q8_0 and F16 (llamafile's
sgemm), T equal parts.

A real thread alternates between pages at every access (strict runs are 1.5 accesses long). Here a share is a
sequence of
*units*: a page of activations and some of the conversion table, then up to 16 pages of weights in one row,
  and after every 16
or more matrix rows the store of the results. So what is really in use all the time comes back after some 20
pages and stays in any TLB of 32 entries, while a weights page costs about 0.4 rows instead of 5. Activations
of several pages are gone through page by page, one per unit.

Leaves out: the exact order within a unit, and the stack in a share that any thread may draw (a thread's own
stack is visited before and after; in equal parts, whose thread is known, it's visited at least every 16
pages).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from workloads import address_space as at
from workloads.address_space import Layout
from workloads.rows import IFETCH, LOAD, PAGE_BYTES, ROW, STORE, visit
from workloads.shape import Tensor

UNIT_PAGES = 16  # most pages of weights between two visits of the activations
SHORT_UNIT_PAGES = 4  # results are stored after 16 rows, but two stores so near each other are one visit
# a block of 16 rows up to this size is read once for all columns of a batch, a larger one once per column
WINDOW_PAGES = 4

# Per access of weights, as recorded: activations 0.95, constants 0.64 (masks), conversion table 0.16, own
# stack 1.1.
ACTIVATIONS, CONSTANTS, TABLE, STACK = 0.95, 0.64, 0.16, 1.1
INSTRUCTIONS_PER_PAGE = {"Q4_K": 3250, "Q6_K": 2900, "Q4_0": 4320, "Q8_0": 2300, "F16": 1300}
VEC_DOT_TEXT = at.OPS_TEXT_FIRST  # one page: the inner loop


@dataclass(frozen=True, slots=True)
class Shares:
    """Row ranges of a matrix: `ranges[k]` is thread k's first; further ones go to whoever asks."""

    ranges: list[tuple[int, int]]
    dynamic: bool


def share_out(tensor: Tensor, threads: int, tokens: int) -> Shares:
    """Return how llama.cpp divides the rows of `tensor` among `threads` for a batch of `tokens`."""
    if tensor.encoding.dynamic:
        size = 64 if tokens == 1 else 16
        if math.ceil(tensor.rows / size) >= 4 * threads:
            return Shares(
                [(row, min(row + size, tensor.rows)) for row in range(0, tensor.rows, size)], dynamic=True
            )
    return Shares(equal_parts(tensor.rows, threads), dynamic=False)


def equal_parts(rows: int, threads: int) -> list[tuple[int, int]]:
    """Return ggml's T equal parts; the last ones may be smaller, or empty."""
    size = -(-rows // threads)
    return [(min(k * size, rows), min((k + 1) * size, rows)) for k in range(threads)]


class ChunkStore:
    """Holds the rows of all shares of a process, each written once however many evaluations use it."""

    def __init__(self, place: Layout) -> None:
        self.place = place
        self.rows: list[tuple[int, ...]] = []
        self.known: dict[tuple[str, int], np.ndarray] = {}

    def chunks(self, tensor: Tensor, tokens: int, output: tuple[int, int], struct: int) -> np.ndarray:
        """Return the ranges (first, end) of the shares of `tensor` for a batch; results go to `output`."""
        key = (tensor.name, tokens)
        if key not in self.known:
            shares = share_out(tensor, self.place.threads, tokens)
            ranges = []
            for number, (first, end) in enumerate(shares.ranges):
                start = len(self.rows)
                if end > first:
                    thread = None if shares.dynamic else number
                    self._write(tensor, first, end, tokens, output, struct, thread)
                ranges.append((start, len(self.rows)))
            self.known[key] = np.array(ranges, np.int32)
        return self.known[key]

    def array(self) -> np.ndarray:
        """Return all rows."""
        return np.array(self.rows, ROW)

    def _write(
        self,
        tensor: Tensor,
        first: int,
        end: int,
        tokens: int,
        output: tuple[int, int],
        struct: int,
        thread: int | None,
    ) -> None:
        pages = tensor.pages(first, end)[1]
        accesses = (end - first) * tensor.row_bytes * tensor.encoding.accesses_per_byte
        self.rows.append(
            visit(
                IFETCH,
                at.TEXT,
                VEC_DOT_TEXT,
                1,
                round(INSTRUCTIONS_PER_PAGE.get(tensor.type, 3000) * pages * tokens),
            )
        )
        if tensor.encoding.dynamic or tensor.type == "Q4_0":
            page = int(self.place.rodata_pages[13 + (tensor.type == "Q6_K")])
            self.rows.append(visit(LOAD, at.RODATA, page, 1, max(1, round(accesses * tokens * CONSTANTS))))
        if thread is None:
            # The counter that chunks are drawn from lies on main's stack, so that all threads write to that
            # page.
            self.rows.append(visit(STORE, at.MAIN_STACK, at.MAIN_STACK_PAGES - 3, 1, 1))
        block = 16 * tensor.row_bytes / PAGE_BYTES
        if tensor.encoding.dynamic:
            step = 16 * max(1, math.ceil((SHORT_UNIT_PAGES + 0.5) / block))
        else:
            step = max(1, round(UNIT_PAGES * PAGE_BYTES / tensor.row_bytes))
        passes = tokens if tensor.encoding.dynamic and block > WINDOW_PAGES else 1
        count = max(1, round(accesses / pages * tokens / passes))
        for number, row in enumerate(range(first, end, step)):
            for one_pass in range(passes):
                self._unit(tensor, row, min(row + step, end), number + one_pass, tokens, count, thread)
            # Between short units the results' page often is among the last used still: 1.5 visits per 64
            # rows, as recorded.
            if step == 16 or not tensor.encoding.dynamic or (first // 64 * 2 + number) % 4 != 3:
                self._results(row, min(row + step, end), tokens, output, struct)
        if thread is None and (pages > UNIT_PAGES or first // 64 % 2):
            self.rows.append(visit(LOAD, at.MAIN_STACK, at.MAIN_STACK_PAGES - 3, 1, 2))

    def _unit(
        self, tensor: Tensor, first: int, end: int, number: int, tokens: int, count: int, thread: int | None
    ) -> None:
        page, pages = tensor.pages(first, end)
        if first and (tensor.first_byte + first * tensor.row_bytes) % PAGE_BYTES and number and pages > 1:
            page, pages = page + 1, pages - 1  # the unit before has just visited the page that both share
        activations = max(
            1, math.ceil(tokens * tensor.encoding.activation_row_bytes(tensor.columns) / PAGE_BYTES)
        )
        for part, start in enumerate(range(0, pages, UNIT_PAGES)):
            size = min(UNIT_PAGES, pages - start)
            work = count * size
            heap = (number * max(1, pages // UNIT_PAGES) + part) % activations
            self.rows.append(visit(LOAD, at.HEAP, heap, 1, max(1, round(work * ACTIVATIONS))))
            looked_up = (3 if number % 2 or pages < 8 else 2) if part == 0 else 1
            table = at.F16_TABLE + (number * 5 + part * 3 + tensor.rows) % (at.F16_TABLE_HOT - looked_up + 1)
            self.rows.append(visit(LOAD, at.DATA, table, looked_up, max(1, round(work * TABLE / looked_up))))
            if thread is not None and part == 0 and (pages > UNIT_PAGES // 2 or number % 2 == 0):
                region, stack = self.place.stack(thread)
                kind = STORE if number % 4 < 2 else LOAD  # spilled registers: as many loads as stores
                self.rows.append(visit(kind, region, stack, 1, max(1, round(work * STACK))))
            self.rows.append(visit(LOAD, at.WEIGHTS, page + start, size, count))

    def _results(self, first: int, end: int, tokens: int, output: tuple[int, int], struct: int) -> None:
        base, pages = output
        for token in range(tokens):
            page = base + (token * max(1, pages // tokens) + 4 * first // PAGE_BYTES) % pages
            self.rows.append(visit(STORE, at.COMPUTE, page, 1, max(1, (end - first) // 8)))
        self.rows.append(visit(LOAD, at.GRAPH_META, struct, 1, 20))
