"""Epochs and LATR: unmapping interrupts nobody, and no frame is given out before every CPU has flushed.

CPU 0: unmap, free (held) ......................... take the frame
CPU 1: reads it through its old translation ... tick: flush
"""

import pytest

from allocator.filemap import write_to_file
from allocator.lru import isolate_page
from allocator.migrate import migrate_one
from allocator.mmap import do_mmap
from allocator.pcp import drain_all_pages
from allocator.unmap import zap_range
from cpus.abi.numbers import MADV_FREE, STORE
from cpus.atomics import load_acquire, store_release
from cpus.completion import look_for_completed_changes
from cpus.cpumask import cpumask_test_cpu
from designs.design import hook, replaced
from designs.epoch import Epoch, epoch_state
from designs.epoch import look_at_all as look_at_all_cpus
from designs.held import TIMEOUT_NS, WHY, advance_zones, held_statistics
from designs.latr import RING, Latr, latr_state, leave_record
from designs.latr import look_at_all as look_at_all_records
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN, LATER
from tests.designs.lazily import PAGES, ZONE, everybody, give_back, held, reclaim, take_all, two_cpus

ANON_REGION = 2  # of small_machine
LAZY = pytest.mark.parametrize("design", ["epoch", "latr"])


@LAZY
def test_unmapping_interrupts_nobody_and_the_old_translation_still_shows_the_page(small_machine, design):
    machine = two_cpus(small_machine, design)
    frames = reclaim(machine)
    assert machine.asked() == []
    assert len(held(machine, frames)) == PAGES
    machine.touch(FILE_VPN, pages=PAGES, cpu=1)
    assert machine.pte(1, FILE_VPN) == 0, "it did not even fault"
    everybody(machine)


@LAZY
@pytest.mark.parametrize("point", ["tick", "context_switch", "idle"])
def test_frames_are_free_when_every_cpu_has_passed(small_machine, design, point):
    """One CPU is not enough."""
    machine = two_cpus(small_machine, design)
    frames = reclaim(machine)
    machine.enter("hook_tick", 0)
    assert len(held(machine, frames)) == PAGES
    machine.enter(f"hook_{point}", 1)
    assert held(machine, frames) == []
    assert machine.asked() == []
    pages = take_all(machine)
    assert set(frames) <= set(pages)
    give_back(machine, pages)


@LAZY
def test_when_no_other_memory_is_left_who_lags_is_interrupted_once(small_machine, design):
    """Clean pages are taken first; the first held one costs one interrupt, the others none."""
    machine = two_cpus(small_machine, design)
    frames = reclaim(machine)
    machine.on_send = lambda *_: met.append(len(held(machine, frames)))
    met: list[int] = []
    pages = take_all(machine)
    assert machine.asked() == [[1]]
    assert met[0] >= PAGES // 2, "nobody was asked before a held one was needed"
    assert machine.count("held_forced") == 1
    assert machine.count("held_closed") > 0
    assert set(frames) <= set(pages)
    give_back(machine, pages)


@LAZY
def test_a_cpu_that_is_away_holds_nobody_up(small_machine, design):
    """CPU 1 idles with the address space loaded: it compares generations when it comes back, and its old
    translations are gone.
    """
    machine = two_cpus(small_machine, design)
    machine.use(FILE_VPN, PAGES, cpu=1)
    machine.idle(1)
    machine.enter("hook_idle", 1)
    frames = [machine.pfn(1, FILE_VPN + i) for i in range(PAGES)]
    machine.reclaim_file(FILE, cpu=0)
    machine.enter("hook_tick", 0)
    pages = take_all(machine)
    assert set(frames) <= set(pages)
    assert machine.asked() == []
    give_back(machine, pages)
    machine.run(1, cpu=1)
    machine.touch(FILE_VPN, cpu=1)
    assert machine.pte(1, FILE_VPN), "it had to fault"
    everybody(machine)


@LAZY
def test_who_lags_too_long_is_interrupted(small_machine, design):
    machine = two_cpus(small_machine, design)
    frames = reclaim(machine)
    machine.enter("hook_tick", 0)
    machine.ram.cpu_clock[0] += TIMEOUT_NS + 1
    machine.enter("hook_tick", 0)
    assert machine.asked() == [[1]]
    machine.enter("hook_tick", 0)
    assert held(machine, frames) == []


@LAZY
@pytest.mark.parametrize("change", ["write fault", "file write", "munmap"])
def test_before_something_contradicts_an_old_translation_it_is_flushed(small_machine, design, change):
    machine = two_cpus(small_machine, design)
    machine.touch(ANON_VPN + 100, STORE)
    reclaim(machine)
    if change == "write fault":
        machine.touch(ANON_VPN + 7, STORE)
    elif change == "file write":
        write_to_file(machine.ram, 0, FILE, 3)
    else:
        zap_range(machine.ram, 0, 1, FILE_VPN, FILE_VPN + PAGES)
    assert machine.asked()[0] == [1]
    machine.touch(FILE_VPN + 3, cpu=1)
    assert machine.pte(1, FILE_VPN + 3), "it had to fault"
    if change != "munmap":
        machine.touch(ANON_VPN + 8, STORE)
        assert machine.count("held_safe_already") > 0
    everybody(machine)


