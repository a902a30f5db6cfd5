"""Page reclaim from one LRU list (mm/vmscan.c: shrink_inactive_list, shrink_folio_list, shrink_active_list).

Works in batches of SWAP_CLUSTER_MAX: isolate from the tail under lru_lock, look at references, demote or
unmap, flush once per batch of 31 freed folios and once more at the end, then give the frames back. What it is
done for stands in a *scan_control*, the row `sc` of the `sc_` fields: kswapd of a node, an allocating CPU, or
a group that is asked to give memory back. A large folio goes as a whole: its head is on the list, and counts
for as many pages.
Left out: memory cgroups, MGLRU, slab shrinkers, swap (anonymous pages can only be demoted), throttling for
the sake of write-back (writeback.py).
"""

from allocator.flush_sites import SITE_DIRECT_DEMOTION, SITE_KSWAPD_DEMOTION
from allocator.folio import free_folio
from allocator.hooks import HOOK_BATCH_KEY, HOOK_UNMAP_FLUSH, HOOK_UNMAP_FLUSH_DIRTY
from allocator.lru import (
    FOLIO_BATCH,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_FILE,
    drop_page,
    isolated,
    link_page,
    link_page_tail,
    lru_add_drain,
    lru_list,
    lru_note_cost,
    mod_isolated,
    unlink_page,
)
from allocator.migrate import WORK_DEMOTE, WORK_ISOLATED, WORK_PAGES, migrate_list
from allocator.page import (
    PG_ACTIVE,
    PG_DIRTY,
    PG_LOCKED,
    PG_LRU,
    PG_RECLAIM,
    PG_REFERENCED,
    PG_SWAPBACKED,
    PG_WORKINGSET,
    clear_flag,
    folio_pages,
    freeze_refs,
    is_large,
    maybe_dma_pinned,
    set_flag,
    try_get_page,
    try_lock_page,
    unlock_page,
)
from allocator.page_alloc import free_page, free_with_others
from allocator.page_cache import OBJECT_ANON, remove_mapping, write_page
from allocator.page_list import NONE
from allocator.pcp import unlock_pcp
from allocator.reclaim_folio import (
    ACTIVATE,
    ACTIVATE_LAZILY,
    GONE,
    GONE_LAZILY,
    KEEP,
    is_dirty,
    keep_after_all,
    leave_to_flusher,
    unmap_and_remove_folio,
)
from allocator.rmap import UNMAP_FAILED, UNMAP_FOR_RECLAIM, UNMAP_LAZY, page_referenced, try_to_unmap
from allocator.sched import cond_resched
from allocator.writeback import wakeup_flusher_threads
from cpus.atomics import fetch_add
from cpus.compiled import apart, call, inlined, kernel
from cpus.declare import CONFIG, DEFERRED, OURS, OWNER, VMSTAT, Cost, Counter, Field, OwnerOf, Struct
from cpus.events import CALL_DEMOTION, EV_CALL, EV_RETURN, record
from cpus.exposed import batch_is_flushed
from cpus.locks import spin_lock_irq, spin_unlock_irq
from cpus.steal import pass_time

SCAN = OwnerOf("scan")
FIELDS = (
    Struct("nr_nodes", "config", (Field("demotion_target", CONFIG, "node to demote to, or -1"),)),
    Struct("nr_nodes", "kswapd", (
        Field("node_dirty", OwnerOf("kswapd_task", "task_cpu"),
              "kswapd has met nothing but dirty pages of files in a round (PGDAT_DIRTY)"),
    )),
    Struct("nr_scans", "scan", (
        Field("sc_priority", SCAN, "share of the lists that is scanned, log2"),
        Field("sc_to_reclaim", SCAN, "pages wanted"),
        Field("sc_reclaimed", SCAN, "pages reclaimed"),
        Field("sc_scanned", SCAN, "pages looked at"),
        Field("sc_batch", SCAN, "pages to take off a list next"),
        Field("sc_got", SCAN, "pages that shrink_lruvec has reclaimed in this call"),
        Field("sc_kept", SCAN, "pages that shrink_folio_list has left at the front of the work list"),
        Field("sc_by", SCAN, "BY_KSWAPD, BY_DIRECT, BY_GROUP"),
        Field("sc_flags", SCAN, "SC_*"),
        Field("sc_group_low", SCAN,
              "BY_GROUP: bit of each inactive list (node * 4 + list) that was low when the call began"),
        Field("sc_before", SCAN, "sc_reclaimed when the round began"),
        Field("sc_dirty", SCAN, "folios met in the round that were dirty (nr.unqueued_dirty)"),
        Field("sc_file_taken", SCAN, "folios taken off the list of files in the round (nr.file_taken)"),
    )),
    Field("free_batch", OWNER, "folio_batch of pages on their way to the allocator",
          ("nr_cpus", 2 * (FOLIO_BATCH + 1))),
    Field("keep_list", OWNER, "pages set aside by reclaim's second pass", ("nr_cpus", WORK_PAGES)),
)  # fmt: skip

