"""LUF, Lazy Unmap Flush (SK hynix, LPC 2024; RFC v12): frames unmapped read-only go back to the allocator
unflushed.

Mechanism: as long as nobody changes what a stale read-only translation shows, it may stay. So a page whose
mappings were all read-only is freed with a *key* instead of a flush. The key stands for the CPUs that may
still read it. It goes with the page into the pcp list and the buddy, where pages of one zone share a
*generation*; whoever takes a page of an unflushed generation sees to its flush, for all pages of that
generation at once (take_off.py). Who does so when many come at once is the parameter `sync` (sync/).
CPUs that took part in any later flush need no other: each flush carries a stamp of one counter, and every CPU
remembers the newest stamp that it has completed (ugen.py).
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

from cpus.compiled import Entry
from cpus.layout import Sizes
from designs.deferral import deferral_walk_done
from designs.design import Design
from designs.linux import Linux, linux_mapping_change
from designs.luf.debug import LUF_DEBUG
from designs.luf.fields import KEYS, luf_fields
from designs.luf.sync.answers import SYNC
from designs.luf.triggers import luf_file_changes, luf_file_write, luf_write_fault
from designs.luf.unmap import luf_batch_key, luf_pte_cleared, luf_unmap_flush, luf_unmap_flush_dirty
from designs.measure import takeoff_statistics, wrap_arounds


class Luf(Design):
    """LUF: read-only unmaps are flushed when the page is allocated again"""

    name = "luf"
    relies_on = (
        *Linux.relies_on, "taken_pending", "kept_with_pending", "luf_spared", "luf_triggered", "waits",
        "keys_used_again",
    )  # fmt: skip
    parameters = {"sync": {name: meaning for name, (meaning, _) in SYNC.items()}}  # noqa: RUF012
    hooks: tuple[Entry, ...] = (
        luf_pte_cleared, deferral_walk_done, luf_unmap_flush, luf_unmap_flush_dirty, luf_batch_key,
        luf_write_fault, linux_mapping_change, luf_file_write, *luf_file_changes,
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
        return takeoff_statistics(ram) | wrap_arounds(ram, KEYS)
