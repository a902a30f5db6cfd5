"""LUF: what may wait, for whom it waits, who flushes and who only waits, and what must be flushed before.

Schedules are planted: one thread plays all CPUs, and `on_send` and `on_wait` say what another CPU does at
that moment.
"""

import pytest

from allocator.buddy import take_block
from allocator.filemap import sync_file_page, truncate_file_page, write_to_file
from allocator.lru import drop_page
from allocator.page import get_page, lock_page, unlock_page
from allocator.page_alloc import GFP_USER, alloc_page, free_page
from allocator.pcp import drain_all_pages
from allocator.rmap import UNMAP_FAILED, UNMAP_FOR_RECLAIM, try_to_unmap
from allocator.unmap import zap_range
from cpus.abi.numbers import LOAD, STORE
from cpus.page_table import PTE_PRESENT, PTE_WRITE
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN, SHARED, SHARED_VPN

ZONE, ORDER_0, GFP = 0, 0, GFP_USER


@pytest.fixture
def machine(small_machine):
    """Process 1 runs on CPUs 0 and 1, process 2 on CPU 2; CPU 3 runs none. All have page tables for all
    regions.
    """
    machine = small_machine(cpus=4, mms=2, design="luf")
    for cpu, mm in ((0, 1), (1, 1), (2, 2)):
        machine.run(mm, cpu=cpu)
        machine.touch(ANON_VPN + 200, STORE, cpu=cpu)
        for vpn in (FILE_VPN, SHARED_VPN):
            machine.touch(vpn + 200, LOAD, cpu=cpu)
            zap_range(machine.ram, cpu, mm, vpn, vpn + 256)
    machine.asked()
    return machine


def reclaim(machine, pages=16, vpn=FILE_VPN, users=(0, 1), by=0):
    """Have CPUs read pages, and reclaim everything of that file on CPU `by`; returns the frames that the
    pages had.
    """
    for cpu in users:
        machine.use(vpn, pages, LOAD, cpu=cpu)
    mm = int(machine.ram.cpu_loaded_mm[users[0]])
    frames = [machine.pfn(mm, vpn + i) for i in range(pages)]
    machine.asked()
    machine.reclaim_file(FILE if vpn == FILE_VPN else SHARED, cpu=by)
    return frames


def keyed(machine, frames):
    """Which of these frames bear a key."""
    return [pfn for pfn in frames if machine.ram.page_key[pfn]]


def pend_all(machine):
    """Move all pages from the CPUs' lists to the buddy; returns the pending frames there."""
    drain_all_pages(machine.ram, 0, ZONE)
    return sum(int(count) << order for order, count in enumerate(machine.ram.pend_count[ZONE]))


def take(machine, cpu):
    """Take a page and give it back at the end of the test."""
    return int(alloc_page(machine.ram, cpu, ZONE, GFP))


def give(machine, *pages, cpu=0):
    for pfn in pages:
        drop_page(machine.ram, cpu, pfn)


def take_until_flushed(machine, cpu):
    """Take pages until somebody is interrupted; returns them."""
    pages = []
    while not machine.interrupts:
        assert len(pages) < 300
        pages.append(take(machine, cpu))
    return pages


def take_blocks_until(machine, cpu, reached):
    """Take pages from the buddy, without the end of the take-off, until `reached()`."""
    for _ in range(300):
        if reached():
            return
        take_block(machine.ram, cpu, ZONE, ORDER_0)
    raise AssertionError("no pending block was found")


# --- what may wait ------------------------------------------------------------------------------------------


def test_pages_only_read_are_freed_without_an_interrupt(machine):
    """They lie in the CPU's list with a key; the other CPU goes on reading through its old translation, and
    that is no error.
    """
    frames = reclaim(machine)
    assert machine.asked() == []
    assert keyed(machine, frames) == frames
    faults = machine.count("pgfault")
    machine.touch(FILE_VPN, pages=16, cpu=1)
    assert machine.count("pgfault") == faults
    assert machine.ram.run_violations[0] == 0


