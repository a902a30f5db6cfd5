"""Virtual time goes on together: who waits for the host to carry its interrupts is not left behind."""

import pytest

from emulator import load_machine, run_design


@pytest.mark.smoke
def test_waiting_for_acks_costs_what_it_costs_and_no_more():
    """Shootdowns are a small part of a run's time; while their waiters were left behind vanilla took 2 to 17 times as long as LUF."""
    machine = load_machine("xeon6430-cxl", scale=1024, cpus=16)
    linux, luf = (run_design(name, machine, "llama3x15", tokens=2, leases=2, seed=1) for name in ("linux", "luf"))
    assert linux.tlb_shootdowns > 10_000
    assert linux.runtime_mean_ns < 1.5 * luf.runtime_mean_ns
