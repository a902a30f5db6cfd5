"""Say where in an address space the generated llama.cpp keeps what: its regions, and the pages in each that
play a role.

The numbers of pages are those recorded (two model shapes; tests/support/statistics.py compares); which pages
of text, libraries and heap they are is drawn once per seed, scattered in clusters as in the record, since
fault-around and readahead care.
File names are the same in every process but for the model: program text and libraries are shared in the page
cache.

Leaves out: pages of the 25 MiB compute buffer and of the graph buffers that are reserved but never touched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from workloads.rows import PAGE_BYTES, Region
from workloads.shape import LlamaShape

# Order of regions; rows name them by these numbers.
(
    WEIGHTS,
    KV,
    COMPUTE,
    GRAPH_META,
    HEAP,
    MAIN_STACK,
    THREAD_STACK,
    TEXT,
    RODATA,
    DATA,
    LIBS,
    LIBS_DATA,
    OTHER,
) = range(13)

STACK_PAGES = 2049  # 8 MiB and a guard page
STACK_CACHE_BYTES = 40 << 20  # glibc keeps so many bytes of stacks of ended threads
MAIN_STACK_PAGES = 2048
TEXT_PAGES, RODATA_PAGES, DATA_PAGES, LIBS_PAGES, OTHER_PAGES = 474, 113, 140, 1338, 114

# Pages of main_text by use; the ops' are consecutive, the others scattered: 94 in a token, 139 at start-up.
OPS_TEXT, OPS_TEXT_FIRST = 28, 139
F16_TABLE, F16_TABLE_HOT = 2, 8  # first page of the f16 conversion table in main_data; pages of it in use


@dataclass(frozen=True, slots=True)
class Layout:
    """Pages by role. Each field that ends in `_pages` holds page numbers inside its region, hottest first."""

    shape: LlamaShape
    threads: int
    batch: int
    build_text_pages: np.ndarray
    sample_text_pages: np.ndarray
    start_text_pages: np.ndarray
    build_libs_pages: np.ndarray
    sample_libs_pages: np.ndarray
    tail_libs_pages: np.ndarray
    start_libs_pages: np.ndarray
    table_libs_pages: np.ndarray
    libs_data_pages: np.ndarray
    rodata_pages: np.ndarray

    @property
    def activation_pages(self) -> int:
        """Return the heap pages that quantised activations of one batch fill."""
        encoding = self.shape.tensors()["blk.0.ffn_down"].encoding
        return (
            math.ceil(
                self.batch
                * encoding.activation_row_bytes(max(self.shape.n_ff, self.shape.n_embd))
                / PAGE_BYTES
            )
            + 2
        )

    @property
    def build_heap(self) -> tuple[int, int]:
        """(first, pages) of the heap that main goes through to build a graph: 3 pages a layer and 43."""
        return self.activation_pages, 43 + 3 * self.shape.layers

    @property
    def sample_heap(self) -> tuple[int, int]:
        """Return (first, pages) of the heap that only sampling touches."""
        first, pages = self.build_heap
        return first + pages, 18

    @property
    def tensor_structs(self) -> tuple[int, int]:
        """Return (first, pages) of the graph's tensors in graph_meta; they follow the hash table."""
        return self.shape.hash_table_pages, round(38 + 3.6 * self.shape.layers)

    @property
    def graph_pages(self) -> int:
        """Return the pages of graph_meta: those used at every token, and those used only to measure the graph
        at start-up.
        """
        first, pages = self.tensor_structs
        return first + pages + max(1, round(800 * self.shape.hash_table_pages / 1027))

    def buffer(self, number: int, tokens: int = 1, wide: bool = False) -> tuple[int, int]:
        """Return (first, pages) of an activation buffer: five of n_embd, two `wide` ones of n_ff values per
        token.
        """
        narrow = math.ceil(4 * self.shape.n_embd * self.batch / PAGE_BYTES) + 1
        broad = math.ceil(4 * self.shape.n_ff * self.batch / PAGE_BYTES) + 1
        first = 6 + (5 * narrow + (number % 2) * broad if wide else (number % 5) * narrow)
        values = self.shape.n_ff if wide else self.shape.n_embd
        # Buffers don't start at a page's begin, so that they straddle one page more.
        return first, math.ceil(4 * values * tokens / PAGE_BYTES) + 1

    @property
    def logits(self) -> tuple[int, int]:
        """Return (first, pages) of the logits."""
        first, _ = self.buffer(1, self.batch, wide=True)
        return first + math.ceil(4 * self.shape.n_ff * self.batch / PAGE_BYTES) + 1, math.ceil(
            4 * self.shape.vocab / PAGE_BYTES
        ) + 1

    def stack(self, thread: int) -> tuple[int, int]:
        """Return (region, page) of the page that holds a thread's current frames."""
        return (
            (MAIN_STACK, MAIN_STACK_PAGES - 3)
            if thread == 0
            else (THREAD_STACK, (thread - 1) * STACK_PAGES + STACK_PAGES - 2)
        )

    def regions(self, model_file: str) -> tuple[Region, ...]:
        """Return all mappings, in the order of the constants above."""
        first, pages = self.logits
        heap_first, heap_pages = self.sample_heap
        return (
            Region("weights", self.shape.file_pages(), model_file, shared=True),
            Region("kv", self.shape.kv_pages(), writable=True),
            Region("compute", first + pages, writable=True),
            Region("graph_meta", self.graph_pages, writable=True),
            Region("heap", heap_first + heap_pages + 60, writable=True),
            Region("main_stack", MAIN_STACK_PAGES, writable=True),
            Region("thread_stack", max(1, (self.threads - 1) * STACK_PAGES), writable=True),
            Region("main_text", TEXT_PAGES, "main", 8, executable=True),
            Region("main_rodata", RODATA_PAGES, "main", 482),
            # A private file mapping that start-up writes to, page by page: from then on it's anonymous.
            Region("main_data", DATA_PAGES, writable=True),
            Region("libs", LIBS_PAGES, "libs", executable=True),
            Region("libs_data", 42, writable=True),
            Region("other", OTHER_PAGES, "locale"),
        )