def test_pages_that_were_written_are_flushed_at_once(machine):
    machine.use(SHARED_VPN, 16, STORE, cpu=0)
    frames = reclaim(machine, vpn=SHARED_VPN)
    assert machine.asked() != []
    assert keyed(machine, frames) == []


def test_one_writable_mapping_makes_the_whole_page_vanilla(machine):
    """Process 2 only reads the page, process 1 may write it: both are flushed in the same round."""
    machine.use(SHARED_VPN, 1, LOAD, cpu=2)
    machine.use(SHARED_VPN, 1, STORE, cpu=1)
    pfn = machine.cached(SHARED, 0)
    machine.asked()
    machine.reclaim_file(SHARED)
    assert [1, 2] in machine.asked()
    assert machine.ram.page_key[pfn] == 0


def test_a_page_used_by_one_cpu_alone_needs_no_key(machine):
    """CPU 2 reclaims what only it has mapped: it flushes itself."""
    frames = reclaim(machine, users=(2,), by=2)
    assert keyed(machine, frames) == []
    assert machine.asked() == []


def test_a_page_that_stays_in_use_after_all_is_flushed(machine):
    """Unmapped lazily; however somebody holds a reference, so it stays in the cache: nothing may wait for a
    next owner.
    """
    machine.use(FILE_VPN, 1, cpu=0)
    machine.use(FILE_VPN, 1, cpu=1)
    pfn = machine.cached(FILE, 0)
    get_page(machine.ram, pfn)
    machine.scan(len(machine.cached_pages(FILE)))
    machine.forget_tlb(0)
    machine.asked()
    for _ in range(3):
        machine.scan(32)
    assert machine.pte(1, FILE_VPN) == 0
    assert machine.cached_pages(FILE) == [0]
    assert machine.asked() == [[1]]
    assert machine.count("kept_with_pending") == 1
    drop_page(machine.ram, 0, pfn)


def test_an_unmap_that_is_not_complete_is_flushed(machine):
    """Process 2's PTE of the page is not found (planted): the page is still mapped, so it cannot be freed
    with a key.
    """
    machine.use(FILE_VPN, 1, cpu=0)
    machine.use(FILE_VPN, 1, cpu=1)
    pfn = machine.cached(FILE, 0)
    machine.ram.page_mapcount[pfn] += 1
    get_page(machine.ram, pfn)
    lock_page(machine.ram, 0, pfn)
    assert try_to_unmap(machine.ram, 0, pfn, UNMAP_FOR_RECLAIM) == UNMAP_FAILED
    assert machine.enter("hook_batch_key", 0) == 0
    machine.enter("hook_unmap_flush", 0)
    assert machine.asked() == [[1]]
    machine.ram.page_mapcount[pfn] -= 1
    unlock_page(machine.ram, 0, pfn)
    drop_page(machine.ram, 0, pfn)


def test_demotion_leaves_the_old_frames_pending(small_machine):
    """The page has moved; CPU 1 may read the old frame, which nobody gets before CPU 1 is flushed."""
    machine = small_machine(pages=(512, 512), cpus=2, mms=1, design="luf", demotion=True)
    machine.run(1, cpu=0)
    machine.run(1, cpu=1)
    machine.use(FILE_VPN, 16, cpu=0)
    machine.use(FILE_VPN, 16, cpu=1)
    old = [machine.pfn(1, FILE_VPN + i) for i in range(16)]
    for _ in range(4):
        machine.scan(32)
    assert machine.asked() == []
    moved = [pfn for i, pfn in enumerate(old) if machine.pfn(1, FILE_VPN + i) != pfn]
    assert keyed(machine, moved) == moved
    machine.touch(FILE_VPN, pages=16, cpu=1)


# --- key, generation, take-off ------------------------------------------------------------------------------


