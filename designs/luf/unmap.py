"""LUF's unmapping: read-only mappings are noted in the records of their mm and file, a batch of folios gets a
key.

What is deferred waits in designs/deferral.py's masks until the batch is handed over.
"""

from allocator.page import is_large
from allocator.page_alloc import free_changes_bytes
from cpus.atomics import fetch_add
from cpus.cpumask import cpumask_andnot, cpumask_empty
from cpus.page_table import pte_pfn
from designs.deferral import (
    cannot_defer,
    defer_flush,
    end_deferred_batch,
    is_clean_read_only,
    must_flush_before_io,
)
from designs.design import hook
from designs.luf.fields import KEYS, luf_state
from designs.luf.records import fold, of_file, of_key, of_mm
from designs.luf.ugen import flush_vanilla_batch, new_luf_ugen


@hook("pte_cleared")
def luf_pte_cleared(ram, cpu, mm, vpn, pte, object):
    state = luf_state(ram)
    # can_luf_init
    if not is_clean_read_only(pte) or free_changes_bytes(ram) or is_large(ram, pte_pfn(pte)):
        cannot_defer(ram, state, cpu, mm, pte)
        return 0
    defer_flush(ram, state, cpu, mm)
    ugen = new_luf_ugen(state)
    fold(ram, state, cpu, of_mm(ram, mm), ram.mm_cpumask, mm, ugen)
    fold(ram, state, cpu, of_file(object), ram.mm_cpumask, mm, ugen)
    return 1


@hook("unmap_flush")
def luf_unmap_flush(ram, cpu, a, b, c, d):
    flush_vanilla_batch(ram, luf_state(ram), cpu)
    return 0


@hook("unmap_flush_dirty")
def luf_unmap_flush_dirty(ram, cpu, everything, b, c, d):
    state = luf_state(ram)
    if must_flush_before_io(ram, state, cpu, everything):
        flush_vanilla_batch(ram, state, cpu)
    return 0


@hook("batch_key")
def luf_batch_key(ram, cpu, a, b, c, d):
    """Give the deferred batch a key (fold_unmap_luf); CPUs that the vanilla batch is about to flush need
    none.
    """
    state = luf_state(ram)
    if not state.lazy_required[cpu]:
        return 0
    if ram.ubc_required[cpu]:
        cpumask_andnot(state.lazy_mask, cpu, ram.ubc_mask, cpu)
    key = 0
    if not cpumask_empty(state.lazy_mask, cpu):
        key = 1 + fetch_add(state.next_key, 0, 1) % (KEYS - 1)
        fold(ram, state, cpu, of_key(ram, key), state.lazy_mask, cpu, new_luf_ugen(state))
    end_deferred_batch(state, cpu)
    return key
