"""LUF, Lazy Unmap Flush (SK hynix, LPC 2024; RFC v12): frames unmapped read-only go back to the allocator
unflushed.

Mechanism: as long as nobody changes what a stale read-only translation shows, it may stay. So a page whose
mappings were all read-only is freed with a *key* instead of a flush. The key stands for the CPUs that may
still read it. It goes with the page into the pcp list and the buddy, where pages of one zone share a
*generation*; whoever takes a page of an unflushed generation sees to its flush, for all pages of that
generation at once (luf_take.py). Who does so when many come at once is the parameter `sync` (luf_sync.py).
CPUs that took part in any later flush need no other: each flush carries a stamp of one counter, and every CPU
remembers the newest stamp that it has completed (luf_state.py).
Tracking: per page (key, zone generation), per mm, per file. Triggers: page allocation; user-driven mapping
changes; faults that create writable mappings; buffered writes; truncation and invalidation; folio_mkclean.

Safety: (1) a frame's bytes stay as they are until take-off, (2) nobody gets it before its generation is
flushed, (3) the mm's or file's pending CPUs are flushed BEFORE a different content becomes visible at that
address or offset. Differs from v12 as posted (luf_v12.py), each with the schedule that breaks the other in
tests/designs/test_luf_v12.py:
- a record of an mm or a file is always flushed; v12's folds forget flush_required, so a reader keeps the old
  bytes for good (test_the_triggers_as_posted_flush_nobody);
- flushed before the writable PTE is visible; in v12's window after it, another CPU stores and a third reads
  what was there before (test_another_cpu_uses_the_new_pte_before_the_flush);
- truncation is flushed for before the new contents can be read, not at its end
  (test_a_reader_between_truncation_and_its_flush);
- a dirty read-only PTE is not deferred: mprotect or fork may have write-protected it and not yet flushed, and
  what a CPU stores to the old frame after it was copied is lost
  (test_a_store_between_write_protection_and_its_flush).
As in v12, pages of large folios are not deferred. For other reasons: a page is deferred only if all its
mappings were; 64-bit generations, no wrap-around, and 4,096 keys; allocations always run in a context that
may wait; clean blocks of any order are taken before pending ones, and pending blocks do not merge with clean
ones (in v12 the merged block is pending as a whole), so that clean pages last longer; who flushes a zone's
generation takes on the other zones' too. v12 flushes more often than these rules need: at read faults of VMAs
that may be written, at the end of each VMA that is torn down, when a borrowed mm is left, and when clean
pages of a file are invalidated.
"""

from allocator.flush_sites import SITE_FILE
from allocator.page import is_large
from allocator.page_alloc import free_changes_bytes
from allocator.vma import VM_ANON, VM_SHARED
from cpus.atomics import fetch_add
from cpus.compiled import Entry, kernel
from cpus.cpumask import cpumask_andnot, cpumask_empty
from cpus.layout import Sizes
from cpus.page_table import pte_pfn
from designs.deferral import (
    cannot_defer,
    defer_flush,
    deferral_walk_done,
    end_deferred_batch,
    is_clean_read_only,
    must_flush_before_io,
)
from designs.design import Design, hook, hooks
from designs.linux import linux_mapping_change
from designs.luf.debug import LUF_DEBUG
from designs.luf.state import (
    KEYS,
    flush_and_mark,
    flush_record,
    fold,
    luf_fields,
    luf_state,
    new_stamp,
)
from designs.luf.sync import SYNC
from designs.luf.take import luf_pend_first, luf_take_begin
from designs.measure import takeoff_statistics

# --- unmapping ----------------------------------------------------------------------------------------------


