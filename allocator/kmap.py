"""Where the kernel is about to write to a frame (kmap), and where a PTE becomes writable (pte_mkwrite): one
name for each place.

Linux maps every page before it touches its bytes (kmap_local_page and its family; on 64 bits that is an
addition). A design may look at each such moment, as LUF's debug feature does (HOOK_KMAP, HOOK_MKWRITE);
without one they are calls of a function that returns 0. Left out: kmap for reading, page_to_virt, and reads
from disk as DMA, which maps nothing in Linux (here they count as writes).
"""

from dataclasses import dataclass

from allocator.hooks import HOOK_KMAP, HOOK_MKWRITE
from cpus.abi.numbered import Numbered
from cpus.compiled import call, kernel
from cpus.exposed import FILLED, frame_changes_hands
from cpus.exposed_pages import becomes_writable

ADDRESS, FILE_PAGE, NOTHING_ELSE = "mm and vpn", "object and index", "mm"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the kernel it happens: our name, the function of Linux 6.12 that does it, and what the last
    two arguments of the hook are.
    """

    name: str
    function: str
    about: str


PLACES = Numbered[Place]()
KMAP_ZERO = PLACES.add(Place("KMAP_ZERO", "do_anonymous_page(), mm/memory.c", ADDRESS))
KMAP_COPY = PLACES.add(Place("KMAP_COPY", "wp_page_copy(), mm/memory.c", ADDRESS))
KMAP_COW = PLACES.add(Place("KMAP_COW", "do_cow_fault(), mm/memory.c", ADDRESS))
KMAP_TABLE = PLACES.add(Place("KMAP_TABLE", "pte_alloc_one(), arch/x86/mm/pgtable.c", NOTHING_ELSE))
KMAP_MOVE = PLACES.add(Place("KMAP_MOVE", "migrate_folio(), mm/migrate.c", FILE_PAGE))
KMAP_READ = PLACES.add(Place("KMAP_READ", "read_pages(), mm/readahead.c", FILE_PAGE))
KMAP_WRITE = PLACES.add(Place("KMAP_WRITE", "generic_perform_write(), mm/filemap.c", FILE_PAGE))
MKWRITE_ANON = PLACES.add(Place("MKWRITE_ANON", "do_anonymous_page(), mm/memory.c", ADDRESS))
MKWRITE_COW = PLACES.add(Place("MKWRITE_COW", "do_cow_fault(), mm/memory.c", ADDRESS))
MKWRITE_SHARED = PLACES.add(Place("MKWRITE_SHARED", "do_shared_fault(), mm/memory.c", ADDRESS))
MKWRITE_COPY = PLACES.add(Place("MKWRITE_COPY", "wp_page_copy(), mm/memory.c", ADDRESS))
MKWRITE_REUSE = PLACES.add(Place("MKWRITE_REUSE", "wp_page_reuse(), mm/memory.c", ADDRESS))
MKWRITE_PROTECT = PLACES.add(Place("MKWRITE_PROTECT", "change_pte_range(), mm/mprotect.c", ADDRESS))
MKWRITE_NUMA = PLACES.add(Place("MKWRITE_NUMA", "do_numa_page(), mm/memory.c", ADDRESS))
MKWRITE_MOVED = PLACES.add(Place("MKWRITE_MOVED", "remove_migration_pte(), mm/migrate.c", ADDRESS))
# neither of the two: where a debugged page gets its record
FREE_PAGE = PLACES.add(Place("FREE_PAGE", "free_frozen_pages(), mm/page_alloc.c", NOTHING_ELSE))


@kernel
def kmap(ram, cpu, pfn, site, a, b):
    """The kernel is about to write to a frame."""
    call(ram, HOOK_KMAP, cpu, pfn, site, a, b)
    if site != KMAP_WRITE:  # that one is mapped, the others are new
        frame_changes_hands(ram, cpu, pfn, FILLED)


@kernel
def mkwrite(ram, cpu, pfn, site, mm, vpn):
    """A PTE of the mm that maps the frame is about to become writable."""
    call(ram, HOOK_MKWRITE, cpu, pfn, site, mm, vpn)
    becomes_writable(ram, cpu, pfn, mm, vpn)
