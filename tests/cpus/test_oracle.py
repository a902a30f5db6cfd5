"""The oracle: every kind of violation is caught when it is planted, and nothing legal ever is."""

import multiprocessing
import time

import numpy as np
import pytest

from cpus.abi.numbers import IFETCH, LOAD, STORE
from cpus.access import visit_pages
from cpus.atomics import fetch_add, load_acquire, pause, store_release
from cpus.compiled import kernel
from cpus.lease import random_next, sched_yield
from cpus.oracle import (
    LOST,
    REUSE,
    STALE,
    UNFILLED,
    VERSION_BITS,
    VERSION_MASK,
    VIOLATIONS_KEPT,
    check_store,
    poison,
    publish,
    set_content,
)
from cpus.tlb import invalidate_page
from tests.cpus import bare_machine as bare
from tests.cpus.bare_machine import FRAME_OF_PAGE_0

VPN, LOGICAL = 7, 300
FRAME = FRAME_OF_PAGE_0 + VPN
SHARED_STORES = 2_000_000


@pytest.fixture
def ram():
    """CPU 0 has page VPN in its TLB, readable and writable; the frame holds version 1 of page LOGICAL."""
    ram = bare.build()
    bare.map_page(ram, 0, VPN, FRAME, LOGICAL)
    visit_pages(ram, 0, STORE, VPN, 1, 1, 0)
    visit_pages(ram, 0, LOAD, VPN, 1, 1, 0)
    assert ram.run_violations[0] == 0
    yield ram
    ram.close()


def visit(ram, kind):
    """Visit page VPN once; returns the names of what the oracle reported for it."""
    before = int(ram.run_violations[0])
    visit_pages(ram, 0, kind, VPN, 1, 1, 0)
    return ram.violation[before : int(ram.run_violations[0]), 0].tolist()


@pytest.mark.parametrize("kind", [LOAD, STORE])
def test_reuse_is_caught(ram, kind):
    """let frame belong to another page . then the entry is stale . however the CPU was not flushed"""
    set_content(ram, FRAME, 400, 5)
    assert visit(ram, kind) == [REUSE]
    assert bare.content_of(ram, FRAME) == (400, 5), "the other's content is not touched"


@pytest.mark.parametrize("kind", [LOAD, STORE])
def test_a_frame_that_was_only_handed_out_is_caught(ram, kind):
    """Before its new owner writes anything, the frame is poisoned."""
    poison(ram, FRAME)
    assert visit(ram, kind) == [REUSE]


def test_stale_read_is_caught(ram):
    """The page was migrated and written at its new place; this CPU still reads the old frame."""
    set_content(ram, FRAME + 1, LOGICAL, 1)
    assert check_store(ram, FRAME + 1, LOGICAL)[0]
    assert visit(ram, LOAD) == [STALE]


def test_lost_write_is_caught(ram):
    """The same, and this CPU writes to the old frame: nobody will see it."""
    set_content(ram, FRAME + 1, LOGICAL, 1)
    assert check_store(ram, FRAME + 1, LOGICAL)[0]
    assert visit(ram, STORE) == [LOST]
    assert bare.content_of(ram, FRAME) == (LOGICAL, 1), "the write did not happen"


def test_a_write_before_the_copy_was_taken_shows_at_the_reader(ram):
    """A store through a stale entry after the page was copied: the store itself looks right, the next reader
    of the copy does not.
    """
    copy = int(ram.content[FRAME])
    assert visit(ram, STORE) == []
    ram.content[FRAME + 1] = copy
    bare.set_pte(ram, 0, VPN, (FRAME + 1) << 12 | 3)
    invalidate_page(ram, 0, VPN, ram.cpu_context[0])
    assert visit(ram, LOAD) == [STALE]


def test_a_page_mapped_before_it_was_filled_is_caught(ram):
    """A bug of the kernel: the walk finds a frame without an owner."""
    poison(ram, FRAME + 1)
    bare.set_pte(ram, 0, VPN, (FRAME + 1) << 12 | 3)
    invalidate_page(ram, 0, VPN, ram.cpu_context[0])
    assert visit(ram, LOAD)[0] == UNFILLED


def test_the_witness_names_cpu_page_frame_and_contents(ram):
    """Expected and found content, the address space, the clock and when the entry was filled."""
    filled = int(ram.tlb_filled_ns[0, ram.tlb_tag[0].argmax()])
    set_content(ram, FRAME, 400, 5)
    ram.cpu_clock[0], ram.cpu_task[0] = 5000, 3
    visit(ram, LOAD)
    what, cpu, vpn, frame, expected, found, clock, filled_ns, mm, _, task = ram.violation[0].tolist()[:11]
    assert (what, cpu, vpn, frame, mm, task) == (REUSE, 0, VPN, FRAME, 0, 3)
    assert (expected, found) == (LOGICAL << VERSION_BITS | 1, 400 << VERSION_BITS | 5)
    assert (clock, filled_ns) == (5000, filled)


def test_violations_beyond_the_kept_ones_are_counted(ram):
    set_content(ram, FRAME, 400, 5)
    for _ in range(VIOLATIONS_KEPT + 10):
        visit_pages(ram, 0, LOAD, VPN, 1, 1, 0)
    assert ram.run_violations[0] == VIOLATIONS_KEPT + 10
    assert np.count_nonzero(ram.violation[:, 0]) == VIOLATIONS_KEPT


