"""How a module declares what it counts and charges, as data that programs read.

A module says so in tuples at its top, COUNTERS and COSTS; it is listed in `memory_map.py` of its room.
Hooks say which locks are held:
    Held("zone_lock")    whoever holds that lock (`at` says which of them)
    OneOf(rule, ...)     whoever one of these allows
"""

from __future__ import annotations

from dataclasses import dataclass

# --- rules --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """Whoever holds a lock: that of the same row; with `at` that of another row, or of an argument.

    "any" is one that the row alone does not tell. `shared` is enough where readers hold it together.
    """

    lock: str
    at: str = ""
    shared: bool = False


@dataclass(frozen=True, slots=True)
class OneOf:
    """Whoever one of these rules allows."""

    rules: tuple[Held, ...]

    def __init__(self, *rules: Held):
        object.__setattr__(self, "rules", rules)


# --- counters -----------------------------------------------------------------------------------------------

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


@dataclass(frozen=True, slots=True)
class Cost:
    """What an event adds to a CPU's virtual clock: the constant `ram.cost_NAME`. A machine file gives it,
    with its source.
    """

    name: str
    meaning: str
    unit: str = "ns"
