"""Designs that do what no code may, each in a hook; what vanilla Linux does besides keeps them clean.

The line of each fault ends in a comment that names it. The hook `tick` is called some times in a small run,
and `shootdown` some hundred times.
"""

from __future__ import annotations

from pathlib import Path

from cpus.atomics import fetch_add, word_at
from cpus.compiled import kernel
from cpus.lease import RUN, WAIT_WORD, block
from cpus.ram import row
from cpus.trace import trace
from designs.design import Design, hook, replaced
from designs.linux import Linux
from designs.state import own_fields

FAR = 100_000


def faulty_fields(sizes):
    return {"ticks": (sizes.nr_cpus,), "table": (sizes.nr_cpus, 2)}


state_of = own_fields("faulty", faulty_fields)


@kernel
def ratio(a, b):
    return a // b  # zero


@kernel
def counted(ram, cpu):
    state_of(ram).ticks[cpu] += 1  # far, by one


@hook("tick")
def far(ram, cpu, a, b, c, d):
    counted(ram, cpu + FAR)
    return 0


@hook("tick")
def by_one(ram, cpu, a, b, c, d):
    counted(ram, ram.nr_cpus)
    return 0


@hook("tick")
def negative(ram, cpu, a, b, c, d):
    return state_of(ram).table[cpu, a - 1]  # negative


@hook("tick")
def of_a_row(ram, cpu, a, b, c, d):
    return row(state_of(ram).table, cpu)[2]  # of a row


@hook("tick")
def atomic(ram, cpu, a, b, c, d):
    return fetch_add(ram.zone_free, ram.nr_zones, a)  # atomic


@hook("tick")
def zero(ram, cpu, a, b, c, d):
    return ratio(cpu, a)


@hook("tick")
def remainder(ram, cpu, a, b, c, d):
    return ram.nr_frames % a  # remainder


@hook("tick")
def stranger(ram, cpu, a, b, c, d):
    ram.pgfault[(cpu + 1) % ram.nr_cpus] += 1  # stranger
    return 0


@hook("tick")
def crash(ram, cpu, a, b, c, d):
    word_at(8)[0] = 1
    return 0


@hook("tick")
def claim(ram, cpu, a, b, c, d):
    assert a == 1, "this is not the first tick"  # claim
    return 0


@hook("tick")
def raising(ram, cpu, a, b, c, d):
    if a == 0:
        raise ValueError("cpu", cpu + FAR)  # raising
    return 0


@hook("tick")
def waiting(ram, cpu, a, b, c, d):
    while ram.run_stop[0] == RUN:
        block(ram, cpu, WAIT_WORD, 0)
    return 0


@hook("tick")
def looking(ram, cpu, a, b, c, d):
    if state_of(ram).ticks[cpu] == 0:
        breakpoint()
    state_of(ram).ticks[cpu] += 1
    return 0


@hook("shootdown")
def sound(ram, cpu, a, b, c, d):
    state = state_of(ram)
    state.ticks[cpu] += 1
    state.table[cpu, 1] += ratio(cpu, 1)
    return 0


@hook("shootdown")
def tracing(ram, cpu, a, b, c, d):
    state = state_of(ram)
    trace(ram, cpu, "round {} of {:#x} CPUs", state.ticks[cpu], ram.nr_cpus, cpu == 2, -1)
    state.ticks[cpu] += 1
    return 0


@hook("tick")
def chatting(ram, cpu, a, b, c, d):
    for i in range(2000):
        trace(ram, cpu, "line", i)
    return 0


class Faulty(Design):
    """What all of them share."""

    name = "faulty"

    def fields(self, sizes):
        return faulty_fields(sizes)


def faulty(function) -> Design:
    """Give the design with this hook."""
    kind = type("This", (Faulty,), {"name": function.name, "hooks": replaced(Linux.hooks, function)})
    return kind()


def line_of(fault: str) -> int:
    """Give the line of this file that ends in a comment which names a fault."""
    source = Path(__file__).read_text().splitlines()
    (found,) = [n for n, text in enumerate(source, 1) if f"{fault}" in text.partition("  # ")[2].split(", ")]
    return found