def test_from_key_to_generation_to_flush(machine):
    """pcp list, keys       drained: pend lists, generation 2      first take of a pending page: one flush,
    generation done
    """
    reclaim(machine)
    generation = int(machine.ram.design["zone_generation"][ZONE])
    assert pend_all(machine) >= 16
    assert machine.ram.pend_key[ZONE].max() == generation
    assert machine.asked() == [], "entering the buddy interrupts nobody"
    machine.ram.wmark_min[ZONE] = 512  # few clean pages: pending ones first
    pages = take_until_flushed(machine, cpu=0)
    assert machine.asked() == [[1]]
    assert machine.ram.zone_key_done[ZONE] == machine.ram.zone_key_claimed[ZONE] == generation
    assert machine.ram.design["zone_generation"][ZONE] == generation + 1
    others = [take(machine, cpu=0) for _ in range(60)]
    assert machine.asked() == [], "one flush for all pages of the generation"
    machine.ram.wmark_min[ZONE] = 16
    give(machine, *pages, *others)


def test_clean_pages_are_taken_before_pending_ones(machine):
    reclaim(machine)
    pending = pend_all(machine)
    pages = [take(machine, cpu=0) for _ in range(64)]
    assert machine.asked() == []
    assert sum(int(count) << order for order, count in enumerate(machine.ram.pend_count[ZONE])) == pending
    give(machine, *pages)


def test_a_keyed_page_of_the_own_list_is_flushed_for_when_it_is_taken(machine):
    """It never reaches the buddy: its key names the CPUs."""
    frames = reclaim(machine)
    while int(machine.ram.pcp_first[0, ZONE]) not in frames:
        assert machine.ram.pcp_count[0, ZONE] > 0
        take(machine, cpu=0)
    assert machine.asked() == []
    page = take(machine, cpu=0)
    assert (page in frames, machine.asked()) == (True, [[1]])
    assert machine.count("taken_pending") == 1
    assert machine.ram.page_key[page] == 0
    release_all(machine)


def release_all(machine):
    """Give back what the test has taken: frames with one reference that belong to nothing."""
    ram = machine.ram
    for pfn in range(512):
        if ram.page_refcount[pfn] == 1 and ram.page_object[pfn] == 0 and ram.page_flags[pfn] == 0:
            ram.page_refcount[pfn] = 0
            free_page(ram, 0, pfn, 0)


def test_who_has_flushed_since_is_not_asked_again(machine):
    """key A: CPU 1       key B: CPU 1, later       B's page is taken: CPU 1 flushes everything       A's
    page: nobody is left
    """
    frames = reclaim(machine, pages=32)
    older, *_, newer = sorted({int(machine.ram.page_key[pfn]) for pfn in keyed(machine, frames)})
    machine.enter("hook_take", 0, -1, 0, newer)
    machine.enter("hook_take_done", 0)
    assert machine.asked() == [[1]]
    spared = machine.count("luf_spared")
    machine.enter("hook_take", 0, -1, 0, older)
    machine.enter("hook_take_done", 0)
    assert machine.asked() == []
    assert machine.count("luf_spared") > spared


def test_a_flush_that_began_before_the_unmap_does_not_count(machine):
    """CPU 1's newest flush is older than the request: it is asked."""
    reclaim(machine, pages=16)
    machine.ram.wmark_min[ZONE] = 512
    pend_all(machine)
    take_until_flushed(machine, cpu=0)
    assert machine.asked() == [[1]]
    reclaim(machine, pages=16)
    pend_all(machine)
    take_until_flushed(machine, cpu=0)
    assert machine.asked() == [[1]]
    machine.ram.wmark_min[ZONE] = 16
    release_all(machine)


# --- owner and waiter ---------------------------------------------------------------------------------------


def test_who_comes_second_to_a_generation_waits_for_the_first(machine):
    """CPU 0 takes a pending block, and has not flushed yet     CPU 3 takes another of the same generation:
    it must not use it it sleeps until CPU 0 has
    flushed; nobody is asked twice
    """
    reclaim(machine)
    pend_all(machine)
    machine.ram.wmark_min[ZONE] = 512
    take_blocks_until(
        machine, 0, lambda: machine.ram.zone_key_claimed[ZONE] > machine.ram.zone_key_done[ZONE]
    )
    assert machine.ram.zone_key_claimed[ZONE] == machine.ram.zone_key_done[ZONE] + 1
    slept = []

    def owner_goes_on(cpu):
        slept.append(cpu)
        assert machine.asked() == []
        machine.enter("hook_take_done", 0)

    machine.on_wait = owner_goes_on
    take_blocks_until(machine, 3, lambda: machine.ram.design["wait_generation"][3, ZONE] > 0)
    machine.enter("hook_take_done", 3)
    assert slept == [3]
    assert machine.asked() == [[1]]
    machine.ram.wmark_min[ZONE] = 16
    release_taken(machine)