COUNTERS = (
    Counter("pgactivate", VMSTAT, "pages moved to an active list by reclaim", "pages"),
    Counter("pgrefill", VMSTAT, "pages looked at on active lists", "pages"),
    Counter("pgscan_kswapd", VMSTAT, "pages looked at on inactive lists by kswapd", "pages"),
    Counter("pgscan_direct", VMSTAT, "the same by CPUs that want a page themselves", "pages"),
    Counter("pgscan_file", VMSTAT, "the same by anybody: pages of files", "pages"),
    Counter("pgscan_anon", VMSTAT, "anonymous pages", "pages"),
    Counter("pgsteal_kswapd", VMSTAT, "pages reclaimed, or demoted, by kswapd", "pages"),
    Counter("pgsteal_direct", VMSTAT, "the same by CPUs that want a page themselves", "pages"),
    Counter("pgsteal_file", VMSTAT, "the same by anybody: pages of files", "pages"),
    Counter("pgsteal_anon", VMSTAT, "anonymous pages", "pages"),
    Counter("pgdemote_kswapd", VMSTAT, "pages moved to a slower node by kswapd", "pages"),
    Counter("pgdemote_direct", VMSTAT, "the same by CPUs that want a page themselves", "pages"),
    Counter("pgdemote_fail", OURS, "pages that were to be demoted and were not", "pages"),
    Counter(
        "nr_vmscan_immediate_reclaim",
        VMSTAT,
        "dirty pages that reclaim has left to the flusher, to be reclaimed once written",
        "pages",
    ),
    Counter("nr_vmscan_write", VMSTAT, "dirty pages that kswapd has written itself", "pages"),
    Counter("pgrotated", VMSTAT, "pages put to the tail of an inactive list since they are written", "pages"),
    Counter("kept_with_pending", DEFERRED, "batches flushed since a page whose flush was to wait is kept"),
    Counter("pglazyfreed", VMSTAT, "pages of MADV_FREE that reclaim dropped", "pages"),
)
COSTS = (Cost("reclaim_page", "isolating a page, checking references, freeing"),)

BY_KSWAPD, BY_DIRECT, BY_GROUP = 0, 1, 2
# sc_flags
SC_DEACTIVATE_ANON, SC_DEACTIVATE_FILE, SC_FORCE_DEACTIVATE, SC_SKIPPED_DEACTIVATE = 1, 2, 4, 8
SC_CACHE_TRIM, SC_NO_CACHE_TRIM, SC_CACHE_TRIM_FAILED, SC_FILE_IS_TINY, SC_FS = 16, 32, 64, 128, 256
SC_IGNORE_REFERENCES = 512  # the caller knows that the pages are not wanted (MADV_PAGEOUT)
# reclaim_throttle, VMSCAN_THROTTLE_ISOLATED: at most HZ/50
ISOLATED_STEP_NS, ISOLATED_WAIT_NS = 50_000, 20_000_000
REF_RECLAIM, REF_KEEP, REF_ACTIVATE = 0, 1, 2
NORMAL_BATCH, LAZY_BATCH = 0, FOLIO_BATCH + 1  # halves of free_batch


# --- lists --------------------------------------------------------------------------------------------------