def test_a_page_that_comes_back_in_another_frame_is_no_violation(ram):
    """Flushed in time: the page is read back at its version, into another frame."""
    set_content(ram, FRAME + 1, LOGICAL, 1)
    bare.set_pte(ram, 0, VPN, (FRAME + 1) << 12 | 3)
    invalidate_page(ram, 0, VPN, ram.cpu_context[0])
    poison(ram, FRAME)
    assert visit(ram, LOAD) + visit(ram, STORE) == []


def test_versions_do_not_run_into_the_logical_page(ram):
    """A hundred million stores to one page are legal."""
    set_content(ram, FRAME, LOGICAL, 100_000_000)
    publish(ram, LOGICAL, 100_000_000)
    assert visit(ram, STORE) + visit(ram, LOAD) == []
    assert bare.content_of(ram, FRAME) == (LOGICAL, 100_000_001)


@kernel
def visit_at_random(ram, visits, pages):
    """Visit pages in all three ways; every hundredth time remap one properly: unmap, flush, poison, fill
    another frame, map.
    """
    state, spare = 88172645463325252, FRAME_OF_PAGE_0 + pages
    for i in range(visits):
        state = random_next(state)
        vpn = (state >> 20) % pages
        if i % 100 == 0:
            logical, version = vpn, ram.version[vpn]
            old = ram.page_private[vpn]
            bare.set_pte(ram, 0, vpn, 0)
            invalidate_page(ram, 0, vpn, ram.cpu_context[0])
            poison(ram, old)
            set_content(ram, spare, logical, version)
            bare.set_pte(ram, 0, vpn, (spare << 12) | 3)
            ram.page_private[vpn], spare = spare, old
        visit_pages(ram, 0, (state >> 8) % 3, vpn, 1, 1, 0)


def test_a_million_legal_accesses_give_no_alarm():
    """Loads, stores and fetches of pages that move from frame to frame all the time, flushed as they should
    be.
    """
    ram = bare.build(bare.GOLDEN_COVE, pages=150)
    for vpn in range(100):
        bare.map_page(ram, 0, vpn, FRAME_OF_PAGE_0 + vpn, vpn)
        ram.page_private[vpn] = FRAME_OF_PAGE_0 + vpn
    visit_at_random(ram, 1_000_000, 100)
    assert ram.run_violations[0] == 0
    assert bare.counts(ram, "page_visits") == [1_000_000]
    assert {LOAD, STORE, IFETCH} == {0, 1, 2}
    ram.close()


# --- two processes on one page ------------------------------------------------------------------------------


@kernel
def careless_store(ram, logical, pfn):
    """The planted bug: publish the version before it is in the frame."""
    word = load_acquire(ram.content, pfn)
    publish(ram, logical, (word + 1) & VERSION_MASK)
    for _ in range(20):
        pause()
    store_release(ram.content, pfn, word + 1)


@kernel
def store_many(ram, cpu, stores, careless):
    """Store to page VPN until it is to stop or `stores` are done; each version seen must be above the last
    one.
    """
    fetch_add(ram.run_ready, 0, 1)
    while load_acquire(ram.run_ready, 0) < 2:
        sched_yield()
    last = 0
    for _ in range(stores):
        if careless:
            careless_store(ram, LOGICAL, FRAME)
        else:
            visit_pages(ram, cpu, STORE, VPN, 1, 1, 0)
        now = load_acquire(ram.version, LOGICAL)
        if now <= last:
            ram.series[cpu, 0] += 1
        if now > last + 1:
            ram.series[cpu, 1] += 1  # the other one has stored meanwhile
        last = now
        if load_acquire(ram.run_stop, 0) != 0:
            break


@kernel
def load_many(ram, cpu, loads):
    """Load page VPN."""
    for _ in range(loads):
        visit_pages(ram, cpu, LOAD, VPN, 1, 1, 0)


@pytest.fixture
def shared():
    ram = bare.build()
    bare.map_page(ram, 0, VPN, FRAME, LOGICAL)
    ram.run_ready[0] = 2  # compile before the fork, without waiting for each other
    store_many(ram, 0, 0, False)
    load_many(ram, 0, 0)
    ram.run_ready[0] = 0
    yield ram
    ram.close()


def start(*arguments):
    process = multiprocessing.get_context("fork").Process(target=store_many, args=arguments, daemon=True)
    process.start()
    return process


def test_concurrent_stores_to_one_page_are_no_violation(shared):
    """Two CPUs store to one page; no false alarm, no version twice, none lost."""
    other = start(shared, 1, SHARED_STORES, False)
    store_many(shared, 0, SHARED_STORES, False)
    other.join(30)
    assert other.exitcode == 0
    assert shared.run_violations[0] == 0
    assert shared.series[:2, 0].tolist() == [0, 0], "versions must rise"
    assert shared.series[:2, 1].min() > 0, "the two must have met"
    assert bare.content_of(shared, FRAME) == (LOGICAL, 2 * SHARED_STORES)
    assert shared.version[LOGICAL] == 2 * SHARED_STORES


def test_publishing_before_writing_would_raise_an_alarm(shared):
    """The order of `check_store` is what keeps readers quiet: the planted other order is noticed."""
    shared.run_ready[0] = 1
    other = start(shared, 1, 1 << 40, True)
    deadline = time.monotonic() + 20
    while shared.run_violations[0] == 0 and time.monotonic() < deadline:
        load_many(shared, 0, 10_000)
    shared.run_stop[0] = 1
    other.join(30)
    assert other.exitcode == 0
    assert shared.violation[0, 0] == STALE
