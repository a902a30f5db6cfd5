"""The ladder of watermarks is Linux's own: checked against the /proc/zoneinfo of a real 6.12 kernel."""

from __future__ import annotations

import pytest

from emulator.machine import load_machine
from emulator.watermarks import Watermarks, min_free_kbytes, pcp_limits, zone_watermarks

# zones of two guests under Linux 6.12.117: managed pages, min, low, high; and that guest's min_free_kbytes
SMALL = (3410, [(3840, 17, 21, 25), (50287, 234, 292, 350), (128926, 600, 750, 900)])
LARGE = (4568, [(3840, 13, 16, 19), (82543, 287, 369, 451), (241566, 841, 1082, 1323)])


@pytest.mark.parametrize(("min_free_kb", "zones"), [SMALL, LARGE])
@pytest.mark.parametrize("automatic", [False, True])
def test_watermarks_are_those_of_a_real_kernel(min_free_kb, zones, automatic):
    """min, low and high of each zone; in LARGE the step is managed / 1000 (watermark_scale_factor), in SMALL
    it is min / 4.

    Left to itself, min_free_kbytes comes out as that kernel's too: what it printed is in SMALL and LARGE.
    """
    found = zone_watermarks([managed for managed, *_ in zones], min_free_kb=0 if automatic else min_free_kb)
    assert [(mark.min, mark.low, mark.high) for mark in found] == [zone[1:] for zone in zones]
    assert [mark.promo - mark.high for mark in found] == [mark.high - mark.low for mark in found]


@pytest.mark.parametrize(
    ("name", "zones"), [("guest-8cpu-tcg", SMALL[1]), ("guest-8cpu-tcg-large", LARGE[1])]
)
def test_the_recorded_guest_has_the_recorded_zones(name, zones):
    """Managed pages, watermarks, what DMA keeps from DMA32's allocations (a 256th), and the order in which
    zones are tried.
    """
    machine = load_machine(name, scale=1)
    found = [
        (zone.managed_pages, mark.min, mark.low, mark.high)
        for zone, mark in zip(machine.zones, machine.watermarks)
    ]
    assert found == zones
    assert [zone.lowmem_reserve for zone in machine.zones] == [zones[1][0] // 256, 0, 0]
    assert [machine.zonelist(node) for node in (0, 1)] == [[1, 0, 2], [2, 1, 0]], (
        "DMA32 before DMA, then the other node"
    )


@pytest.mark.parametrize(
    ("lowmem_kbytes", "expected"),
    [
        (16, 128),
        (1024, 128),
        (1024 * 1024, 4096),
        (4 * 1024 * 1024, 8192),
        (138 * 1024 * 1024, 48117),
        (2**42 // 1024, 262144),
    ],
)
def test_min_free_kbytes_is_the_square_root_within_bounds(lowmem_kbytes, expected):
    """int_sqrt(lowmem_kbytes * 16) within 128..262144: the values of init_per_zone_wmark_min's comment."""
    assert min_free_kbytes(lowmem_kbytes) == expected


def test_full_size_ladder_by_hand():
    """42 + 96 GiB: 48117 kB at first, 48061 kB = 12015 pages of what lies above HIGH, shared 42:96; steps of
    a thousandth of each node.
    """
    dram, cxl = zone_watermarks([11010048, 25165824])
    assert dram == Watermarks(min=3656, low=3656 + 11010, high=3656 + 22020, promo=3656 + 33030)
    assert cxl == Watermarks(min=8358, low=8358 + 25165, high=8358 + 50330, promo=8358 + 75495)


def test_scaling_divides_each_step_by_the_square_root():
    """1/1024 of the memory keeps 1/32 of the reserve, not 1/1024."""
    dram, cxl = load_machine("xeon6430-cxl", scale=1024).watermarks
    assert dram == Watermarks(min=3656 // 32, low=114 + 344, high=114 + 688, promo=114 + 1032)
    assert cxl.min == 8358 // 32


@pytest.mark.parametrize(
    ("pages", "batch"),
    [(1024, 1), (10752, 1), (24576, 7), (65536, 15), (131072, 31), (262144, 63), (11010048, 63)],
)
def test_pcp_batch_is_that_of_zone_batchsize(pages, batch):
    """A thousandth of the zone / 4, at most 64, as 2^n - 1: 15 at 256 MiB, 31 at 512, 63 from 1 GiB on."""
    assert pcp_limits(pages, 0, local_cpus=1, online_cpus=1).batch == batch


def test_pcp_high_is_split_over_the_nodes_cpus_or_all_of_them():
    """high starts at the low watermark split over the node's CPUs, never below 4 batches; a CPU-less node
    splits over all.
    """
    assert pcp_limits(65536, 6400, local_cpus=8, online_cpus=8).high_min == 800
    assert pcp_limits(65536, 6400, local_cpus=0, online_cpus=64).high_min == 100
    assert pcp_limits(65536, 64, local_cpus=64, online_cpus=64).high_min == 60
    assert pcp_limits(65536, 64, local_cpus=8, online_cpus=8).high_max == 65536 // 8 // 8


def test_scaled_pcp_lists_leave_most_of_a_node_to_others():
    """64 CPUs that fill their lists of a scaled node together hold less than a seventh of it."""
    machine = load_machine("xeon6430-cxl", scale=1024)
    for pages, limits in zip(machine.pages, machine.pcp):
        assert machine.cpus * limits.high_max <= pages / 7
