"""Records of pending flushes, luf_batch of v12 (patch 08): {cpumask, newest request merged into it, lock}.

One stands for each file, each mm, and each key, which a batch of pages takes along into the allocator. All
lie in one table. Keys are handed out round robin: what a key stood for before is merged with what it stands
for now, so reuse loses nothing.
"""

from cpus.compiled import kernel
from cpus.cpumask import cpumask_or
from cpus.layout import Sizes
from cpus.locks import spin_lock, spin_unlock
from designs.luf.ugen import NO_UGEN, diet, flush_and_mark, newer


def record_fields(sizes: Sizes, keys: int) -> dict[str, tuple[int, ...]]:
    """Shared fields, for so many keys (0 is none)."""
    records = sizes.nr_objects + sizes.nr_mms + keys
    return {
        # lock of the record held
        "record_mask": (records, sizes.mask_words), "record_ugen": (records,), "record_lock": (records,),
        "next_key": (1,),  # any, add
    }  # fmt: skip


@kernel
def of_file(object):
    """Find the record of a file."""
    return object


@kernel
def of_mm(ram, mm):
    """Find the record of an mm."""
    return ram.nr_objects + mm


@kernel
def of_key(ram, key):
    """Find the record of a key."""
    return ram.nr_objects + ram.nr_mms + key


@kernel
def lock_record(ram, state, cpu, record):
    """Hold a record."""
    spin_lock(ram, cpu, state.record_lock, record)


@kernel
def unlock_record(ram, state, cpu, record):
    """Let go of it."""
    spin_unlock(ram, cpu, state.record_lock, record)


@kernel
def add_record(ram, state, cpu, record, mask, row):
    """Add the CPUs of a record to a mask; returns its newest request."""
    lock_record(ram, state, cpu, record)
    cpumask_or(mask, row, state.record_mask, record)
    ugen = state.record_ugen[record]
    unlock_record(ram, state, cpu, record)
    return ugen


@kernel
def fold(ram, state, cpu, record, mask, row, ugen):
    """Merge CPUs and a request into a record (fold_batch); CPUs that are done with what was there before drop
    out.
    """
    lock_record(ram, state, cpu, record)
    diet(ram, state, cpu, state.record_mask, record, state.record_ugen[record])
    cpumask_or(state.record_mask, record, mask, row)
    state.record_ugen[record] = newer(state.record_ugen[record], ugen)
    unlock_record(ram, state, cpu, record)


@kernel
def take_pending(ram, state, cpu, record, mask, row):
    """Drop from a record the CPUs that are done, and add the others to a mask; returns the record's newest
    request, NO_UGEN if nobody is left.
    """
    lock_record(ram, state, cpu, record)
    clean = diet(ram, state, cpu, state.record_mask, record, state.record_ugen[record])
    cpumask_or(mask, row, state.record_mask, record)
    ugen = NO_UGEN if clean else state.record_ugen[record]
    unlock_record(ram, state, cpu, record)
    return ugen


@kernel
def flush_record(ram, state, cpu, record):
    """Flush the CPUs of a record that are not up to date (luf_flush_mm, luf_flush_mapping)."""
    if take_pending(ram, state, cpu, record, state.take_mask, cpu) != NO_UGEN:
        ram.luf_triggered[cpu] += 1
        flush_and_mark(ram, state, cpu, state.take_mask, cpu)
