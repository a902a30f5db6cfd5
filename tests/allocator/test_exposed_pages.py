"""Frames and pages as states, with the real kernel: what a design forgets to flush is exposed at the moment
at which that could do harm, though nobody reads; vanilla's own windows are told apart; and what is under way,
or flushed in time, is nothing.
"""

import pytest

from allocator.filemap import truncate_range, write_to_file
from allocator.lru import LRU_ACTIVE_FILE
from allocator.madvise import madvise
from allocator.mmap import do_munmap
from cpus.abi.numbers import LOAD, MADV_DONTNEED, STORE
from cpus.exposed import CLEARED, EXPOSURES_KEPT, FILLED, HANDED_OUT
from cpus.exposed_pages import NO_FRAME, TRUNCATED, WRITABLE, WRITTEN, WRITTEN_DIRECTLY, page_changes
from cpus.incoherent import READ
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN, SHARED, SHARED_VPN

PAGE = 3
SHARES = SHARED_VPN + PAGE
FRAMES = (HANDED_OUT, CLEARED, FILLED)
PAGES_OF = (WRITTEN, WRITABLE, TRUNCATED, WRITTEN_DIRECTLY)


def running(make, design, cpus=3, **wanted):
    """A machine whose CPUs all run in process 1."""
    machine = make(design=design, cpus=cpus, **wanted)
    for cpu in range(cpus):
        machine.run(1, cpu=cpu)
    return machine


def exposures(machine, *, frames=False):
    """Give (occasion, CPU) of the exposures so far: those of pages, or of frames."""
    found = machine.ram.exposure[: int(machine.ram.run_exposures[0]), :2].tolist()
    return {(occasion, cpu) for occasion, cpu in found if occasion in (FRAMES if frames else PAGES_OF)}


def read_and_reclaimed(machine):
    """CPU 1 has read a page of the shared file, CPU 0 has reclaimed the file."""
    machine.use(SHARES, 1, cpu=1)
    machine.reclaim_file(SHARED)


# --- pages of files -----------------------------------------------------------------------------------------


def write(machine):
    write_to_file(machine.ram, 0, SHARED, PAGE)


def store(machine):
    machine.touch(SHARES, STORE)


def truncate(machine):
    truncate_range(machine.ram, 0, SHARED, PAGE, PAGE + 1)


def write_directly(machine):
    page_changes(
        machine.ram, 0, int(machine.ram.object_logical[SHARED]) + PAGE, NO_FRAME, 1, WRITTEN_DIRECTLY
    )


CHANGES = {WRITTEN: write, WRITABLE: store, TRUNCATED: truncate, WRITTEN_DIRECTLY: write_directly}


@pytest.mark.parametrize("occasion", CHANGES)
def test_a_page_that_changes_while_a_cpu_has_its_old_frame_is_exposed(broken_machine, occasion):
    """let cpu1 read a page, cpu0 reclaim it . then cpu1 flushes before the page changes . however nobody asks
    it to
    """
    machine = running(broken_machine, "none")
    read_and_reclaimed(machine)
    CHANGES[occasion](machine)
    assert exposures(machine) == {(occasion, 1)}
    assert machine.violations() == [], "nobody has read"


@pytest.mark.parametrize("occasion", CHANGES)
@pytest.mark.parametrize("design", ["linux", "luf", "latr", "epoch"])
def test_one_that_is_flushed_in_time_is_not(small_machine, design, occasion):
    machine = running(small_machine, design)
    read_and_reclaimed(machine)
    if occasion == WRITTEN_DIRECTLY:
        machine.enter("hook_truncate", 0, SHARED, PAGE)  # as invalidate_inode_pages2_range does
    CHANGES[occasion](machine)


def test_an_entry_that_was_filled_from_the_new_content_is_none(broken_machine):
    """A direct write is published after the device is done: who read it in between, and was reclaimed, is
    right.
    """
    machine = running(broken_machine, "none")
    logical = int(machine.ram.object_logical[SHARED]) + PAGE
    machine.ram.disk_version[logical] = 1
    read_and_reclaimed(machine)
    page_changes(machine.ram, 0, logical, NO_FRAME, 1, WRITTEN_DIRECTLY)
    assert exposures(machine) == set()
    page_changes(machine.ram, 0, logical, NO_FRAME, 2, WRITTEN_DIRECTLY)
    assert exposures(machine) == {(WRITTEN_DIRECTLY, 1)}


# --- windows of vanilla -------------------------------------------------------------------------------------


def meanwhile(machine, cpu, then=lambda: None):
    """The first batch of reclaim is cleared and not flushed: another CPU stores to one of its pages."""
    seen = []

    def store_once(*_):
        if not seen and machine.pte(1, SHARES) == 0:
            seen.append(1)
            machine.touch(SHARES, STORE, cpu=cpu)
            then()

    machine.before_hook("unmap_flush", store_once)
    for _ in range(4):
        machine.scan(32, LRU_ACTIVE_FILE)
        machine.scan(32)
    assert seen


def test_a_batch_of_another_cpu_is_a_window_that_vanilla_has(small_machine):
    """cpu0 clears PTEs and has not flushed; cpu2 reads the page in again and stores; cpu1 reads the old
    frame.
    """
    machine = running(small_machine, "linux")
    machine.use(SHARES, 1, cpu=1)
    meanwhile(machine, 2)
    assert machine.ram.run_windows[0] > 0
    assert set(machine.ram.exposure[EXPOSURES_KEPT:, 1].tolist()) - {0} == {1}


