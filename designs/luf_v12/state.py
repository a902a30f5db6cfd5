"""Generations, batches and records of LUF v12 as posted (patches 04, 07, 08, 14, 16, 17, 19, 20).

Mechanism: one counter (luf_ugen) gives request stamps, drawn after PTEs were cleared, and flush stamps, drawn
before a flush is sent. Each CPU has the newest flush stamp known to be complete on it (ugen_done). A record
{cpumask, flush_required, writable, newest request} stands for pending flushes: 65,536 of them by a 16-bit
key, one in every mm, one in every mapping. A task has four batches: vanilla (tlb_ubc), of the folio being
walked (_ro), deferred (_luf), and of pages being taken (_takeoff). Simplified: a task's batches are its CPU's
(no task is switched out between an unmap and its flush here); locks of records are plain spin locks, not
rwlocks; generations have 64 bits where the posted `unsigned long` has.
"""

import numpy as np

from allocator.page_cache import OBJECT_FILE
from allocator.tlb_flush import flush_batch
from allocator.vma import VM_ANON, VM_SHARED, VM_WRITE
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
from designs.luf.done import lock_done, unlock_done
from designs.measure import FLUSHES, measure_fields
from designs.state import own_fields

KEYS = 65536  # NR_LUF_BATCH: luf_key has 16 bits, 0 means none
LOW = 0xFFFF  # what of a zone's generation is kept in a page
NO_UGEN = 0


