"""The TLBs against a slow, obvious one: any sequence of visits, flushes and switches gives the same hits and
misses.
"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpus.abi.numbers import IFETCH, LOAD, STORE
from cpus.access import visit_pages
from cpus.looks import invalidate_all
from cpus.tlb import clear_asid, invalidate_asid, invalidate_page, new_context
from tests.cpus import bare_machine as bare
from tests.cpus.bare_machine import FRAME_OF_PAGE_0, counts

PAGES, SLOTS = 12, 3
FIRST = {LOAD: "dtlb", STORE: "store", IFETCH: "itlb"}


class ReferenceTlb:
    """Each set is a list of [address space, page, dirty], least recently used first."""

    def __init__(self, geometry):
        self.ways = {name: ways for name, (_, ways) in geometry.items()}
        self.sets = {name: [[] for _ in range(entries // ways)] for name, (entries, ways) in geometry.items()}
        self.dirty_pages = set()  # the dirty bits in the page tables
        self.slot = 0

    def find(self, level, slot, vpn):
        candidates = self.sets[level][vpn % len(self.sets[level])]
        return next((entry for entry in candidates if entry[:2] == [slot, vpn]), None)

    def put(self, level, entry):
        """Make `entry` the youngest of its set, in place of the same page's or of the oldest."""
        here = self.sets[level][entry[1] % len(self.sets[level])]
        same = [old for old in here if old[:2] == entry[:2]]
        if same:
            here.remove(same[0])
        elif len(here) == self.ways[level]:
            del here[0]
        here.append(entry)

    def visit(self, kind, vpn):
        """Returns (second-level hits, walks) of one visit."""
        first, second = self.find(FIRST[kind], self.slot, vpn), self.find("stlb", self.slot, vpn)
        if first and (first[2] or kind != STORE):
            self.put(FIRST[kind], first)
            return 0, 0
        walks = not (second and (second[2] or kind != STORE))
        if walks:
            if kind == STORE:
                self.dirty_pages.add((self.slot, vpn))
            self.put("stlb", [self.slot, vpn, (self.slot, vpn) in self.dirty_pages])
        entry = self.find("stlb", self.slot, vpn)
        self.put("stlb", entry)
        self.put(FIRST[kind], list(entry))
        return (0, 1) if walks else (1, 0)

    def drop(self, unwanted):
        for sets in self.sets.values():
            for here in sets:
                here[:] = [entry for entry in here if not unwanted(entry)]


def apply(ram, reference, operation):
    """Do one operation on both; returns what both counted (second-level hits, walks)."""
    name, *values = operation
    if name == "visit":
        kind, vpn = values
        assert visit_pages(ram, 0, kind, vpn, 1, 1, 0) == 1
        return reference.visit(kind, vpn)
    if name == "switch":
        bare.switch(ram, values[0])
        reference.slot = values[0]
    elif name == "page":
        slot, vpn = values
        invalidate_page(ram, 0, vpn, ram.asid_context[0, slot])
        reference.drop(lambda entry: entry[:2] == [slot, vpn])
    elif name == "asid":
        invalidate_asid(ram, 0, values[0])
        reference.drop(lambda entry: entry[0] == values[0])
    else:
        invalidate_all(ram, 0)
        reference.drop(lambda entry: True)
    return 0, 0


def walks_and_hits(ram):
    hits, *walks = counts(ram, "stlb_hits", "dtlb_load_misses", "dtlb_store_misses", "itlb_load_misses")
    return hits, sum(walks)


def machine(geometry, pages):
    ram = bare.build(geometry, nr_cpus=2, pages=SLOTS * pages, nr_logical=SLOTS * pages)
    for slot in range(SLOTS):
        for vpn in range(pages):
            bare.map_page(ram, slot, vpn, FRAME_OF_PAGE_0 + slot * pages + vpn, slot * pages + vpn)
    return ram


def clean(ram, pages):
    """Put the TLBs, the counters and the page tables of `machine` back."""
    invalidate_all(ram, 0)
    bare.switch(ram, 0)
    ram.counter[:] = 0
    for slot in range(SLOTS):
        for vpn in range(pages):
            bare.set_pte(ram, slot, vpn, (FRAME_OF_PAGE_0 + slot * pages + vpn) << 12 | 3)


@pytest.fixture(scope="module")
def small():
    ram = machine(bare.SMALL, PAGES)
    yield ram
    ram.close()


slots, vpns = st.integers(0, SLOTS - 1), st.integers(0, PAGES - 1)
visits = st.tuples(st.just("visit"), st.sampled_from([LOAD, STORE, IFETCH]), vpns)
operations = st.one_of(
    visits, visits, visits, st.tuples(st.just("switch"), slots), st.tuples(st.just("page"), slots, vpns),
    st.tuples(st.just("asid"), slots), st.tuples(st.just("all")),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(operations, max_size=80))
