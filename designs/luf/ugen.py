"""luf_ugen: stamps of requests and of flushes, and how far each CPU is (patches 04, 07 and 17 of v12).

One counter gives both kinds of stamp: a request draws one after it has cleared PTEs, a flush before it is
sent. Each CPU has a *done-number*, the newest flush stamp that is known to be complete on it; whoever has one
that is not older than a request needs no flush for it.

CONFIG_LUF_DEBUG "strongly synchronizes on objects for checking" (slides; patch 25): in a run that is debugged
every operation on done-numbers holds one global spin lock, so that a check never meets half of one, and no
raise is lost to another. (Without it one attempt of compare-and-swap is made; a lost one costs a flush too
many.) Here a global lock is what is modelled. It changes timing: where CPUs run at once a debugged run has
other interleavings. Waiting for a lock costs no virtual time (cpus/locks.py): how much slower such a kernel
is cannot be read off.
"""

import numpy as np

from allocator.tlb_flush import flush_batch
from cpus.atomics import compare_exchange, fetch_add, load_acquire
from cpus.compiled import kernel
from cpus.cpumask import __cpumask_clear_cpu, cpumask_copy, cpumask_empty, for_each_cpu
from cpus.declare import DEFERRED, Counter, Lock, Struct
from cpus.layout import Sizes
from cpus.locks import spin_lock, spin_unlock
from designs.measure import FLUSHES

FIELDS = (
    Struct("one", "lufd", (Lock("lufd_lock", "LUF's done-numbers", "all done-numbers, if LUF is debugged"),)),
)
COUNTERS = (
    Counter("luf_spared", DEFERRED, "CPUs that need no flush, having taken part in a later one"),
    Counter("luf_triggered", DEFERRED, "flushes since an address or offset is about to show something else"),
)
NO_UGEN = 0
LOW = 0xFFFF  # stamps of which these bits are 0 are not drawn: in v12 they mean "none"


def ugen_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shared fields."""
    return {
        "ugen": (1,),  # any, add: the newest stamp
        # any, one compare-and-swap (lost, it stays lower): newest flush stamp complete on this CPU
        "ugen_done": (sizes.nr_cpus,),
    }


# --- stamps -------------------------------------------------------------------------------------------------


@kernel
def before(a, b):
    """Is stamp `a` older than `b`? Right while both lie within half the number space, across the wrap too."""
    return (np.uint64(a) - np.uint64(b)) >> np.uint64(63) != 0  # unsigned, so that it may wrap


@kernel
def newer(a, b):
    """Give the newer of two stamps."""
    return b if before(a, b) else a


@kernel
def new_luf_ugen(state):
    """Draw a stamp: a full barrier, so what was cleared before it is seen by flushes that start after it."""
    ugen = fetch_add(state.ugen, 0, 1) + 1
    while ugen & LOW == 0:
        ugen = fetch_add(state.ugen, 0, 1) + 1
    return ugen


# --- done-numbers -------------------------------------------------------------------------------------------


@kernel
def lock_done(ram, cpu):
    """Hold all done-numbers still, if the run is debugged. Innermost of all locks; nobody waits for anything
    under it.
    """
    if ram.lufd:
        spin_lock(ram, cpu, ram.lufd_lock, 0)


@kernel
def unlock_done(ram, cpu):
    """Let go of them."""
    if ram.lufd:
        spin_unlock(ram, cpu, ram.lufd_lock, 0)


@kernel
def is_done(state, cpu, ugen):
    """Has a CPU completed a flush that began after the request?"""
    return ugen != NO_UGEN and not before(load_acquire(state.ugen_done, cpu), ugen)


@kernel
def all_have_done(state, mask, row, ugen):
    """Have all CPUs of the mask? Done-numbers are held."""
    for target in for_each_cpu(mask, row):
        if not is_done(state, target, ugen):
            return False
    return True


@kernel
def check_done(ram, state, cpu, mask, row, ugen):
    """Have all CPUs of the mask done the request (arch_tlbbatch_check_done)?"""
    lock_done(ram, cpu)
    done = all_have_done(state, mask, row, ugen)
    unlock_done(ram, cpu)
    return done


@kernel
def diet(ram, state, cpu, mask, row, ugen):
    """Drop the CPUs that have done the request; True if nobody is left (arch_tlbbatch_diet)."""
    lock_done(ram, cpu)
    for target in for_each_cpu(mask, row):
        if is_done(state, target, ugen):
            ram.luf_spared[cpu] += 1
            __cpumask_clear_cpu(target, mask, row)
    unlock_done(ram, cpu)
    return cpumask_empty(mask, row)


@kernel
def mark_done(ram, state, cpu, mask, row, ugen):
    """Raise the done-number of every CPU of a mask, with one attempt each (mark_ugen_done)."""
    lock_done(ram, cpu)
    for target in for_each_cpu(mask, row):
        old = load_acquire(state.ugen_done, target)
        if before(old, ugen):
            compare_exchange(state.ugen_done, target, old, ugen)
    unlock_done(ram, cpu)


@kernel
def flush_and_mark(ram, state, cpu, mask, row):
    """Stamp, flush the CPUs of a mask (it is emptied; `tmp_mask` keeps them), mark them done."""
    ugen = new_luf_ugen(state)  # before the flush begins
    cpumask_copy(ram.tmp_mask, cpu, mask, row)
    if flush_batch(ram, cpu, mask, row) > 0:
        state.stat[cpu, FLUSHES] += 1
    mark_done(ram, state, cpu, ram.tmp_mask, cpu, ugen)


@kernel
def flush_vanilla_batch(ram, state, cpu):
    """Flush tlb_ubc, and mark its CPUs done (try_to_unmap_flush)."""
    if ram.ubc_required[cpu]:
        ram.ubc_required[cpu] = ram.ubc_writable[cpu] = 0
        flush_and_mark(ram, state, cpu, ram.ubc_mask, cpu)
