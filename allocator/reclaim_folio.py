"""Reclaim of one large folio (mm/vmscan.c: shrink_folio_list, for folios of several pages).

Its pages are locked one by one, the head first; nobody splits it then. All are unmapped into one batch of
flushes, written if they are dirty, and removed from the cache together; if one of them is in use, all stay.
Left out: splitting a folio that is only partly mapped or in the way.
"""

from allocator.hooks import HOOK_UNMAP_FLUSH_DIRTY
from allocator.page import (
    PG_DIRTY,
    PG_LOCKED,
    clear_flag,
    folio_pages,
    is_large,
    maybe_dma_pinned,
    try_lock_page,
    unlock_page,
)
from allocator.page_cache import remove_folio, write_page
from allocator.rmap import UNMAP_DONE, UNMAP_FAILED, UNMAP_FOR_RECLAIM, UNMAP_LAZY, try_to_unmap
from cpus.compiled import call, kernel

# what becomes of a page or folio that reclaim tries to unmap and to take out of its cache
ACTIVATE, KEEP, GONE, GONE_LAZILY = range(4)  # lazily: its flush may wait for the next owner


@kernel
def keep_after_all(ram, cpu, unmapped):
    """A page that was unmapped stays in use: what was deferred for it (UNMAP_LAZY) must not wait for a next
    owner.
    """
    if unmapped == UNMAP_LAZY:
        call(ram, HOOK_UNMAP_FLUSH_DIRTY, cpu, 1, 0, 0, 0)


@kernel
def _lock_folio(ram, cpu, head):
    """Lock the other pages of a large folio whose head is locked; False if one is locked, being read, or if
    it was split meanwhile.
    """
    size, locked, whole = folio_pages(ram, head), 1, True
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
def unmap_and_remove_folio(ram, cpu, head):
    """Unmap a large folio whose head is locked, take it out of its file's cache: all of its pages, or none.
    Returns what becomes of it.
    """
    size, object, dirty = folio_pages(ram, head), ram.page_object[head] - 1, 0
    if not _lock_folio(ram, cpu, head):
        return KEEP
    in_use, lazy = False, UNMAP_DONE
    for page in range(head, head + size):
        unmapped = try_to_unmap(ram, cpu, page, UNMAP_FOR_RECLAIM)
        in_use = in_use or unmapped == UNMAP_FAILED or maybe_dma_pinned(ram, page)
        if unmapped == UNMAP_LAZY:
            lazy = UNMAP_LAZY
        dirty |= ram.page_flags[page] & PG_DIRTY
    if dirty and not in_use:
        call(ram, HOOK_UNMAP_FLUSH_DIRTY, cpu, 0, 0, 0, 0)
        for page in range(head, head + size):
            if ram.page_flags[page] & PG_DIRTY:
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
