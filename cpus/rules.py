"""Is an access allowed by the rule that its field declares, at this moment? And which field is it?

Under one lease nothing moves while this is asked: a lock is held or it is not, a task is on its CPU or not.
Runs with a schedule ask at decisions (points.py), tests without the JIT at every access. Left out: fields of
a design's own, which declare no rules; whether a lock is held long enough; accesses by address (lock_slow,
the host's system calls); bits of a word that is a lock and more.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np

from cpus.declare import (
    BIT,
    RWSEM,
    SPIN,
    AnyCpu,
    Atomic,
    Config,
    Exclusive,
    Field,
    Held,
    Lock,
    OneOf,
    OwnerOf,
    Racy,
    Rule,
)

READ, WRITE = "read", "write"
READING = (READ, "load_acquire")
# by number: what an access is (ram.py and atomics.py name it)
OPERATIONS = (
    *(READ, WRITE, "load_acquire", "store_release", "compare_exchange"),
    *("xchg", "add", "or", "and", "max"),
)
WAITS_IRQ_OFF = 100  # no access: acks are waited for with interrupts off
ATOMICS = {"xchg": "exchange"} | {name: f"fetch_{name}" for name in ("add", "or", "and", "max")}  # of LLVM
WAITERS = 1 << 40  # of a lock word, above its holder (locks.py)


# --- rules --------------------------------------------------------------------------------------------------


def anybody(rule: Rule, access: str) -> bool:
    """Does the rule allow this to any CPU at any time? (Most accesses read such fields.)"""
    if isinstance(rule, OneOf):
        return any(anybody(one, access) for one in rule.rules)
    if isinstance(rule, Config | Atomic):
        return access == READ
    return isinstance(rule, AnyCpu | Racy) or (isinstance(rule, Exclusive) and rule.references is None)


def allowed(ram: Any, rule: Rule, where: tuple[int, ...], cpu: int, access: str, operation: str) -> bool:
    """May this CPU do that, now?"""
    if isinstance(rule, OneOf):
        return any(allowed(ram, one, where, cpu, access, operation) for one in rule.rules)
    if isinstance(rule, AnyCpu | Racy):
        return True
    if isinstance(rule, Config):
        return access == READ
    if isinstance(rule, Atomic):
        return access == READ or operation in rule.operations
    if isinstance(rule, OwnerOf):
        return owner(ram, rule, where) == cpu
    if isinstance(rule, Exclusive):
        return rule.references is None or int(ram.page_refcount[where[0]]) <= rule.references
    assert isinstance(rule, Held)
    return held(ram, rule, where, cpu)


def owner(ram: Any, rule: OwnerOf, where: tuple[int, ...]) -> int:
    """Give the CPU that owns a row."""
    at = where[rule.index]
    for name in rule.by:
        if name != "scan":
            at = int(getattr(ram, name)[at])
        elif at >= ram.nr_cpus:
            at = int(ram.task_cpu[ram.kswapd_task[at - ram.nr_cpus]])
    return at


def held(ram: Any, rule: Held, where: tuple[int, ...], cpu: int) -> bool:
    """Does this CPU hold the lock that the rule means?"""
    lock = ram.layout.locks[rule.lock]
    words = getattr(ram, lock.word or lock.name)
    if rule.at == "any":
        return any(_holds(lock, int(word), cpu, rule.shared) for word in words.reshape(-1))
    if rule.at == "zone":
        at: tuple[int, ...] = (int(np.searchsorted(ram.zone_end, where[0], side="right")),)
    elif rule.at == "node":
        at = (int(np.searchsorted(ram.node_end, where[0], side="right")),)
    elif rule.at == "one":
        at = (0,)
    elif rule.at:
        at = (int(getattr(ram, rule.at)[where[0]]),)
    else:
        at = where[: words.ndim]
    return at[0] >= 0 and _holds(lock, int(words[at]), cpu, rule.shared)


def _holds(lock: Lock, word: int, cpu: int, shared: bool) -> bool:
    if lock.kind == SPIN:
        return word & (WAITERS - 1) == cpu + 1
    if lock.kind == RWSEM:
        return word == -1 or (shared and word > 0)
    return (word >> lock.bit) & 1 == 1


# --- fields by address --------------------------------------------------------------------------------------


class RuleBook:
    """The fields of a RAM by their place in it, and the rule of each."""

    def __init__(self, ram: Any):
        self.ram, self.text = ram, ram.text
        self.orders: set[tuple[str, str]] = set()  # of locks, that were asked about
        self.arrays: list[tuple[int, int, int, dict[int, Field | Lock], tuple[int, ...]]] = []
        for array in ram.layout.arrays:
            first, inside = array.members[0]
            view = getattr(ram, first.name)
            start, members = view.ctypes.data - ram._base - inside, {at: one for one, at in array.members}
            self.arrays.append((start, view.size * array.stride, array.stride, members, view.shape))
        self.arrays.sort(key=lambda one: one[0])
        self.starts = [one[0] for one in self.arrays]

    def field_at(self, where: int) -> tuple[Field | Lock, tuple[int, ...]] | None:
        """Find what lies so many bytes from the segment's beginning: a field, and the index in it; None if
        nothing is declared there.
        """
        i = bisect_right(self.starts, where) - 1
        if i < 0:
            return None
        start, size, stride, members, shape = self.arrays[i]
        if where >= start + size:
            return None
        number, inside = divmod(where - start, stride)
        item = members.get(inside)
        if item is None:
            return None
        return item, (number,) if len(shape) == 1 else divmod(number, shape[1])

    def breaks(self, cpu: int, where: int, operation: int) -> bool:
        """Does an access break the rule of its field? `operation` is its number in OPERATIONS."""
        found = self.field_at(where)
        if found is None:
            return False
        item, index = found
        if isinstance(item, Lock) and item.kind == BIT:
            return False
        name = OPERATIONS[operation]
        access = READ if name in READING else WRITE
        atomic = "" if name in (READ, WRITE) else ATOMICS.get(name, name)
        rule = item.reads if access == READ and item.reads is not None else item.rule
        if anybody(rule, access):
            return False
        return not allowed(self.ram, rule, index, cpu, access, atomic)

    def is_new_order(self, outer: int, inner: int) -> bool:
        """Was no lock like `inner` ever taken under one like `outer`, as far as was asked here?"""
        pair = self.name_at(outer), self.name_at(inner)
        new = pair not in self.orders and pair[0] != pair[1]
        self.orders.add(pair)
        return new

    def name_at(self, where: int) -> str:
        """Name the field that lies there, a design's own by its place."""
        found = self.field_at(where)
        return found[0].name if found else f"a word of the design at {where:#x}"


_books: dict[int, RuleBook] = {}  # of this process: the RAM that it looks at


def rule_book(ram: Any) -> RuleBook:
    """Give the rule book of a RAM as it is laid out now."""
    book = _books.get(0)
    if book is None or book.ram is not ram or book.text is not ram.text:
        book = _books[0] = RuleBook(ram)
    return book