@inlined
def isolate_folios(ram, cpu, node, which, wanted):
    """Take up to `wanted` pages from the tail of a list into work_list, with a reference each
    (isolate_lru_folios); returns how many folios were taken, and how many pages scanned.
    """
    taken = scanned = 0
    spin_lock_irq(ram, cpu, ram.lru_lock, node)
    pfn = ram.lru_last[node, which]
    while pfn != NONE and scanned < wanted:
        before = ram.page_prev[pfn]
        scanned += folio_pages(ram, pfn)
        if try_get_page(ram, pfn):  # 0: on its way out, its last holder waits for lru_lock
            clear_flag(ram, pfn, PG_LRU)
            unlink_page(ram, node, which, pfn)
            ram.work_list[cpu, WORK_ISOLATED + taken] = pfn
            taken += 1
        pfn = before
    mod_isolated(ram, cpu, node, 0 if which >= LRU_INACTIVE_FILE else PG_SWAPBACKED, taken)
    spin_unlock_irq(ram, cpu, ram.lru_lock, node)
    return taken, scanned


@inlined
def move_folios_to_lru(ram, cpu, node, part, count):
    """Put isolated pages back on the lists that their flags ask for, and drop the isolation's references."""
    if count == 0:
        return
    spin_lock_irq(ram, cpu, ram.lru_lock, node)
    for i in range(count):
        pfn = ram.work_list[cpu, part + i]
        if ram.page_flags[pfn] & (PG_RECLAIM | PG_DIRTY) == PG_RECLAIM:  # folio_rotate_reclaimable
            clear_flag(ram, pfn, PG_RECLAIM | PG_ACTIVE)
            set_flag(ram, pfn, PG_LRU)
            link_page_tail(ram, node, lru_list(ram.page_flags[pfn]), pfn)
            ram.pgrotated[cpu] += folio_pages(ram, pfn)
        else:
            set_flag(ram, pfn, PG_LRU)
            link_page(ram, node, lru_list(ram.page_flags[pfn]), pfn)
        mod_isolated(ram, cpu, node, ram.page_flags[pfn], -1)
        if ram.page_flags[pfn] & PG_ACTIVE:
            fetch_add(ram.node_age, node, 1)  # workingset_age_nonresident
    spin_unlock_irq(ram, cpu, ram.lru_lock, node)
    for i in range(count):
        drop_page(ram, cpu, ram.work_list[cpu, part + i])


# --- one page -----------------------------------------------------------------------------------------------


@inlined
def check_references(ram, cpu, pfn):
    """Decide by accessed bits whether a page goes, stays, or becomes active (folio_check_references)."""
    ptes, maps_code = page_referenced(ram, cpu, pfn)
    referenced = ram.page_flags[pfn] & PG_REFERENCED != 0
    if ptes == 0:
        if referenced:
            clear_flag(ram, pfn, PG_REFERENCED)
        return REF_RECLAIM
    if not referenced:
        set_flag(ram, pfn, PG_REFERENCED)
    if referenced or ptes > 1:
        return REF_ACTIVATE
    if maps_code and ram.page_flags[pfn] & PG_SWAPBACKED == 0:
        return REF_ACTIVATE
    return REF_KEEP


@kernel
def _free_batch(ram, cpu, half, count, key):
    """Give a batch of folios back, all with one key."""
    zone = NONE
    for i in range(count):
        pfn = ram.free_batch[cpu, half + i]
        if key == 0 and ram.page_key[pfn] == 0 and not is_large(ram, pfn):
            zone = free_with_others(ram, cpu, pfn, zone)
            continue
        if zone != NONE:
            unlock_pcp(ram, cpu, zone)
            zone = NONE
        if is_large(ram, pfn):
            free_folio(ram, cpu, pfn, key)
        else:
            free_page(ram, cpu, pfn, key)
    if zone != NONE:
        unlock_pcp(ram, cpu, zone)


