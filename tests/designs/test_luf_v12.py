"""LUF v12 as posted: what it does, and the schedules that break it, each of which designs/luf/luf.py
survives.

Schedules are planted: one thread plays all CPUs, `on_hook` says what another CPU does at that moment.
"""

import numpy as np
import pytest

from allocator.filemap import truncate_file_page, write_to_file
from allocator.lru import LRU_ACTIVE_FILE, drop_page
from allocator.mprotect import mprotect
from allocator.page import get_page, lock_page, unlock_page
from allocator.rmap import UNMAP_FOR_RECLAIM, try_to_unmap
from allocator.vma import VM_READ
from cpus.abi.numbers import LOAD, STORE
from cpus.compiled import kernel
from cpus.cpumask import cpus_of
from cpus.page_table import PTE_PROTNONE, PTE_WRITE
from designs import design
from designs.luf.records import of_key
from designs.luf.ugen import before, new_luf_ugen
from designs.luf_v12.batches import fold_into_key
from designs.luf_v12.fields import KEYS, v12_state
from designs.luf_v12.generations import next_ugen, prev_ugen, whole_generation
from designs.luf_v12.unmap import new_luf_key
from emulator.experiment import run_design
from emulator.machine import load_machine
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN, SHARED, SHARED_VPN
from tests.designs.test_luf import (
    keyed,
    pend_all,
    reclaim,
    release_all,
    release_taken,
    take,
    take_blocks_until,
    take_until_flushed,
)

ZONE = 0
POSTED, REQUIRED = "luf_v12", "luf_v12:records=required"


@pytest.fixture
def machine(small_machine):
    """Process 1 runs on CPUs 0 and 1, process 2 on CPU 2; CPU 3 runs none."""
    machine = small_machine(cpus=4, mms=2, design=POSTED)
    for cpu, mm in ((0, 1), (1, 1), (2, 2)):
        machine.run(mm, cpu=cpu)
    machine.asked()
    return machine


@kernel
def stamp_of(ram):
    return new_luf_ugen(v12_state(ram))


@kernel
def key_of(ram):
    return new_luf_key(v12_state(ram))


@kernel
def fold_key_of(ram, key, ugen):
    """Fold CPU 0's scratch mask into a key."""
    fold_into_key(ram, v12_state(ram), 0, key, ram.tmp_mask, 0, ugen)


# --- the schedules that break it ----------------------------------------------------------------------------


def threads(broken_machine, name, vpn):
    """Process 1 on CPUs 0, 1 and 2. All have read a file's pages, which were reclaimed lazily; CPUs 1 and 2
    hold old translations.
    """
    # so that reading one page takes no pending ones
    machine = broken_machine(cpus=3, mms=1, design=name, readahead_pages=1)
    for cpu in range(3):
        machine.run(1, cpu=cpu)
    reclaim(machine, vpn=vpn, users=(0, 1, 2))
    machine.asked()
    return machine


@pytest.mark.parametrize(
    "name, seen", [(POSTED, ["stale read"]), (REQUIRED, []), ("luf", []), ("luf_hold", [])]
)
@pytest.mark.parametrize("how", ["store", "write", "truncate"])
def test_the_triggers_as_posted_flush_nobody(broken_machine, name, seen, how):
    """
    reclaim   P of file page 3 freed lazily     CPU 1 still reads P
    CPU 0     stores to / writes / truncates page 3: its contents are in P' now; luf_flush_mm or
              luf_flush_mapping is called, whose record is not flush_required: nobody is interrupted CPU 1
              reads page 3: the bytes of P
    """
    machine = threads(broken_machine, name, SHARED_VPN if how == "store" else FILE_VPN)
    if how == "store":
        machine.touch(SHARED_VPN + 3, STORE, cpu=0)
        machine.touch(SHARED_VPN + 3, cpu=1)
    else:
        change = write_to_file if how == "write" else truncate_file_page
        change(machine.ram, 0, FILE, 3)
        machine.touch(FILE_VPN + 3, cpu=1)
    assert machine.violations() == seen
    assert ([1, 2] in machine.asked()) == (seen == [])


