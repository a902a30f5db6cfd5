"""Moving pages to another node (mm/migrate.c: migrate_pages_batch): demotion by reclaim and promotion by NUMA
hints.

All pages of a list are unmapped first (their PTEs become migration entries), then the flushes they need are
sent in one go, then they are copied and mapped again. A frame whose read-only mappings a design leaves
pending goes back to the allocator with the batch's key.
A large folio is split first, and its head alone moves.
Left out: moving large folios, retries of busy pages (they stay where they are), compaction, writeback of
dirty pages before a move (the dirty bit moves along).
"""

from allocator.folio import split_folio
from allocator.hooks import HOOK_BATCH_KEY, HOOK_UNMAP_FLUSH
from allocator.kmap import KMAP_MOVE, kmap
from allocator.lru import drop_page, isolate_page, lru_add_drain, lru_add_held, mod_isolated, putback_page
from allocator.page import (
    PG_ACTIVE,
    PG_DIRTY,
    PG_LOCKED,
    PG_READAHEAD,
    PG_REFERENCED,
    PG_SWAPBACKED,
    PG_UPTODATE,
    PG_WORKINGSET,
    clear_flag,
    freeze_refs,
    node_of,
    try_lock_page,
    unlock_page,
)
from allocator.page_alloc import GFP_KSWAPD, GFP_THISNODE, alloc_page, free_page
from allocator.page_cache import OBJECT_ANON
from allocator.page_list import NONE
from allocator.rmap import (
    UNMAP_FAILED,
    UNMAP_FOR_MIGRATION,
    UNMAP_LAZY,
    lock_pte,
    remove_migration_ptes,
    try_to_unmap,
    unlock_pte,
)
from cpus.atomics import fetch_add, load_acquire, store_release
from cpus.compiled import apart, call, inlined, kernel
from cpus.declare import EXERCISED, OWNER, VMSTAT, Counter, Field
from cpus.events import EV_MIGRATE, record
from cpus.exposed import batch_is_flushed
from cpus.exposed_pages import page_leaves
from cpus.locks import mmap_read_lock, mmap_read_unlock, spin_lock_irq, spin_unlock_irq
from cpus.oracle import move_content
from cpus.page_table import LEVEL_MASK, PTE_SPECIAL, next_table, pte_pfn, pte_present

WORK_PARTS, WORK_PAGES = 6, 512  # lists of work_list; 512: NR_MAX_BATCHED_MIGRATION, and the PTEs of a table
FIELDS = (
    Field(
        "work_list",
        OWNER,
        "pages isolated by reclaim and by migration, six lists",
        ("nr_cpus", WORK_PARTS * WORK_PAGES),
    ),
)

COUNTERS = (
    Counter("pgmigrate_success", VMSTAT, "pages moved to another frame", "pages"),
    Counter("pgmigrate_fail", VMSTAT, "pages that were to be moved and could not be", "pages"),
    Counter("moves_undone", EXERCISED, "pages unmapped to be moved, and mapped again as they were", "pages"),
)

NO_MEMORY = -2
# of work_list
WORK_ISOLATED, WORK_DEMOTE, WORK_TARGET, WORK_LAZY, WORK_PROMOTE, WORK_KEEP = (
    part * WORK_PAGES for part in range(6)
)
MOVED_FLAGS = (
    PG_UPTODATE | PG_DIRTY | PG_ACTIVE | PG_REFERENCED | PG_WORKINGSET | PG_SWAPBACKED | PG_READAHEAD
)


@inlined
def _prepare_move(ram, cpu, pfn, node):
    """Allocate a page's target and lock the page. Returns the target, -1 if the page is busy, NO_MEMORY."""
    target = alloc_page(ram, cpu, node, GFP_THISNODE | GFP_KSWAPD)
    if target == NONE:
        return NO_MEMORY
    locked = try_lock_page(ram, pfn)
    if locked and ram.page_object[pfn]:
        split_folio(ram, cpu, pfn)
        return target
    if locked:
        unlock_page(ram, cpu, pfn)  # truncated meanwhile
    drop_page(ram, cpu, target)
    return NONE


@inlined
def _move_to_target(ram, cpu, pfn, target):
    """Put `target` in the place of `pfn`: in the cache, in contents and flags. False if somebody else holds a
    reference.
    """
    object, index = ram.page_object[pfn] - 1, ram.page_index[pfn]
    anonymous = ram.object_kind[object] == OBJECT_ANON
    ram.page_flags[target] = PG_LOCKED | (ram.page_flags[pfn] & MOVED_FLAGS)  # nobody else can reach it yet
    ram.page_object[target] = object + 1
    ram.page_index[target] = index
    ram.page_io_ns[target] = ram.page_io_ns[pfn]
    if anonymous:
        if not freeze_refs(ram, pfn, 1):
            return False
        kmap(ram, cpu, target, KMAP_MOVE, object, index)
        record(ram, cpu, EV_MIGRATE, pfn, target, 0, load_acquire(ram.content, pfn))
        page_leaves(ram, pfn)
        move_content(ram, pfn, target)
        return True
    spin_lock_irq(ram, cpu, ram.object_cache_lock, object)
    alone = freeze_refs(ram, pfn, 2)
    if alone:
        kmap(ram, cpu, target, KMAP_MOVE, object, index)
        record(ram, cpu, EV_MIGRATE, pfn, target, 0, load_acquire(ram.content, pfn))
        page_leaves(ram, pfn)
        move_content(ram, pfn, target)
        fetch_add(ram.page_refcount, target, 1)  # the cache's
        store_release(ram.cache_slot, ram.object_cache[object] + index, target + 1)
    spin_unlock_irq(ram, cpu, ram.object_cache_lock, object)
    return alone