def test_same_hits_and_misses_as_the_reference(small, sequence):
    """Step by step: the same second-level hits and walks, and no access through another page's or space's
    entry.
    """
    clean(small, PAGES)
    reference, seen = ReferenceTlb(bare.SMALL), (0, 0)
    for step, operation in enumerate(sequence):
        expected = apply(small, reference, operation)
        now = walks_and_hits(small)
        assert (now[0] - seen[0], now[1] - seen[1]) == expected, f"step {step}: {operation}"
        seen = now
    assert small.run_violations[0] == 0


def test_same_hits_and_misses_with_real_geometry():
    """20,000 random steps on Golden Cove's TLBs, over more pages than they hold."""
    pages = 4000
    ram = machine(bare.GOLDEN_COVE, pages)
    stream = random.Random(1)
    reference, expected = ReferenceTlb(bare.GOLDEN_COVE), [0, 0]
    for _ in range(20_000):
        vpn = stream.randrange(pages) if stream.random() < 0.3 else int(stream.expovariate(0.01)) % pages
        draw = stream.random()
        operation = ("visit", stream.choice([LOAD, STORE, IFETCH]), vpn)
        if draw < 0.01:
            operation = ("switch", stream.randrange(SLOTS))
        elif draw < 0.02:
            operation = ("page", stream.randrange(SLOTS), vpn)
        elif draw < 0.021:
            operation = ("asid", stream.randrange(SLOTS))
        hits, walks = apply(ram, reference, operation)
        expected[0] += hits
        expected[1] += walks
    assert walks_and_hits(ram) == tuple(expected)
    assert min(expected) > 1000
    assert ram.run_violations[0] == 0
    ram.close()


def test_flushed_entries_are_replaced_first(small):
    """Space 1 fills a set, is flushed, and space 0's older entry of that set must survive its return.

    second level, set 0:  [0: page 0]  ->  [0: page 0, 1: page 4]  ->  flush 1  ->  [0: page 0, -]  ->  [0:
    page 0, 1: page 8]
    """
    clean(small, PAGES)
    reference = ReferenceTlb(bare.SMALL)
    steps = [
        ("visit", LOAD, 0),
        ("switch", 1),
        ("visit", LOAD, 4),
        ("asid", 1),
        ("visit", LOAD, 8),
        ("switch", 0),
        ("visit", IFETCH, 0),
    ]
    counted = [apply(small, reference, step) for step in steps]
    assert counted[-1] == (1, 0)
    assert walks_and_hits(small) == (1, 3)


def test_a_page_may_live_in_the_first_level_alone(small):
    """The levels are not inclusive: pages 4 and 8 drive page 0 from the second level; the first still has it
    until it is flushed.
    """
    clean(small, PAGES)
    for kind, vpn in ((LOAD, 0), (IFETCH, 4), (IFETCH, 8), (LOAD, 0)):
        visit_pages(small, 0, kind, vpn, 1, 1, 0)
    assert walks_and_hits(small) == (0, 3)
    invalidate_page(small, 0, 0, small.asid_context[0, 0])
    visit_pages(small, 0, LOAD, 0, 1, 1, 0)
    assert walks_and_hits(small) == (0, 4)


def test_a_recycled_slot_finds_nothing_of_its_last_owner(small):
    """`clear_asid` empties the slot without counting as a flush."""
    clean(small, PAGES)
    visit_pages(small, 0, LOAD, 0, 4, 1, 0)
    before = counts(small, "nr_tlb_local_flush_all")
    clear_asid(small, 0, 0)
    visit_pages(small, 0, LOAD, 0, 4, 1, 0)
    assert walks_and_hits(small) == (0, 8)
    assert counts(small, "nr_tlb_local_flush_all") == before


def test_a_drawn_context_is_nobodys_and_finds_nothing(small):
    """A slot that gets a new context misses everywhere, again and again; another slot's entries stay."""
    clean(small, PAGES)
    bare.switch(small, 1)
    visit_pages(small, 0, IFETCH, 3, 1, 1, 0)
    for walks in range(2, 12):
        small.asid_context[0, 0] = new_context(small, 0)
        assert len(set(small.asid_context[0, :4].tolist())) == 4
        bare.switch(small, 0)
        visit_pages(small, 0, LOAD, 0, 1, 1, 0)
        assert walks_and_hits(small) == (0, walks)
    bare.switch(small, 1)
    visit_pages(small, 0, IFETCH, 3, 1, 1, 0)
    assert walks_and_hits(small) == (0, walks)


def test_other_cpus_entries_are_out_of_reach(small):
    """A flush on CPU 1 leaves CPU 0 alone: only an interrupt may flush it."""
    clean(small, PAGES)
    visit_pages(small, 0, LOAD, 0, 2, 1, 0)
    invalidate_all(small, 1)
    visit_pages(small, 0, LOAD, 0, 2, 1, 0)
    assert walks_and_hits(small) == (0, 2)
