"""Vanilla Linux 6.12: reclaim and migration batch their flushes (mm/rmap.c: set_tlb_ubc_flush_pending,
try_to_unmap_flush).

Mechanism: an unmapper ORs the CPUs of the mm into its batch, bumps the mm's tlb_gen, and sends one round of
interrupts before the batch's pages are freed. munmap and its kin complete what is pending for their mm
(flush_tlb_batched_pending). Safety: no frame is freed, and no dirty page written, before every CPU that could
reach it has flushed.
Simplified: nothing.
"""

from allocator.tlb_flush import flush_batch, flush_tlb_mm, inc_mm_tlb_gen
from cpus.atomics import compare_exchange, fetch_add, load_acquire
from cpus.compiled import kernel
from cpus.cpumask import cpumask_or
from cpus.declare import EXERCISED, OWNER, Atomic, Counter, Field, Struct
from cpus.ipi import MASKS
from cpus.page_table import PTE_DIRTY
from designs.design import Design, hook

FIELDS = (
    Struct("nr_mms", "changes", (
        Field("mm_batched", Atomic("fetch_add", "compare_exchange"),
              "tlb_flush_batched: pending | flushed << 16"),
    )),
    Struct("nr_cpus", "batches", (  # tlb_ubc of the task that runs
        Field("ubc_required", OWNER, "a batched flush is due (tlb_ubc.flush_required)"),
        Field("ubc_writable", OWNER, "a dirty or writable PTE is in the batch"),
    )),
    Field("ubc_mask", OWNER, "CPUs that the batched flush must reach (tlb_ubc.cpumask)", MASKS),
    Field("tmp_mask", OWNER, "scratch of a design", MASKS),
)  # fmt: skip

COUNTERS = (
    Counter("pending_completed", EXERCISED,
            "changes of mappings that flushed first what reclaim had left pending"),
    Counter("flushed_before_io", EXERCISED, "batches flushed early, before a dirty page is written"),
)  # fmt: skip

FLUSHED_SHIFT = 16  # TLB_FLUSH_BATCH_FLUSHED_SHIFT
PENDING_MASK = (1 << (FLUSHED_SHIFT - 1)) - 1  # TLB_FLUSH_BATCH_PENDING_MASK
PENDING_LARGE = PENDING_MASK // 2  # TLB_FLUSH_BATCH_PENDING_LARGE


@kernel
def count_pending(ram, mm):
    """Count one more unmap of the mm that is not flushed yet (tlb_flush_batched)."""
    batched = load_acquire(ram.mm_batched, mm)
    # before it could catch up with what was flushed: 1 pending, 0 flushed
    while batched & PENDING_MASK > PENDING_LARGE:
        seen = compare_exchange(ram.mm_batched, mm, batched, 1)
        if seen == batched:
            return
        batched = seen
    fetch_add(ram.mm_batched, mm, 1)


@kernel
def set_flush_pending(ram, cpu, mm, pte):
    """Add a cleared PTE to the CPU's batch (set_tlb_ubc_flush_pending)."""
    # before the mask is read: a CPU that loads the mm later sees the generation and flushes itself
    inc_mm_tlb_gen(ram, mm)
    cpumask_or(ram.ubc_mask, cpu, ram.mm_cpumask, mm)
    ram.ubc_required[cpu] = 1
    if pte & PTE_DIRTY:
        ram.ubc_writable[cpu] = 1
    count_pending(ram, mm)


@kernel
def flush_pending(ram, cpu):
    """Send the batch's interrupts (try_to_unmap_flush)."""
    if ram.ubc_required[cpu]:
        ram.ubc_required[cpu], ram.ubc_writable[cpu] = 0, 0
        flush_batch(ram, cpu, ram.ubc_mask, cpu)


@kernel
def unflushed(ram, mm):
    """What reclaim has left pending for an mm, as counted now (tlb_flush_batched); 0 if all is flushed."""
    batched = load_acquire(ram.mm_batched, mm)
    return batched if batched & PENDING_MASK != batched >> FLUSHED_SHIFT else 0


@kernel
def note_flushed(ram, mm, batched):
    """What was counted so is flushed. Another unmapper may have added meanwhile: then the next caller flushes
    again.
    """
    pending = batched & PENDING_MASK
    compare_exchange(ram.mm_batched, mm, batched, pending | (pending << FLUSHED_SHIFT))


@kernel
def flush_batched_pending(ram, cpu, mm):
    """Complete what reclaim has left pending for an mm before a user's change of its mappings
    (flush_tlb_batched_pending).
    """
    batched = unflushed(ram, mm)
    if batched != 0:
        ram.pending_completed[cpu] += 1
        flush_tlb_mm(ram, cpu, mm)
        note_flushed(ram, mm, batched)


@hook("pte_cleared")
def linux_pte_cleared(ram, cpu, mm, vpn, pte, object):
    set_flush_pending(ram, cpu, mm, pte)
    return 0


@hook("unmap_flush")
def linux_unmap_flush(ram, cpu, a, b, c, d):
    flush_pending(ram, cpu)
    return 0


@hook("unmap_flush_dirty")
def linux_unmap_flush_dirty(ram, cpu, a, b, c, d):
    if ram.ubc_writable[cpu]:
        ram.flushed_before_io[cpu] += 1
        flush_pending(ram, cpu)
    return 0


@hook("mapping_change")
def linux_mapping_change(ram, cpu, mm, b, c, d):
    flush_batched_pending(ram, cpu, mm)
    return 0


class Linux(Design):
    """vanilla Linux 6.12: one round of interrupts per batch of unmapped pages"""

    name = "linux"
    relies_on = ("pending_completed", "lazy_came_back_late", "slot_came_back_late")
    hooks = (linux_pte_cleared, linux_unmap_flush, linux_unmap_flush_dirty, linux_mapping_change)
