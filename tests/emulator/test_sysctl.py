"""A knob of the kernel is declared once (allocator/sysctl.py); machine files give it, somebody reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from allocator.sysctl import SYSCTLS, Sysctl
from designs.memory_map import MACHINE
from emulator.machine import MachineError, load_machine, machine_names
from tests.support.sources import names_read, sources

MACHINE_FILE = "xeon6430-cxl"


def unread(known: Mapping[str, Sysctl], kernels: Iterable[str], makers: Iterable[str]) -> list[str]:
    """Say which knobs nobody reads: kernels by their constant, who makes machines by their own name."""
    by_kernels, by_makers = names_read(kernels), names_read(makers)
    return [
        f"sysctl {one.name} is declared, but no kernel reads ram.{one.constant}"
        if one.constant
        else f"sysctl {one.name} is declared, but nobody who makes a machine reads it"
        for one in known.values()
        if (one.constant or one.name) not in (by_kernels if one.constant else by_makers)
    ]


def half_declared(known: Iterable[Sysctl]) -> list[str]:
    """Say which knobs do not say what they are, or cannot have their own default."""
    found = []
    for one in known:
        if not one.linux or not one.does:
            found.append(f"sysctl {one.name} must say what Linux calls it, and what it does")
        if not one.least <= (one.least if one.default is None else one.default) <= one.most:
            found.append(f"sysctl {one.name} must have a default in its range (got {one.default})")
    return found


def test_every_knob_is_declared_in_full_and_read():
    """Also: kernels read a constant that the memory map has."""
    kernels, makers = sources("allocator", "cpus").values(), sources("emulator").values()
    assert unread(SYSCTLS, kernels, makers) == []
    assert half_declared(SYSCTLS.values()) == []
    assert {one.constant for one in SYSCTLS.values() if one.constant} <= set(MACHINE.type.places)


def test_a_half_done_knob_is_named():
    """Declared, and read by nobody; without words; with a default out of range."""
    more = SYSCTLS | {
        "zswap": Sysctl("zswap", "zswap.enabled", "compress", False, True, constant="zswap_on"),
        "laptop_mode": Sysctl("laptop_mode", "vm.laptop_mode", "", 0, 1, default=2),
    }
    kernels, makers = sources("allocator", "cpus").values(), sources("emulator").values()
    assert unread(more, kernels, makers) == [
        "sysctl zswap is declared, but no kernel reads ram.zswap_on",
        "sysctl laptop_mode is declared, but nobody who makes a machine reads it",
    ]
    assert half_declared(more.values()) == [
        "sysctl laptop_mode must say what Linux calls it, and what it does",
        "sysctl laptop_mode must have a default in its range (got 2)",
    ]


def test_machines_that_ship_give_every_knob():
    """Those without a default; a range is what the declaration says, a switch is true or false."""
    for name in machine_names():
        assert all(hasattr(load_machine(name).sysctl, knob) for knob in SYSCTLS)
    with pytest.raises(MachineError, match=r"'sysctl.swappiness' must be at most 200 \(got 201\)"):
        load_machine(MACHINE_FILE, overrides={"sysctl.swappiness": 201})
    with pytest.raises(MachineError, match=r"'sysctl.init_on_free' must be true or false \(got 1\)"):
        load_machine(MACHINE_FILE, overrides={"sysctl.init_on_free": 1})


@pytest.mark.parametrize(
    ("name", "value", "scale", "constant"),
    [
        ("numa_balancing_scan_size_mb", 256, 256.0, 256),
        ("numa_balancing_scan_size_mb", 256, 8192.0, 16),
        ("numa_balancing_promote_rate_limit_mbps", 65536, 1024.0, 16384),
        ("numa_balancing_scan_delay_ms", 1000, 1024.0, 1_000_000_000),
        ("numa_balancing", 1, 1.0, 0),
        ("numa_balancing", 2, 1.0, 1),
        ("readahead_kb", 0, 1.0, 1),
        ("fault_around_bytes", 65536, 1.0, 16),
    ],
)
def test_what_knobs_become(name, value, scale, constant):
    """Pages, ns, and shares of a scaled machine's memory."""
    assert SYSCTLS[name].becomes(value, scale) == constant
