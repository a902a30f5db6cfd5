"""luf_hold: lazily unmapped frames stay aside until a flush, and are nobody's meanwhile."""

import pytest

from allocator.filemap import truncate_file_page, write_to_file
from allocator.page import PG_KEPT
from cpus.abi.numbers import LOAD, STORE
from cpus.page_table import PTE_PRESENT, PTE_WRITE
from designs import design
from emulator.experiment import run_design
from emulator.machine import load_machine
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN, SHARED_VPN
from tests.designs.test_luf import reclaim


@pytest.fixture
def machine(small_machine):
    """Process 1 runs on CPUs 0 and 1."""
    machine = small_machine(cpus=4, mms=2, design="luf_hold")
    machine.run(1, cpu=0)
    machine.run(1, cpu=1)
    machine.ram.design["kept_max"][0] = 100
    return machine


def kept(machine, frames):
    return [pfn for pfn in frames if machine.flags(pfn) & PG_KEPT]


def test_pages_only_read_stay_aside(machine):
    """They are not free, nobody is interrupted, and the other CPU goes on reading them."""
    frames = reclaim(machine)
    assert kept(machine, frames) == frames
    assert machine.asked() == []
    faults = machine.count("pgfault")
    machine.touch(FILE_VPN, pages=16, cpu=1)
    assert machine.count("pgfault") == faults


def test_pressure_gives_them_all_back_with_one_flush(machine):
    frames = reclaim(machine)
    free = int(machine.ram.zone_free[0] + machine.ram.pcp_count[:, 0].sum())
    held = int(machine.ram.design["kept_count"][0])
    machine.enter("hook_pressure", 0, 0)
    assert machine.asked() == [[1]]
    assert kept(machine, frames) == []
    assert machine.ram.zone_free[0] + machine.ram.pcp_count[:, 0].sum() == free + held
    machine.enter("hook_pressure", 0, 0)
    assert machine.asked() == [], "nothing is aside any more"


def test_more_than_the_bound_are_not_kept(machine):
    machine.ram.design["kept_max"][0] = 8
    reclaim(machine, pages=64)
    assert machine.asked() != []
    assert machine.ram.design["kept_most"][0] < 64 + 32


def test_pages_that_were_written_are_flushed_and_freed(machine):
    machine.use(SHARED_VPN, 16, STORE, cpu=0)
    frames = reclaim(machine, vpn=SHARED_VPN)
    assert machine.asked() != []
    assert kept(machine, frames) == []


@pytest.mark.parametrize("change", [write_to_file, truncate_file_page], ids=["write", "truncate"])
def test_before_a_file_changes_all_are_flushed(machine, change):
    reclaim(machine)
    change(machine.ram, 0, FILE, 3)
    assert machine.asked() == [[1]]
    machine.touch(FILE_VPN + 3, cpu=1)


def test_before_a_mapping_can_be_written_all_are_flushed(machine):
    reclaim(machine)
    seen = []
    machine.on_send = lambda cpu, targets: seen.append(
        (targets, machine.pte(1, ANON_VPN + 7) & (PTE_PRESENT | PTE_WRITE))
    )
    machine.touch(ANON_VPN + 7, STORE)
    assert seen == [([1], 0)]


def test_who_needs_them_while_another_flushes_waits(machine):
    """CPU 0 has emptied the list and waits for its acks: CPU 3 must not think that nothing is pending."""
    reclaim(machine)
    slept = []

    def flusher_goes_on(cpu):
        slept.append(cpu)
        machine.ram.design["flushing"][0] = 0
        machine.ram.design["flusher_lock"][0] = 0

    machine.enter("hook_pressure", 0, 0)
    machine.ram.design["flushing"][0] = 1
    machine.ram.design["flusher_lock"][0] = 1
    machine.on_wait = flusher_goes_on
    machine.enter("hook_pressure", 3, 0)
    assert slept == [3]


def test_nobody_reads_what_belongs_to_another(machine):
    """The whole way, judged by the oracle at the end of the test."""
    reclaim(machine, pages=64)
    machine.ram.wmark_min[0] = machine.ram.wmark_low[0] = 0
    for page in range(190):
        machine.touch(ANON_VPN + page, STORE, cpu=0)
        machine.touch(FILE_VPN + page % 16, LOAD, cpu=1)
    machine.ram.wmark_min[0], machine.ram.wmark_low[0] = 16, 24
    machine.forget_wakeups()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_clean_under_the_oracle(seed):
    """4 CPUs, controlled mode: pages were kept, fewer interrupts than vanilla's unmaps, every frame accounted
    for.
    """
    result = run_design(
        design("luf_hold"), load_machine("xeon6430-cxl", scale=4096, cpus=4), tokens=1, leases=1, seed=seed
    )
    assert result.violations == []
    assert result.unaccounted == {}
    assert result.design_stats["kept_total"] > result.design_stats["kept_most"] > 0
