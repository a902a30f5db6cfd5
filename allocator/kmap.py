"""Where the kernel is about to write to a frame (kmap), and where a PTE becomes writable (pte_mkwrite): one
name for each place.

Linux maps every page before it touches its bytes (kmap_local_page and its family; on 64 bits that is an
addition). A design may look at each such moment, as LUF's debug feature does (HOOK_KMAP, HOOK_MKWRITE);
without one they are calls of a function that returns 0. Left out: kmap for reading, page_to_virt, and reads
from disk as DMA, which maps nothing in Linux (here they count as writes).
"""

from allocator.hooks import HOOK_KMAP, HOOK_MKWRITE
from cpus.compiled import call, kernel

# name -> (function of Linux 6.12 that does it, what the last two arguments of the hook are)
ADDRESS, FILE_PAGE, NOTHING_ELSE = "mm and vpn", "object and index", "mm"
SITES = {
    "KMAP_ZERO": ("do_anonymous_page(), mm/memory.c", ADDRESS),
    "KMAP_COPY": ("wp_page_copy(), mm/memory.c", ADDRESS),
    "KMAP_COW": ("do_cow_fault(), mm/memory.c", ADDRESS),
    "KMAP_TABLE": ("pte_alloc_one(), arch/x86/mm/pgtable.c", NOTHING_ELSE),
    "KMAP_MOVE": ("migrate_folio(), mm/migrate.c", FILE_PAGE),
    "KMAP_READ": ("read_pages(), mm/readahead.c", FILE_PAGE),
    "KMAP_WRITE": ("generic_perform_write(), mm/filemap.c", FILE_PAGE),
    "MKWRITE_ANON": ("do_anonymous_page(), mm/memory.c", ADDRESS),
    "MKWRITE_COW": ("do_cow_fault(), mm/memory.c", ADDRESS),
    "MKWRITE_SHARED": ("do_shared_fault(), mm/memory.c", ADDRESS),
    "MKWRITE_COPY": ("wp_page_copy(), mm/memory.c", ADDRESS),
    "MKWRITE_REUSE": ("wp_page_reuse(), mm/memory.c", ADDRESS),
    "MKWRITE_PROTECT": ("change_pte_range(), mm/mprotect.c", ADDRESS),
    "MKWRITE_NUMA": ("do_numa_page(), mm/memory.c", ADDRESS),
    "MKWRITE_MOVED": ("remove_migration_pte(), mm/migrate.c", ADDRESS),
    # neither of the two: where a debugged page gets its record
    "FREE_PAGE": ("free_frozen_pages(), mm/page_alloc.c", NOTHING_ELSE),
}
SITE_NAMES = tuple(SITES)
(KMAP_ZERO, KMAP_COPY, KMAP_COW, KMAP_TABLE, KMAP_MOVE, KMAP_READ, KMAP_WRITE, MKWRITE_ANON, MKWRITE_COW,
 MKWRITE_SHARED, MKWRITE_COPY, MKWRITE_REUSE, MKWRITE_PROTECT, MKWRITE_NUMA, MKWRITE_MOVED,
 FREE_PAGE) = range(len(SITES))  # fmt: skip


@kernel
def kmap(ram, cpu, pfn, site, a, b):
    """The kernel is about to write to a frame."""
    call(ram, HOOK_KMAP, cpu, pfn, site, a, b)


@kernel
def mkwrite(ram, cpu, pfn, site, mm, vpn):
    """A PTE of the mm that maps the frame is about to become writable."""
    call(ram, HOOK_MKWRITE, cpu, pfn, site, mm, vpn)