@pytest.mark.parametrize(
    "name, seen", [(POSTED, ["stale read"]), (REQUIRED, ["stale read"]), ("luf", []), ("luf_hold", [])]
)
def test_another_cpu_uses_the_new_pte_before_the_flush(broken_machine, name, seen):
    """CPU 0     store fault at page 3: P' is mapped writable | handle_mm_fault's end: luf_flush_mm CPU 2
    stores to P' without a fault ^ CPU 1                                       ^ reads page 3 through its
    translation of P: the value from before the store
    """
    machine = threads(broken_machine, name, SHARED_VPN)
    vpn, played = SHARED_VPN + 3, []

    def others(cpu, mm, vma, at, store):
        if cpu == 0 and at == vpn and store and machine.pte(1, vpn) & PTE_WRITE and not played:
            played.append(machine.count("pgfault"))
            machine.forget_tlb(2)  # an entry of CPU 2 was replaced meanwhile, so it walks
            machine.touch(vpn, STORE, cpu=2)
            played.append(machine.count("pgfault"))
            machine.touch(vpn, cpu=1)

    machine.on_hook("fault_done", others)
    machine.touch(vpn, STORE, cpu=0)
    assert played[0] == played[1], "CPU 2 needed no fault"
    assert machine.violations() == seen


@pytest.mark.parametrize(
    "name, seen", [(POSTED, ["stale read"]), (REQUIRED, ["stale read"]), ("luf", []), ("luf_hold", [])]
)
def test_a_reader_between_truncation_and_its_flush(broken_machine, name, seen):
    """CPU 0     truncates page 3: what a reader finds there now is the new version | luf_flush_mapping at
    the end CPU 1                                     reads through its translation of P ^
    """
    machine = threads(broken_machine, name, FILE_VPN)
    machine.on_hook("truncated", lambda cpu, *_: machine.touch(FILE_VPN + 3, cpu=1) * 0)
    truncate_file_page(machine.ram, 0, FILE, 3)
    assert machine.violations() == seen


def demote(machine, vpn, cpu, mm=1):
    """Have a CPU age and reclaim until the page has moved to the second node."""
    before = machine.pfn(mm, vpn)
    for _ in range(8):
        if machine.pfn(mm, vpn) != before:
            return
        machine.scan(32, LRU_ACTIVE_FILE, cpu=cpu)
        machine.scan(32, cpu=cpu)
    raise AssertionError("it was not demoted")


@pytest.mark.parametrize("name, seen", [(REQUIRED, ["stale read"]), ("luf", [])])
def test_a_store_between_write_protection_and_its_flush(broken_machine, name, seen):
    """
    CPU 0     mprotect(PROT_READ): the PTE of P is read-only and dirty | flushes
    CPU 3     demotes P to P': a dirty read-only PTE is deferred ^
    CPU 1           stores to P through its writable translation ^         the store is lost: CPU 0 reads P'
    """
    machine = broken_machine(pages=(512, 512), cpus=4, mms=1, design=name, readahead_pages=1, demotion=True)
    for cpu in (0, 1):
        machine.run(1, cpu=cpu)
    vpn, flushed = SHARED_VPN + 3, []
    machine.use(vpn, 1, STORE, cpu=1)

    def others(cpu, mm, vma, c, d):
        if not flushed:
            machine.asked()
            demote(machine, vpn, cpu=3)
            flushed.append(any(1 in targets for targets in machine.asked()))
            if not flushed[0]:  # else it faults, and waits for mmap_lock
                machine.touch(vpn, STORE, cpu=1)

    machine.on_hook("vma_done", others)
    mprotect(machine.ram, 0, 1, SHARED_VPN, SHARED_VPN + 256, VM_READ)
    machine.touch(vpn, LOAD, cpu=0)
    assert flushed == [seen == []]
    assert machine.violations() == seen


@pytest.mark.parametrize("name", [REQUIRED, "luf"])
def test_a_writable_mapping_that_is_flushed_at_once_makes_the_folio_vanilla(broken_machine, name):
    """Process 2 writes to a page on one CPU, which demotes it: that PTE needs no batch. Process 1, which
    reads it, is flushed.
    """
    machine = broken_machine(pages=(512, 512), cpus=4, mms=2, design=name, readahead_pages=1, demotion=True)
    for cpu, mm in ((0, 1), (1, 1), (2, 2)):
        machine.run(mm, cpu=cpu)
    vpn = SHARED_VPN + 3
    machine.use(vpn, 1, STORE, cpu=2)
    for cpu in (0, 1):
        machine.use(vpn, 1, LOAD, cpu=cpu)
    machine.asked()
    demote(machine, vpn, cpu=2, mm=2)
    assert [0, 1] in machine.asked()
    machine.touch(vpn, STORE, cpu=2)
    machine.touch(vpn, LOAD, cpu=0)
    assert machine.violations() == []


