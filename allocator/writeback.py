"""Write-back of the dirty pages that reclaim has met (mm/vmscan.c: shrink_inactive_list wakes the flusher;
fs/fs-writeback.c: wakeup_flusher_threads).

Reclaim unmaps a dirty page of a file with all others of its batch, and then leaves it: it is marked
PG_RECLAIM and goes to the active list. Only when all that was taken off a list is dirty the flusher is woken.
What it has written goes to the tail of the inactive list, where reclaim finds it clean
(folio_rotate_reclaimable).
Left out: the flusher as a thread, and what it writes beside that: who wakes it writes in its name, and only
what it has just met. Thresholds (balance_dirty_pages), periodic write-back, writeback as a state of a page:
the disk is busy for it, and nobody waits.
"""

from allocator.filemap import clean_and_write
from allocator.migrate import WORK_ISOLATED
from allocator.page import PG_RECLAIM, folio_pages, try_lock_page, unlock_page
from allocator.page_cache import OBJECT_FILE
from allocator.reclaim_folio import lock_tails, unlock_tails
from cpus.compiled import apart, kernel


@kernel
def _write_folio(ram, cpu, head):
    """Write what is dirty of a locked folio."""
    object = ram.page_object[head] - 1
    if object < 0 or ram.object_kind[object] != OBJECT_FILE or ram.page_flags[head] & PG_RECLAIM == 0:
        return
    if lock_tails(ram, cpu, head):
        for page in range(head, head + folio_pages(ram, head)):
            clean_and_write(ram, cpu, page, object)
        unlock_tails(ram, cpu, head)


@apart
def wakeup_flusher_threads(ram, cpu, count):
    """Write those of the first `count` isolated pages of work_list that reclaim has found dirty."""
    for i in range(count):
        head = ram.work_list[cpu, WORK_ISOLATED + i]
        if try_lock_page(ram, head):
            _write_folio(ram, cpu, head)
            unlock_page(ram, cpu, head)
    return 0