@inlined
def _finish_move(ram, cpu, pfn, target, key):
    """Copy done: map the target, give it to the LRU, give the source back with its key."""
    ram.cpu_clock[cpu] += ram.cost_page_copy
    remove_migration_ptes(ram, cpu, pfn, target)
    unlock_page(ram, cpu, target)
    lru_add_held(ram, cpu, target)  # with the allocation's reference
    mod_isolated(ram, cpu, node_of(ram, pfn), ram.page_flags[pfn], -1)
    unlock_page(ram, cpu, pfn)
    free_page(ram, cpu, pfn, key)


@kernel
def _undo_move(ram, cpu, pfn, target):
    """The page stays: map it again as it was, give the target back."""
    ram.moves_undone[cpu] += 1
    remove_migration_ptes(ram, cpu, pfn, pfn)
    clear_flag(ram, target, PG_LOCKED)
    ram.page_object[target] = 0
    drop_page(ram, cpu, target)
    unlock_page(ram, cpu, pfn)


@apart
def migrate_list(ram, cpu, part, count, node):
    """Move `count` isolated pages (work_list[cpu, part ...]) to `node`; returns how many went.

    Those that could not move are gathered at the start of the part; they stay isolated. When there is no
    memory for one, those behind it are not tried at all, and not counted as failed.
    """
    moving = 0
    kept = untried = 0
    target = NONE
    for i in range(count):
        pfn = ram.work_list[cpu, part + i]
        if target == NO_MEMORY:
            untried += 1
        else:
            target = _prepare_move(ram, cpu, pfn, node)
        unmapped = try_to_unmap(ram, cpu, pfn, UNMAP_FOR_MIGRATION) if target >= 0 else UNMAP_FAILED
        if unmapped == UNMAP_FAILED:
            if target >= 0:
                _undo_move(ram, cpu, pfn, target)
            ram.work_list[cpu, WORK_KEEP + kept] = pfn
            kept += 1
        else:
            ram.work_list[cpu, part + moving] = pfn
            ram.work_list[cpu, WORK_TARGET + moving] = target
            ram.work_list[cpu, WORK_LAZY + moving] = unmapped
            moving += 1
    key = call(ram, HOOK_BATCH_KEY, cpu, 0, 0, 0, 0)
    call(ram, HOOK_UNMAP_FLUSH, cpu, 0, 0, 0, 0)
    batch_is_flushed(ram, cpu)
    moved = 0
    for i in range(moving):
        pfn, target = ram.work_list[cpu, part + i], ram.work_list[cpu, WORK_TARGET + i]
        if _move_to_target(ram, cpu, pfn, target):
            lazy = ram.work_list[cpu, WORK_LAZY + i] == UNMAP_LAZY
            _finish_move(ram, cpu, pfn, target, key if lazy else 0)
            moved += 1
        else:
            _undo_move(ram, cpu, pfn, target)
            ram.work_list[cpu, WORK_KEEP + kept] = pfn
            kept += 1
    for i in range(kept):
        ram.work_list[cpu, part + i] = ram.work_list[cpu, WORK_KEEP + i]
    ram.pgmigrate_success[cpu] += moved
    ram.pgmigrate_fail[cpu] += count - moved - untried
    return moved


@kernel
def migrate_one(ram, cpu, pfn, node):
    """Move one isolated page; puts it back on its LRU if it cannot move. True if it moved."""
    ram.work_list[cpu, WORK_PROMOTE] = pfn
    moved = migrate_list(ram, cpu, WORK_PROMOTE, 1, node)
    if moved == 0:
        putback_page(ram, cpu, pfn)
    return moved != 0


@kernel
def _isolate_for_move(ram, cpu, table, index, node):
    """Isolate the page behind a PTE if it should and can go to `node` (add_folio_for_migration); the page, or
    -1.
    """
    pte = load_acquire(ram.frame_word, (table, index))
    if not pte_present(pte) or pte & PTE_SPECIAL:  # folio_walk_start: also what no access may go through
        return NONE
    pfn = pte_pfn(pte)
    if node_of(ram, pfn) == node or load_acquire(ram.page_mapcount, pfn) != 1:
        return NONE  # what several processes share is not moved without MPOL_MF_MOVE_ALL
    return pfn if isolate_page(ram, cpu, pfn) else NONE


@kernel
def _move_isolated(ram, cpu, count, node):
    """Move one batch, put back what could not go; returns how many went."""
    moved = migrate_list(ram, cpu, WORK_ISOLATED, count, node)
    for i in range(count - moved):
        putback_page(ram, cpu, ram.work_list[cpu, WORK_ISOLATED + i])
    return moved


@apart
def move_pages(ram, cpu, mm, start, end, node):
    """Move the pages in start..end to a node, WORK_PAGES with one flush (do_pages_move; do_mbind with
    MPOL_MF_MOVE); how many went.

    XXX: lru_add_drain_all drains this CPU's batch alone; pages in the batches of others stay where they are.
    """
    lru_add_drain(ram, cpu)
    moved, vpn = 0, start
    while vpn < end:
        count = 0
        mmap_read_lock(ram, cpu, mm)
        while vpn < end and count < WORK_PAGES:
            table, vpn, _ = next_table(ram, ram.mm_pgd[mm], vpn, end)
            if table < 0:
                break
            lock_pte(ram, cpu, table)
            pfn = _isolate_for_move(ram, cpu, table, vpn & LEVEL_MASK, node)
            unlock_pte(ram, cpu, table)
            if pfn != NONE:
                ram.work_list[cpu, WORK_ISOLATED + count] = pfn
                count += 1
            vpn += 1
        mmap_read_unlock(ram, cpu, mm)
        if count:
            moved += _move_isolated(ram, cpu, count, node)
    return moved
