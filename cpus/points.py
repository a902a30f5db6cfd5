"""Scheduling points: what the end of a countdown does (ram.py builds the countdown into code).

A run with a schedule compiles the same source so that every access to a field that other CPUs may look at
(layout.py says which), and the beginning and end of every hook, lowers a countdown. With one lease its end
hands the lease to the CPU that the run's strategy chooses (strategies.py), wherever this one is: in a walk,
an interrupt handler, with locks held or interrupts off. That is no preemption by the kernel, which knows
nothing of it, but a CPU that is slow just there: it serves no interrupt, its slice goes on, and no time of
its own passes. With several leases its end is a delay of random length instead.
No lease changes hands while the lease table is locked by the CPU itself (between begin_wait and finish_wait:
then no CPU is RUNNING), nor between the doorbell of a target and the message to it (`hold_points`).
A decision is the moment to look at the access that is about to be made, too: with `rules` it is held
against the rule of its field (rules.py), so that runs with many decisions check the kernel's rules by
sampling, at no cost elsewhere. With `records` every point ends a countdown, is noted, and looked at so.
Left out: points in code that the bench itself consists of, and in accesses by address (`word_at`).
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Any

from cpus.atomics import pause
from cpus.compiled import apart, kernel, later
from cpus.declare import Constant, Exclusive, Field, Struct
from cpus.host import sched_yield
from cpus.lease import READY, RUNNING, WAIT_LEASE, lock_leases, pass_lease, shell_wait, unlock_leases
from cpus.ram import AT_POINT, LEFT, POINTS, POINTS_AT, has_points
from cpus.strategies import (
    ARMED,
    DELAY_RANDOM,
    HELD,
    NEVER,
    PLACES,
    SITE,
    SPINS,
    WHERE,
    distance_of,
    is_elsewhere,
    is_nothing,
    note_touched,
    passes_by,
    random_next,
    shorten,
)

RULES_KEPT, RULE_WORDS, SITE_COLUMN = 64, 4, 3
ONE_EXECUTES = Exclusive("who executes, under one lease")
FIELDS = (
    Constant("rules", "1: at decisions, accesses are held against the rules of their fields"),
    Struct("one", "schedule", (Field("run_broken_rules", ONE_EXECUTES, "places that broke a rule"),)),
    Field("broken_rule", ONE_EXECUTES, "CPU, place in the segment, operation, place in the source of each",
          (RULES_KEPT, RULE_WORDS)),
)  # fmt: skip

shell_rule = later("shell_rule", 3)
cut_short = later("cut_short", 2)
DELAYS, DELAY_BITS = 8, 6  # one of so many delays is a yield to the host; pauses of the others, log2


@kernel
def hold_points(ram, held):
    """Put decisions at points off until this is called with 0."""
    if has_points(ram):
        ram.point[HELD] = held


@kernel
def end_points(ram, cpu):
    """Count what this CPU has passed; from now on nothing is decided or counted at points."""
    if has_points(ram):
        if ram.controlled and ram.point[HELD] == 0:
            passed = ram.point[ARMED] - ram.point[LEFT]
            ram.cpu_points[cpu] += passed
            ram.run_points[0] += passed
        ram.point[HELD] = 1


@kernel
def gives_way(ram):
    """Say that this CPU waits in a loop for what another one does: it gives way at the next point."""
    if has_points(ram) and ram.controlled:
        ram.point[SPINS] = 1
        shorten(ram)


@kernel
def _running(ram):
    """Find the CPU that executes, under one lease; -1 while it is about to sleep."""
    for c in range(ram.nr_cpus):
        if ram.cpu_state[c] == RUNNING:
            return c
    return -1


@kernel
def _hand_over(ram, cpu, where, site):
    """Offer the lease (as offer_lease does) in the midst of anything: what this CPU had noted in the lease
    table is there again when it goes on.
    """
    lock_leases(ram)
    ram.point[WHERE], ram.point[SITE] = where, site
    kind, out_of_turn = ram.cpu_wait_kind[cpu], ram.cpu_out_of_turn[cpu]
    order_ns, ready_ns = ram.cpu_order_ns[cpu], ram.cpu_ready_ns[cpu]
    ram.cpu_at_point[cpu] = 1
    ram.cpu_state[cpu] = READY
    ram.cpu_ready_ns[cpu] = ram.cpu_order_ns[cpu] = ram.cpu_clock[cpu]
    ram.cpu_wait_kind[cpu] = WAIT_LEASE
    target = pass_lease(ram, cpu)
    unlock_leases(ram)
    if target != cpu:
        shell_wait(ram, cpu, target)
    ram.cpu_at_point[cpu] = 0
    ram.cpu_wait_kind[cpu], ram.cpu_out_of_turn[cpu] = kind, out_of_turn
    ram.cpu_order_ns[cpu], ram.cpu_ready_ns[cpu] = order_ns, ready_ns


@kernel
def _delay(ram):
    """Hold this CPU up for a random while, and draw when to do so again."""
    state = random_next(ram.point[DELAY_RANDOM])
    if (state >> 20) % DELAYS == 0:
        sched_yield()
    else:
        for _ in range((state >> 30) & ((1 << DELAY_BITS) - 1)):
            pause()
    state = random_next(state)
    ram.point[DELAY_RANDOM] = state
    ram.point[LEFT] = distance_of(state >> 20, ram.distance) if ram.distance > 0 else NEVER


@kernel
def note_broken_rule(ram, cpu, where, operation, site):
    """Keep what broke a rule, each place in the source once."""
    found = ram.run_broken_rules[0]
    for i in range(found):
        if ram.broken_rule[i, SITE_COLUMN] == site:
            return
    if found < RULES_KEPT:
        ram.broken_rule[found, 0], ram.broken_rule[found, 1] = cpu, where
        ram.broken_rule[found, 2], ram.broken_rule[found, SITE_COLUMN] = operation, site
        ram.run_broken_rules[0] = found + 1


@kernel
def _note(ram, cpu, where, operation):
    """Keep what a CPU is about to do, and who could run instead."""
    ready = 0
    for c in range(ram.nr_cpus):
        if ram.cpu_state[c] == READY:
            ready |= 1 << c
    note_touched(ram, cpu, ram.cpu_points[cpu] + ram.point[ARMED] - ram.point[LEFT], where, operation, ready)


@kernel
def _is_looked_at(ram, cpu, where, operation, site):
    """Look at a point if that is asked for; is there nothing to decide?"""
    if ram.records:
        _note(ram, cpu, where, operation)
    passed = ram.run_points[0] + ram.point[ARMED] - ram.point[LEFT]
    ends = ram.points_max > 0 and passed >= ram.run_points_bound[0]
    if ends:
        cut_short(ram, cpu, passed)
    return (ram.records or ends or is_elsewhere(ram, cpu, site)) and passes_by(ram, cpu)


@apart
def at_point(ram, left, where, operation, site):
    """Answer the end of a countdown, which stands at `left`: 0, or less if it was not set anew. The operation
    is about to access what lies `where` in the segment (0: no access), at `site` in the source.
    """
    if not ram.controlled:
        _delay(ram)
        return 0
    if ram.strategy == PLACES and is_nothing(ram, site):
        shorten(ram)
        return 0
    cpu = -1 if ram.point[HELD] else _running(ram)
    if cpu < 0:  # not now: at the next one
        shorten(ram)
    else:
        goes_on = _is_looked_at(ram, cpu, where, operation, site)
        if ram.rules and where > 0 and (ram.records or not goes_on):
            if shell_rule(ram, cpu, where, operation) != 0:
                note_broken_rule(ram, cpu, where, operation, site)
        if not goes_on:
            _hand_over(ram, cpu, where, site)
    return 0


def ready_points(ram: Any, random: int) -> None:
    """Prepare the countdown of a segment whose code has points: it does not end before a CPU runs."""
    ram.point[LEFT] = ram.point[ARMED] = NEVER
    ram.point[AT_POINT] = ram.text[ram.layout.text[at_point.entry.text.name]]
    ram.point[DELAY_RANDOM] = random


def own_points(ram: Any, cpu: int) -> None:
    """Give this CPU process a countdown of its own, if it does not go by one lease: a private page in the
    place of the shared one. Raises OSError.
    """
    if ram._type.kind != POINTS or ram.controlled:
        return
    words = ram.point.copy()
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 4]
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10  # MAP_FIXED
    where = ram._base + POINTS_AT
    if library.mmap(where, words.nbytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) != where:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    ram.point[:] = words
    ram.point[LEFT] = 1 + cpu
    ram.point[DELAY_RANDOM] = random_next(int(words[DELAY_RANDOM]) ^ (cpu + 1) * 0x9E3779B9)
