"""fork and copy-on-write: what is shared, who may write, who is flushed, and that a migration under way is
not missed.
"""

import pytest

from allocator.flush_sites import REMOTE_SEND_IPI
from allocator.fork import dup_mm
from allocator.kmap import KMAP_MOVE
from allocator.lru import isolate_page, lru_add_drain, putback_page
from allocator.migrate import move_pages
from allocator.mmap import exit_mm
from allocator.page import PG_EXCLUSIVE
from allocator.tlb_flush import ALL_PAGES
from cpus.abi.numbers import LOAD, STORE
from cpus.page_table import PTE_ACCESSED, PTE_PRESENT, PTE_WRITE
from emulator.small_machine import ANON_VPN, FILE_VPN, SHARED_VPN

PARENT, CHILD = 1, 2


def forked(small_machine, pages=4, **wanted):
    """The parent, on CPUs 0 and 1, has written some pages and forks; the child runs on CPU 2."""
    machine = small_machine(cpus=3, **wanted)
    exit_mm(machine.ram, 2, CHILD)  # the small machine comes with it
    machine.run(PARENT, cpu=0)
    machine.run(PARENT, cpu=1)
    machine.touch(ANON_VPN, STORE, pages=pages)
    machine.touch(ANON_VPN, LOAD, pages=pages, cpu=1)
    lru_add_drain(machine.ram, 0)
    machine.asked()
    dup_mm(machine.ram, 0, PARENT, CHILD)
    machine.run(CHILD, cpu=2)
    return machine


@pytest.fixture
def machine(small_machine):
    return forked(small_machine)


def test_private_pages_are_shared_and_nobody_may_write_them(machine):
    """parent  a b c d
    child   a b c d   each frame with two PTEs, none writable, none exclusive"""
    frames = [machine.pfn(PARENT, ANON_VPN + i) for i in range(4)]
    assert [machine.pfn(CHILD, ANON_VPN + i) for i in range(4)] == frames
    assert [int(machine.ram.page_mapcount[pfn]) for pfn in frames] == [2] * 4
    assert not any(machine.pte(mm, ANON_VPN + i) & PTE_WRITE for mm in (PARENT, CHILD) for i in range(4))
    assert not any(machine.flags(pfn) & PG_EXCLUSIVE for pfn in frames)
    assert machine.ram.mm_rss[:, CHILD].sum() == 4


def test_the_child_has_used_nothing_yet(machine):
    """pte_mkold: else reclaim would count a use for each child."""
    assert all(machine.pte(1, ANON_VPN + i) & PTE_ACCESSED for i in range(4))
    assert not any(machine.pte(2, ANON_VPN + i) & PTE_ACCESSED for i in range(4))


def test_the_parent_is_flushed_once_and_in_full(machine):
    """One broadcast to its other CPU, lazy or not (flush_tlb_mm)."""
    assert machine.asked() == [[1]]
    assert machine.events(REMOTE_SEND_IPI) == {ALL_PAGES: 1}


def test_shared_mappings_are_left_to_faults(small_machine):
    machine = small_machine(cpus=3)
    exit_mm(machine.ram, 2, CHILD)
    machine.run(PARENT, cpu=0)
    machine.touch(SHARED_VPN, STORE)
    machine.touch(FILE_VPN, LOAD)
    dup_mm(machine.ram, 0, PARENT, CHILD)
    assert machine.pte(CHILD, SHARED_VPN) == machine.pte(CHILD, FILE_VPN) == 0
    machine.run(CHILD, cpu=2)
    machine.touch(SHARED_VPN, STORE, cpu=2)
    assert machine.pfn(CHILD, SHARED_VPN) == machine.pfn(PARENT, SHARED_VPN)


def test_a_write_gets_a_copy_and_the_other_keeps_the_page(machine):
    """The writer's CPUs are flushed for one page; the other process sees what was there."""
    old, before = machine.pfn(PARENT, ANON_VPN), machine.content(machine.pfn(PARENT, ANON_VPN))
    machine.asked()
    machine.touch(ANON_VPN, STORE)
    assert machine.asked() == [[1]]
    assert machine.pfn(PARENT, ANON_VPN) != old == machine.pfn(CHILD, ANON_VPN)
    assert machine.content(old) == before
    assert machine.content(machine.pfn(PARENT, ANON_VPN))[0] != before[0], "a page of its own for the oracle"
    assert (machine.ram.page_mapcount[old], machine.ram.mm_rss[:, PARENT].sum()) == (1, 4)
    machine.touch(ANON_VPN, LOAD, cpu=2)


def test_the_last_one_that_maps_a_page_writes_it_in_place(machine):
    """No copy, no flush (pgreuse)."""
    exit_mm(machine.ram, 2, CHILD)
    frames = [machine.pfn(PARENT, ANON_VPN + i) for i in range(4)]
    machine.asked()
    machine.touch(ANON_VPN, STORE, pages=4)
    assert [machine.pfn(PARENT, ANON_VPN + i) for i in range(4)] == frames
    assert (machine.asked(), machine.count("pgreuse")) == ([], 4)
    assert all(machine.flags(pfn) & PG_EXCLUSIVE for pfn in frames)


def test_a_page_that_somebody_else_holds_is_copied(machine):
    """Isolated by reclaim, say: nobody can say whether the reference is a use."""
    exit_mm(machine.ram, 2, CHILD)
    old = machine.pfn(PARENT, ANON_VPN)
    assert isolate_page(machine.ram, 1, old)
    machine.touch(ANON_VPN, STORE)
    assert machine.pfn(PARENT, ANON_VPN) != old
    putback_page(machine.ram, 1, old)