def test_ptep_clear_flush_of_what_no_tlb_may_have(machine):
    """mprotect(PROT_NONE) has made a PTE inaccessible; who runs the process alone unmaps it: no flush, but
    luf_flush_vma.
    """
    machine.touch(FILE_VPN, LOAD, cpu=2)
    reported = []
    mprotect(machine.ram, 2, 2, FILE_VPN, FILE_VPN + 256, 0)
    assert machine.pte(2, FILE_VPN) & PTE_PROTNONE
    machine.on_hook("vma_done", lambda cpu, mm, vma, c, d: reported.append((cpu, mm)))
    pfn = machine.cached(FILE, 0)
    lock_page(machine.ram, 2, pfn)
    try_to_unmap(machine.ram, 2, pfn, UNMAP_FOR_RECLAIM)
    unlock_page(machine.ram, 2, pfn)
    assert reported == [(2, 2)]


# --- generations and keys -----------------------------------------------------------------------------------


def test_generations_are_compared_across_the_wrap():
    last = np.iinfo(np.int64).max
    first = np.iinfo(np.int64).min
    assert before(1, 2)
    assert not before(2, 2)
    assert before(last, first)
    assert not before(first, last)


def test_generations_whose_low_bits_are_zero_are_skipped():
    assert (next_ugen(0xFFFE), next_ugen(0xFFFF)) == (0xFFFF, 0x10001)
    assert (prev_ugen(0x10001), prev_ugen(0x10002)) == (0xFFFF, 0x10001)


def test_a_pages_generation_is_rebuilt_from_16_bits():
    """The largest that is not newer than the zone's; after 65,536 flushes it is one too new, so somebody
    waits for nothing.
    """
    assert whole_generation(5, 7) == 5
    assert whole_generation(0xFFF0, 0x20003) == 0x1FFF0
    assert whole_generation(3, 0x20003) == 0x20003


def test_stamps_and_keys_skip_what_is_not_valid(machine):
    machine.ram.design["ugen"][0], machine.ram.design["next_key"][0] = 0xFFFF, KEYS - 1
    assert stamp_of(machine.ram) == 0x10001
    assert [key_of(machine.ram), key_of(machine.ram)] == [1, 2]


def test_a_key_that_is_used_again_stands_for_both(machine):
    """CPU 1 of the old use stays, unless it has flushed since; the generation is the newer."""
    ram, record = machine.ram, of_key(machine.ram, 9)
    ram.tmp_mask[0, 0] = 1 << 1
    fold_key_of(ram, 9, 10)
    ram.tmp_mask[0, 0] = 1 << 2
    fold_key_of(ram, 9, 20)
    assert cpus_of(ram.design["record_mask"][record]) == [1, 2]
    ram.design["ugen_done"][1] = 20
    ram.tmp_mask[0, 0] = 1 << 3
    fold_key_of(ram, 9, 30)
    assert cpus_of(ram.design["record_mask"][record]) == [2, 3]
    assert ram.design["record_ugen"][record] == 30


def test_nothing_is_lost_when_stamps_wrap_around(machine):
    """The counter passes the largest signed word between unmap and take-off: CPU 1 is interrupted, once."""
    design, last = machine.ram.design, np.iinfo(np.int64).max
    design["ugen"][0] = last - 20
    for name in ("ugen_done", "record_ugen", "zone_luf_ugen"):
        design[name][:] = last - 21
    frames = reclaim(machine)
    assert design["ugen"][0] < 0
    assert keyed(machine, frames) == frames
    pend_all(machine)
    machine.ram.wmark_min[ZONE] = 512
    take_until_flushed(machine, cpu=0)
    assert machine.asked() == [[1]]
    assert design["ugen_done"][1] == design["ugen"][0]
    machine.ram.wmark_min[ZONE] = 16
    release_all(machine)


# --- unmapping ----------------------------------------------------------------------------------------------


def test_whom_the_vanilla_batch_flushes_needs_no_key(machine):
    """fold_unmap_luf: written and read pages of the same CPUs in one batch: the round for the written ones
    serves all.
    """
    ram = machine.ram
    machine.enter("hook_pte_cleared", 0, 1, FILE_VPN, 0, FILE)
    machine.enter("hook_walk_done", 0, 0, 1, 1)
    ram.ubc_mask[0] = ram.design["lazy_mask"][0]
    ram.ubc_required[0] = 1
    assert machine.enter("hook_batch_key", 0) == 0
    machine.enter("hook_unmap_flush", 0)
    assert machine.asked() == [[1]]
    assert machine.enter("hook_batch_key", 0) == 0