def v12_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shared fields; each record is {cpumask, flush_required, writable, newest request, lock}."""
    words, cpus, zones = sizes.mask_words, (sizes.nr_cpus,), (sizes.nr_zones,)
    return {
        "ugen": (1,),  # any, add: luf_ugen
        "ugen_done": cpus,  # any, one compare-and-swap: newest flush stamp complete on this CPU
        "next_key": (1,),  # any, add: keys are handed out round robin
        # config: whether folds into mm and mapping set flush_required (as posted: 0)
        "records_required": (1,),
        "key_mask": (KEYS, words), "key_required": (KEYS,), "key_writable": (KEYS,), "key_ugen": (KEYS,),
        "key_lock": (KEYS,),
        "mm_mask": (sizes.nr_mms, words), "mm_required": (sizes.nr_mms,), "mm_ugen": (sizes.nr_mms,),
        "mm_rec_lock": (sizes.nr_mms,),
        "file_mask": (sizes.nr_objects, words), "file_required": (sizes.nr_objects,),
        "file_ugen": (sizes.nr_objects,),
        "file_lock": (sizes.nr_objects,),
        "zone_batch": (sizes.nr_zones, words), "zone_luf_ugen": zones, "zone_ugen": zones,  # zone lock held
        # of the task: owner
        "ro_mask": (sizes.nr_cpus, words), "ro_required": cpus, "ro_writable": cpus,
        "luf_mask": (sizes.nr_cpus, words), "luf_required": cpus, "luf_writable": cpus,
        "take_mask": (sizes.nr_cpus, words), "take_ugen": cpus,
        "cannot_luf": cpus,  # of the folio being walked: !can_luf
        "takeoff_started": cpus, "no_shootdown": cpus, "section_zone": cpus,
        "own_generation": cpus, "wait_generation": cpus,  # task's zone_ugen and wait_zone_ugen, 0 none
    } | measure_fields(sizes)  # fmt: skip


v12_state = own_fields("luf_v12", v12_fields)


# --- generations (patches 07 and 21) ------------------------------------------------------------------------


@kernel
def before(a, b):
    """Is generation `a` older than `b`? Right while both lie within half the number space, across the wrap
    too.
    """
    return (np.uint64(a) - np.uint64(b)) >> np.uint64(63) != 0  # unsigned, so that it may wrap


@kernel
def next_ugen(ugen):
    """The generation after this one; those whose low 16 bits are 0 are not valid."""
    return ugen + 1 if (ugen + 1) & LOW != 0 else ugen + 2


@kernel
def prev_ugen(ugen):
    """The generation before this one."""
    return ugen - 1 if (ugen - 1) & LOW != 0 else ugen - 2


@kernel
def new_luf_ugen(state):
    """Draw a stamp; a full barrier."""
    ugen = fetch_add(state.ugen, 0, 1) + 1
    while ugen & LOW == 0:
        ugen = fetch_add(state.ugen, 0, 1) + 1
    return ugen


@kernel
def new_luf_key(state):
    """Hand out the next key, round robin."""
    key = (fetch_add(state.next_key, 0, 1) + 1) & LOW
    while key == 0:
        key = (fetch_add(state.next_key, 0, 1) + 1) & LOW
    return key


@kernel
def whole_generation(low, newest):
    """Rebuild a zone's generation from its low 16 bits: the largest that is not newer than the zone's
    (page_zone_ugen).
    """
    ugen = (newest & ~LOW) | low
    return ugen - (LOW + 1) if before(newest, ugen) else ugen


# --- masks and done-numbers (patches 04 and 17) -------------------------------------------------------------


@kernel
def is_done(state, cpu, ugen):
    """Has a CPU completed a flush that began after the request?"""
    return ugen != NO_UGEN and not before(load_acquire(state.ugen_done, cpu), ugen)


@kernel
def check_done(ram, state, cpu, mask, row, ugen):
    """Have all CPUs of the mask (arch_tlbbatch_check_done)?"""
    lock_done(ram, cpu)
    done = True
    for target in for_each_cpu(mask, row):
        if not is_done(state, target, ugen):
            done = False
    unlock_done(ram, cpu)
    return done


@kernel
def diet(ram, state, cpu, mask, row, ugen):
    """Drop the CPUs that have; True if nobody is left (arch_tlbbatch_diet)."""
    lock_done(ram, cpu)
    for target in for_each_cpu(mask, row):
        if is_done(state, target, ugen):
            __cpumask_clear_cpu(target, mask, row)
    unlock_done(ram, cpu)
    return cpumask_empty(mask, row)


@kernel
def mark_done(ram, state, cpu, mask, row, ugen):
    """Raise the done-number of every CPU of a mask, with one attempt each: a lost one costs a flush too many
    later (mark_ugen_done).
    """
    lock_done(ram, cpu)
    for target in for_each_cpu(mask, row):
        old = load_acquire(state.ugen_done, target)
        if before(old, ugen):
            compare_exchange(state.ugen_done, target, old, ugen)
    unlock_done(ram, cpu)


@kernel
def flush_and_mark(ram, state, cpu, mask, row):
    """Stamp, flush the CPUs of a mask (it is emptied; `tmp_mask` keeps them), mark them done."""
    ugen = new_luf_ugen(state)
    cpumask_copy(ram.tmp_mask, cpu, mask, row)
    if flush_batch(ram, cpu, mask, row) > 0:
        state.stat[cpu, FLUSHES] += 1
    mark_done(ram, state, cpu, ram.tmp_mask, cpu, ugen)


# --- folds (patches 08, 16, 19, 20) -------------------------------------------------------------------------


@kernel
def fold_into_key(ram, state, cpu, key, mask, row, writable, ugen):
    """Fold a batch into the table's entry (fold_luf_batch): reuse of a key is such a fold, so nothing is lost
    by it.
    """
    spin_lock(ram, cpu, state.key_lock, key)
    if before(state.key_ugen[key], ugen):
        if diet(ram, state, cpu, state.key_mask, key, state.key_ugen[key]):
            state.key_required[key] = state.key_writable[key] = 0
        state.key_ugen[key] = ugen
    cpumask_or(state.key_mask, key, mask, row)
    state.key_writable[key] |= writable
    state.key_required[key] = 1
    spin_unlock(ram, cpu, state.key_lock, key)


@kernel
def fold_into_mm(ram, state, cpu, mm):
    """Note in the mm that its CPUs may read old pages (fold_luf_batch_mm): mask and generation, as posted not
    flush_required.
    """
    spin_lock(ram, cpu, state.mm_rec_lock, mm)
    cpumask_or(state.mm_mask, mm, ram.mm_cpumask, mm)
    state.mm_ugen[mm] = new_luf_ugen(state)
    state.mm_required[mm] |= state.records_required[0]
    spin_unlock(ram, cpu, state.mm_rec_lock, mm)


@kernel
def fold_into_mapping(ram, state, cpu, thing, mm):
    """The same in the file's mapping (patch 20), if it is a file."""
    if ram.object_kind[thing] != OBJECT_FILE:
        return
    spin_lock(ram, cpu, state.file_lock, thing)
    cpumask_or(state.file_mask, thing, ram.mm_cpumask, mm)
    state.file_ugen[thing] = new_luf_ugen(state)
    state.file_required[thing] |= state.records_required[0]
    spin_unlock(ram, cpu, state.file_lock, thing)