@kernel
def _flush_and_free(ram, cpu, normal, lazy, kept):
    """Flush what must be flushed now, then free both batches: the lazy one with the key of what stays
    pending.

    `kept`: of a page that stays something was deferred. It has no next owner to wait for, and our reference
    until now.
    """
    if kept:
        ram.kept_with_pending[cpu] += 1
        call(ram, HOOK_UNMAP_FLUSH_DIRTY, cpu, 1, 0, 0, 0)
    key = call(ram, HOOK_BATCH_KEY, cpu, 0, 0, 0, 0)
    call(ram, HOOK_UNMAP_FLUSH, cpu, 0, 0, 0, 0)
    batch_is_flushed(ram, cpu)
    _free_batch(ram, cpu, NORMAL_BATCH, normal, 0)
    _free_batch(ram, cpu, LAZY_BATCH, lazy, key)


@inlined
def _unmap_and_remove(ram, cpu, node, pfn, kswapd):
    """Unmap a locked page, take it out of its file's cache; returns what becomes of it (reclaim_folio.py).

    A dirty one is left to the flusher (writeback.py). If kswapd writes it, then after flushing every
    translation through which more could be written unseen.
    """
    unmapped = try_to_unmap(ram, cpu, pfn, UNMAP_FOR_RECLAIM)
    if unmapped == UNMAP_FAILED:
        return ACTIVATE
    if maybe_dma_pinned(ram, pfn):
        keep_after_all(ram, cpu, unmapped)
        return ACTIVATE
    object = ram.page_object[pfn] - 1
    # freed lazily (MADV_FREE) and not written to since: gone without IO
    if ram.object_kind[object] == OBJECT_ANON:
        alone = freeze_refs(ram, pfn, 1)
        ram.pglazyfreed[cpu] += alone
    else:
        if ram.page_flags[pfn] & PG_DIRTY:
            if leave_to_flusher(ram, node, pfn, kswapd):
                ram.nr_vmscan_immediate_reclaim[cpu] += 1
                return ACTIVATE_LAZILY if unmapped == UNMAP_LAZY else ACTIVATE
            call(ram, HOOK_UNMAP_FLUSH_DIRTY, cpu, 0, 0, 0, 0)
            ram.nr_vmscan_write[cpu] += 1
            write_page(ram, cpu, pfn, object)
        alone = remove_mapping(ram, cpu, pfn, object, True)
    if not alone:
        keep_after_all(ram, cpu, unmapped)
        return KEEP
    return GONE_LAZILY if unmapped == UNMAP_LAZY else GONE


@kernel
def _activate(ram, cpu, pfn):
    set_flag(ram, pfn, PG_ACTIVE)
    ram.pgactivate[cpu] += 1


@kernel
def _demote_folio_list(ram, cpu, sc, demotable, target):
    """Move pages to the slower node (demote_folio_list); returns how many went, the others are at the start
    of WORK_DEMOTE.
    """
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_KSWAPD_DEMOTION if ram.sc_by[sc] == BY_KSWAPD else SITE_DIRECT_DEMOTION
    record(ram, cpu, EV_CALL, CALL_DEMOTION, target, 0, 0)
    moved = migrate_list(ram, cpu, WORK_DEMOTE, demotable, target)
    record(ram, cpu, EV_RETURN, CALL_DEMOTION, target, 0, 0)
    ram.cpu_site[cpu] = site
    if ram.sc_by[sc] == BY_KSWAPD:
        ram.pgdemote_kswapd[cpu] += moved
    elif ram.sc_by[sc] == BY_DIRECT:
        ram.pgdemote_direct[cpu] += moved
    ram.pgdemote_fail[cpu] += demotable - moved
    return moved