def test_generations_become_done_in_order(machine):
    """CPU 3 owns the later generation and has flushed for it; it waits until CPU 0 has published the earlier
    one.
    """
    for cpu in (0, 1):
        machine.use(FILE_VPN, 64, cpu=cpu)
    while len(keyed(machine, range(512))) < 16:
        machine.scan(32)
    assert machine.cached_pages(FILE)
    pend_all(machine)
    machine.ram.wmark_min[ZONE] = 512
    start = int(machine.ram.zone_key_done[ZONE])
    take_blocks_until(machine, 0, lambda: machine.ram.zone_key_claimed[ZONE] == start + 1)
    machine.reclaim_file(FILE, cpu=3)
    pend_all(machine)
    take_blocks_until(machine, 3, lambda: machine.ram.zone_key_claimed[ZONE] == start + 2)
    done = []

    def owner_goes_on(cpu):
        done.append(int(machine.ram.zone_key_done[ZONE]))
        machine.enter("hook_take_done", 0)
        done.append(int(machine.ram.zone_key_done[ZONE]))

    machine.on_wait = owner_goes_on
    machine.enter("hook_take_done", 3)
    assert done == [start, start + 1]
    assert machine.ram.zone_key_done[ZONE] == start + 2
    machine.ram.wmark_min[ZONE] = 16
    release_taken(machine)


def release_taken(machine):
    """Give blocks back that the test took from the buddy by hand: no reference, no flag, on no list."""
    ram, known = machine.ram, set()
    for what in ("free", "pend"):
        for order in range(11):
            pfn = int(getattr(ram, f"{what}_first")[ZONE, order])
            while pfn >= 0:
                known.update(range(pfn, pfn + (1 << order)))
                pfn = int(ram.page_next[pfn])
    for pfn in range(512):
        if pfn not in known and ram.page_refcount[pfn] == 0 and ram.page_flags[pfn] == 0:
            free_page(ram, 0, pfn, 0)


# --- what must be flushed before ----------------------------------------------------------------------------


@pytest.mark.parametrize("vpn", [ANON_VPN, SHARED_VPN], ids=["anonymous", "shared file"])
def test_before_a_mapping_can_be_written_the_mm_is_flushed(machine, vpn):
    """CPU 1 may still read old pages of the mm; it is flushed while the new PTE is not there yet."""
    reclaim(machine)
    seen = []
    machine.on_send = lambda cpu, targets: seen.append(
        (targets, machine.pte(1, vpn + 7) & (PTE_PRESENT | PTE_WRITE))
    )
    machine.touch(vpn + 7, STORE)
    assert seen == [([1], 0)]
    machine.touch(vpn + 8, STORE)
    assert seen == [([1], 0)], "the mm has nothing pending any more"
    # a page of the file had to be read into a frame first, and that was pending, too
    assert machine.count("luf_triggered") == (vpn == ANON_VPN)


def test_a_write_to_a_shared_file_flushes_its_readers_in_other_processes(machine):
    """Process 2 (CPU 2) has old translations of the shared file's pages; process 1 writes it."""
    reclaim(machine, vpn=SHARED_VPN, users=(2,), by=0)
    machine.touch(SHARED_VPN + 3, STORE, cpu=0)
    assert machine.asked() == [[2]]


def test_a_write_elsewhere_leaves_other_processes_alone(machine):
    """Process 2 has pending pages of the read-only file; process 1 writes anonymous memory."""
    reclaim(machine, users=(2,), by=0)
    machine.touch(ANON_VPN + 3, STORE, cpu=0)
    assert machine.asked() == []


