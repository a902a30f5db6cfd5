"""Folds into the batches and records of LUF v12 as posted, and the flushes of what is folded (patches 08, 16,
19, 20).
"""

from allocator.page_cache import OBJECT_FILE
from cpus.compiled import kernel
from cpus.cpumask import cpumask_clear, cpumask_or
from designs.deferral import end_deferred_batch
from designs.luf.records import lock_record, of_file, of_key, of_mm, unlock_record
from designs.luf.ugen import before, diet, flush_vanilla_batch, new_luf_ugen

# --- folds --------------------------------------------------------------------------------------------------


@kernel
def fold_into_key(ram, state, cpu, key, mask, row, ugen):
    """Fold a batch into the table's entry (fold_luf_batch): reuse of a key is such a fold, so nothing is lost
    by it.
    """
    record = of_key(ram, key)
    lock_record(ram, state, cpu, record)
    if before(state.record_ugen[record], ugen):
        diet(ram, state, cpu, state.record_mask, record, state.record_ugen[record])
        state.record_ugen[record] = ugen
    cpumask_or(state.record_mask, record, mask, row)
    state.record_required[record] = 1
    unlock_record(ram, state, cpu, record)


@kernel
def _fold_mm_into(ram, state, cpu, record, mm):
    """Mask and generation, as posted not flush_required."""
    lock_record(ram, state, cpu, record)
    cpumask_or(state.record_mask, record, ram.mm_cpumask, mm)
    state.record_ugen[record] = new_luf_ugen(state)
    state.record_required[record] |= state.records_required[0]
    unlock_record(ram, state, cpu, record)


@kernel
def fold_into_mm(ram, state, cpu, mm):
    """Note in the mm that its CPUs may read old pages (fold_luf_batch_mm)."""
    _fold_mm_into(ram, state, cpu, of_mm(ram, mm), mm)


@kernel
def fold_into_mapping(ram, state, cpu, object, mm):
    """The same in the file's mapping (patch 20), if it is a file."""
    if ram.object_kind[object] == OBJECT_FILE:
        _fold_mm_into(ram, state, cpu, of_file(object), mm)


@kernel
def fold_ro_into_vanilla(ram, state, cpu):
    """Fold tlb_ubc_ro into tlb_ubc."""
    cpumask_or(ram.ubc_mask, cpu, state.ro_mask, cpu)
    ram.ubc_writable[cpu] |= state.ro_writable[cpu]
    ram.ubc_required[cpu] = 1


@kernel
def reset_ro(state, cpu):
    """Empty tlb_ubc_ro."""
    cpumask_clear(state.ro_mask, cpu)
    state.ro_required[cpu] = state.ro_writable[cpu] = 0


@kernel
def reset_luf(state, cpu):
    """Empty tlb_ubc_luf."""
    end_deferred_batch(state, cpu)
    state.lazy_writable[cpu] = 0


# --- flushes ------------------------------------------------------------------------------------------------


@kernel
def try_to_unmap_flush(ram, state, cpu):
    """Flush everything that the task has pending."""
    if state.ro_required[cpu]:
        fold_ro_into_vanilla(ram, state, cpu)
    if state.lazy_required[cpu]:
        cpumask_or(ram.ubc_mask, cpu, state.lazy_mask, cpu)
        ram.ubc_writable[cpu] |= state.lazy_writable[cpu]
        ram.ubc_required[cpu] = 1
    reset_ro(state, cpu)
    reset_luf(state, cpu)
    flush_vanilla_batch(ram, state, cpu)


@kernel
def _fold_record(ram, state, cpu, record):
    """Fold a record into tlb_ubc, which takes only what is flush_required; returns its newest request."""
    lock_record(ram, state, cpu, record)
    if state.record_required[record]:
        cpumask_or(ram.ubc_mask, cpu, state.record_mask, record)
        ram.ubc_required[cpu] = 1
    ugen = state.record_ugen[record]
    unlock_record(ram, state, cpu, record)
    return ugen


@kernel
def luf_flush_record(ram, state, cpu, record):
    """Fold the record of an mm or a file into tlb_ubc, drop from that who is up to date, and flush the rest,
    if any (luf_flush_mm, luf_flush_mapping).
    """
    ugen = _fold_record(ram, state, cpu, record)
    if diet(ram, state, cpu, ram.ubc_mask, cpu, ugen):
        # v12 leaves an empty batch marked as required: it flushes nobody
        ram.ubc_required[cpu] = ram.ubc_writable[cpu] = 0
        return
    ram.luf_triggered[cpu] += 1
    try_to_unmap_flush(ram, state, cpu)


@kernel
def luf_flush(ram, state, cpu, key):
    """Flush what a key stands for, and what the task has pending, without a diet."""
    if key != 0:
        _fold_record(ram, state, cpu, of_key(ram, key))
    try_to_unmap_flush(ram, state, cpu)
