"""Atomic operations are atomic across processes, and the test that says so can see one that is not."""

import os

import numpy as np
import pytest

from cpus.atomics import (
    compare_exchange,
    exchange,
    fence,
    fetch_add,
    fetch_and,
    fetch_max,
    fetch_or,
    load_acquire,
    pause,
    store_release,
)
from cpus.compiled import kernel
from cpus.host import sched_yield
from cpus.ram import Place, Segment, SegmentType
from tests.cpus.forked import run_forked

WORDS = SegmentType(
    "words for atomics",
    {"word": Place(0, "int64", 1), "wide": Place(3, "int64", 2), "strided": Place(6, "int64", 1, 128, 64)},
)
# indices of words, a cache line each
ARRIVED, TOTAL, SECOND, OVERLAPS, LOOKED, LOADED, STORED = 0, 8, 16, 24, 32, 40, 48
ROUNDS = 300_000
YIELD_EVERY = 50
MEET_EVERY = 10_000  # rounds: a process that lost its host core for a while is waited for
PATIENCE = 200_000_000  # steps of a wait in compiled code
ADD, RACY_ADD, CAS_LOCK, RACY_LOCK, EXCHANGE_LOCK, BITS, MAX, RACY_MAX = range(8)


@pytest.fixture
def ram():
    segment = Segment(WORDS, 1 << 16)
    segment.attach_view("word", (64,), 16384)
    segment.attach_view("wide", (8, 8), 20480)
    segment.attach_view("strided", (8,), 24576 + 64)
    yield segment
    segment.close()


@kernel
def meet(ram, index, processes):
    """Wait until all processes are here, so that what follows overlaps."""
    fetch_add(ram.word, index, 1)
    steps = 0
    while load_acquire(ram.word, index) < processes and steps < PATIENCE:
        steps += 1
        if steps % 1000 == 0:
            sched_yield()
        else:
            pause()