def test_munmap_completes_what_reclaim_has_left(machine):
    """After the call has returned nobody may use the old translations: CPU 1 is flushed though nothing was
    mapped there any more.
    """
    reclaim(machine)
    zap_range(machine.ram, 0, 1, FILE_VPN, FILE_VPN + 256)
    assert [1] in machine.asked()
    machine.touch(FILE_VPN, cpu=1)
    assert machine.pte(1, FILE_VPN) & PTE_PRESENT, "it had to fault"


def test_the_old_translation_is_gone_when_the_frame_has_a_new_owner(machine):
    """The whole way, judged by the oracle: CPU 1 reads old pages while CPU 0 takes all memory for new
    contents.
    """
    reclaim(machine, pages=64)
    machine.touch(FILE_VPN, pages=16, cpu=1)
    machine.ram.wmark_min[ZONE] = machine.ram.wmark_low[ZONE] = 0
    for page in range(190):
        machine.touch(ANON_VPN + page, STORE, cpu=0)
        machine.touch(FILE_VPN + page % 16, cpu=1)
    assert machine.ram.run_violations[0] == 0
    machine.ram.wmark_min[ZONE], machine.ram.wmark_low[ZONE] = 16, 24
    machine.forget_wakeups()


def test_without_the_flush_the_oracle_sees_it(broken_machine):
    """The same under the design that never flushes."""
    machine = broken_machine(cpus=2, mms=1, design="none")
    machine.run(1, cpu=0)
    machine.run(1, cpu=1)
    machine.use(FILE_VPN, 16, cpu=0)
    machine.use(FILE_VPN, 16, cpu=1)
    machine.reclaim_file(FILE)
    for page in range(64):
        machine.touch(ANON_VPN + page, STORE, cpu=0)
    machine.touch(FILE_VPN, cpu=1)
    assert machine.ram.run_violations[0] == 1


# --- what must be flushed before a file changes -------------------------------------------------------------


def change_and_look(machine, change):
    """CPU 1 holds translations of pages that reclaim freed lazily; CPU 0 changes page 3 of the file; CPU 1
    looks again.
    """
    reclaim(machine)
    change(machine.ram, 0, FILE, 3)
    asked = machine.asked()
    machine.touch(FILE_VPN + 3, cpu=1)
    return asked


@pytest.mark.parametrize("change", [write_to_file, truncate_file_page], ids=["write", "truncate"])
def test_before_a_file_changes_its_readers_are_flushed(machine, change):
    """write(2) and truncation: CPU 1 is interrupted, and then sees the new version."""
    assert change_and_look(machine, change) == [[1]]
    assert machine.ram.run_violations[0] == 0


@pytest.mark.parametrize(
    "change, trigger",
    [(write_to_file, "file_write"), (truncate_file_page, "truncate")],
    ids=["write", "truncate"],
)
def test_without_the_trigger_the_oracle_sees_the_old_bytes(broken_machine, change, trigger):
    """The same LUF with this one hook taken out: CPU 1 reads a version older than was published before its
    load.
    """
    machine = broken_machine(cpus=2, mms=1, design="luf")
    machine.run(1, cpu=0)
    machine.run(1, cpu=1)
    machine.on_hook(trigger, lambda *_: 0)
    assert change_and_look(machine, change) == []
    assert machine.ram.run_violations[0] == 1
    assert machine.violations()[0] == "stale read"


def test_syncing_a_page_takes_the_right_to_write(machine):
    """fdatasync write-protects a dirty shared mapping, flushes who has it, and the next store is a fault
    again (folio_mkclean).
    """
    machine.touch(SHARED_VPN + 3, STORE, cpu=1)
    machine.asked()
    sync_file_page(machine.ram, 0, SHARED, 3)
    assert machine.asked() == [[1]]
    assert machine.pte(1, SHARED_VPN + 3) & (PTE_PRESENT | PTE_WRITE) == PTE_PRESENT
    faults = machine.count("pgfault")
    machine.touch(SHARED_VPN + 3, STORE, cpu=1)
    assert machine.count("pgfault") == faults + 1
    assert machine.ram.run_violations[0] == 0
