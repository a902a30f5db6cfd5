"""The designs without held frames: what each sends, when, and what makes it safe; every design is clean in
controlled runs.
"""

import pytest

from allocator.rmap import UNMAP_DONE, UNMAP_FOR_RECLAIM, page_referenced, try_to_unmap
from allocator.unmap import zap_range
from cpus.abi.numbers import STORE
from cpus.compiled import entry
from cpus.install import install_at
from cpus.ipi import IPI_FLUSH, IPI_FLUSH_EARLY_ACK, ack, irq_handler
from cpus.page_table import PTE_ACCESSED
from designs import names
from designs.memory_map import MACHINE
from emulator import load_machine, run_design
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN
from tests.designs.lazily import PAGES, give_back, reclaim, take_all, two_cpus

SHELF = ("eager", "latr", "abis", "fpr", "early_ack", "invlpgb", "epoch")


def test_they_are_on_the_shelf_with_a_line_each():
    known = names()
    assert all(known[name] for name in SHELF)


@pytest.mark.parametrize("design", SHELF)
def test_clean_in_controlled_runs(design):
    """Three seeds on 4 CPUs under memory pressure: no violation, and everything accounted for."""
    machine = load_machine("guest-8cpu", scale=16, cpus=4)
    for seed in (1, 2, 3):
        assert run_design(design, machine, "tiny8:scale=1", tokens=1, leases=1, seed=seed).clean


def test_eager_asks_for_each_page(small_machine):
    machine = two_cpus(small_machine, "eager")
    reclaim(machine)
    assert machine.asked() == [[1]] * PAGES


# --- ABIS ---------------------------------------------------------------------------------------------------


def clear_young(machine):
    """Reclaim has looked at the pages and cleared their accessed bits, without a flush."""
    for i in range(PAGES):
        page_referenced(machine.ram, 0, machine.pfn(1, FILE_VPN + i))
    assert not any(machine.pte(1, FILE_VPN + i) & PTE_ACCESSED for i in range(PAGES))


def unmap_all(machine):
    """Unmap the pages as reclaim does, keeping them cached."""
    for i in range(PAGES):
        pfn = machine.cached(FILE, i)
        machine.ram.page_refcount[pfn] += 1
        assert try_to_unmap(machine.ram, 0, pfn, UNMAP_FOR_RECLAIM) == UNMAP_DONE
        machine.ram.page_refcount[pfn] -= 1
    machine.enter("hook_unmap_flush", 0)


def test_abis_flushes_what_was_accessed(small_machine):
    machine = two_cpus(small_machine, "abis")
    unmap_all(machine)
    assert machine.asked() == [[1]]


def test_abis_does_not_trust_a_bit_that_was_cleared_without_a_flush(small_machine):
    """Both CPUs have entries that they filled before the bits were cleared."""
    machine = two_cpus(small_machine, "abis")
    clear_young(machine)
    unmap_all(machine)
    assert machine.asked() == [[1]]


def test_abis_skips_what_nobody_has_used_since_all_have_flushed(small_machine):
    """bits cleared       both CPUs flush everything (something else was unmapped)       unmapped: nobody is
    asked
    """
    machine = two_cpus(small_machine, "abis")
    clear_young(machine)
    zap_range(machine.ram, 0, 1, ANON_VPN, ANON_VPN + 1)
    machine.enter("flush_tlb_mm_range", 0, 1, 0, 1 << 60, 0)
    machine.asked()
    unmap_all(machine)
    assert machine.asked() == []
    assert machine.ram.design["skipped"].sum() == PAGES
    machine.touch(FILE_VPN, pages=PAGES, cpu=1)
    assert machine.pte(1, FILE_VPN), "it had to fault"


def test_abis_sees_a_use_after_the_flush(small_machine):
    """CPU 1 reads a page again in between: its bit is set, and it is flushed."""
    machine = two_cpus(small_machine, "abis")
    clear_young(machine)
    machine.enter("flush_tlb_mm_range", 0, 1, 0, 1 << 60, 0)
    machine.touch(FILE_VPN + 5, cpu=1)
    machine.asked()
    unmap_all(machine)
    assert machine.asked() == [[1]]
    assert machine.ram.design["skipped"].sum() == PAGES - 1


# --- early acknowledgement ----------------------------------------------------------------------------------


@entry(irq_handler.text)
def acks_and_forgets(ram, cpu, sender):
    """A handler that acks early and returns to user code before it has flushed."""
    ack(ram, cpu, sender)
    return 1


def test_early_ack_flushes_before_it_returns(small_machine):
    """When CPU 0 goes on, CPU 1 has acked; whatever it touches next, it has flushed."""
    machine = two_cpus(small_machine, "early_ack")
    frames = reclaim(machine)
    assert machine.asked() == [[1]]
    pages = take_all(machine)
    assert set(frames) <= set(pages)
    give_back(machine, pages)
    machine.touch(FILE_VPN, cpu=1)
    assert machine.pte(1, FILE_VPN), "it had to fault"