def test_a_folio_kept_after_a_lazy_unmap_is_flushed_at_once(machine):
    """Somebody holds a reference: it stays in the cache, so luf_flush(fold_unmap_luf())."""
    machine.use(FILE_VPN, 1, cpu=0)
    machine.use(FILE_VPN, 1, cpu=1)
    pfn = machine.cached(FILE, 0)
    get_page(machine.ram, pfn)
    machine.scan(len(machine.cached_pages(FILE)))
    machine.forget_tlb(0)
    machine.asked()
    for _ in range(3):
        machine.scan(32)
    assert machine.cached_pages(FILE) == [0]
    assert machine.asked() == [[1]]
    drop_page(machine.ram, 0, pfn)


# --- take-off -----------------------------------------------------------------------------------------------


def test_no_shootdown_while_there_are_enough_clean_pages(machine):
    """Patch 22: rmqueue_bulk is not preemptible, so it takes clean blocks until MIN of them are left, then
    one flush cleans the zone.

    rmqueue_buddy is: it takes what comes, and may flush.
    """
    reclaim(machine)
    pending = pend_all(machine)
    pages = [take(machine, cpu=0) for _ in range(64)]
    assert machine.asked() == []
    assert sum(int(n) << order for order, n in enumerate(machine.ram.pend_count[ZONE])) == pending
    for preemptible, sections in ((0, 1), (1, 0)):
        machine.enter("hook_take_begin", 0, ZONE, preemptible)
        assert machine.ram.design["no_shootdown"][0] == sections
        machine.enter("hook_take_done", 0)
    machine.ram.wmark_min[ZONE] = 512
    take_until_flushed(machine, cpu=0)
    assert machine.asked() == [[1]]
    others = [take(machine, cpu=0) for _ in range(60)]
    assert machine.asked() == []
    assert len({*pages, *others}) == 124
    machine.ram.wmark_min[ZONE] = 16
    release_all(machine)


def test_who_comes_second_to_a_generation_waits_for_the_first(machine):
    reclaim(machine)
    pend_all(machine)
    machine.ram.wmark_min[ZONE] = 512
    ram = machine.ram
    machine.enter("hook_take_begin", 0, ZONE)
    take_blocks_until(machine, 0, lambda: ram.zone_key_claimed[ZONE] > ram.zone_key_done[ZONE])
    slept = []

    def owner_goes_on(cpu):
        slept.append(cpu)
        assert machine.asked() == []
        machine.enter("hook_take_done", 0)

    machine.on_wait = owner_goes_on
    machine.enter("hook_take_begin", 3, ZONE)
    take_blocks_until(machine, 3, lambda: ram.design["wait_generation"][3] > 0)
    machine.enter("hook_take_done", 3)
    assert slept == [3]
    assert machine.asked() == [[1]]
    assert ram.zone_key_done[ZONE] == ram.zone_key_claimed[ZONE]
    machine.ram.wmark_min[ZONE] = 16
    release_taken(machine)


def test_a_merged_block_is_pending_as_a_whole(machine):
    """Clean pages that merge with a pending buddy wait with it: fewer are clean than were freed clean."""
    reclaim(machine)
    assert pend_all(machine) > 16


# --- whole runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_talks_workload_does_not_meet_its_windows(seed):
    """Controlled mode, 4 CPUs: nobody writes what others have mapped, so that even as posted no access goes
    wrong.
    """
    result = run_design(
        design(POSTED), load_machine("xeon6430-cxl", scale=4096, cpus=4), tokens=1, leases=1, seed=seed
    )
    assert result.violations == []
    assert result.unaccounted == {}
    assert result.design_stats["takeoff"]["count"] > 0


def test_it_finds_pages_of_all_kinds(machine):
    """Sanity of the fixture: anonymous memory and both files can be used as ever."""
    for vpn, kind in ((ANON_VPN, STORE), (FILE_VPN, LOAD), (SHARED_VPN, STORE)):
        machine.touch(vpn, kind, pages=8)
    assert machine.cached_pages(SHARED)[:8] == list(range(8))
