"""Which spin locks are taken while others are held: the order that an engine has, for runs that check rules.

Two locks that are taken in either order can deadlock, though they never did. Each CPU keeps what it holds; a
pair of words that was not seen lately is asked about (rules.py), and a new pair of kinds is kept. The cycles
are looked for when the run is over (emulator/judge/rule_findings.py). Left out: reader-writer locks and bits,
which a task may carry to another CPU; two locks of one kind.
"""

from cpus.atomics import address
from cpus.compiled import kernel, later
from cpus.declare import OWNER, Exclusive, Field, Struct
from cpus.ram import POINTS_AT

ORDERS_KEPT, HELD_MAX, SEEN = 256, 16, 1024  # SEEN: a power of two
ORDER = Exclusive("who executes, under one lease")
FIELDS = (
    Struct("one", "schedule", (Field("run_orders", ORDER, "pairs of kinds of locks that were kept"),)),
    Field("lock_order", ORDER, "outer and inner lock of each, by place in the segment", (ORDERS_KEPT, 2)),
    Field("cpu_held_count", OWNER, "spin locks that it holds", ("nr_cpus",)),
    Field("cpu_held", OWNER, "where they lie", ("nr_cpus", HELD_MAX)),
    Field("lock_pair", OWNER, "pairs that it has taken lately", ("nr_cpus", 2 * SEEN)),
)  # fmt: skip

shell_order = later("shell_order", 3)


@kernel
def _note_order(ram, cpu, outer, inner):
    slot = 2 * ((outer * 31 + inner) >> 3 & (SEEN - 1))
    if ram.lock_pair[cpu, slot] == outer and ram.lock_pair[cpu, slot + 1] == inner:
        return
    ram.lock_pair[cpu, slot], ram.lock_pair[cpu, slot + 1] = outer, inner
    if shell_order(ram, cpu, outer, inner) != 0 and ram.run_orders[0] < ORDERS_KEPT:
        ram.lock_order[ram.run_orders[0], 0], ram.lock_order[ram.run_orders[0], 1] = outer, inner
        ram.run_orders[0] += 1


@kernel
def _where(ram, at):
    """Give the place in the segment of an address."""
    return at - address(ram.point, 0) + POINTS_AT


@kernel
def note_taken(ram, cpu, at):
    """Say that a CPU has taken the lock at an address."""
    where = _where(ram, at)
    count = min(ram.cpu_held_count[cpu], HELD_MAX)
    for i in range(count):
        _note_order(ram, cpu, ram.cpu_held[cpu, i], where)
    if count < HELD_MAX:
        ram.cpu_held[cpu, count] = where
    ram.cpu_held_count[cpu] += 1


@kernel
def note_let_go(ram, cpu, at):
    """Say that it lets go of it, in whatever order."""
    where, left = _where(ram, at), 0
    count = min(ram.cpu_held_count[cpu], HELD_MAX)
    for i in range(count):
        if ram.cpu_held[cpu, i] != where:
            ram.cpu_held[cpu, left] = ram.cpu_held[cpu, i]
            left += 1
    ram.cpu_held_count[cpu] = left