def test_early_ack_waits_less(small_machine):
    """The initiator waits for the way to the handler alone."""
    waited = {}
    for design in ("linux", "early_ack"):
        machine = two_cpus(small_machine, design)
        for cost in MACHINE.costs:
            machine.ram.set_constant(
                f"cost_{cost.name}", {"ipi_latency": 1_000, "ipi_handle": 2_000}.get(cost.name, 0)
            )
        machine.enter("flush_tlb_mm_range", 0, 1, FILE_VPN, FILE_VPN + 1, 0)
        waited[design] = machine.count("shootdown_wait_ns")
    assert waited == {"linux": 3_000, "early_ack": 1_000}


def test_early_ack_is_late_if_page_tables_are_freed(small_machine):
    machine = two_cpus(small_machine, "early_ack")
    kinds = []
    machine.on_send = lambda cpu, _: kinds.append(int(machine.ram.call_kind[cpu]))
    for freed_tables in (0, 1):
        machine.enter("flush_tlb_mm_range", 0, 1, FILE_VPN, FILE_VPN + 1, freed_tables)
    assert kinds == [IPI_FLUSH_EARLY_ACK, IPI_FLUSH]


def test_the_oracle_sees_an_ack_without_a_flush(broken_machine):
    machine = two_cpus(broken_machine, "early_ack")
    install_at(machine.ram, irq_handler.text, acks_and_forgets)
    reclaim(machine)
    take_all(machine)
    machine.touch(FILE_VPN, cpu=1)
    assert machine.ram.run_violations[0] == 1


# --- INVLPGB ------------------------------------------------------------------------------------------------


def test_invlpgb_interrupts_nobody(small_machine):
    """Three targets: no CPU counts a shootdown or loses time, and all have flushed when CPU 0 goes on."""
    machine = small_machine(cpus=4, mms=1, design="invlpgb")
    for cpu in range(4):
        machine.run(1, cpu=cpu)
        machine.touch(FILE_VPN, pages=4, cpu=cpu)
    machine.enter("flush_tlb_mm_range", 0, 1, 0, 1 << 60, 0)
    assert machine.asked() == [[1, 2, 3]], "the wire carries it all the same"
    assert machine.ram.irq_tlb[1:].sum() == 0
    assert machine.count("irq_ns") == 0
    assert machine.ram.tlb_tag[1:].sum() == 0


def test_invlpgb_keeps_to_interrupts_for_few(small_machine):
    machine = two_cpus(small_machine, "invlpgb")
    machine.enter("flush_tlb_mm_range", 0, 1, 0, 1 << 60, 0)
    assert machine.count("irq_tlb") == 1


# --- FPR ----------------------------------------------------------------------------------------------------


def with_buffer(build, **wanted):
    """Process 1 on CPUs 0 and 1, process 2 on CPU 2; 8 anonymous pages that both CPUs of process 1 have."""
    machine = build(cpus=3, mms=2, pages=(400,), design="fpr", **wanted)
    for cpu, mm in ((0, 1), (1, 1), (2, 2)):
        machine.run(mm, cpu=cpu)
        machine.touch(ANON_VPN + 200, STORE, cpu=cpu)
    machine.touch(ANON_VPN, STORE, pages=8)
    machine.touch(ANON_VPN, pages=8, cpu=1)
    machine.enter("lru_add_drain", 0)
    machine.asked()
    return machine


def test_fpr_munmap_interrupts_nobody_and_the_process_gets_its_pages_back(small_machine):
    machine = with_buffer(small_machine)
    frames = {machine.pfn(1, ANON_VPN + i) for i in range(8)}
    machine.enter("do_munmap", 0, 1, ANON_VPN, ANON_VPN + 8)
    assert machine.asked() == []
    while int(machine.ram.pcp_first[0, 0]) not in frames:  # clean pages of the list are used first
        machine.touch(ANON_VPN + 8 + sum(machine.pte(1, ANON_VPN + 8 + i) != 0 for i in range(150)), STORE)
    free = next(i for i in range(8, 200) if not machine.pte(1, ANON_VPN + i))
    machine.touch(ANON_VPN + free, STORE)
    assert machine.pfn(1, ANON_VPN + free) in frames
    assert machine.ram.design["recycled"].sum() == 1
    assert machine.asked() == []


def test_fpr_flushes_before_anybody_else_gets_a_page(small_machine):
    """CPU 2 runs another process and takes all memory: CPU 1 is interrupted once, before the first held page
    is used.
    """
    machine = with_buffer(small_machine)
    machine.enter("do_munmap", 0, 1, ANON_VPN, ANON_VPN + 8)
    machine.enter("drain_all_pages", 0, 0)
    pages = take_all(machine, cpu=2)
    assert [targets for targets in machine.asked() if 1 in targets] == [[0, 1]]
    give_back(machine, pages)


def test_fpr_flushes_before_addresses_are_used_again(small_machine):
    machine = with_buffer(small_machine)
    machine.enter("do_munmap", 0, 1, ANON_VPN, ANON_VPN + 8)
    machine.enter("hook_map", 0, 1, ANON_VPN + 100, ANON_VPN + 108)
    assert machine.asked() == [], "other addresses"
    machine.enter("hook_map", 0, 1, ANON_VPN + 4, ANON_VPN + 6)
    assert machine.asked() == [[1]]
