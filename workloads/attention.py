"""Write what attention does: store keys and values in the cache, read them back for all positions so far.

Without flash attention V is stored transposed: a token writes two bytes into every one of kv_width rows of 2
n_ctx bytes, so that every page of V is written for every token. K is a row per position.
"""

from __future__ import annotations

from workloads import address_space as at
from workloads.matmul import equal_parts
from workloads.rows import IFETCH, LOAD, PAGE_BYTES, STORE, visit
from workloads.shape import KV_OFFSET
from workloads.writer import Writer


def _kv_base(w: Writer, layer: int, value: bool) -> int:
    """Return the byte at which a layer's keys or values begin: K and V of each layer in turn."""
    return KV_OFFSET + (2 * layer + value) * 2 * w.shape.n_ctx * w.shape.kv_width


def store_kv(w: Writer, layer: int, position: int, tokens: int) -> None:
    """Write the copies into the cache: a row of K, and V transposed, so that two bytes go into each of
    kv_width rows.
    """
    w.begin("copy", 600 * tokens)
    row = 2 * w.shape.kv_width
    first, pages = _span(_kv_base(w, layer, False) + position * row, tokens * row)
    w.put(
        0,
        visit(LOAD, at.COMPUTE, *w.buffer(4, tokens), 48),
        visit(STORE, at.KV, first, pages, max(1, row * tokens // 32 // pages)),
    )
    w.op += 1
    for thread, (first, end) in enumerate(equal_parts(w.shape.kv_width, w.threads)):
        if end > first:
            w.put(
                thread,
                w.text("copy", 50 * (end - first) * tokens),
                visit(LOAD, at.COMPUTE, *w.buffer(1, tokens), 170),
            )
            w.put(thread, *_value_rows(w, STORE, layer, first, end, position, tokens))
        w.put(thread, visit(LOAD, at.GRAPH_META, w.struct(), 1, 250), visit(LOAD, at.DATA, 37, 1, 3))
    w.meet()


def _value_rows(
    w: Writer, kind: int, layer: int, first: int, end: int, position: int, tokens: int
) -> list[tuple[int, ...]]:
    """Return visits of positions position.. in rows first..end-1 of the transposed values."""
    row, base = 2 * w.shape.n_ctx, _kv_base(w, layer, True) + 2 * position
    if row <= PAGE_BYTES:
        page, pages = _span(base + first * row, (end - first - 1) * row + 2 * tokens)
        count = (end - first) * max(1, tokens if kind == STORE else tokens // 6)
        return [visit(kind, at.KV, page, pages, max(1, count // pages))]
    spans = [_span(base + number * row, 2 * tokens) for number in range(first, end)]
    return [
        visit(kind, at.KV, page, pages, max(1, tokens if kind == STORE else tokens // 6))
        for page, pages in spans
    ]


def attention(w: Writer, layer: int, position: int, tokens: int) -> None:
    """Write kq, soft_max, kqv and the copy that puts the heads side by side."""
    padded = min(-(-(position + tokens) // 32) * 32, w.shape.n_ctx)
    w.op += 1
    _query_keys(w, layer, padded)
    w.op += 1
    score = (w.buffer(1)[0], 1)
    for thread in range(w.threads):
        slot = w.place.activation_pages - 1
        w.put(
            thread,
            w.text("soft_max", 2600 * tokens),
            visit(IFETCH, at.LIBS, 0, 4, 25),
            visit(STORE, at.HEAP, slot, 1, 70),
        )
        w.put(thread, *(visit(LOAD, at.LIBS, int(page), 1, 5) for page in w.place.table_libs_pages[14:17]))
        w.put(
            thread,
            visit(LOAD, at.COMPUTE, *score, 24),
            visit(LOAD, at.GRAPH_META, w.struct(), 1, 40),
            visit(LOAD, at.HEAP, slot, 1, 260),
        )
        w.put(
            thread,
            visit(LOAD, at.RODATA, int(w.place.rodata_pages[11]), 1, 7),
            visit(LOAD, at.COMPUTE, 4, 1, 8),
        )
    w.meet()
    w.op += 1
    _score_values(w, layer, padded)
    w.begin("copy", 500)
    w.put(
        0,
        visit(LOAD, at.COMPUTE, *w.buffer(1, tokens), 63),
        visit(STORE, at.COMPUTE, *w.buffer(0, tokens), 64),
    )


def _query_keys(w: Writer, layer: int, padded: int) -> None:
    """Write K times the query."""
    # All heads' bytes of a page, or those of one: recorded in the two shapes.
    count = 235 if padded > w.shape.n_head else 16
    for thread in range(w.threads):
        _attention_rows(w, thread)
        w.put(
            thread,
            *(visit(LOAD, at.KV, page, pages, count) for page, pages in _key_spans(w, layer, thread, padded)),
        )
        w.put(thread, visit(STORE, at.COMPUTE, w.buffer()[0], 1, 72))
    w.meet()


def _key_spans(w: Writer, layer: int, thread: int, padded: int) -> list[tuple[int, int]]:
    """Return the pages of K that a thread reads. ggml divides the longer of (positions, heads) among the
    threads.
    """
    heads, row, base = w.shape.n_head, 2 * w.shape.kv_width, _kv_base(w, layer, False)
    if padded > heads:
        first, end = equal_parts(padded, w.threads)[thread]
        return [_span(base + first * row, (end - first) * row)] if end > first else []
    first, end = equal_parts(heads, w.threads)[thread]
    if end > first and row * padded <= 16 * PAGE_BYTES:
        return [_span(base, row * padded)]  # few pages: all heads of a thread within one visit of them
    spans = []
    for head in range(first, end):
        # A head's keys are a short piece of every position's row.
        offset = base + head * w.shape.n_head_kv // heads * row // w.shape.n_head_kv
        spans += (
            [_span(offset + position * row, 1) for position in range(padded)]
            if row >= PAGE_BYTES
            else [_span(base, row * padded)]
        )
    return spans


def _score_values(w: Writer, layer: int, padded: int) -> None:
    """Write V times the scores: every head's rows in T equal parts."""
    groups = w.shape.n_head_kv
    depth = max(1, w.shape.kv_width // groups)
    for thread in range(w.threads):
        first, end = equal_parts(depth, w.threads)[thread]
        _attention_rows(w, thread)
        if end > first:
            for group in range(groups):
                w.put(
                    thread,
                    *_value_rows(w, LOAD, layer, group * depth + first, group * depth + end, 0, padded),
                )
        w.put(thread, visit(STORE, at.COMPUTE, *w.buffer(), 60))
    w.meet()


def _attention_rows(w: Writer, thread: int) -> None:
    region, stack = w.place.stack(thread)
    w.put(
        thread,
        w.text("mul_mat", 16000),
        visit(IFETCH, at.LIBS, 1, 1, 100),
        visit(LOAD, at.COMPUTE, *w.buffer(1), 290),
    )
    w.put(
        thread,
        visit(LOAD, at.GRAPH_META, w.struct(), 1, 56),
        visit(LOAD, at.HEAP, 0, 1, 670),
        visit(LOAD, at.DATA, 37, 1, 40),
    )
    w.put(
        thread,
        visit(LOAD, at.RODATA, int(w.place.rodata_pages[10]), 1, 4000),
        visit(STORE, region, stack, 1, 10),
    )


def _span(first_byte: int, length: int) -> tuple[int, int]:
    """Return (first page, pages) of bytes of the KV cache."""
    first = first_byte // PAGE_BYTES
    return first, (first_byte + length - 1) // PAGE_BYTES - first + 1
