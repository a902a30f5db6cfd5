"""The LRU lists of a node (mm/swap.c, mm/vmscan.c: classic active and inactive lists, anonymous and file).

A page joins its list through a per-CPU batch of 31 that holds a reference, as Linux's folio_batch does, so
one taking of lru_lock serves many pages. The head is the young end; reclaim takes from the tail. Of a large
folio the first page alone stands on a list, and counts for all of them.
Left out: MGLRU, unevictable scanning, per-memcg lists, deactivation batches.
"""

from allocator.page import (
    PG_ACTIVE,
    PG_LRU,
    PG_REFERENCED,
    PG_SWAPBACKED,
    clear_flag,
    folio_pages,
    get_page,
    node_of,
    put_page_testzero,
    set_flag,
    try_get_page,
    unlock_page,
)
from allocator.page_alloc import free_page
from allocator.page_list import NONE, list_add, list_add_tail, list_del
from allocator.panic import BAD_LRU, panic
from cpus.abi.numbered import Numbered
from cpus.compiled import apart, kernel
from cpus.declare import ANY, OWNER, VMSTAT, Counter, Field, Held, Lock, Struct
from cpus.locks import spin_lock_irq, spin_unlock_irq

NR_LRU = 5  # mmzone.h: enum lru_list
FOLIO_BATCH = 31  # PAGEVEC_SIZE in 6.12
LRU, LRU_LOCK = ("nr_nodes", NR_LRU), Held("lru_lock")
FIELDS = (
    Struct("nr_nodes", "lru", (
        Lock("lru_lock", "lruvec.lru_lock", "the node's LRU lists", irq_safe=True),
        Field("node_anon_cost", LRU_LOCK, "lruvec->anon_cost", reads=ANY),
        Field("node_file_cost", LRU_LOCK, "lruvec->file_cost", reads=ANY),
    )),
    Struct("nr_cpus", "batches", (Field("lru_batch_count", OWNER, "pages in lru_batch"),)),
    Field("lru_batch", OWNER, "folio_batch of pages on their way to an LRU list",
          ("nr_cpus", FOLIO_BATCH + 1)),
    Field("lru_first", LRU_LOCK, "head of [node, list], -1 empty", LRU),
    Field("lru_last", LRU_LOCK, "its tail", LRU),
    Field("lru_size", LRU_LOCK, "pages on the list", LRU, reads=ANY),
    Field("isolated_anon", OWNER, "NR_ISOLATED_ANON of each node: the sum over CPUs", ("nr_cpus", "nr_nodes"),
          reads=ANY),
    Field("isolated_file", OWNER, "the same for files", ("nr_cpus", "nr_nodes"), reads=ANY),
)  # fmt: skip

COUNTERS = (
    Counter("pgdeactivate", VMSTAT, "pages moved from an active list to an inactive one", "pages"),
    Counter("pglazyfree", VMSTAT, "anonymous pages that MADV_FREE has made free to drop", "pages"),
)

LISTS = Numbered[str]()  # include/linux/mmzone.h: enum lru_list
LRU_INACTIVE_ANON = LISTS.add("inactive_anon")
LRU_ACTIVE_ANON = LISTS.add("active_anon")
LRU_INACTIVE_FILE = LISTS.add("inactive_file")
LRU_ACTIVE_FILE = LISTS.add("active_file")
LRU_UNEVICTABLE = LISTS.add("unevictable")
SWAP_CLUSTER_MAX = 32


@kernel
def lru_list(flags):
    """Which list a page with these flags belongs on (folio_lru_list)."""
    base = 0 if flags & PG_SWAPBACKED else 2
    return base + 1 if flags & PG_ACTIVE else base


@kernel
def mod_isolated(ram, cpu, node, flags, pages):
    """Count pages with these flags that are isolated from the node's lists, or no longer are
    (NR_ISOLATED_ANON, NR_ISOLATED_FILE).

    Each CPU counts for itself, so a count may be negative; what holds of the node is their sum.
    """
    if flags & PG_SWAPBACKED:
        ram.isolated_anon[cpu, node] += pages
    else:
        ram.isolated_file[cpu, node] += pages


@kernel
def isolated(ram, node, file):
    """How many pages are isolated from the node's anonymous or file lists."""
    pages = 0
    for c in range(ram.nr_cpus):
        pages += ram.isolated_file[c, node] if file else ram.isolated_anon[c, node]
    return pages


@kernel
def link_page(ram, node, which, pfn):
    """Put a page at the young end of a list; lru_lock held (lruvec_add_folio)."""
    list_add(ram, ram.lru_first, ram.lru_last, (node, which), pfn)
    ram.lru_size[node, which] += folio_pages(ram, pfn)


@kernel
def link_page_tail(ram, node, which, pfn):
    """Put a page at the old end of a list; lru_lock held (lruvec_add_folio_tail)."""
    list_add_tail(ram, ram.lru_first, ram.lru_last, (node, which), pfn)
    ram.lru_size[node, which] += folio_pages(ram, pfn)


@kernel
def unlink_page(ram, node, which, pfn):
    """Take a page off its list; lru_lock held (lruvec_del_folio)."""
    if ram.page_prev[pfn] == NONE and ram.lru_first[node, which] != pfn:
        panic(ram, 0, BAD_LRU, pfn, ram.page_flags[pfn])
    list_del(ram, ram.lru_first, ram.lru_last, (node, which), pfn)
    ram.lru_size[node, which] -= folio_pages(ram, pfn)


