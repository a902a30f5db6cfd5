"""The buddy against an obvious one: a dictionary of free blocks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator.buddy import free_one_page, take_block
from allocator.page import PG_BUDDY
from designs import Design
from designs.design import hook
from emulator.small_machine import SmallMachine

ZONE, CPU, PAGES, ORDERS = 0, 0, 1000, 11


@hook("page_freed")
def keep_key(ram, cpu, zone, pfn, key, order):
    return key


class Keyed(Design):
    """pages keep the key that they are freed with; who wants a pending one does not get it"""

    name, hooks = "keyed", (keep_key,)


class ObviousBuddy:
    """Free blocks as {first frame: (order, key)}; key 0 is clean."""

    def __init__(self, pages):
        self.pages, self.done, self.free, self.newest = pages, 0, {}, dict.fromkeys(range(ORDERS), 0)

    def give(self, pfn, order, key):
        """Merge as long as the other half is free as a whole; the younger key wins."""
        while order < ORDERS - 1 and self.free.get(pfn ^ (1 << order), (None,))[0] == order:
            buddy = pfn ^ (1 << order)
            key = max(key, self.free.pop(buddy)[1])
            pfn, order = min(pfn, buddy), order + 1
        self.put(pfn, order, key)

    def put(self, pfn, order, key):
        key = key if key > self.done else 0
        self.free[pfn] = (order, key)
        self.newest[order] = max(self.newest[order], key)

    def take(self, order, choice):
        """Split a smallest clean block; `choice` says which block was taken. A list's pending blocks are
        clean once all are.

        A done block among pending ones may be taken too, where its list shows it first.
        """
        for larger in range(order, ORDERS):
            if self.newest[larger] <= self.done:
                self.free.update({pfn: (o, 0) for pfn, (o, key) in self.free.items() if o == larger})
            clean = [pfn for pfn, (o, key) in self.free.items() if o == larger and key == 0]
            done = [pfn for pfn, (o, key) in self.free.items() if o == larger and 0 < key <= self.done]
            if clean or choice in done:
                assert choice in (clean or done), (
                    f"took {choice}, the smallest clean blocks are {clean or done} of order {larger}"
                )
                del self.free[choice]
                while larger > order:
                    larger -= 1
                    self.put(choice + (1 << larger), larger, 0)
                return
        assert choice == -1


def blocks(ram):
    """Walk both lists of every order: {first frame: (order, on the pend list)}."""
    found = {}
    for what in ("free", "pend"):
        for order in range(ORDERS):
            pfn = int(getattr(ram, f"{what}_first")[ZONE, order])
            while pfn != -1:
                assert pfn not in found
                assert ram.page_flags[pfn] == PG_BUDDY
                found[pfn] = (order, what == "pend")
                pfn = int(ram.page_next[pfn])
    return found


@pytest.fixture(scope="module")
def machine():
    machine = SmallMachine(pages=(PAGES,), cpus=1, mms=0, design=Keyed())
    yield machine
    machine.ram.close()


step = st.one_of(
    st.tuples(st.just("take"), st.sampled_from([0, 0, 0, 1, 2, 3, 5, 9, 10])),
    st.tuples(st.just("give"), st.integers(0, 1 << 20), st.sampled_from([0, 0, 1, 2])),
    st.tuples(st.just("flushed")),
)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(step, max_size=80))
def test_takes_and_gives_as_the_obvious_one(machine, steps):
    """Any order of taking, giving with or without a key, and flushing keeps both equal; in the end all merges
    to the start.
    """
    ram = machine.ram
    start = blocks(ram)
    reference = ObviousBuddy(PAGES)
    reference.done = key = int(ram.zone_key_done[ZONE])
    reference.free = {pfn: (order, 0) for pfn, (order, _) in start.items()}
    held = []

    def give(pfn, order, key):
        free_one_page(ram, CPU, ZONE, pfn, order, key)
        reference.give(pfn, order, key)

    for what, *arguments in steps:
        if what == "take":
            order = arguments[0]
            pfn = int(take_block(ram, CPU, ZONE, order))
            reference.take(
                order,
                pfn
                if pfn < 0
                else next((b for b, (o, _) in reference.free.items() if b <= pfn < b + (1 << o)), -2),
            )
            if pfn >= 0:
                assert all(pfn + (1 << order) <= other or other + (1 << o) <= pfn for other, o in held), (
                    "overlaps a block in use"
                )
                held.append((pfn, order))
        elif what == "give" and held:
            key += arguments[1] > 0
            give(*held.pop(arguments[0] % len(held)), key if arguments[1] else 0)
        elif what == "flushed":
            ram.zone_key_done[ZONE] = ram.zone_key_claimed[ZONE] = reference.done = key
            ram.zone_pending[ZONE] = 0
        assert ram.zone_free[ZONE] == PAGES - sum(1 << order for _, order in held)
        assert {pfn: order for pfn, (order, _) in blocks(ram).items()} == {
            pfn: order for pfn, (order, _) in reference.free.items()
        }
    for block in held:
        give(*block, 0)
    assert {pfn: order for pfn, (order, _) in blocks(ram).items()} == {
        pfn: order for pfn, (order, _) in start.items()
    }
    ram.zone_key_done[ZONE] = ram.zone_key_claimed[ZONE] = key  # a clean zone for the next example
    ram.zone_pending[ZONE] = 0
    for order in range(ORDERS):
        pfn = int(take_block(ram, CPU, ZONE, order))
        if pfn >= 0:
            free_one_page(ram, CPU, ZONE, pfn, order, 0)


def test_a_pending_block_is_not_taken_before_its_key_is_done(small_machine):
    """A zone of one page: given back with key 5 it is gone until generation 5 is flushed, then the pend list
    joins.
    """
    ram = small_machine(pages=(1,), cpus=1, mms=0, design=Keyed()).ram
    pfn = int(take_block(ram, CPU, ZONE, 0))
    free_one_page(ram, CPU, ZONE, pfn, 0, 5)
    assert (
        ram.pend_count[ZONE, 0],
        ram.free_count[ZONE, 0],
        ram.zone_free[ZONE],
        ram.zone_pending[ZONE],
    ) == (1, 0, 1, 1)
    assert take_block(ram, CPU, ZONE, 0) == -1
    ram.zone_key_claimed[ZONE], ram.zone_pending[ZONE], ram.zone_key_done[ZONE] = 5, 0, 5
    assert take_block(ram, CPU, ZONE, 0) == pfn
    free_one_page(ram, CPU, ZONE, pfn, 0, 5)
    assert (ram.pend_count[ZONE, 0], ram.free_count[ZONE, 0]) == (0, 1), "an old key means nothing any more"


def test_the_younger_key_wins_when_blocks_merge(small_machine):
    """Two halves with keys 3 and 7 are one block that is pending until 7."""
    ram = small_machine(pages=(2,), cpus=1, mms=0, design=Keyed()).ram
    one, other = (int(take_block(ram, CPU, ZONE, 0)) for _ in range(2))
    free_one_page(ram, CPU, ZONE, one, 0, 7)
    free_one_page(ram, CPU, ZONE, other, 0, 3)
    assert (blocks(ram), ram.pend_key[ZONE, 1]) == ({0: (1, True)}, 7)
    assert ram.merged_pending.sum() == 1
    ram.zone_key_claimed[ZONE], ram.zone_pending[ZONE], ram.zone_key_done[ZONE] = 6, 0, 6
    assert take_block(ram, CPU, ZONE, 0) == -1
    ram.zone_key_claimed[ZONE] = ram.zone_key_done[ZONE] = 7
    assert take_block(ram, CPU, ZONE, 0) in (0, 1)
    free_one_page(ram, CPU, ZONE, 1 if ram.page_flags[0] else 0, 0, 0)
    assert blocks(ram) == {0: (1, False)}


def test_double_free_panics(broken_machine):
    machine = broken_machine(pages=(8,), cpus=1, mms=0)
    assert (
        machine.panic_of(free_one_page, CPU, ZONE, 0, 3, 0)
        == f"buddy: frame 0 is freed twice (flags {PG_BUDDY:#x})"
    )


def test_a_frame_of_another_zone_panics(broken_machine):
    machine = broken_machine(pages=(8, 8), cpus=1, mms=0)
    assert machine.panic_of(free_one_page, CPU, ZONE, 1024, 0, 0) == "buddy: frame 1024 lies outside zone 0"


def test_a_done_block_is_taken_although_a_newer_one_keeps_its_list_from_joining(small_machine):
    """Pend list of order 0: [key 5, done | key 6, pending]. The first is as good as clean, not the second."""
    ram = small_machine(pages=(4,), cpus=1, mms=0, design=Keyed()).ram
    frames = [int(take_block(ram, CPU, ZONE, 0)) for _ in range(4)]
    older, newer = min(frames), max(frames)  # no buddies of each other
    free_one_page(ram, CPU, ZONE, older, 0, 5)
    free_one_page(ram, CPU, ZONE, newer, 0, 6)
    ram.zone_key_claimed[ZONE], ram.zone_pending[ZONE], ram.zone_key_done[ZONE] = 5, 1, 5
    assert take_block(ram, CPU, ZONE, 0) == older
    assert take_block(ram, CPU, ZONE, 0) == -1
    ram.zone_key_claimed[ZONE], ram.zone_pending[ZONE], ram.zone_key_done[ZONE] = 6, 0, 6
    for pfn in set(frames) - {newer}:
        free_one_page(ram, CPU, ZONE, pfn, 0, 0)