@apart
def shrink_folio_list(ram, cpu, sc, node, count, demote):
    """Reclaim what can be of work_list[cpu, :count]; returns how many pages were reclaimed or demoted.

    Survivors, `sc_kept` of them, are moved to the front of the list.
    """
    kept = demotable = reclaimed = normal = lazy = dirty_lazily = 0
    target = ram.demotion_target[node] if demote else NONE
    kswapd = ram.sc_by[sc] == BY_KSWAPD
    for i in range(count):
        pfn = ram.work_list[cpu, WORK_ISOLATED + i]
        keep = True
        ram.cpu_clock[cpu] += ram.cost_reclaim_page
        anonymous = ram.page_flags[pfn] & PG_SWAPBACKED != 0
        if ram.page_io_ns[pfn] <= ram.cpu_clock[cpu] and try_lock_page(ram, pfn):
            ram.sc_scanned[sc] += 1
            ram.sc_dirty[sc] += is_dirty(ram, pfn)
            # a page truncated meanwhile has no file any more: its last holder frees it
            verdict = REF_KEEP
            if ram.page_object[pfn]:
                verdict = (
                    REF_RECLAIM
                    if ram.sc_flags[sc] & SC_IGNORE_REFERENCES
                    else check_references(ram, cpu, pfn)
                )
            if verdict == REF_ACTIVATE:
                _activate(ram, cpu, pfn)
            elif verdict == REF_RECLAIM and target != NONE:
                ram.work_list[cpu, WORK_DEMOTE + demotable] = pfn
                demotable += 1
                keep = False
            elif verdict == REF_RECLAIM and anonymous:
                _activate(ram, cpu, pfn)  # no swap to add it to
            elif verdict == REF_RECLAIM:
                size = folio_pages(ram, pfn)
                gone = (
                    _unmap_and_remove(ram, cpu, node, pfn, kswapd)
                    if size == 1
                    else unmap_and_remove_folio(ram, cpu, node, pfn, kswapd)
                )
                if gone in (ACTIVATE, ACTIVATE_LAZILY):
                    _activate(ram, cpu, pfn)
                    dirty_lazily = 1 if gone == ACTIVATE_LAZILY else dirty_lazily
                elif gone != KEEP:
                    keep = False
                    # nobody can reach it, or wait for it: no references are left
                    ram.page_flags[pfn] &= ~PG_LOCKED
                    mod_isolated(ram, cpu, node, 0, -1)
                    reclaimed += size
                    if gone == GONE_LAZILY:
                        ram.free_batch[cpu, LAZY_BATCH + lazy] = pfn
                        lazy += 1
                    else:
                        ram.free_batch[cpu, NORMAL_BATCH + normal] = pfn
                        normal += 1
                    if normal == FOLIO_BATCH or lazy == FOLIO_BATCH:
                        _flush_and_free(ram, cpu, normal, lazy, dirty_lazily)
                        normal = lazy = dirty_lazily = 0
            if keep or target != NONE:
                unlock_page(ram, cpu, pfn)
        if keep:
            ram.work_list[cpu, WORK_ISOLATED + kept] = pfn
            kept += 1
    if demotable:
        moved = _demote_folio_list(ram, cpu, sc, demotable, target)
        reclaimed += moved
        for i in range(demotable - moved):
            ram.work_list[cpu, WORK_ISOLATED + kept + i] = ram.work_list[cpu, WORK_DEMOTE + i]
        # no room on the slower node: discard them instead
        if moved < demotable and ram.sc_by[sc] != BY_GROUP:
            return reclaimed + _second_pass(ram, cpu, sc, node, kept, demotable - moved)
        kept += demotable - moved
    _flush_and_free(ram, cpu, normal, lazy, dirty_lazily)
    ram.sc_kept[sc] = kept
    return reclaimed


@kernel
def _second_pass(ram, cpu, sc, node, kept, count):
    """Reclaim pages that could not be demoted (do_demote_pass = false); those kept earlier stay at the front
    of the list. Returns how many pages were reclaimed.
    """
    for i in range(kept):
        ram.keep_list[cpu, i] = ram.work_list[cpu, WORK_ISOLATED + i]
    for i in range(count):
        ram.work_list[cpu, WORK_ISOLATED + i] = ram.work_list[cpu, WORK_ISOLATED + kept + i]
    reclaimed = shrink_folio_list(ram, cpu, sc, node, count, 0)
    survivors = ram.sc_kept[sc]
    for i in range(survivors - 1, -1, -1):
        ram.work_list[cpu, WORK_ISOLATED + kept + i] = ram.work_list[cpu, WORK_ISOLATED + i]
    for i in range(kept):
        ram.work_list[cpu, WORK_ISOLATED + i] = ram.keep_list[cpu, i]
    ram.sc_kept[sc] = kept + survivors
    return reclaimed


# --- one list -----------------------------------------------------------------------------------------------


