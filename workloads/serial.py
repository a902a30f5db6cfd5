"""Write the parts of a llama.cpp run that main executes alone: start-up, building the graph, sampling, thread
creation.

They touch few pages very often and in no simple order: containers, malloc, the allocator of the graph, the
libraries under these. `script` imitates that by drawing visits at random from the pages of each role, with
the number of visits and the accesses per visit as recorded, popular pages more often (Zipf), and every page
at least once, so that distinct pages agree too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workloads import address_space as at
from workloads.address_space import Layout
from workloads.rows import IFETCH, LOAD, PAGE_BYTES, POPULATE, ROW, STORE, VISIT, control, visit


@dataclass(frozen=True, slots=True)
class Draws:
    """`visits` visits to random ones of `pages`, `count` accesses each; `stores` of them also write, to the
    first `written` pages.
    """

    kind: int
    region: int
    pages: np.ndarray
    visits: float
    count: float
    stores: float = 0
    store_count: int = 1
    written: int = 0


def script(draws: list[Draws], rng: np.random.Generator) -> np.ndarray:
    """Return rows for all draws, mixed evenly. A visit that reads and writes is two rows, one after the
    other.
    """
    parts, writes = [], []
    for draw in draws:
        visits = max(round(draw.visits), len(draw.pages))
        rows = np.zeros(visits, ROW)
        rows["op"], rows["kind"], rows["region"], rows["pages"] = VISIT, draw.kind, draw.region, 1
        rows["count"] = max(1, round(draw.count * draw.visits / visits))
        weights = 1.0 / np.arange(1, len(draw.pages) + 1)
        rest = rng.choice(draw.pages, visits - len(draw.pages), p=weights / weights.sum())
        rows["page"] = np.concatenate([draw.pages, rest])
        parts.append(rows)
        # Every page comes first in `rows` once: so all of the written pages are written.
        able = np.flatnonzero(np.isin(rows["page"], draw.pages[: draw.written]))
        chosen = np.zeros(visits, np.int64)
        chosen[
            np.concatenate([able[: draw.written], rng.permutation(able[draw.written :])])[
                : round(draw.stores)
            ]
        ] = draw.store_count
        writes.append(chosen)
    mixed = rng.permutation(sum(len(rows) for rows in parts))
    rows, store = np.concatenate(parts)[mixed], np.concatenate(writes)[mixed]
    index = np.repeat(np.arange(len(rows)), 1 + (store > 0))
    second = np.flatnonzero(np.diff(index, prepend=-1) == 0)
    rows = rows[index]
    rows["kind"][second], rows["count"][second] = STORE, store[index[second]]
    return rows


def build_graph(place: Layout, rng: np.random.Generator) -> np.ndarray:
    """Return what llama_decode does before it starts the threads. It grows with the number of layers."""
    layers = place.shape.layers
    heap = np.arange(*_ends(place.build_heap))
    # Only so many tensors belong to a layer; the visits walk them in order of the layers, with the graph's
    # nodes near the end.
    structs = np.arange(*_ends(place.tensor_structs))
    stack = np.array([at.MAIN_STACK_PAGES - 3, at.MAIN_STACK_PAGES - 4])
    plan = [
        Draws(LOAD, at.GRAPH_META, structs, 60 + 110 * layers, 66, 56 + 53 * layers, 64, len(structs)),
        Draws(LOAD, at.HEAP, heap, 61 + 549 * layers, 4.6, 33 + 296 * layers, 2, len(heap) // 2),
        Draws(IFETCH, at.LIBS, place.build_libs_pages, 44 + 456 * layers, 85),
        Draws(LOAD, at.LIBS, place.table_libs_pages[:10], 17 + 213 * layers, 4.6),
        Draws(LOAD, at.DATA, np.array([68, 37, 12, 15, 1, 36, 10, 14]), 15 + 95 * layers, 8),
        Draws(STORE, at.DATA, np.array([74]), 4 + 29 * layers, 2.5),
        Draws(LOAD, at.RODATA, place.rodata_pages[:9], 10 + 86 * layers, 10),
        Draws(IFETCH, at.TEXT, place.build_text_pages, 104 + 326 * layers, 163),
        Draws(LOAD, at.MAIN_STACK, stack, 3 + 7.5 * layers, 1250),
        Draws(STORE, at.MAIN_STACK, stack, 4, 16000),
    ]
    inputs = np.array([visit(STORE, at.COMPUTE, 0, 4, 40)], ROW)  # token, position, mask
    return np.concatenate([script(plan, rng), inputs])


def after_compute(place: Layout, rng: np.random.Generator) -> np.ndarray:
    """Return what main does between the last op and sampling: copy the logits, end threads, reset the
    scheduler's hash table.
    """
    heap = np.arange(*_ends(place.build_heap))[:19]
    plan = [
        Draws(IFETCH, at.LIBS, place.tail_libs_pages, 310, 800),
        Draws(LOAD, at.LIBS, place.table_libs_pages[:20], 100, 15),
        Draws(IFETCH, at.TEXT, place.build_text_pages[:15], 60, 2000),
        Draws(LOAD, at.HEAP, heap, 38, 30, 38, 80, len(heap)),
    ]
    first, pages = place.logits
    reset = [
        visit(LOAD, at.COMPUTE, first, pages, 256),
        visit(STORE, at.GRAPH_META, 0, place.shape.hash_table_pages, 128),
    ]
    return np.concatenate([script(plan, rng), np.array(reset, ROW)])


def sample(place: Layout, rng: np.random.Generator) -> np.ndarray:
    """Return the sampling of one token and its output. The candidates are sorted in the heap."""
    first, pages = place.sample_heap
    heap = np.concatenate([np.arange(first, first + pages), np.arange(*_ends(place.build_heap))[:8]])
    plan = [
        Draws(LOAD, at.HEAP, heap, 300, 40, 170, 50, 18),
        Draws(IFETCH, at.LIBS, place.sample_libs_pages, 2200, 50),
        Draws(LOAD, at.LIBS, place.table_libs_pages[10:30], 440, 15),
        Draws(LOAD, at.LIBS_DATA, place.libs_data_pages, 100, 15),
        Draws(STORE, at.LIBS_DATA, place.libs_data_pages, 15, 8),
        Draws(LOAD, at.DATA, np.array([74, 68, 36]), 35, 110),
        Draws(LOAD, at.RODATA, np.append(place.rodata_pages[5:13], place.rodata_pages[15:]), 220, 2),
        Draws(IFETCH, at.TEXT, place.sample_text_pages, 450, 190),
        Draws(LOAD, at.OTHER, np.array([18]), 65, 3),
        Draws(LOAD, at.MAIN_STACK, np.array([at.MAIN_STACK_PAGES - 3]), 6, 950),
        Draws(STORE, at.MAIN_STACK, np.array([at.MAIN_STACK_PAGES - 2]), 4, 1500),
    ]
    return script(plan, rng)


def create_thread(place: Layout, worker: int) -> list[tuple[int, ...]]:
    """Return main's visits for one pthread_create: the top of the new stack holds the thread's descriptor."""
    top = (worker - 1) * at.STACK_PAGES + at.STACK_PAGES - 1
    return [
        visit(IFETCH, at.LIBS, 0, 4, 65),
        visit(LOAD, at.LIBS_DATA, 0, 3, 12),
        visit(STORE, at.LIBS_DATA, 2, 1, 11),
        visit(STORE, at.THREAD_STACK, top, 1, 12),
        visit(STORE, at.HEAP, place.activation_pages, 1, 28),
    ]


def start_up(place: Layout, rng: np.random.Generator) -> np.ndarray:
    """Return main's start: load libraries and vocabulary, map the model with MAP_POPULATE, zero the KV cache.

    The record has 643,477 rows here for 7,033 pages; these rows are their pages in a plausible order, not
    their repetitions, as start-up is not what is studied.
    """
    everywhere = [
        Draws(IFETCH, at.LIBS, place.start_libs_pages, 1200, 300),
        Draws(LOAD, at.LIBS, place.table_libs_pages, 200, 30),
        Draws(STORE, at.LIBS_DATA, np.arange(42), 80, 20),
        Draws(STORE, at.DATA, np.arange(138), 138, 500),
        Draws(LOAD, at.RODATA, place.rodata_pages, 60, 100),
        Draws(IFETCH, at.TEXT, np.concatenate([place.start_text_pages, place.build_text_pages]), 400, 300),
        Draws(LOAD, at.OTHER, np.arange(18, 46), 40, 50),
        Draws(STORE, at.MAIN_STACK, np.arange(at.MAIN_STACK_PAGES - 8, at.MAIN_STACK_PAGES), 60, 1000),
    ]
    heap_first, heap_pages = place.sample_heap
    buffers = [
        control(POPULATE, region=at.WEIGHTS, pages=place.shape.file_pages()),
        visit(LOAD, at.WEIGHTS, 0, place.shape.tensors()["token_embd"].first_byte // PAGE_BYTES + 1, 1000),
        visit(STORE, at.HEAP, 0, heap_first + heap_pages + 60, 128),
        visit(STORE, at.KV, 0, place.shape.kv_pages(), 128),
        visit(STORE, at.GRAPH_META, 0, place.graph_pages, 128),
        visit(STORE, at.COMPUTE, 0, 1, 1),
    ]
    return np.concatenate([script(everywhere, rng), np.array(buffers, ROW)])


def _ends(span: tuple[int, int]) -> tuple[int, int]:
    return span[0], span[0] + span[1]
