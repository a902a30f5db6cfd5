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
from allocator.rmap import UNMAP_FOR_RECLAIM, try_to_unmap
from cpus.compiled import call, kernel


@kernel
def keep_after_all(ram, cpu, unmapped):
    """A page that was unmapped stays in use: what was deferred for it (`unmapped` 2) must not wait for a next
    owner.
    """
    if unmapped == 2:
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

    The answers are those for one page (vmscan.py): 0 kept, 1 gone, 2 gone and its flush may wait, -1 to be
    activated.
    """
    size, thing, dirty = folio_pages(ram, head), ram.page_object[head] - 1, 0
    if not _lock_folio(ram, cpu, head):
        return 0
    answer, lazy = 1, 1
    for page in range(head, head + size):
        unmapped = try_to_unmap(ram, cpu, page, UNMAP_FOR_RECLAIM)
        lazy = max(lazy, unmapped)
        if unmapped == 0 or maybe_dma_pinned(ram, page):
            answer = -1
        dirty |= ram.page_flags[page] & PG_DIRTY
    if answer > 0 and dirty:
        call(ram, HOOK_UNMAP_FLUSH_DIRTY, cpu, 0, 0, 0, 0)
        for page in range(head, head + size):
            if ram.page_flags[page] & PG_DIRTY:
                write_page(ram, cpu, page, thing)
    gone = answer > 0 and remove_folio(ram, cpu, head, thing)
    for page in range(head + 1, head + size):
        if gone:
            clear_flag(ram, page, PG_LOCKED)
        else:
            unlock_page(ram, cpu, page)
    if not gone:
        keep_after_all(ram, cpu, lazy)
        return min(answer, 0)
    return lazy