@pytest.mark.parametrize(("design", "full"), [("latr", True), ("latr:ring=256", False)])
def test_a_full_ring_falls_back_to_interrupts(small_machine, design, full):
    """LATR: nobody sweeps, so RING records of CPU 0 stay. If they are all there are, the batch is flushed as
    vanilla's.
    """
    machine = two_cpus(small_machine, design)
    machine.ram.design["record_stamp"][:RING] = 1 << 40
    machine.ram.design["record_mask"][:RING] = 2
    machine.ram.design["next_record"][0] = RING
    machine.reclaim_file(FILE, cpu=0)
    assert ([1] in machine.asked()) == full
    assert (Latr().statistics(machine.ram)["ring_full"] > 0) == full
    machine.ram.design["record_stamp"][:], machine.ram.design["record_mask"][:] = 0, 0
    everybody(machine)


# --- LATR's munmap ------------------------------------------------------------------------------------------


def with_memory(build, design="latr"):
    """Both CPUs of process 1 have translations of 8 pages of its memory; page 200 keeps the page table.
    Returns machine and frames.
    """
    machine = two_cpus(build, design)
    machine.touch(ANON_VPN + 200, STORE)
    machine.touch(ANON_VPN, STORE, pages=8)
    machine.touch(ANON_VPN, pages=8, cpu=1)
    machine.asked()
    return machine, [machine.pfn(1, ANON_VPN + i) for i in range(8)]


def munmap(machine):
    machine.enter("do_munmap", 0, 1, ANON_VPN, ANON_VPN + 8)
    drain_all_pages(machine.ram, 0, ZONE)


@pytest.mark.parametrize("lazy", [True, False])
def test_munmap_interrupts_nobody_and_the_frames_wait_for_the_sweep(small_machine, lazy):
    machine, frames = with_memory(small_machine, "latr" if lazy else "latr:munmap=wait")
    munmap(machine)
    assert machine.asked() == ([] if lazy else [[1]])
    assert held(machine, frames) == (frames if lazy else [])
    assert machine.ram.design["lazy_munmaps"].sum() == lazy
    machine.enter("hook_tick", 1)
    machine.enter("hook_tick", 0)
    assert held(machine, frames) == []
    machine.touch(ANON_VPN + 100, STORE)
    assert machine.asked() == []


def test_a_write_elsewhere_in_the_process_does_not_end_the_wait(small_machine):
    """Nothing contradicts what was unmapped until its address or its frame is used again."""
    machine, frames = with_memory(small_machine)
    munmap(machine)
    machine.touch(ANON_VPN + 100, STORE)
    assert machine.asked() == []
    assert held(machine, frames) == frames
    everybody(machine)


def test_addresses_are_flushed_before_they_are_mapped_again(small_machine):
    machine, _ = with_memory(small_machine)
    munmap(machine)
    machine.enter("hook_map", 0, 1, ANON_VPN + 100, ANON_VPN + 108)
    assert machine.asked() == [], "other addresses"
    machine.enter("hook_map", 0, 1, ANON_VPN + 4, ANON_VPN + 6)
    assert machine.asked() == [[1]]
    assert machine.count("unmapped_used_again") == 1
    machine.enter("hook_map", 0, 1, ANON_VPN + 4, ANON_VPN + 6)
    assert machine.asked() == [], "once"


def test_a_full_ring_makes_munmap_wait(small_machine):
    machine, frames = with_memory(small_machine)
    machine.ram.design["record_stamp"][:RING] = 1 << 40
    munmap(machine)
    assert machine.asked() == [[1]]
    assert held(machine, frames) == []
    assert machine.ram.design["fallbacks"].sum() == 1
    machine.ram.design["record_stamp"][:] = 0


def test_a_process_on_one_cpu_leaves_no_record(small_machine):
    """Its frames are free at once."""
    machine = small_machine(cpus=2, mms=1, pages=(400,), design="latr")
    machine.run(1)
    machine.touch(ANON_VPN + 200, STORE)
    machine.touch(ANON_VPN, STORE, pages=8)
    frames = [machine.pfn(1, ANON_VPN + i) for i in range(8)]
    munmap(machine)
    assert held(machine, frames) == []
    assert machine.ram.design["lazy_munmaps"].sum() == machine.ram.design["fallbacks"].sum() == 0
    assert (machine.count("nr_tlb_local_flush_all"), machine.count("nr_tlb_local_flush_one")) == (0, 8), (
        "its range, as usual"
    )


