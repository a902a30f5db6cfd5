"""Figures must be right before they judge anything: against slow and obvious counterparts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.support.interleave import interleave
from tests.support.statistics import read_write, reuse_distances
from workloads import rows as p
from workloads.llama import generate
from workloads.shape import LlamaShape

SMALL = LlamaShape("small", 1, 256, 2048, 256, 64, "Q4_K_M", hash_table_pages=4)


@given(st.lists(st.integers(0, 6), max_size=60))
def test_reuse_distances_against_a_list(pages: list[int]):
    """The merging counts what a list of the pages since counts."""
    expected = []
    for index, page in enumerate(pages):
        before = [k for k in range(index) if pages[k] == page]
        expected.append(len(set(pages[before[-1] + 1 : index])) if before else -1)
    assert reuse_distances(np.array(pages, np.int64)).tolist() == expected


def test_every_chunk_is_executed_once():
    """Whoever draws them, all chunks of a section are visited exactly once, and every row of every thread."""
    process = generate(SMALL, threads=3, tokens=1)
    expected = sum(int(rows["pages"][rows["op"] == p.VISIT].sum()) for rows in process.threads)
    for section in process.sections:
        expected += sum(int(process.chunk_rows["pages"][first:end].sum()) for first, end in section.chunks)
    assert len(interleave(process)) == expected


def test_evaluations_follow_each_other():
    """Visits are sorted by evaluation: workers end before main goes on to the next."""
    visits = interleave(generate(SMALL, threads=3, tokens=2))
    assert sorted(set(visits.evaluation.tolist())) == [0, 1, 2, 3]
    assert (np.diff(visits.evaluation) >= 0).all()
    assert set(visits.thread[visits.evaluation == 3].tolist()) == {0, 1, 2}


def test_same_seed_same_order():
    """The order is drawn from the seed alone; another seed draws chunks in another order."""
    process = generate(SMALL, threads=3, tokens=1)
    one, again, other = (interleave(process, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.thread, again.thread)
    assert not np.array_equal(one.thread, other.thread)


def test_load_and_store_of_one_visit_count_once():
    """A page that is read and written in one visit gives two rows and one visit."""
    regions = (p.Region("anon", 3, writable=True),)
    listed = [
        p.visit(p.LOAD, 0, 0),
        p.visit(p.STORE, 0, 0),
        p.visit(p.LOAD, 0, 1),
        p.visit(p.LOAD, 0, 2),
        p.visit(p.LOAD, 0, 1),
    ]
    visits = interleave(p.Process("one", regions, (np.array(listed, p.ROW),)))
    assert read_write(visits) == {"pages": 2.0, "visits": 3.0}
