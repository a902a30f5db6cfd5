"""Unmaps whose flush may wait, gathered folio by folio: what `luf`, `luf_hold`, `epoch` and `latr` share.

Reclaim or migration walks the mappings of a folio. Those whose flush may wait are gathered by themselves
(LUF's tlb_ubc_ro), the others join vanilla's batch (tlb_ubc). At the end of the walk one mapping that could
not wait, or one that is still there, makes the whole folio vanilla's. Otherwise what was gathered joins the
deferred batch (LUF's tlb_ubc_luf), which stands for all folios since it was handed over.
Which mappings may wait, and what stands for the batch later (a key, a stamp, a mask), is each design's to
say.
"""

from allocator.tlb_flush import inc_mm_tlb_gen
from cpus.compiled import kernel
from cpus.cpumask import cpumask_clear, cpumask_or
from cpus.layout import Sizes
from cpus.page_table import PTE_DIRTY, PTE_WRITE
from designs.design import hook
from designs.linux import count_pending, set_flush_pending
from designs.state import own_fields


def deferral_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shared fields of a design that defers; its own begin with these."""
    words, cpus = sizes.mask_words, (sizes.nr_cpus,)
    return {
        # owner: the folio being walked, its deferred mappings (tlb_ubc_ro), and whether one could not wait
        "ro_mask": (sizes.nr_cpus, words), "ro_required": cpus, "rw_seen": cpus,
        # owner: the deferred batch (tlb_ubc_luf)
        "lazy_mask": (sizes.nr_cpus, words), "lazy_required": cpus,
    }  # fmt: skip


deferral_state = own_fields("deferral", deferral_fields)


@kernel
def is_clean_read_only(pte):
    """Does a stale translation of this PTE show what nobody can change through it, and nothing unwritten?"""
    return pte & (PTE_WRITE | PTE_DIRTY) == 0


@kernel
def defer_flush(ram, state, cpu, mm):
    """The flush of a cleared PTE may wait: gather the CPUs of its mm."""
    inc_mm_tlb_gen(ram, mm)
    cpumask_or(state.ro_mask, cpu, ram.mm_cpumask, mm)
    state.ro_required[cpu] = 1
    count_pending(ram, mm)


@kernel
def cannot_defer(ram, state, cpu, mm, pte):
    """The flush of a cleared PTE cannot wait: it joins vanilla's batch, and its folio will."""
    state.rw_seen[cpu] = 1
    set_flush_pending(ram, cpu, mm, pte)


@hook("walk_done")
def deferral_walk_done(ram, cpu, pfn, all_deferred, complete, d):
    """1 if nothing of the folio could not wait: the deferred batch has it, else vanilla's."""
    state = deferral_state(ram)
    lazy = all_deferred and complete and not state.rw_seen[cpu]
    if state.ro_required[cpu]:
        if lazy:
            cpumask_or(state.lazy_mask, cpu, state.ro_mask, cpu)
            state.lazy_required[cpu] = 1
        else:
            cpumask_or(ram.ubc_mask, cpu, state.ro_mask, cpu)
            ram.ubc_required[cpu] = 1
        cpumask_clear(state.ro_mask, cpu)
    state.ro_required[cpu] = state.rw_seen[cpu] = 0
    return 1 if lazy else 0


@kernel
def give_up_deferring(ram, state, cpu):
    """Have the deferred batch flushed with vanilla's after all; its folios may still get a key."""
    if state.lazy_required[cpu]:
        cpumask_or(ram.ubc_mask, cpu, state.lazy_mask, cpu)
        ram.ubc_required[cpu] = 1


@kernel
def must_flush_before_io(ram, state, cpu, everything):
    """Must vanilla's batch be flushed now (HOOK_UNMAP_FLUSH_DIRTY)? With `everything` the deferred one joins
    it: a folio that was unmapped lazily stays in use.
    """
    if everything:
        give_up_deferring(ram, state, cpu)
    return everything or ram.ubc_writable[cpu]


@kernel
def end_deferred_batch(state, cpu):
    """Forget the deferred batch: something else stands for it from here on."""
    state.lazy_required[cpu] = 0
    cpumask_clear(state.lazy_mask, cpu)
