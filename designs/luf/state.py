"""Stamps, records and shared fields of LUF (designs/luf/luf.py).

A *stamp* is drawn from one counter: by a request after PTEs were cleared, by a flush before it is sent. Every
CPU has the newest flush stamp that is complete on it; whoever has a newer one than a request needs no flush
for it. A *record* is {cpumask, newest request, lock}: one for each key, each mm, each file, and, under the
zone lock, one for each zone's open generation.
"""

from allocator.tlb_flush import flush_batch
from cpus.atomics import compare_exchange, fetch_add, load_acquire
from cpus.compiled import kernel
from cpus.cpumask import (
    __cpumask_clear_cpu,
    cpumask_clear,
    cpumask_copy,
    cpumask_empty,
    cpumask_or,
    for_each_cpu,
)
from cpus.layout import Sizes
from cpus.locks import spin_lock, spin_unlock
from designs.deferral import deferral_fields
from designs.luf.done import lock_done, unlock_done
from designs.measure import FLUSHES, measure_fields
from designs.state import own_fields

# luf_batch records of pages on their way to the buddy; v12 has 65,536. Reuse only merges, it never loses
KEYS = 4096
EACH_ROWS = 256  # newest generations of a zone that sync=each remembers


def luf_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shared fields of LUF; each record is {cpumask, newest request merged into it, lock}."""
    words, zones, cpus = sizes.mask_words, (sizes.nr_zones,), (sizes.nr_cpus,)
    return deferral_fields(sizes) | {
        "ugen": (1,),  # any, add: source of request and flush stamps
        # any, raised by one compare-exchange (if that fails it stays lower): newest flush stamp complete on
        # this CPU
        "ugen_done": cpus,
        "next_key": (1,),  # any, add
        "key_mask": (KEYS, words), "key_ugen": (KEYS,), "key_lock": (KEYS,),
        "mm_mask": (sizes.nr_mms, words), "mm_ugen": (sizes.nr_mms,), "mm_rec_lock": (sizes.nr_mms,),
        "file_mask": (sizes.nr_objects, words), "file_ugen": (sizes.nr_objects,),
        "file_lock": (sizes.nr_objects,),
        "zone_mask": (sizes.nr_zones, words), "zone_ugen": zones,  # zone lock held: of the open generation
        "zone_generation": zones,  # zone lock held: generation that frees go into
        "take_mask": (sizes.nr_cpus, words), "take_ugen": cpus,  # owner: tlb_ubc_takeoff
        # owner: generation this CPU has promised to flush, 0 none
        "own_generation": (sizes.nr_cpus, sizes.nr_zones),
        # owner: generation that somebody else flushes, 0 none
        "wait_generation": (sizes.nr_cpus, sizes.nr_zones),
        # of single ways to synchronise (luf_*.py)
        # zone lock held
        "each_mask": (sizes.nr_zones * EACH_ROWS, words), "each_ugen": (sizes.nr_zones * EACH_ROWS,),
        "each_key": zones,  # zone lock held: key of the newest generation
        # same
        "claim_mask": (sizes.nr_zones * (sizes.nr_cpus + 2), words),
        "claim_ugen": (sizes.nr_zones * (sizes.nr_cpus + 2),),
        # global: compare-exchange 0 -> CPU + 1; then its holder
        "flusher": (1,), "flusher_ns": (1,), "flusher_took": (1,),
        "kicking": zones,  # kicker: any; only a hint
        "kick_cpu": (1,),  # tick: compare-exchange 0 -> CPU + 1: one flusher in the background at a time
        "request_ns": zones,  # tick: zone lock held: when the open generation got its first page
    } | measure_fields(sizes)  # fmt: skip


luf_state = own_fields("luf", luf_fields)


# --- stamps and records -------------------------------------------------------------------------------------


@kernel
def new_stamp(state):
    """Draw a stamp: a full barrier, so what was cleared before it is seen by flushes that start after it."""
    return fetch_add(state.ugen, 0, 1) + 1


@kernel
def diet(ram, state, cpu, mask, row, ugen):
    """Drop the CPUs that have completed a flush begun after request `ugen`; True if nobody is left."""
    lock_done(ram, cpu)
    for target in for_each_cpu(mask, row):
        if load_acquire(state.ugen_done, target) >= ugen:
            __cpumask_clear_cpu(target, mask, row)
    unlock_done(ram, cpu)
    return cpumask_empty(mask, row)


@kernel
def mark_done(ram, state, cpu, mask, row, stamp):
    """Note for every CPU of a mask that it has completed the flush `stamp`."""
    lock_done(ram, cpu)
    for target in for_each_cpu(mask, row):
        seen = load_acquire(state.ugen_done, target)
        if seen < stamp:
            compare_exchange(state.ugen_done, target, seen, stamp)  # lost: only a flush too many later
    unlock_done(ram, cpu)


@kernel
def flush_and_mark(ram, state, cpu, mask, row):
    """Flush the CPUs of a mask that this CPU owns (it is emptied) and note for each that it is up to date."""
    stamp = new_stamp(state)  # before the flush begins
    cpumask_copy(ram.tmp_mask, cpu, mask, row)
    if flush_batch(ram, cpu, mask, row) > 0:
        state.stat[cpu, FLUSHES] += 1
    mark_done(ram, state, cpu, ram.tmp_mask, cpu, stamp)


@kernel
def fold(ram, state, cpu, masks, ugens, locks, i, source, source_row, ugen):
    """Merge CPUs and a request into record `i` (fold_batch); CPUs that are done with what was there before
    drop out.
    """
    spin_lock(ram, cpu, locks, i)
    diet(ram, state, cpu, masks, i, ugens[i])
    cpumask_or(masks, i, source, source_row)
    if ugen > ugens[i]:
        ugens[i] = ugen
    spin_unlock(ram, cpu, locks, i)


@kernel
def flush_record(ram, state, cpu, masks, ugens, locks, i):
    """Flush the CPUs of record `i` that are not up to date (luf_flush_mm, luf_flush_mapping)."""
    spin_lock(ram, cpu, locks, i)
    clean = diet(ram, state, cpu, masks, i, ugens[i])
    cpumask_or(state.take_mask, cpu, masks, i)
    spin_unlock(ram, cpu, locks, i)
    if not clean:
        flush_and_mark(ram, state, cpu, state.take_mask, cpu)
    cpumask_clear(state.take_mask, cpu)
