"""Who is interrupted for a flush, what it drops, and which address spaces survive a switch."""

import pytest

from allocator.tlb_flush import flush_batch, flush_tlb_mm_range, flush_tlb_page, inc_mm_tlb_gen
from cpus.abi.numbers import STORE
from cpus.compiled import kernel
from cpus.cpumask import cpumask_or, cpus_of
from emulator.small_machine import ANON_VPN

CPU, CEILING = 0, 33


@pytest.fixture
def machine(small_machine):
    """mm 1 runs on CPUs 0, 1 and 2; mm 2 on CPU 3; CPU 4 has never run anything."""
    return started(small_machine(cpus=5, mms=2))


def started(machine):
    for cpu, mm in enumerate((1, 1, 1, 2)):
        machine.run(mm, cpu=cpu)
        machine.touch(ANON_VPN, STORE, pages=40, cpu=cpu)
    return machine


def walks(machine, cpu, vpn=ANON_VPN, pages=1):
    """How many of these pages are not in the CPU's TLB any more."""
    before = machine.count("dtlb_store_misses")
    machine.touch(vpn, STORE, pages=pages, cpu=cpu)
    return machine.count("dtlb_store_misses") - before


def flushes(machine):
    return machine.count("nr_tlb_local_flush_all"), machine.count("nr_tlb_local_flush_one")


@kernel
def _add_to_batch(ram, cpu, mm):
    cpumask_or(ram.ubc_mask, cpu, ram.mm_cpumask, mm)


@kernel
def _flush_batch(ram, cpu):
    flush_batch(ram, cpu, ram.ubc_mask, cpu)


def test_only_cpus_that_may_cache_the_mm_are_asked(machine):
    """Not the CPU of the other process, not the one that never ran any, and oneself without an interrupt."""
    assert flush_tlb_page(machine.ram, CPU, 1, ANON_VPN) == 2
    assert machine.asked() == [[1, 2]]
    assert [walks(machine, cpu) for cpu in range(4)] == [1, 1, 1, 0]
    assert [
        machine.count(name) for name in ("nr_tlb_remote_flush", "nr_tlb_remote_flush_received", "irq_tlb")
    ] == [1, 2, 2]


def test_a_cpu_that_left_the_mm_is_not_asked(machine):
    machine.run(2, cpu=2)
    flush_tlb_page(machine.ram, CPU, 1, ANON_VPN)
    assert machine.asked() == [[1]]


def test_lazy_cpus_are_skipped_and_catch_up(machine):
    """CPU 2 idles with the mm loaded. It is not asked; when it runs the mm again, it finds that it has missed
    something.
    """
    machine.idle(2)
    flush_tlb_page(machine.ram, CPU, 1, ANON_VPN)
    assert machine.asked() == [[1]]
    machine.run(1, cpu=2)
    assert walks(machine, 2, pages=40) == 40


def test_a_lazy_cpu_that_asks_others_does_not_flush_itself(machine):
    """kswapd's CPU has the mm loaded lazily: it stays lazy, and compares generations when it runs the mm
    again. Alone it lets the mm go.
    """
    machine.idle(CPU)
    flush_tlb_page(machine.ram, CPU, 1, ANON_VPN)
    assert machine.asked() == [[1, 2]]
    assert (machine.ram.cpu_loaded_mm[CPU], machine.ram.cpu_lazy[CPU]) == (1, 1)
    for cpu in (1, 2):
        machine.run(2, cpu=cpu)
    flush_tlb_page(machine.ram, CPU, 1, ANON_VPN)
    assert machine.ram.cpu_loaded_mm[CPU] == 0
    machine.run(1, cpu=CPU)
    assert walks(machine, CPU) == 1


def test_a_lazy_cpu_that_missed_nothing_keeps_its_tlb(machine):
    machine.idle(2)
    machine.run(1, cpu=2)
    assert walks(machine, 2, pages=40) == 0


def test_when_page_tables_go_lazy_cpus_are_asked_too(machine):
    """Their speculative walks could use them; they leave the mm for good."""
    machine.idle(2)
    assert flush_tlb_mm_range(machine.ram, CPU, 1, ANON_VPN, ANON_VPN + 1, True) == 2
    assert machine.asked() == [[1, 2]]
    assert machine.ram.cpu_loaded_mm[2] == 0
    assert cpus_of(machine.ram.mm_cpumask[1]) == [0, 1]


@pytest.mark.parametrize(
    "pages, dropped, local", [(CEILING, CEILING, (0, CEILING)), (CEILING + 1, 40, (1, 0))]
)
def test_more_than_33_pages_become_a_full_flush(machine, pages, dropped, local):
    """tlb_single_page_flush_ceiling. Local flushes are counted by who asked, not by the CPUs that were
    interrupted (flush_tlb_func).
    """
    before = flushes(machine)
    flush_tlb_mm_range(machine.ram, CPU, 1, ANON_VPN, ANON_VPN + pages, False)
    assert tuple(after - b for after, b in zip(flushes(machine), before)) == local
    assert walks(machine, 1, pages=40) == dropped


def test_who_is_two_generations_behind_flushes_everything(machine):
    """A range says only what the newest request needs."""
    inc_mm_tlb_gen(machine.ram, 1)
    flush_tlb_page(machine.ram, CPU, 1, ANON_VPN)
    assert walks(machine, 1, pages=40) == 40


def test_a_request_that_was_overtaken_does_nothing(machine):
    """CPU 1 has flushed everything for a later request already."""
    flush_tlb_mm_range(machine.ram, CPU, 1, 0, 1 << 40, False)
    before = flushes(machine)
    _add_to_batch(machine.ram, CPU, 1)
    _flush_batch(machine.ram, CPU)
    assert flushes(machine) == before
    assert machine.asked() == [[1, 2], [1, 2]], "asked all the same"


def test_a_batch_is_one_round_for_several_address_spaces(machine):
    for mm in (1, 2):
        inc_mm_tlb_gen(machine.ram, mm)
        _add_to_batch(machine.ram, CPU, mm)
    _flush_batch(machine.ram, CPU)
    assert machine.asked() == [[1, 2, 3]]
    assert [walks(machine, cpu, pages=40) for cpu in range(4)] == [40] * 4
    assert cpus_of(machine.ram.ubc_mask[CPU]) == []


@pytest.mark.parametrize("pcid, missing", [(1, 0), (0, 40)])
def test_with_pcid_an_address_space_survives_a_switch(small_machine, pcid, missing):
    """There and back: with PCID the entries are still there, without it the write to cr3 flushed them."""
    machine = started(small_machine(cpus=5, mms=2, pcid=pcid, nr_asids=6 if pcid else 1))
    machine.run(2)
    machine.run(1)
    assert walks(machine, CPU, pages=40) == missing


def test_what_was_missed_while_away_is_made_up_for_at_the_switch(machine):
    """CPU 2 left; the flush does not reach it; coming back, its slot is behind and is flushed as a whole."""
    machine.run(2, cpu=2)
    flush_tlb_page(machine.ram, CPU, 1, ANON_VPN)
    machine.run(1, cpu=2)
    assert walks(machine, 2, pages=40) == 40


def test_the_oldest_of_six_slots_is_recycled(small_machine):
    """Seven address spaces in turn: the first one has lost its slot."""
    machine = small_machine(cpus=1, mms=7)
    for mm in range(1, 8):
        machine.run(mm)
        machine.touch(ANON_VPN, STORE)
    machine.run(2)
    assert walks(machine, CPU) == 0
    machine.run(1)
    assert walks(machine, CPU) == 1
    assert machine.count("slot_recycled") == 2
