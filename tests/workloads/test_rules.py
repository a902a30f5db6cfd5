"""`validate` must accept what can run to its end, and refuse every planted way of not doing so,
saying where.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import rows as p
from workloads import validate
from workloads.llama import generate
from workloads.shape import LlamaShape

REGIONS = (
    p.Region("text", 8, "prog", executable=True),
    p.Region("file", 10, "model", shared=True),
    p.Region("anon", 10, writable=True),
)
TEXT, FILE, ANON = range(3)


def rows(*listed: tuple[int, ...]) -> np.ndarray:
    return np.array(list(listed), p.ROW)


def sound() -> p.Process:
    """Two rounds of main and two workers, with everything that rows can do."""
    main, worker = [], {1: [], 2: []}
    for turn in range(2):
        main += [p.control(p.MARK, turn), p.control(p.POPULATE, region=FILE, pages=10)]
        main += [p.control(p.MUNMAP, region=ANON, page=8, pages=2), p.visit(p.STORE, ANON, 0, 8, 3)]
        main += [p.control(p.MMAP, region=ANON, page=8, pages=2)]
        main += [
            p.control(p.CLONE, 1),
            p.control(p.CLONE, 2),
            p.control(p.BARRIER, 2 * turn, 3),
            p.control(p.DRAW, turn, 3, 0),
        ]
        main += [p.control(p.BARRIER, 2 * turn + 1, 3), p.control(p.JOIN, pages=2)]
        for k, listed in worker.items():
            listed += [
                p.visit(p.IFETCH, TEXT, 0, 2),
                p.control(p.BARRIER, 2 * turn, 3),
                p.control(p.DRAW, turn, 3, k),
            ]
            listed += [p.control(p.BARRIER, 2 * turn + 1, 3), p.visit(p.LOAD, ANON, 8, 2), p.control(p.EXIT)]
    section = p.Section(np.array([[0, 1], [1, 2], [2, 3], [3, 4]]))
    chunk_rows = rows(*(p.visit(p.LOAD, FILE, 2 * k, 2) for k in range(4)))
    return p.Process(
        "two", REGIONS, (rows(*main), rows(*worker[1]), rows(*worker[2])), chunk_rows, (section, section)
    )


def check(process: p.Process) -> None:
    validate(p.Workload("test", (process,)))


def changed(thread: int, which: int, /, nth: int = 0, **fields: int) -> p.Process:
    """Return the sound process with fields of one row changed: the nth row of `thread` that executes `which`;
    -1 is chunk_rows.
    """
    process = sound()
    target = process.chunk_rows if thread < 0 else process.threads[thread]
    row = np.flatnonzero(target["op"] == which)[nth]
    for field, value in fields.items():
        target[field][row] = value
    return process


def without(thread: int, op: int, nth: int = 0) -> p.Process:
    process = sound()
    threads = list(process.threads)
    threads[thread] = np.delete(threads[thread], np.flatnonzero(threads[thread]["op"] == op)[nth])
    return replace(process, threads=tuple(threads))


def chunks(*ranges: tuple[int, int]) -> p.Process:
    process = sound()
    return replace(process, sections=(p.Section(np.array(ranges)), process.sections[1]))


def late_clone() -> p.Process:
    """Main waits at a barrier for worker 2, and starts it only afterwards."""
    process = sound()
    main = process.threads[0]
    clone, barrier = np.flatnonzero(main["op"] == p.CLONE)[1], np.flatnonzero(main["op"] == p.BARRIER)[0]
    main[[clone, barrier]] = main[[barrier, clone]]
    return process


def mapped_after_use() -> p.Process:
    """Main maps pages again only after workers that use them have been started."""
    process = sound()
    main = process.threads[0]
    mapped, join = np.flatnonzero(main["op"] == p.MMAP)[0], np.flatnonzero(main["op"] == p.JOIN)[0]
    order = [*range(mapped), *range(mapped + 1, join + 1), mapped, *range(join + 1, len(main))]
    return replace(process, threads=(main[order], *process.threads[1:]))


PLANTED: dict[str, tuple[Callable[[], p.Process], str]] = {
    "unknown op": (lambda: changed(0, p.VISIT, op=99), "'op' must be a known operation"),
    "barrier in a chunk": (lambda: changed(-1, p.VISIT, op=p.BARRIER), "'op' must be VISIT inside a chunk"),
    "main ends like a worker": (
        lambda: changed(0, p.VISIT, op=p.EXIT),
        "'op' must not be EXIT, TRY or UNTIL in main",
    ),
    "worker marks": (
        lambda: changed(1, p.VISIT, op=p.MARK),
        "'op' must not be CLONE, JOIN, MARK, MUNMAP, MMAP, TRY or UNTIL in a worker",
    ),
    "worker unmaps": (
        lambda: changed(1, p.VISIT, nth=1, op=p.MUNMAP),
        "'op' must not be CLONE, JOIN, MARK, MUNMAP, MMAP, TRY or UNTIL in a worker",
    ),
    "unknown advice": (
        lambda: changed(0, p.POPULATE, op=p.MADVISE, kind=5),
        "'kind' must be 4, 8, 20 or 21 (got 5)",
    ),
    "unknown rights": (
        lambda: changed(0, p.POPULATE, op=p.MPROTECT, kind=8),
        "'kind' must be a sum of PROT_NONE, PROT_READ, PROT_WRITE or PROT_EXEC (got 8)",
    ),
    "moved to nowhere": (lambda: changed(0, p.POPULATE, op=p.MREMAP, count=3), "'count' must be below 3"),
    "placed by halves": (
        lambda: changed(0, p.POPULATE, op=p.PLACE, kind=2),
        "'kind' must be 0 or 1 (got 2)",
    ),
    "placed beyond user space": (
        lambda: changed(0, p.POPULATE, op=p.PLACE, kind=p.AT, count=2**31),
        "'page' and 'count' of PLACE must be a page number with room for the region below 34359738368 "
        "(got 9223372036854775808)",
    ),
    "placed at its end": (
        lambda: changed(0, p.POPULATE, op=p.PLACE, kind=p.AT, count=7, page=2**32 - 9),
        "must be a page number with room for the region below 34359738368 (got 34359738359)",
    ),
    "half a breakpoint": (
        lambda: changed(0, p.POPULATE, op=p.UPROBE, kind=2),
        "'kind' must be 0 or 1 (got 2)",
    ),
    "spins outside": (
        lambda: changed(0, p.BARRIER, count=8),
        "'count' must be a page of the region that it spins on (got 8)",
    ),
    "spins nowhere": (lambda: changed(0, p.BARRIER, region=3), "'region' must be below 3, or NO_REGION"),
    "buffer outside": (
        lambda: changed(0, p.POPULATE, op=p.DIRECT_WRITE, kind=ANON, count=1),
        "'count' + 'pages' of a direct call must be inside its memory's region (got 11)",
    ),
    "no buffer": (
        lambda: changed(0, p.POPULATE, op=p.DIRECT_WRITE, kind=3),
        "'kind' of a direct call must be a region, below 3",
    ),
    "read into a file's mapping": (
        lambda: changed(0, p.POPULATE, op=p.DIRECT_READ, kind=FILE),
        "'kind' of DIRECT_READ must be a writable region",
    ),
    "truncate no file": (
        lambda: changed(0, p.VISIT, op=p.TRUNCATE),
        "'region' of a call on a file must map one (got anon)",
    ),
    "reclaim nothing": (
        lambda: changed(0, p.POPULATE, op=p.RECLAIM, pages=0),
        "'pages' must be at least 1",
    ),
    "no such region": (lambda: changed(0, p.VISIT, region=3), "'region' must be below 3"),
    "no pages": (lambda: changed(0, p.VISIT, pages=0), "'pages' must be at least 1"),
    "page outside": (lambda: changed(0, p.VISIT, page=3), "inside region 'anon' of 10 pages (got 11)"),
    "chunk page outside": (
        lambda: changed(-1, p.VISIT, nth=3, page=9),
        "inside region 'file' of 10 pages (got 11)",
    ),
    "unknown kind": (lambda: changed(0, p.VISIT, kind=3), "'kind' must be LOAD, STORE or IFETCH"),
    "no accesses": (lambda: changed(0, p.VISIT, count=0), "'count' must be at least 1"),
    "store to a read-only region": (
        lambda: changed(0, p.VISIT, region=FILE),
        "'region' of a STORE must be writable",
    ),
    "ifetch from data": (
        lambda: changed(1, p.VISIT, region=ANON),
        "'region' of an IFETCH must be executable",
    ),
    "chunk past the end": (
        lambda: chunks((0, 1), (1, 2), (2, 5)),
        "chunk 2 must lie in the 4 chunk rows (got (2, 5))",
    ),
    "chunk backwards": (lambda: chunks((0, 1), (2, 1), (2, 3)), "chunk 1 must lie in"),
    "chunks of wrong shape": (
        lambda: replace(sound(), sections=(p.Section(np.array([0, 1])), sound().sections[1])),
        "'chunks' must be signed integers",
    ),
    "clone of nobody": (lambda: changed(0, p.CLONE, page=3), "'page' of CLONE must be a worker, 1..2"),
    "clone twice": (lambda: changed(0, p.CLONE, nth=1, page=1), "must be cloned once between two JOINs"),
    "join too many": (lambda: changed(0, p.JOIN, pages=3), "'pages' of JOIN must be the number of workers"),
    "clone without join": (lambda: without(0, p.JOIN, nth=1), "every CLONE must be followed by a JOIN"),
    "exit missing": (
        lambda: without(2, p.EXIT),
        "the number of EXIT rows must be that of its CLONEs, 2 (got 1)",
    ),
    "rows after the last exit": (
        lambda: replace(
            sound(),
            threads=(*sound().threads[:2], np.append(sound().threads[2], rows(p.visit(p.LOAD, ANON, 0)))),
        ),
        "the last row of a worker must be EXIT",
    ),
    "barrier missed": (
        lambda: without(2, p.BARRIER),
        "'pages' must be the number of threads that come to it",
    ),
    "barrier for more": (
        lambda: changed(2, p.BARRIER, pages=4),
        "all rows of a barrier must name as many parties",
    ),
    "barriers out of order": (lambda: changed(1, p.BARRIER, nth=1, page=0), "'page' of BARRIER must grow"),
    "clone after the barrier": (late_clone, "main must CLONE the worker before it waits for it"),
    "no such section": (lambda: changed(1, p.DRAW, page=2), "'page' of DRAW must be below 2"),
    "own chunk beyond parties": (
        lambda: changed(1, p.DRAW, count=3),
        "'count' of DRAW must be below its parties",
    ),
    "same own chunk": (lambda: changed(1, p.DRAW, count=2), "'count' of DRAW must be drawn once"),
    "draw with other parties": (
        lambda: changed(1, p.DRAW, pages=4),
        "'pages' of DRAW must be the same in all threads",
    ),
    "draw missing": (lambda: without(2, p.DRAW), "section 0: all 3 parties must DRAW (got 2)"),
    "more parties than chunks": (
        lambda: chunks((0, 1), (1, 2)),
        "'pages' of DRAW must be at most its 2 chunks",
    ),
    "marks repeat": (lambda: changed(0, p.MARK, nth=1, page=0), "'page' of MARK must grow"),
    "map what is mapped": (lambda: without(0, p.MUNMAP), "MMAP must name pages of an earlier MUNMAP"),
    "unmap twice": (lambda: without(0, p.MMAP), "must"),
    "use while unmapped": (mapped_after_use, "'page' must not be unmapped"),
    "no main": (
        lambda: replace(sound(), threads=()),
        "'threads' must be from 1, the main one, to 256",
    ),
    "empty region": (
        lambda: replace(sound(), regions=(*REGIONS, p.Region("nothing", 0))),
        "'pages' of region 'nothing'",
    ),
    "other dtype": (lambda: replace(sound(), chunk_rows=np.zeros(4)), "'dtype' must be ROW"),
}


def test_sound_process_is_accepted():
    """What keeps all rules passes, and the pages in use are counted."""
    workload = p.Workload("test", (sound(),))
    validate(workload)
    assert workload.working_set_pages() == 2 + 8 + 10


@pytest.mark.parametrize("name", PLANTED)
def test_planted_violation_is_refused(name: str):
    """Every rule has a violation that it catches, and the error says which process and which rule."""
    plant, rule = PLANTED[name]
    with pytest.raises(ValueError) as refusal:
        check(plant())
    assert rule in str(refusal.value)
    assert "process 'two'" in str(refusal.value)


def test_error_names_thread_and_row():
    """An error leads to the row: process, thread, row, rule, value."""
    with pytest.raises(ValueError) as refusal:
        check(changed(2, p.BARRIER, nth=1, pages=4))
    assert str(refusal.value).startswith("process 'two' thread 2 row 3: barrier 1: ")
    with pytest.raises(ValueError, match="'processes' must be from 1 to 1,024"):
        validate(p.Workload("none", ()))


def test_shared_file_pages_count_once():
    """Two processes that visit the same file page have one page of page cache between them."""
    one = sound()
    assert p.Workload("pair", (one, one)).working_set_pages() == 2 * 10 + (2 + 8)


small_shapes = st.builds(
    LlamaShape,
    name=st.just("small"),
    layers=st.integers(1, 3),
    n_embd=st.sampled_from([32, 96, 256, 512]),
    n_ff=st.sampled_from([64, 256, 800]),
    kv_width=st.sampled_from([8, 32, 256]),
    vocab=st.integers(1, 300),
    quantisation=st.sampled_from(["Q4_K_M", "Q4_0", "Q8_0", "F16"]),
    n_head=st.sampled_from([4, 8, 64]),
    n_head_kv=st.sampled_from([1, 4]),
    n_ctx=st.sampled_from([64, 512, 4096]),
    hash_table_pages=st.integers(1, 30),
)


@settings(max_examples=40, deadline=None)
@given(
    shape=small_shapes,
    threads=st.integers(1, 9),
    prompt=st.integers(1, 7),
    barriers=st.integers(1, 3),
    warm_up=st.booleans(),
)
def test_generator_keeps_the_rules(
    shape: LlamaShape, threads: int, prompt: int, barriers: int, warm_up: bool
):
    """Whatever the model and the number of threads, what is generated can be executed to its end."""
    check(
        generate(
            shape, threads=threads, tokens=2, prompt_tokens=prompt, barriers_per_op=barriers, warm_up=warm_up
        )
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_barrier_row_can_be_lost(data: st.DataObject):
    """Deleting any one synchronising row of a generated program is noticed."""
    process = generate(
        LlamaShape("small", 1, 64, 64, 16, 50, "Q8_0", hash_table_pages=2), threads=3, tokens=1
    )
    thread = data.draw(st.integers(0, 2))
    rows = process.threads[thread]
    at = np.flatnonzero(np.isin(rows["op"], (p.BARRIER, p.DRAW, p.CLONE, p.EXIT, p.JOIN)))
    threads = list(process.threads)
    threads[thread] = np.delete(rows, data.draw(st.sampled_from(at.tolist())))
    with pytest.raises(ValueError, match="process 'llama'"):
        check(replace(process, threads=tuple(threads)))
