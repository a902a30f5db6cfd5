"""The kernel's knobs: what each is called here and in Linux, its range, what it does, what kernels read.

A machine file gives them in [sysctl]; one with a default may be left out. What a knob becomes for kernels is
a constant of the machine, `ram.swappiness`; one without a constant is used when the machine is made
(emulator/machine.py). `luf list sysctls` prints this table. To add one, declare it and read its constant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cpus.abi.numbers import PAGE_BYTES, PAGES_PER_MIB

NS_PER_MS = 1_000_000
NS_MAX = 10**9
INT_MAX = 2**31 - 1  # Linux has them in an int
SCAN_PAGES_MIN = 16
TIERING = 2  # NUMA_BALANCING_MEMORY_TIERING


@dataclass(frozen=True, slots=True)
class Sysctl:
    """One knob, from `least` to `most`; from False to True it is a switch.

    `becomes(value, scale)` is the value of `constant` on a machine whose memory is divided by `scale`.
    Without a `default` every machine file must give the knob.
    """

    name: str
    linux: str
    does: str
    least: int
    most: int
    unit: str = ""
    constant: str = ""
    becomes: Callable[[int, float], int] = lambda value, scale: value
    default: int | None = None


def _ns_of_ms(value: int, scale: float) -> int:
    return value * NS_PER_MS


def _pages_of_mib(value: int, scale: float) -> int:
    return max(1, round(value * PAGES_PER_MIB / scale))


SYSCTLS: dict[str, Sysctl] = {}


def _sysctl(name: str, linux: str, does: str, least: int, most: int, **more: Any) -> None:
    SYSCTLS[name] = Sysctl(name, linux, does, least, most, **more)


_sysctl(
    "watermark_scale_factor",
    "vm.watermark_scale_factor",
    "how far a zone's watermarks lie apart",
    1,
    3000,
    unit="1/10,000 of the zone",
)
_sysctl(
    "min_free_kbytes",
    "vm.min_free_kbytes",
    "all min watermarks together; 0: as the kernel computes it at boot",
    0,
    INT_MAX,
    unit="KiB",
)
_sysctl(
    "demotion_enabled",
    "/sys/kernel/mm/numa/demotion_enabled",
    "reclaim moves pages to the next slower node instead of discarding them",
    False,
    True,
)
_sysctl(
    "numa_balancing",
    "kernel.numa_balancing",
    "2: hot pages of slow nodes are promoted (memory tiering); 1 (pages move to users) does nothing here",
    0,
    2,
    constant="numa_balancing",
    becomes=lambda value, scale: int(value == TIERING),
)
_sysctl(
    "numa_balancing_promote_rate_limit_mbps",
    "kernel.numa_balancing_promote_rate_limit_MBps",
    "how much may be promoted to a node",
    1,
    INT_MAX,
    unit="MB/s",
    constant="promote_limit",
    becomes=_pages_of_mib,
)
_sysctl(
    "numa_balancing_hot_threshold_ms",
    "/sys/kernel/debug/sched/numa_balancing/hot_threshold_ms",
    "a page touched so soon after it was scanned is hot",
    1,
    INT_MAX,
    unit="ms",
    constant="hot_threshold_ns",
    becomes=_ns_of_ms,
)
_sysctl(
    "numa_balancing_scan_delay_ms",
    "/sys/kernel/debug/sched/numa_balancing/scan_delay_ms",
    "how long a new address space is left alone",
    0,
    INT_MAX,
    unit="ms",
    constant="scan_delay_ns",
    becomes=_ns_of_ms,
)
_sysctl(
    "numa_balancing_scan_period_min_ms",
    "/sys/kernel/debug/sched/numa_balancing/scan_period_min_ms",
    "shortest time between two scans by one task",
    1,
    INT_MAX,
    unit="ms",
    constant="scan_period_ns",
    becomes=_ns_of_ms,
)
_sysctl(
    "numa_balancing_scan_period_max_ms",
    "/sys/kernel/debug/sched/numa_balancing/scan_period_max_ms",
    "longest time between them",
    1,
    INT_MAX,
    unit="ms",
    constant="scan_period_max_ns",
    becomes=_ns_of_ms,
)
_sysctl(
    "numa_balancing_scan_size_mb",
    "/sys/kernel/debug/sched/numa_balancing/scan_size_mb",
    "how much one scan unmaps",
    1,
    INT_MAX,
    unit="MiB",
    constant="scan_pages",
    becomes=lambda value, scale: max(SCAN_PAGES_MIN, _pages_of_mib(value, scale)),
)
_sysctl(
    "swappiness",
    "vm.swappiness",
    "how much reclaim prefers anonymous pages to those of files",
    0,
    200,
    constant="swappiness",
)
_sysctl(
    "readahead_kb",
    "/sys/block/*/queue/read_ahead_kb",
    "the largest readahead window",
    0,
    16384,
    unit="KiB",
    constant="readahead_pages",
    becomes=lambda value, scale: max(1, value * 1024 // PAGE_BYTES),
)
_sysctl(
    "fault_around_bytes",
    "/sys/kernel/debug/fault_around_bytes",
    "how much a read fault maps around its page, a power of two",
    PAGE_BYTES,
    1 << 21,
    unit="bytes",
    constant="fault_around_pages",
    becomes=lambda value, scale: value // PAGE_BYTES,
)
_sysctl(
    "tlb_single_page_flush_ceiling",
    "/sys/kernel/debug/x86/tlb_single_page_flush_ceiling",
    "a range of more pages is flushed by flushing everything",
    0,
    1 << 20,
    unit="pages",
    constant="flush_ceiling",
)
_sysctl(
    "init_on_free",
    "init_on_free= (boot)",
    "pages are zeroed when they are freed",
    False,
    True,
    constant="init_on_free",
    default=False,
)
_sysctl(
    "kasan_poison",
    "CONFIG_KASAN",
    "pages are poisoned when they are freed",
    False,
    True,
    constant="kasan_poison",
    default=False,
)
_sysctl(
    "sched_base_slice_ns",
    "/sys/kernel/debug/sched/base_slice_ns",
    "time slice of a task; 0: as the kernel computes it for the number of CPUs",
    0,
    NS_MAX,
    unit="ns",
    constant="base_slice_ns",
    default=0,
)
