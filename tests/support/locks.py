"""Does a CPU hold a lock now? Evaluates what is declared of locks (cpus/declare.py) on a machine's RAM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from allocator.page import PG_LOCKED
from cpus.declare import Held, OneOf
from cpus.locks import WAITERS, WRITER


def holds(ram: Any, cpu: int, rule: Held | OneOf, arguments: Mapping[str, int]) -> bool:
    """Does the CPU hold the lock (one of the locks)? `at` of a lock is an argument, or "any" for any one.

    Nobody knows who holds a page lock, or mmap_lock for reading: that somebody does must do.
    """
    if isinstance(rule, OneOf):
        return any(holds(ram, cpu, one, arguments) for one in rule.rules)
    if rule.lock == "page_lock":
        locked = ram.page_flags & PG_LOCKED != 0
        return bool(locked.any() if rule.at == "any" else locked[arguments[rule.at]])
    words = getattr(ram, rule.lock)
    mine = np.atleast_1d(words if rule.at == "any" else words[arguments[rule.at]])
    if rule.lock == "mm_lock":
        return bool((mine == WRITER).any() or (rule.shared and (mine > 0).any()))
    return bool((mine & (WAITERS - 1) == cpu + 1).any())
