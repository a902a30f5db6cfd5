"""Unmapping of LUF v12 as posted (patches 14, 16, 24)."""

from allocator.page import is_large
from allocator.page_alloc import free_changes_bytes
from cpus.atomics import fetch_add
from cpus.compiled import kernel
from cpus.cpumask import cpumask_andnot, cpumask_or
from cpus.page_table import PTE_DIRTY, PTE_WRITE, pte_pfn
from designs.deferral import cannot_defer, defer_flush
from designs.design import hook
from designs.luf.ugen import LOW, new_luf_ugen
from designs.luf_v12.batches import (
    fold_into_key,
    fold_into_mapping,
    fold_into_mm,
    fold_ro_into_vanilla,
    luf_flush,
    reset_luf,
    reset_ro,
    try_to_unmap_flush,
)
from designs.luf_v12.fields import v12_state


@hook("pte_cleared")
def v12_pte_cleared(ram, cpu, mm, vpn, pte, object):
    """set_tlb_ubc_flush_pending: with the write bit once in the old PTE, the folio is vanilla; dirty alone
    only marks the batch.
    """
    state = v12_state(ram)
    can_luf = not (free_changes_bytes(ram) or is_large(ram, pte_pfn(pte)) or state.rw_seen[cpu])
    if not can_luf or pte & PTE_WRITE:
        cannot_defer(ram, state, cpu, mm, pte)
        return 0
    defer_flush(ram, state, cpu, mm)
    if pte & PTE_DIRTY:
        state.ro_writable[cpu] = 1
    fold_into_mm(ram, state, cpu, mm)
    fold_into_mapping(ram, state, cpu, object, mm)
    return 1


@hook("walk_done")
def v12_walk_done(ram, cpu, pfn, all_deferred, complete, writable):
    """try_to_unmap's end: can_luf survived, or everything gathered goes to tlb_ubc. Nothing deferred at all
    counts as LUF too.

    One writable mapping anywhere makes the folio vanilla, one that was flushed at once too.
    """
    state = v12_state(ram)
    lazy = complete and not writable and not state.rw_seen[cpu] and not is_large(ram, pfn)
    state.rw_seen[cpu] = 0  # can_luf_init for the next folio
    if state.ro_required[cpu]:
        if lazy:
            cpumask_or(state.lazy_mask, cpu, state.ro_mask, cpu)
            state.lazy_required[cpu] = 1
            state.lazy_writable[cpu] |= state.ro_writable[cpu]
        else:
            fold_ro_into_vanilla(ram, state, cpu)
        reset_ro(state, cpu)
    return 1 if lazy else 0


@kernel
def new_luf_key(state):
    """Hand out the next key, round robin."""
    key = (fetch_add(state.next_key, 0, 1) + 1) & LOW
    while key == 0:
        key = (fetch_add(state.next_key, 0, 1) + 1) & LOW
    return key


@kernel
def fold_unmap_luf(ram, state, cpu):
    """Turn tlb_ubc_luf into a key; whom tlb_ubc is about to flush needs none (patch 16)."""
    if not state.lazy_required[cpu]:
        return 0
    if not cpumask_andnot(state.lazy_mask, cpu, ram.ubc_mask, cpu):
        reset_luf(state, cpu)
        return 0
    ugen, key = new_luf_ugen(state), new_luf_key(state)
    fold_into_key(ram, state, cpu, key, state.lazy_mask, cpu, ugen)
    reset_luf(state, cpu)
    return key


@hook("batch_key")
def v12_batch_key(ram, cpu, a, b, c, d):
    return fold_unmap_luf(ram, v12_state(ram), cpu)


@hook("unmap_flush")
def v12_unmap_flush(ram, cpu, a, b, c, d):
    try_to_unmap_flush(ram, v12_state(ram), cpu)
    return 0


@hook("unmap_flush_dirty")
def v12_unmap_flush_dirty(ram, cpu, kept, b, c, d):
    """try_to_unmap_flush_dirty looks at all three batches; a folio kept after a LUF unmap is flushed at once
    (patch 24).
    """
    state = v12_state(ram)
    if kept:
        luf_flush(ram, state, cpu, fold_unmap_luf(ram, state, cpu))
    elif ram.ubc_writable[cpu] or state.ro_writable[cpu] or state.lazy_writable[cpu]:
        try_to_unmap_flush(ram, state, cpu)
    return 0