@kernel
def _meet_in(ram, window, i, processes):
    """In some rounds, wait in a planted window until all are in it: a race that nobody has to be lucky to
    see.
    """
    if i % MEET_EVERY == 0:
        meet(ram, window, (i // MEET_EVERY + 1) * processes)


@kernel
def _lock(ram, kind, i, processes):
    if kind == CAS_LOCK:
        while compare_exchange(ram.word, SECOND, 0, 1) != 0:
            sched_yield()
    elif kind == EXCHANGE_LOCK:
        while exchange(ram.word, SECOND, 1) != 0:
            sched_yield()
    else:  # looks, then takes: both may see it free
        while load_acquire(ram.word, SECOND) != 0:
            pause()
        _meet_in(ram, LOOKED, i, processes)
        store_release(ram.word, SECOND, 1)


@kernel
def _add_in_two_steps(ram, kind, i, processes):
    """Load, now and then let somebody else run, store: loses what others add meanwhile."""
    seen = load_acquire(ram.word, TOTAL)
    if kind in (RACY_ADD, RACY_LOCK):
        _meet_in(ram, LOADED, i, processes)
    elif i % YIELD_EVERY == 0:
        sched_yield()
    store_release(ram.word, TOTAL, seen + 1)


@kernel
def _raise(ram, kind, i, value, processes):
    """Raise the total to `value`; note when it is below that afterwards."""
    if kind == MAX:
        fetch_max(ram.word, TOTAL, value)
    else:  # looks, then stores: what another has raised meanwhile may be more
        more = load_acquire(ram.word, TOTAL) < value
        _meet_in(ram, LOOKED, i, processes)
        if more:
            store_release(ram.word, TOTAL, value)
        _meet_in(ram, STORED, i, processes)
    if load_acquire(ram.word, TOTAL) < value:
        fetch_add(ram.word, SECOND, 1)


@kernel
def count(ram, kind, me, processes, rounds):
    """Add 1 `rounds` times in the way of `kind`; note that others were at it too."""
    for i in range(rounds):
        if i % MEET_EVERY == 0:
            meet(ram, ARRIVED, (i // MEET_EVERY + 1) * processes)
        if kind == ADD:
            fetch_add(ram.word, TOTAL, 1)
        elif kind == RACY_ADD:
            _add_in_two_steps(ram, kind, i, processes)
        elif kind in (MAX, RACY_MAX):
            _raise(ram, kind, i, i * processes + me, processes)
        elif kind == BITS:
            if fetch_or(ram.word, TOTAL, 1 << me) >> me & 1:
                # somebody else's operation set, or brought back, a bit that is ours
                fetch_add(ram.word, SECOND, 1)
            if fetch_and(ram.word, TOTAL, ~(1 << me)) >> me & 1 == 0:
                fetch_add(ram.word, SECOND, 1)
        else:
            _lock(ram, kind, i, processes)
            _add_in_two_steps(ram, kind, i, processes)
            store_release(ram.word, SECOND, 0)


def _count_in(ram, kind, processes, rounds=ROUNDS):
    """Run `count` in so many processes; returns the total."""
    count.compile(tuple(map(_numba_type, (ram, kind, 0, processes, rounds))))
    codes = run_forked([lambda me=me: count(ram, kind, me, processes, rounds) for me in range(processes)])
    assert codes == [0] * processes
    assert ram.word[ARRIVED] == processes * -(-rounds // MEET_EVERY)
    return int(ram.word[TOTAL])


def _numba_type(value):
    from numba import typeof, types

    return types.int64 if isinstance(value, int) else typeof(value)


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("kind", [ADD, CAS_LOCK, EXCHANGE_LOCK])
def test_no_update_is_lost(ram, kind, processes):
    """Additions by fetch_add, and under locks made of compare_exchange and exchange, all arrive."""
    rounds = ROUNDS if kind == ADD else ROUNDS // 6
    assert _count_in(ram, kind, processes, rounds) == processes * rounds


def test_bits_of_one_word_are_set_and_cleared_by_many(ram):
    """Each process sets and clears its own bit and never finds it otherwise than it left it."""
    assert _count_in(ram, BITS, 4, ROUNDS // 2) == 0
    assert ram.word[SECOND] == 0


@pytest.mark.parametrize("processes", [2, 4])
def test_a_maximum_never_falls(ram, processes):
    """Who has raised a word finds it as high afterwards, and in the end it is the largest value of all."""
    assert _count_in(ram, MAX, processes) == ROUNDS * processes - 1
    assert ram.word[SECOND] == 0


def test_a_planted_race_lowers_a_maximum(ram):
    """A maximum made of a load and a store overwrites a larger value."""
    _count_in(ram, RACY_MAX, 2)
    assert ram.word[SECOND] > 0


@pytest.mark.parametrize("kind", [RACY_ADD, RACY_LOCK])
def test_planted_races_lose_updates(ram, kind):
    """An addition made of a load and a store loses some, and so does a lock that looks before it takes."""
    assert _count_in(ram, kind, 2, ROUNDS // 5) < 2 * (ROUNDS // 5)


@kernel
def _store_then_load(ram, me, rounds, fenced):
    """Dekker's pattern: store my word, load the other's; without a fence both may load what was before."""
    other = 1 - me
    for i in range(1, rounds + 1):
        meet(ram, ARRIVED, 2 * i)
        store_release(ram.strided, me, i)
        if fenced:
            fence()
        ram.wide[me, 0] = load_acquire(ram.strided, other)
        meet(ram, SECOND, 2 * i)
        if me == 0 and ram.wide[0, 0] < i and ram.wide[1, 0] < i:
            ram.word[OVERLAPS] += 1


def _both_missed(ram, rounds, fenced):
    """In how many rounds did neither of two CPUs see the other's store?"""
    _store_then_load.compile(tuple(map(_numba_type, (ram, 0, rounds, fenced))))
    assert run_forked([lambda me=me: _store_then_load(ram, me, rounds, fenced) for me in range(2)]) == [0, 0]
    assert ram.word[ARRIVED] == 2 * rounds
    return int(ram.word[OVERLAPS])


def test_a_fence_orders_a_store_before_a_load(ram):
    """With the fence at least one of two CPUs sees the other's store, always: what `begin_wait` and its
    wakers rely on.
    """
    assert _both_missed(ram, 3000, 1) == 0


@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="one host core reorders nothing that it could see"
)
def test_planted_missing_fence_is_seen(ram):
    """Without it the host does let both load what was there before (some 10 times in 3,000 rounds on x86)."""
    assert _both_missed(ram, 20_000, 0) > 0


@kernel
def _all_operations(ram, i, j):
    return (
        exchange(ram.wide, (i, j), 5),
        fetch_add(ram.wide, (i, j), 7),
        fetch_or(ram.wide, (i, j), 16),
        fetch_and(ram.wide, (i, j), 20),
        fetch_max(ram.wide, (i, j), 19),
        fetch_max(ram.wide, (i, j), 22),
        compare_exchange(ram.wide, (i, j), 99, 1),
        compare_exchange(ram.wide, (i, j), 22, -1),
        load_acquire(ram.wide, (i, j)),
    )


def test_operations_return_what_was_there_before(ram):
    """On an element of a table: exchange, add, or, and, maximum; compare_exchange stores if it fits."""
    ram.wide[2, 3] = 3
    assert _all_operations(ram, 2, 3) == (3, 5, 12, 28, 20, 20, 22, 22, -1)
    assert np.count_nonzero(ram.wide) == 1
