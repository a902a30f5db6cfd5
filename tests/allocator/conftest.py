"""Machines for tests of the kernel: whatever a test does, everything must be accounted for when it ends."""

import pytest

from emulator.judge.audit import audit_text
from emulator.small_machine import SmallMachine


@pytest.fixture
def small_machine():
    """Build machines with `small_machine(...)`; at the end each is audited, and no panic and no violation may
    have been.
    """
    built: list[SmallMachine] = []

    def build(**wanted) -> SmallMachine:
        built.append(SmallMachine(**wanted))
        return built[-1]

    yield build
    for machine in built:
        found = machine.panics, audit_text(machine.ram), int(machine.ram.run_violations[0])
        machine.ram.close()
        assert found == ([], "", 0)


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
