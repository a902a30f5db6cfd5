"""Watermarks and per-CPU page list limits as Linux 6.12 computes them at boot, and their scaled-down
counterparts.

Stands for `mm/page_alloc.c`: calculate_min_free_kbytes, __setup_per_zone_wmarks, zone_batchsize,
zone_highsize. Scaling: Linux lets min_free_kbytes grow with the square root of memory, so a machine of 1/s of
the memory has 1/sqrt(s) of the reserve. We scale the whole ladder like that: each step of the full-size
machine is divided by sqrt(s). (Divided by s, the reserve of a node of a few thousand pages would be smaller
than one reclaim batch of 32 pages.)
Left out: highmem and movable zones, watermark boosting, and khugepaged's raising of min_free_kbytes (we have
no huge pages).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cpus.abi.numbers import PAGE_BYTES

PAGE_KB = PAGE_BYTES // 1024
LOWMEM_RESERVE_RATIO = 256  # sysctl_lowmem_reserve_ratio of DMA and DMA32
MIN_PERCPU_PAGELIST_HIGH_FRACTION = 8


@dataclass(frozen=True, slots=True)
class Watermarks:
    """One zone's watermarks in pages: kswapd wakes below `low`, sleeps above `high` (`promo` when tiering),
    `min` stops allocations.
    """

    min: int
    low: int
    high: int
    promo: int


@dataclass(frozen=True, slots=True)
class PcpLimits:
    """One CPU's list of free pages of one zone: pages moved at a time, and the bounds between which `high` is
    tuned.
    """

    batch: int
    high_min: int
    high_max: int


def min_free_kbytes(lowmem_kbytes: int) -> int:
    """Return vm.min_free_kbytes as chosen at boot: int_sqrt(lowmem_kbytes * 16) within 128 and 262144."""
    return min(max(math.isqrt(lowmem_kbytes * 16), 128), 262144)


def lowmem_reserve(managed_above: int) -> int:
    """Pages that a zone keeps from allocations that could use the zones above it in its node
    (setup_per_zone_lowmem_reserve).
    """
    return managed_above // LOWMEM_RESERVE_RATIO


def zone_watermarks(
    managed_pages: Sequence[int],
    *,
    watermark_scale_factor: int = 10,
    min_free_kb: int = 0,
    scale: float = 1.0,
) -> list[Watermarks]:
    """Return the watermarks of every zone whose full-size number of pages is given; `min_free_kb` 0 means
    automatic.

    Automatic is computed twice, as at boot: from all managed pages (init_per_zone_wmark_min), and with the
    watermarks that come of it again from what lies above HIGH (nr_free_buffer_pages, in khugepaged's
    set_recommended_min_free_kbytes without huge pages). With `scale` 1 this is Linux's own result. Otherwise
    each step is the full-size one divided by sqrt(scale).
    """
    all_pages = sum(managed_pages)
    if not min_free_kb:
        first = _ladder(managed_pages, min_free_kbytes(all_pages * PAGE_KB), watermark_scale_factor, 1.0)
        min_free_kb = min_free_kbytes((all_pages - sum(mark.high for mark in first)) * PAGE_KB)
    return _ladder(managed_pages, min_free_kb, watermark_scale_factor, scale)


def _ladder(
    managed_pages: Sequence[int], min_free_kb: int, watermark_scale_factor: int, scale: float
) -> list[Watermarks]:
    """__setup_per_zone_wmarks."""
    all_pages, pages_min, shrink = sum(managed_pages), min_free_kb // PAGE_KB, math.sqrt(scale)
    ladder = []
    for managed in managed_pages:
        share = pages_min * managed // all_pages
        step = max(share >> 2, managed * watermark_scale_factor // 10000)
        low_step = max(int(step / shrink), 1)
        lowest = max(int(share / shrink), 1)
        ladder.append(Watermarks(lowest, lowest + low_step, lowest + 2 * low_step, lowest + 3 * low_step))
    return ladder


def pcp_limits(managed_pages: int, low_watermark: int, *, local_cpus: int, online_cpus: int) -> PcpLimits:
    """Return batch and high of the per-CPU lists of one zone; a node without CPUs splits `high` over all
    online CPUs.

    Give the SCALED pages and watermark: the lists are memory per CPU, and the number of CPUs does not scale.
    With the full-size values (batch 63, high in the hundreds) 64 CPUs would hold all of a node of 42 MiB.
    """
    cpus = local_cpus or online_cpus
    batch = max(min(managed_pages >> 10, 1024 * 1024 // PAGE_BYTES) // 4, 1)
    batch = max(_rounddown_pow_of_two(batch + batch // 2) - 1, 1)
    high_min = max(low_watermark // cpus, batch << 2)
    high_max = max(managed_pages // MIN_PERCPU_PAGELIST_HIGH_FRACTION // cpus, batch << 2)
    return PcpLimits(batch, high_min, high_max)


def _rounddown_pow_of_two(n: int) -> int:
    return 1 << (n.bit_length() - 1)