def test_an_exclusive_page_is_written_in_place_whoever_holds_it(small_machine):
    """Never shared: nobody else can have a use of it."""
    machine = small_machine()
    machine.run(PARENT)
    old = machine.frame_of(ANON_VPN)
    lru_add_drain(machine.ram, 0)
    assert isolate_page(machine.ram, 1, old)
    machine.ram.frame_word[:, :][machine.ram.frame_word == machine.pte(1, ANON_VPN)] &= ~PTE_WRITE
    machine.forget_tlb()
    machine.touch(ANON_VPN, STORE)
    assert machine.pfn(PARENT, ANON_VPN) == old
    putback_page(machine.ram, 1, old)


def test_two_threads_that_copy_the_same_page_end_with_one_copy(machine):
    """CPU 1 is faster while CPU 0 has its copy in hand."""

    def other_thread(*_):
        machine.on_hook("write_fault", lambda *_: 0)
        machine.touch(ANON_VPN, STORE, cpu=1)

    machine.on_hook("write_fault", other_thread)
    machine.touch(ANON_VPN, STORE)
    pfn = machine.pfn(PARENT, ANON_VPN)
    assert (machine.ram.page_mapcount[pfn], machine.ram.mm_rss[:, PARENT].sum()) == (1, 4)


def test_a_copy_that_comes_too_late_is_thrown_away(machine):
    """CPU 1 is faster when CPU 0 has made its copy, and asks the design for the second time."""
    asked = []

    def other_thread(*_):
        asked.append(1)
        if len(asked) == 2:
            machine.on_hook("write_fault", lambda *_: 0)
            machine.touch(ANON_VPN, STORE, cpu=1)

    machine.on_hook("write_fault", other_thread)
    machine.touch(ANON_VPN, STORE)
    assert machine.count("copies_in_vain") == 1
    assert machine.ram.page_mapcount[machine.pfn(PARENT, ANON_VPN)] == 1


@pytest.mark.parametrize("hook, site", [("batch_key", 0), ("kmap", KMAP_MOVE)])
def test_a_child_forked_during_a_migration_gets_the_page_where_it_went(small_machine, hook, site):
    """fork meets migration entries: they are copied, and reverse mapping finds the child behind its parent.

    All are unmapped; none has moved yet, or the first is about to be copied. Then whoever writes first gets a
    page of its own.
    """
    machine = small_machine(cpus=3, pages=(512, 512))
    exit_mm(machine.ram, 2, CHILD)
    machine.run(PARENT)
    machine.touch(ANON_VPN, STORE, pages=4)
    lru_add_drain(machine.ram, 0)
    seen = []

    def fork_now(_cpu, _pfn, at, *_):
        if not seen and at == site:
            seen.append(machine.pte(PARENT, ANON_VPN) & PTE_PRESENT)
            dup_mm(machine.ram, 1, PARENT, CHILD)

    machine.on_hook(hook, fork_now)
    move_pages(machine.ram, 0, PARENT, ANON_VPN, ANON_VPN + 4, 1)
    assert seen == [0]
    frames = [machine.pfn(PARENT, ANON_VPN + i) for i in range(4)]
    assert [machine.pfn(CHILD, ANON_VPN + i) for i in range(4)] == frames
    assert all(machine.pte(CHILD, ANON_VPN + i) & PTE_PRESENT for i in range(4))
    assert not any(machine.pte(mm, ANON_VPN + i) & PTE_WRITE for mm in (PARENT, CHILD) for i in range(4))
    assert not any(machine.flags(pfn) & PG_EXCLUSIVE for pfn in frames)
    machine.run(CHILD, cpu=2)
    machine.touch(ANON_VPN, LOAD, pages=4, cpu=2)
    machine.touch(ANON_VPN, STORE, pages=4)
    lru_add_drain(machine.ram, 0)  # its batch holds what has moved
    machine.touch(ANON_VPN, STORE, pages=4, cpu=2)
    assert machine.count("pgreuse") == 4, "the child's, when it is the last"
    assert [machine.pfn(CHILD, ANON_VPN + i) for i in range(4)] == frames
    assert not {machine.pfn(PARENT, ANON_VPN + i) for i in range(4)} & set(frames)


def test_a_page_that_only_moves_stays_exclusive(small_machine):
    machine = small_machine(pages=(512, 512))
    machine.run(PARENT)
    machine.touch(ANON_VPN, STORE)
    lru_add_drain(machine.ram, 0)
    assert move_pages(machine.ram, 0, PARENT, ANON_VPN, ANON_VPN + 1, 1) == 1
    assert machine.flags(machine.pfn(PARENT, ANON_VPN)) & PG_EXCLUSIVE


def test_an_exit_gives_back_everything(machine):
    """Page tables, VMAs, references; the audit at the end looks for the rest."""
    free = machine.ram.zone_free.sum() + machine.ram.pcp_count.sum()
    exit_mm(machine.ram, 2, CHILD)
    assert (
        machine.ram.mm_users[CHILD],
        machine.ram.mm_nr_vmas[CHILD],
        machine.ram.mm_rss[:, CHILD].sum(),
    ) == (0, 0, 0)
    assert machine.ram.zone_free.sum() + machine.ram.pcp_count.sum() == free + 4, "its four page tables"


def test_a_process_that_lives_cannot_be_forked_again(broken_machine):
    machine = broken_machine()
    assert (
        machine.panic_of(lambda ram: dup_mm(ram, 0, 1, 2))
        == "fork: process 1 cannot be started again before it has ended (mm 2)"
    )