@pytest.mark.parametrize("design", ["linux", "none"])
def test_a_read_in_that_window_is_no_violation_and_after_the_flush_it_is(broken_machine, design):
    """cpu1 reads the old frame while the batch is open, and again when it is flushed, as vanilla has it.
    Under `none` nobody has told cpu1.
    """
    machine = running(broken_machine, design)
    machine.use(SHARES, 1, cpu=1)
    meanwhile(machine, 2, lambda: machine.touch(SHARES, cpu=1))
    assert machine.violations() == []
    assert READ in machine.ram.exposure[EXPOSURES_KEPT:, 0]
    machine.touch(SHARES, cpu=1)
    assert machine.violations() == (["stale read"] if design == "none" else [])


@pytest.mark.parametrize("design", ["linux", "none:what=user"])
def test_so_it_is_with_a_call_of_its_process_that_has_not_returned(broken_machine, design):
    """cpu0 unmaps the page, and has hidden its mapping; cpu2 truncates it, and finds nobody who maps it; cpu1
    reads the old content. When cpu0's call is over that is a violation, which who does not flush has.
    """
    machine = running(broken_machine, design)
    machine.use(SHARES, 1, cpu=1)
    seen = []

    def truncate_and_read(*_):
        if not seen:
            seen.append(1)
            truncate_range(machine.ram, 2, SHARED, PAGE, PAGE + 1)
            machine.touch(SHARES, cpu=1)

    machine.before_hook("user_flush", truncate_and_read)
    do_munmap(machine.ram, 0, 1, SHARES, SHARES + 1)
    assert machine.violations() == []
    assert READ in machine.ram.exposure[EXPOSURES_KEPT:, 0]
    if design != "linux":
        machine.touch(SHARES, cpu=1)
        assert len(machine.violations()) == 1


def test_a_batch_of_the_cpu_itself_is_flushed_before_it_goes_on(small_machine):
    """The same, and nobody but the reclaimer has the old frame."""
    machine = running(small_machine, "linux")
    machine.use(SHARES, 1)
    meanwhile(machine, 2)
    assert machine.ram.run_windows[0] == 0


# --- private addresses --------------------------------------------------------------------------------------


def test_a_copy_on_write_that_flushes_nobody_exposes_the_address(broken_machine):
    """cpu1 has read the zero page; cpu0 stores to the address, and cpu1 goes on reading zeros."""
    machine = running(broken_machine, "none:what=user")
    machine.touch(ANON_VPN, LOAD, cpu=1)
    machine.touch(ANON_VPN, STORE)
    assert exposures(machine) == {(WRITABLE, 1)}


def test_a_copy_on_write_that_flushes_does_not(small_machine):
    machine = running(small_machine, "linux")
    machine.touch(ANON_VPN, LOAD, cpu=1)
    machine.touch(ANON_VPN, STORE)


def test_a_change_under_way_is_its_callers_business(small_machine):
    """cpu0 drops a page, and has not flushed yet; cpu2 stores to the address, and gets another page; cpu1
    has the old one until the call is over.
    """
    machine = running(small_machine, "linux")
    machine.touch(ANON_VPN, STORE, cpu=1)
    seen = []

    def fault(*_):
        machine.on_send = None
        seen.append(1)
        machine.forget_tlb(2)
        machine.touch(ANON_VPN, STORE, cpu=2)

    machine.on_send = fault
    madvise(machine.ram, 0, 1, ANON_VPN, ANON_VPN + 1, MADV_DONTNEED)
    assert seen


# --- frames -------------------------------------------------------------------------------------------------


def taken(machine, vpn):
    """Have CPU 0 take frames for private pages until it has that of the page."""
    frame = machine.pfn(1, vpn)
    machine.reclaim_file(FILE)
    for page in range(200):
        machine.touch(ANON_VPN + page, STORE)
        if machine.pfn(1, ANON_VPN + page) == frame:
            return


def test_a_frame_that_is_handed_out_unflushed_is_exposed(broken_machine):
    """Reclaim flushed nobody: the frame is exposed when it is taken, and when it is filled."""
    machine = running(broken_machine, "none", pages=(512,))
    machine.use(FILE_VPN + PAGE, 1, cpu=1)
    taken(machine, FILE_VPN + PAGE)
    assert {(HANDED_OUT, 1), (FILLED, 1)} <= exposures(machine, frames=True)
    assert machine.violations() == []


@pytest.mark.parametrize("design", ["linux", "luf", "latr", "epoch", "luf_hold"])
def test_one_that_was_flushed_in_time_is_none(small_machine, design):
    machine = running(small_machine, design, pages=(512,))
    machine.use(FILE_VPN + PAGE, 1, cpu=1)
    taken(machine, FILE_VPN + PAGE)


def test_a_cpu_that_idles_is_not_exposed_but_noted(small_machine):
    """It looks at tlb_gen when it comes back; vanilla does not interrupt it."""
    machine = running(small_machine, "linux", pages=(512,))
    machine.use(FILE_VPN + PAGE, 1, cpu=1)
    machine.idle(1)
    taken(machine, FILE_VPN + PAGE)
    assert machine.ram.tlb_value[1].any()


@pytest.mark.parametrize("design", ["fpr", "latr"])
def test_a_munmap_that_lets_others_wait_exposes_nothing(small_machine, design):
    """fpr gives a frame back to the process that has unmapped it; latr holds it."""
    machine = running(small_machine, design, pages=(512,))
    machine.touch(ANON_VPN, STORE, pages=8)
    machine.touch(ANON_VPN, LOAD, pages=8, cpu=1)
    frames = {machine.pfn(1, ANON_VPN + page) for page in range(8)}
    do_munmap(machine.ram, 0, 1, ANON_VPN, ANON_VPN + 8)
    machine.touch(ANON_VPN + 64, STORE, pages=64)
    again = {machine.pfn(1, ANON_VPN + 64 + page) for page in range(64)}
    assert bool(frames & again) == (design == "fpr")
