"""LUF RFC v12 (Byungchul Park, SK hynix, February 2025) as posted, statement by statement, to be judged by
the oracle.

Mechanism: what designs/luf/luf.py describes, with the series' own bookkeeping (batches.py, fields.py): patch
16 LUF proper, 18 three tries in a pcp list, 19 and 20 records of mm and mapping, 21 generations of a zone, 22
no shootdown that the allocation can do without, 25 debug (debug.py), only with --debug-luf. Safety as
claimed: a stale read-only translation shows bytes that do not change before take-off flushes it; flushes of
the mm and of the mapping follow whatever makes the content differ. Where that does not hold, nothing is
repaired here:
- The folds into mm and mapping (fold_luf_batch_mm and its twin, patches 19, 20) update mask and generation
  but not flush_required, and a fold takes only what is flush_required: luf_flush_mm and luf_flush_mapping
  flush nobody. With `records=required` they do.
- handle_mm_fault flushes at its end, when others can use the writable PTE already (patch 19).
- truncate_inode_folio flushes at its end: a reader still finds the old bytes after the new length is seen.
- A dirty read-only PTE is deferred (patch 14 cancels on the write bit only): between mprotect's or fork's
  write protection and its flush a CPU stores to a frame that has been copied already.
tests/designs/test_luf_v12.py has a schedule for each, which designs/luf/luf.py survives; a run in which the
first happens by itself is in tests/designs/test_file_writers.py. Simplified: rmqueue_bulk waits after it has
let go of the pcp lock (v12: under it); the buddy keeps the whole generation beside a block, of which the
design looks at the low 16 bits only, asks for clean or pending blocks first only while some are pending, puts
the rest of a split pending block at the head of its list if it is older than what is there, and looks at the
newest generation of a list; a wait is a sleep, not a spin with cond_resched; an empty tlb_ubc is not left
marked as required (it would flush nobody); finish_task_switch flushes at each borrowed mm that is left, not
at the last reference; VM_MAYWRITE is "private, or VM_WRITE"; pages of shared anonymous memory, KSM,
highatomic, isolation, hotplug and page reporting do not exist here; mm_cpumask is that of 6.12, cleared at
switch-out. (Since 6.14 the bits stay: flush_tlb_batched_pending of one mm then marks CPUs as done that run
another and are not flushed. Not shown here.)
"""

from designs.design import Design
from designs.linux import Linux
from designs.luf.ugen import LOW
from designs.luf_v12.debug import V12_DEBUG
from designs.luf_v12.fields import v12_fields
from designs.luf_v12.generations import v12_page_freed
from designs.luf_v12.take_off import v12_pend_first, v12_take, v12_take_begin, v12_take_check, v12_take_done
from designs.luf_v12.triggers import (
    v12_fault_done,
    v12_file_changes,
    v12_mapping_change,
    v12_release,
    v12_vma_done,
)
from designs.luf_v12.unmap import (
    v12_batch_key,
    v12_pte_cleared,
    v12_unmap_flush,
    v12_unmap_flush_dirty,
    v12_walk_done,
)
from designs.measure import takeoff_statistics, wrap_arounds


class LufV12(Design):
    """LUF RFC v12 as posted, nothing repaired: the oracle may catch it"""

    name = "luf_v12"
    relies_on = (
        *Linux.relies_on, "taken_pending", "kept_with_pending", "luf_spared", "luf_triggered", "waits",
        "keys_used_again", "stamps_wrapped",
    )  # fmt: skip
    parameters = {  # noqa: RUF012
        "records": {
            "posted": "folds into mm and mapping leave flush_required alone, so their triggers flush nobody",
            "required": "these folds set flush_required: what is left wrong are flushes that come too late "
            "(fault, truncation), and dirty PTEs that are deferred",
        }
    }
    hooks = (
        v12_pte_cleared, v12_walk_done, v12_batch_key, v12_unmap_flush, v12_unmap_flush_dirty, v12_page_freed,
        v12_take_begin, v12_take_check, v12_take, v12_take_done, v12_pend_first, v12_mapping_change,
        v12_fault_done, v12_vma_done, v12_release, *v12_file_changes,
    )  # fmt: skip
    debug_hooks = V12_DEBUG

    def fields(self, sizes):
        return v12_fields(sizes)

    def prepare(self, ram) -> None:
        state = ram.design
        state["ugen"][0] = 2
        state["ugen_done"][:] = 1
        state["record_ugen"][:] = 1  # luf_ugen - 1
        state["records_required"][0] = self.chosen["records"] == "required"
        state["zone_ugen"][:], state["zone_luf_ugen"][:] = 2, 1
        ram.zone_key_done[:] = ram.zone_key_claimed[:] = 1

    def statistics(self, ram):
        return takeoff_statistics(ram) | wrap_arounds(ram, LOW + 1)