@pytest.mark.parametrize("design", ["latr", "fpr"])
@pytest.mark.parametrize("gone", ["moved", "reclaimed"])
def test_who_isolates_a_page_of_the_gather_frees_it_with_its_key(small_machine, design, gone):
    """CPU 2 isolates a page just after the design has seen that nobody holds it; then it moves or reclaims it
    (MADV_FREE) itself.
    """
    machine = small_machine(cpus=3, mms=1, pages=(400, 400), demotion=True, design=design)
    for cpu in (0, 1):
        machine.run(1, cpu=cpu)
    machine.touch(ANON_VPN + 200, STORE)
    machine.touch(ANON_VPN, STORE, pages=8)
    frames = [machine.pfn(1, ANON_VPN + i) for i in range(8)]
    machine.enter("lru_add_drain", 0)
    if gone == "reclaimed":
        machine.enter("madvise", 0, 1, ANON_VPN, ANON_VPN + 8, MADV_FREE)
    machine.touch(ANON_VPN, pages=8, cpu=1)
    machine.asked()
    machine.after_hook("user_flush", lambda *_: isolate_page(machine.ram, 2, frames[3]))
    machine.enter("do_munmap", 0, 1, ANON_VPN, ANON_VPN + 8)
    assert machine.asked() == []
    if gone == "moved":
        assert migrate_one(machine.ram, 2, frames[3], 1)
    else:
        machine.ram.work_list[2, 0], machine.ram.cpu_clock[2] = frames[3], LATER
        machine.ram.sc_by[2] = machine.ram.sc_flags[2] = 0
        assert machine.enter("shrink_folio_list", 2, 2, 0, 1, 0) == 1
    assert all(machine.ram.page_key[pfn] for pfn in frames)


@LAZY
@pytest.mark.parametrize("why", WHY.values())
def test_the_design_says_why_it_asked(small_machine, design, why):
    """One round to the other CPU, put down to what it was for; nothing under the other reasons."""
    machine = two_cpus(small_machine, design)
    machine.touch(ANON_VPN + 100, STORE)
    reclaim(machine)
    if why == "taken":
        give_back(machine, take_all(machine))
    elif why == "timed_out":
        machine.enter("hook_tick", 0)
        machine.ram.cpu_clock[0] += TIMEOUT_NS + 1
        machine.enter("hook_tick", 0)
    elif why == "visible":
        machine.touch(ANON_VPN + 7, STORE)
    else:
        write_to_file(machine.ram, 0, FILE, 3)
    found = held_statistics(machine.ram)
    assert found["rounds"] == found["asked"] == {name: int(name == why) for name in WHY.values()}
    everybody(machine)


# --- planted bugs -------------------------------------------------------------------------------------------


@hook("tick")
def epoch_tick_without_flush(ram, cpu, a, b, c, d):
    """Says that it has flushed, and has not."""
    state = epoch_state(ram)
    store_release(state.reached, cpu, load_acquire(state.stamp, 0))
    look_at_all_cpus(ram, state)
    advance_zones(ram, state, cpu)
    return 0


@hook("tick")
def latr_tick_without_flush(ram, cpu, a, b, c, d):
    """Clears its bits, and has not flushed."""
    state = latr_state(ram)
    for record in range(ram.nr_cpus * RING):
        stamp = load_acquire(state.record_stamp, record)
        if stamp != 0 and cpumask_test_cpu(cpu, state.record_mask, record):
            leave_record(state, record, cpu, stamp)
    look_at_all_records(ram, state)
    advance_zones(ram, state, cpu)
    return 0


class BrokenEpoch(Epoch):
    """quiescent points without a flush"""

    hooks = replaced(Epoch.hooks, epoch_tick_without_flush)


class BrokenLatr(Latr):
    """sweeps without a flush"""

    hooks = replaced(Latr.hooks, latr_tick_without_flush)


@hook("map")
def map_at_once(ram, cpu, mm, start, end, d):
    """Does not look whether the addresses have been swept."""
    return 0


class ForgetfulLatr(Latr):
    """gives addresses out again before the sweep"""

    def __init__(self):
        super().__init__()
        self.hooks = replaced(self.hooks, map_at_once)


@pytest.mark.parametrize("design", ["latr", ForgetfulLatr()], ids=["latr", "forgetful"])
def test_the_oracle_sees_an_address_that_was_mapped_again_too_early(broken_machine, design):
    """CPU 0 writes to a new page at the address; CPU 1 reads the old one through its old translation (access
    after completion).
    """
    machine, _ = with_memory(broken_machine, design)
    munmap(machine)
    do_mmap(machine.ram, 0, 1, ANON_REGION, 0, 8)
    machine.touch(ANON_VPN, STORE)
    look_for_completed_changes(machine.ram, 1)
    machine.touch(ANON_VPN, cpu=1)
    assert machine.ram.run_violations[0] == (design != "latr")


@pytest.mark.parametrize("design", [BrokenEpoch(), BrokenLatr()], ids=["epoch", "latr"])
def test_the_oracle_sees_a_sweep_that_did_not_flush(broken_machine, design):
    """The schedule of test_frames_are_free_when_every_cpu_has_passed; then CPU 1 reads what it should have
    forgotten.
    """
    machine = two_cpus(broken_machine, design)
    reclaim(machine)
    everybody(machine)
    take_all(machine)
    assert machine.asked() == []
    machine.touch(FILE_VPN, cpu=1)
    assert machine.ram.run_violations[0] == 1