@kernel
def fold_ro_and_luf(ram, state, cpu):
    """Fold what was deferred into the vanilla batch."""
    if state.ro_required[cpu]:
        cpumask_or(ram.ubc_mask, cpu, state.ro_mask, cpu)
        ram.ubc_writable[cpu] |= state.ro_writable[cpu]
        ram.ubc_required[cpu] = 1
    if state.luf_required[cpu]:
        cpumask_or(ram.ubc_mask, cpu, state.luf_mask, cpu)
        ram.ubc_writable[cpu] |= state.luf_writable[cpu]
        ram.ubc_required[cpu] = 1
    reset_ro(ram, state, cpu)
    reset_luf(ram, state, cpu)


@kernel
def reset_ro(ram, state, cpu):
    """Empty tlb_ubc_ro."""
    cpumask_clear(state.ro_mask, cpu)
    state.ro_required[cpu] = state.ro_writable[cpu] = 0


@kernel
def reset_luf(ram, state, cpu):
    """Empty tlb_ubc_luf."""
    cpumask_clear(state.luf_mask, cpu)
    state.luf_required[cpu] = state.luf_writable[cpu] = 0


# --- flushes (patches 16, 19, 20) ---------------------------------------------------------------------------


@kernel
def try_to_unmap_flush(ram, state, cpu):
    """Flush everything that the task has pending."""
    fold_ro_and_luf(ram, state, cpu)
    if ram.ubc_required[cpu]:
        ram.ubc_required[cpu] = ram.ubc_writable[cpu] = 0
        flush_and_mark(ram, state, cpu, ram.ubc_mask, cpu)


@kernel
def _flush_after_fold(ram, state, cpu, ugen):
    """Drop from tlb_ubc who is up to date with the record, and flush the rest, if any."""
    if diet(ram, state, cpu, ram.ubc_mask, cpu, ugen):
        # v12 leaves an empty batch marked as required: it flushes nobody
        ram.ubc_required[cpu] = ram.ubc_writable[cpu] = 0
        return
    try_to_unmap_flush(ram, state, cpu)


@kernel
def luf_flush_mm(ram, state, cpu, mm):
    """Fold the mm's record into tlb_ubc, which takes only records that are flush_required, and flush what is
    left of it.
    """
    spin_lock(ram, cpu, state.mm_rec_lock, mm)
    if state.mm_required[mm]:
        cpumask_or(ram.ubc_mask, cpu, state.mm_mask, mm)
        ram.ubc_required[cpu] = 1
    ugen = state.mm_ugen[mm]
    spin_unlock(ram, cpu, state.mm_rec_lock, mm)
    _flush_after_fold(ram, state, cpu, ugen)


@kernel
def luf_flush_mapping(ram, state, cpu, thing):
    """The same for a file."""
    spin_lock(ram, cpu, state.file_lock, thing)
    if state.file_required[thing]:
        cpumask_or(ram.ubc_mask, cpu, state.file_mask, thing)
        ram.ubc_required[cpu] = 1
    ugen = state.file_ugen[thing]
    spin_unlock(ram, cpu, state.file_lock, thing)
    _flush_after_fold(ram, state, cpu, ugen)


@kernel
def luf_flush(ram, state, cpu, key):
    """Flush what a key stands for, and what the task has pending, without a diet."""
    if key != 0:
        spin_lock(ram, cpu, state.key_lock, key)
        if state.key_required[key]:
            cpumask_or(ram.ubc_mask, cpu, state.key_mask, key)
            ram.ubc_required[cpu] = 1
        spin_unlock(ram, cpu, state.key_lock, key)
    try_to_unmap_flush(ram, state, cpu)


@kernel
def is_shared_file(ram, vma):
    """VM_SHARED with a file."""
    return ram.vma_flags[vma] & VM_SHARED != 0 and ram.vma_flags[vma] & VM_ANON == 0


@kernel
def flush_for_fault(ram, state, cpu, mm, vma, store):
    """What handle_mm_fault flushes: for VM_WRITE, VM_MAYWRITE, or a write the mm, and the file if it is
    shared.
    """
    flags = ram.vma_flags[vma]
    if store or flags & VM_WRITE or flags & VM_SHARED == 0:
        luf_flush_mm(ram, state, cpu, mm)
        if is_shared_file(ram, vma):
            luf_flush_mapping(ram, state, cpu, ram.vma_object[vma])