def layout(shape: LlamaShape, threads: int, batch: int, seed: int) -> Layout:
    """Draw the pages of each role. The same seed gives the same pages."""
    rng = np.random.default_rng((seed, 1))

    def clusters(pages: int, wanted: int, taken: set[int]) -> np.ndarray:
        # Runs of 1-3 neighbours, as functions that call each other are linked near each other.
        found: list[int] = []
        while len(found) < wanted:
            start = int(rng.integers(pages))
            for page in range(start, min(pages, start + int(rng.integers(1, 4)))):
                if page not in taken and len(found) < wanted:
                    taken.add(page)
                    found.append(page)
        return np.array(found)

    text = set(range(OPS_TEXT_FIRST, OPS_TEXT_FIRST + OPS_TEXT))
    libs = set(range(4))  # pages 0..3: what ops call (memcpy, expf, logf, pthread)
    return Layout(
        shape=shape,
        threads=threads,
        batch=batch,
        build_text_pages=clusters(TEXT_PAGES, 40, text),
        sample_text_pages=clusters(TEXT_PAGES, 26, text),
        start_text_pages=clusters(TEXT_PAGES, 45, text),
        build_libs_pages=clusters(LIBS_PAGES, 20, libs),
        sample_libs_pages=clusters(LIBS_PAGES, 40, libs),
        tail_libs_pages=clusters(LIBS_PAGES, 12, libs),
        start_libs_pages=clusters(LIBS_PAGES, 345, libs),
        table_libs_pages=clusters(LIBS_PAGES, 32, libs),
        libs_data_pages=np.arange(7),
        rodata_pages=clusters(RODATA_PAGES, 17, set()),
    )
