"""Machines for tests of the kernel: whatever a test does, everything must be accounted for when it ends."""

import pytest

from emulator.judge.audit import audit_text
from emulator.small_machine import SmallMachine


@pytest.fixture
def small_machine():
    """Build machines with `small_machine(...)`; at the end each is audited, and no panic, no violation and no
    exposure may have been.
    """
    built: list[SmallMachine] = []

    def build(**wanted) -> SmallMachine:
        built.append(SmallMachine(**wanted))
        return built[-1]

    yield build
    for machine in built:
        ram = machine.ram
        found = machine.panics, audit_text(ram), int(ram.run_violations[0]), int(ram.run_exposures[0])
        ram.close()
        assert found == ([], "", 0, 0)


@pytest.fixture
def broken_machine():
    """The same for tests that break the machine on purpose: nothing is asked at the end."""
    built: list[SmallMachine] = []

    def build(**wanted) -> SmallMachine:
        built.append(SmallMachine(**wanted))
        return built[-1]

    yield build
    for machine in built:
        machine.ram.close()
