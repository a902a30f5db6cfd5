"""Dirty pages in reclaim: unmapped with their batch, kept, and written by whoever wakes the flusher."""

import pytest

from allocator.lru import move_to_inactive
from allocator.page import PG_ACTIVE, PG_DIRTY, PG_RECLAIM
from cpus.abi.numbers import STORE
from emulator.small_machine import FILE_VPN, SHARED, SHARED_VPN

CPU = 0


@pytest.fixture
def machine(small_machine):
    """One process on CPUs 0 and 1; one node."""
    machine = small_machine(mms=1)
    machine.run(1, cpu=0)
    machine.run(1, cpu=1)
    return machine


def stored_by_two(machine):
    """CPUs 0 and 1 store to a page of the shared file, and reclaim has taken its accessed bit; gives its
    frame, logical page and version.
    """
    machine.use(SHARED_VPN, 1, STORE)
    machine.use(SHARED_VPN, 1, STORE, cpu=1)
    machine.scan(32)  # what readahead brought goes
    assert [index for index in range(256) if machine.cached(SHARED, index) >= 0] == [0]
    pfn = machine.cached(SHARED, 0)
    return pfn, *machine.content(pfn)


def test_a_dirty_page_is_unmapped_with_its_batch_and_written_later(machine):
    """Reclaim leaves it to the flusher, whom it wakes since all that it took was dirty. Nobody can write it
    any more when the disk gets it: CPU 1 is flushed first, and its store is on the disk.
    """
    pfn, logical, version = stored_by_two(machine)
    flushed_at, dirty = [], []
    machine.after_hook("unmap_flush", lambda *_: flushed_at.append(int(machine.ram.disk_version[logical])))
    machine.after_hook("unmap_flush_dirty", lambda *_: dirty.append(1))
    assert machine.scan(32) == 0
    assert machine.cached(SHARED, 0) == pfn, "it is kept"
    assert not machine.pte(1, SHARED_VPN)
    assert flushed_at == [0], "the batch was flushed, and the disk had nothing yet"
    assert machine.ram.disk_version[logical] == version
    assert machine.count("nr_vmscan_immediate_reclaim") == machine.count("pgrotated") == 1
    assert machine.scan(32) == 1, "it is the oldest, and clean"
    assert dirty == []
    assert machine.count("pgpgout") == 4


def test_a_dirty_page_among_others_is_kept(machine):
    """The flusher is not woken; the page is unmapped and goes to the active list."""
    pfn, logical, _ = stored_by_two(machine)
    machine.use(FILE_VPN, 8)
    machine.scan(32)
    assert not machine.pte(1, SHARED_VPN)
    kept = PG_DIRTY | PG_ACTIVE | PG_RECLAIM
    assert machine.ram.page_flags[pfn] & kept == kept
    assert machine.ram.disk_version[logical] == 0
    machine.use(SHARED_VPN, 1, STORE)
    assert not machine.ram.page_flags[pfn] & PG_RECLAIM, "written to again: nobody waits for it"


def test_kswapd_writes_what_it_meets_dirty_again(machine):
    """Where it has met nothing but dirty pages: after a flush, as more could be written unseen."""
    pfn, logical, version = stored_by_two(machine)
    machine.use(FILE_VPN, 8)
    machine.scan(32)  # unmapped, and kept
    move_to_inactive(machine.ram, CPU, pfn, False)
    machine.use(FILE_VPN, 8)
    machine.ram.node_dirty[0] = 1
    flushed_at = []
    machine.after_hook(
        "unmap_flush_dirty", lambda *_: flushed_at.append(int(machine.ram.disk_version[logical]))
    )
    while machine.cached(SHARED, 0) == pfn:
        machine.scan(32)
    assert flushed_at == [0], "the design was asked to flush, once, and the disk had nothing yet"
    assert machine.ram.disk_version[logical] == version
    assert machine.count("nr_vmscan_write") == 1


def test_a_written_page_comes_back_as_it_was_written(machine):
    """Under linux: the flush goes to CPU 1, the page to the disk and back."""
    machine.use(SHARED_VPN, 1, STORE)
    machine.use(SHARED_VPN, 1, STORE, cpu=1)
    version = machine.content(machine.cached(SHARED, 0))[1]
    while machine.cached(SHARED, 0) >= 0:
        machine.scan(32)
    assert [1] in machine.asked()
    machine.touch(SHARED_VPN, cpu=1)
    assert machine.content(machine.cached(SHARED, 0)) == (machine.ram.object_logical[SHARED], version)
