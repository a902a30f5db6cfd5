"""Reclaim of one large folio (mm/vmscan.c: shrink_folio_list, for folios of several pages).

Its pages are locked one by one, the head first; nobody splits it then. All are unmapped into one batch of
flushes, and removed from the cache together; if one of them is dirty or in use, all stay.
Left out: splitting a folio that is only partly mapped or in the way.
"""

from allocator.hooks import HOOK_UNMAP_FLUSH_DIRTY
from allocator.page import (
    PG_DIRTY,
    PG_LARGE,
    PG_LOCKED,
    PG_RECLAIM,
    clear_flag,
    folio_pages,
    is_large,
    maybe_dma_pinned,
    set_flag,
    try_lock_page,
    unlock_page,
)
from allocator.page_cache import OBJECT_FILE, remove_folio, write_page
from allocator.rmap import UNMAP_DONE, UNMAP_FAILED, UNMAP_FOR_RECLAIM, UNMAP_LAZY, try_to_unmap
from cpus.compiled import call, kernel

# what becomes of a page or folio that reclaim tries to unmap and to take out of its cache
# (lazily: its flush may wait for the next owner, or, if it stays, for the end of the batch)
ACTIVATE, ACTIVATE_LAZILY, KEEP, GONE, GONE_LAZILY = range(5)


@kernel
def keep_after_all(ram, cpu, unmapped):
    """A page that was unmapped stays in use: what was deferred for it (UNMAP_LAZY) must not wait for a next
    owner.
    """
    if unmapped == UNMAP_LAZY:
        call(ram, HOOK_UNMAP_FLUSH_DIRTY, cpu, 1, 0, 0, 0)
        ram.kept_with_pending[cpu] += 1


@kernel
def is_dirty(ram, head):
    """Does a folio of a file hold what the disk does not (folio_check_dirty_writeback)?"""
    if ram.page_flags[head] & (PG_DIRTY | PG_LARGE) == 0:
        return False  # as most are
    object, flags = ram.page_object[head] - 1, 0
    if object >= 0 and ram.object_kind[object] == OBJECT_FILE:
        for page in range(head, head + folio_pages(ram, head)):
            flags |= ram.page_flags[page]
    return flags & PG_DIRTY != 0


@kernel
def leave_to_flusher(ram, node, head, kswapd):
    """A dirty folio has been unmapped: is it the flusher's to write it? It is marked, so that it goes first
    once that is done.

    kswapd alone writes, where it has met nothing but dirty pages in a round (PGDAT_DIRTY) and this one for
    the second time: as for a file system that has ->writepage.
    """
    again = set_flag(ram, head, PG_RECLAIM)
    return not (kswapd and again and ram.node_dirty[node])


@kernel
def lock_tails(ram, cpu, head):
    """Lock the other pages of a folio whose head is locked; False if one is locked, being read, or if it was
    split meanwhile.
    """
    size, locked, whole = folio_pages(ram, head), 1, True
    if size == 1:
        return True
    while locked < size and whole:
        whole = try_lock_page(ram, head + locked)
        locked += whole
    for page in range(head, head + locked):
        whole = whole and is_large(ram, page) and ram.page_io_ns[page] <= ram.cpu_clock[cpu]
    if not whole:
        for page in range(head + 1, head + locked):
            unlock_page(ram, cpu, page)
    return whole


@kernel
def unlock_tails(ram, cpu, head):
    """Let go of them again."""
    for page in range(head + 1, head + folio_pages(ram, head)):
        unlock_page(ram, cpu, page)


@kernel
def unmap_and_remove_folio(ram, cpu, node, head, kswapd):
    """Unmap a large folio whose head is locked, take it out of its file's cache: all of its pages, or none.
    Returns what becomes of it.
    """
    size, object = folio_pages(ram, head), ram.page_object[head] - 1
    if not lock_tails(ram, cpu, head):
        return KEEP
    in_use, lazy = False, UNMAP_DONE
    for page in range(head, head + size):
        unmapped = try_to_unmap(ram, cpu, page, UNMAP_FOR_RECLAIM)
        in_use = in_use or unmapped == UNMAP_FAILED or maybe_dma_pinned(ram, page)
        if unmapped == UNMAP_LAZY:
            lazy = UNMAP_LAZY
    if not in_use and is_dirty(ram, head):
        if leave_to_flusher(ram, node, head, kswapd):
            ram.nr_vmscan_immediate_reclaim[cpu] += size
            unlock_tails(ram, cpu, head)
            return ACTIVATE_LAZILY if lazy == UNMAP_LAZY else ACTIVATE
        call(ram, HOOK_UNMAP_FLUSH_DIRTY, cpu, 0, 0, 0, 0)
        for page in range(head, head + size):
            if ram.page_flags[page] & PG_DIRTY:
                ram.nr_vmscan_write[cpu] += 1
                write_page(ram, cpu, page, object)
    gone = not in_use and remove_folio(ram, cpu, head, object)
    for page in range(head + 1, head + size):
        if gone:
            clear_flag(ram, page, PG_LOCKED)
        else:
            unlock_page(ram, cpu, page)
    if not gone:
        keep_after_all(ram, cpu, lazy)
        return ACTIVATE if in_use else KEEP
    return GONE_LAZILY if lazy == UNMAP_LAZY else GONE