@kernel
def _too_many_isolated(ram, sc, node, which):
    """Do CPUs that reclaim for themselves hold more pages isolated than the list has (an eighth of it if they
    may do IO)?
    """
    if ram.sc_by[sc] != BY_DIRECT:
        return False
    inactive = ram.lru_size[node, which]
    return isolated(ram, node, which == LRU_INACTIVE_FILE) > (
        inactive >> 3 if ram.sc_flags[sc] & SC_FS else inactive
    )


@kernel
def _wait_for_isolated(ram, cpu, sc, node, which):
    """Let others put their pages back first (reclaim_throttle, VMSCAN_THROTTLE_ISOLATED); False if they do
    not in time.
    """
    waited = 0
    while _too_many_isolated(ram, sc, node, which):
        if waited >= ISOLATED_WAIT_NS:
            return False
        waited += ISOLATED_STEP_NS
        pass_time(ram, cpu, ISOLATED_STEP_NS)
        cond_resched(ram, cpu)
    return True


@kernel
def _count_scanned(ram, cpu, by, file, pages):
    if by == BY_KSWAPD:
        ram.pgscan_kswapd[cpu] += pages
    elif by == BY_DIRECT:
        ram.pgscan_direct[cpu] += pages
    if file:
        ram.pgscan_file[cpu] += pages
    else:
        ram.pgscan_anon[cpu] += pages


@kernel
def _count_reclaimed(ram, cpu, by, file, pages):
    if by == BY_KSWAPD:
        ram.pgsteal_kswapd[cpu] += pages
    elif by == BY_DIRECT:
        ram.pgsteal_direct[cpu] += pages
    if file:
        ram.pgsteal_file[cpu] += pages
    else:
        ram.pgsteal_anon[cpu] += pages


@apart
def shrink_inactive_list(ram, cpu, sc, node, which):
    """Reclaim a batch from the tail of an inactive list, as `sc_batch` says; returns pages reclaimed."""
    if not _wait_for_isolated(ram, cpu, sc, node, which):
        return 0
    lru_add_drain(ram, cpu)
    by, file = ram.sc_by[sc], which == LRU_INACTIVE_FILE
    taken, scanned = isolate_folios(ram, cpu, node, which, ram.sc_batch[sc])
    _count_scanned(ram, cpu, by, file, scanned)
    if taken == 0:
        return 0
    demote = 1 if ram.demotion_target[node] >= 0 else 0
    dirty_before = ram.sc_dirty[sc]
    ram.sc_file_taken[sc] += taken * file
    reclaimed = shrink_folio_list(ram, cpu, sc, node, taken, demote)
    if ram.sc_dirty[sc] - dirty_before == taken:
        wakeup_flusher_threads(ram, cpu, ram.sc_kept[sc])
    move_folios_to_lru(ram, cpu, node, WORK_ISOLATED, ram.sc_kept[sc])
    _count_reclaimed(ram, cpu, by, file, reclaimed)
    lru_note_cost(ram, cpu, node, file, 0, scanned - reclaimed)
    return reclaimed


@apart
def shrink_active_list(ram, cpu, sc, node, which):
    """Deactivate a batch from the tail of an active list; code that was used stays."""
    lru_add_drain(ram, cpu)
    taken, scanned = isolate_folios(ram, cpu, node, which, ram.sc_batch[sc])
    if ram.sc_by[sc] != BY_GROUP:
        ram.pgrefill[cpu] += scanned
    rotated = 0
    for i in range(taken):
        pfn = ram.work_list[cpu, WORK_ISOLATED + i]
        _, maps_code = page_referenced(ram, cpu, pfn)
        if maps_code and ram.page_flags[pfn] & PG_SWAPBACKED == 0:
            rotated += 1
            continue
        clear_flag(ram, pfn, PG_ACTIVE)
        set_flag(ram, pfn, PG_WORKINGSET)
        ram.pgdeactivate[cpu] += 1
    move_folios_to_lru(ram, cpu, node, WORK_ISOLATED, taken)
    lru_note_cost(ram, cpu, node, which == LRU_ACTIVE_FILE, 0, rotated)
    return 0