@hook("pte_cleared")
def luf_pte_cleared(ram, cpu, mm, vpn, pte, thing):
    state = luf_state(ram)
    # can_luf_init
    if not is_clean_read_only(pte) or free_changes_bytes(ram) or is_large(ram, pte_pfn(pte)):
        cannot_defer(ram, state, cpu, mm, pte)
        return 0
    defer_flush(ram, state, cpu, mm)
    ugen = new_stamp(state)
    fold(
        ram,
        state,
        cpu,
        state.mm_mask,
        state.mm_ugen,
        state.mm_rec_lock,
        mm,
        ram.mm_cpumask,
        mm,
        ugen,
    )
    fold(
        ram,
        state,
        cpu,
        state.file_mask,
        state.file_ugen,
        state.file_lock,
        thing,
        ram.mm_cpumask,
        mm,
        ugen,
    )
    return 1


@kernel
def luf_flush_pending(ram, state, cpu):
    """Flush the vanilla batch."""
    if ram.ubc_required[cpu]:
        ram.ubc_required[cpu], ram.ubc_writable[cpu] = 0, 0
        flush_and_mark(ram, state, cpu, ram.ubc_mask, cpu)


@hook("unmap_flush")
def luf_unmap_flush(ram, cpu, a, b, c, d):
    luf_flush_pending(ram, luf_state(ram), cpu)
    return 0


@hook("unmap_flush_dirty")
def luf_unmap_flush_dirty(ram, cpu, everything, b, c, d):
    """Before IO; with `everything`, also what was deferred (a page that was unmapped lazily stays in use
    after all).
    """
    state = luf_state(ram)
    if must_flush_before_io(ram, state, cpu, everything):
        luf_flush_pending(ram, state, cpu)
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
        fold(
            ram,
            state,
            cpu,
            state.key_mask,
            state.key_ugen,
            state.key_lock,
            key,
            state.lazy_mask,
            cpu,
            new_stamp(state),
        )
    end_deferred_batch(state, cpu)
    return key


# --- other triggers -----------------------------------------------------------------------------------------


@kernel
def flush_file(ram, state, cpu, thing):
    """Flush what is pending for a file."""
    flush_record(ram, state, cpu, state.file_mask, state.file_ugen, state.file_lock, thing)


@hook("write_fault")
def luf_write_fault(ram, cpu, mm, vma, vpn, thing):
    """A mapping becomes writable: nobody may go on reading the mm's, or the shared file's, old pages."""
    state = luf_state(ram)
    flush_record(ram, state, cpu, state.mm_mask, state.mm_ugen, state.mm_rec_lock, mm)
    if ram.vma_flags[vma] & VM_SHARED and ram.vma_flags[vma] & VM_ANON == 0:
        flush_file(ram, state, cpu, thing)
    return 0


@hook("file_write")
def luf_file_write(ram, cpu, thing, page, c, d):
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_FILE
    flush_file(ram, luf_state(ram), cpu, thing)
    ram.cpu_site[cpu] = site
    return 0


@hooks("truncate", "mkclean")
def luf_file_changes(ram, cpu, thing, page, c, d):
    flush_file(ram, luf_state(ram), cpu, thing)
    return 0


class Luf(Design):
    """LUF: read-only unmaps are flushed when the page is allocated again"""

    name = "luf"
    parameters = {"sync": {name: meaning for name, (meaning, _) in SYNC.items()}}  # noqa: RUF012
    hooks: tuple[Entry, ...] = (
        luf_pte_cleared, deferral_walk_done, luf_unmap_flush, luf_unmap_flush_dirty, luf_batch_key,
        luf_take_begin, luf_pend_first, luf_write_fault, linux_mapping_change, luf_file_write,
        *luf_file_changes,
    )  # fmt: skip

    debug_hooks = LUF_DEBUG

    def __init__(self, **given: str):
        super().__init__(**given)
        self.hooks = (*type(self).hooks, *SYNC[self.chosen["sync"]][1])

    def fields(self, sizes: Sizes):
        return luf_fields(sizes)

    def prepare(self, ram) -> None:
        ram.set_constant("pend_apart", 1)
        ram.design["ugen"][0] = 2
        ram.design["ugen_done"][:] = 1
        ram.design["zone_generation"][:] = 2
        ram.zone_key_done[:] = 1
        ram.zone_key_claimed[:] = 1

    def statistics(self, ram):
        return takeoff_statistics(ram)
