"""How a module declares what it owns of shared memory: counters so far, as data that programs read.

A module says so in a tuple at its top, COUNTERS; it is listed in `memory_map.py` of its room.
"""

from __future__ import annotations

from dataclasses import dataclass

VMSTAT = "vmstat"  # as Linux 6.12 prints it in /proc/vmstat
PERF = "perf"  # as perf stat counts it
INTERRUPTS = "interrupts"  # a row of /proc/interrupts
OURS = "ours"  # of this emulator


@dataclass(frozen=True, slots=True)
class Counter:
    """What every CPU counts for itself, `ram.pgfault[cpu] += 1`, and nobody else writes."""

    name: str
    group: str
    meaning: str
    unit: str = "events"