@apart
def lru_add_drain(ram, cpu):
    """Put the pages of this CPU's batch on their lists and drop the batch's references."""
    count = ram.lru_batch_count[cpu]
    if count == 0:
        return 0
    ram.lru_batch_count[cpu] = 0
    locked = NONE
    for i in range(count):
        pfn = ram.lru_batch[cpu, i]
        node = node_of(ram, pfn)
        if node != locked:
            if locked != NONE:
                spin_unlock_irq(ram, cpu, ram.lru_lock, locked)
            spin_lock_irq(ram, cpu, ram.lru_lock, node)
            locked = node
        which = lru_list(ram.page_flags[pfn])
        set_flag(ram, pfn, PG_LRU)
        link_page(ram, node, which, pfn)
    spin_unlock_irq(ram, cpu, ram.lru_lock, locked)
    for i in range(count):
        pfn = ram.lru_batch[cpu, i]
        if put_page_testzero(ram, pfn):
            release_page(ram, cpu, pfn)
    return 0


@kernel
def lru_add(ram, cpu, pfn):
    """Queue a page for its list (folio_add_lru); takes a reference of its own."""
    get_page(ram, pfn)
    lru_add_held(ram, cpu, pfn)


@kernel
def lru_add_held(ram, cpu, pfn):
    """Queue a page for its list with a reference that the caller gives away."""
    ram.lru_batch[cpu, ram.lru_batch_count[cpu]] = pfn
    ram.lru_batch_count[cpu] += 1
    if ram.lru_batch_count[cpu] >= FOLIO_BATCH:
        lru_add_drain(ram, cpu)


@apart
def release_page(ram, cpu, pfn):
    """Free a page whose last reference is gone, taking it off the LRU first (__page_cache_release)."""
    if ram.page_flags[pfn] & PG_LRU:
        node = node_of(ram, pfn)
        spin_lock_irq(ram, cpu, ram.lru_lock, node)
        which = lru_list(ram.page_flags[pfn])
        if clear_flag(ram, pfn, PG_LRU):
            unlink_page(ram, node, which, pfn)
        spin_unlock_irq(ram, cpu, ram.lru_lock, node)
    free_page(ram, cpu, pfn, 0)
    return 0


@kernel
def drop_page(ram, cpu, pfn):
    """Drop a reference; the last one takes the page off the LRU and frees it (folio_put)."""
    if put_page_testzero(ram, pfn):
        release_page(ram, cpu, pfn)


@kernel
def unlock_and_drop(ram, cpu, pfn):
    """Let go of the page lock, then of a reference (folio_unlock, folio_put)."""
    unlock_page(ram, cpu, pfn)
    drop_page(ram, cpu, pfn)


@apart
def isolate_page(ram, cpu, pfn):
    """Take a page off the LRU for its caller, who gets a reference; False if somebody else has it
    (folio_isolate_lru).
    """
    if not try_get_page(ram, pfn):
        return False
    node = node_of(ram, pfn)
    spin_lock_irq(ram, cpu, ram.lru_lock, node)
    which = lru_list(ram.page_flags[pfn])
    mine = clear_flag(ram, pfn, PG_LRU)
    if mine:
        unlink_page(ram, node, which, pfn)
        mod_isolated(ram, cpu, node, ram.page_flags[pfn], 1)
    spin_unlock_irq(ram, cpu, ram.lru_lock, node)
    if not mine:
        drop_page(ram, cpu, pfn)
    return mine


@apart
def putback_page(ram, cpu, pfn):
    """Give an isolated page back to the list its flags ask for and drop the isolation's reference
    (folio_putback_lru).
    """
    node = node_of(ram, pfn)
    mod_isolated(ram, cpu, node, ram.page_flags[pfn], -1)
    spin_lock_irq(ram, cpu, ram.lru_lock, node)
    set_flag(ram, pfn, PG_LRU)
    link_page(ram, node, lru_list(ram.page_flags[pfn]), pfn)
    spin_unlock_irq(ram, cpu, ram.lru_lock, node)
    drop_page(ram, cpu, pfn)
    return 0


@kernel
def move_to_inactive(ram, cpu, pfn, lazyfree):
    """Move a page to its inactive list; with `lazyfree` it counts as a file's from now on (folio_deactivate,
    folio_mark_lazyfree).

    XXX: at once, where Linux collects a batch of them first.
    """
    node = node_of(ram, pfn)
    spin_lock_irq(ram, cpu, ram.lru_lock, node)
    flags = ram.page_flags[pfn]
    if flags & PG_LRU:
        unlink_page(ram, node, lru_list(flags), pfn)
        clear_flag(ram, pfn, PG_ACTIVE | PG_REFERENCED)
        if lazyfree:
            clear_flag(ram, pfn, PG_SWAPBACKED)
            ram.pglazyfree[cpu] += 1
        elif flags & PG_ACTIVE:
            ram.pgdeactivate[cpu] += 1
        link_page(ram, node, lru_list(ram.page_flags[pfn]), pfn)
    spin_unlock_irq(ram, cpu, ram.lru_lock, node)


@kernel
def lru_note_cost(ram, cpu, node, file, pages_read, rotated):
    """Note what reclaiming anonymous or file pages has cost, for the balance between them; old costs fade
    (lru_note_cost).
    """
    cost = pages_read * SWAP_CLUSTER_MAX + rotated
    if cost == 0:
        return
    spin_lock_irq(ram, cpu, ram.lru_lock, node)
    if file:
        ram.node_file_cost[node] += cost
    else:
        ram.node_anon_cost[node] += cost
    size = 0
    for which in range(LRU_INACTIVE_ANON, LRU_UNEVICTABLE):
        size += ram.lru_size[node, which]
    if ram.node_file_cost[node] + ram.node_anon_cost[node] > size // 4:
        ram.node_file_cost[node] //= 2
        ram.node_anon_cost[node] //= 2
    spin_unlock_irq(ram, cpu, ram.lru_lock, node)
