"""An allocation that finds no zone above LOW (mm/page_alloc.c: __alloc_pages_slowpath; mm/vmscan.c:
try_to_free_pages).

It wakes kswapd of every node, goes down to MIN, and then reclaims by itself: 32 pages, from every node of its
zonelist, harder from round to round. While the nodes' reserves are half gone it waits for kswapd instead
(throttle_direct_reclaim).
`memory_reclaim` is the same machinery asked by a group's memory.reclaim.
Left out: high orders and compaction, the OOM killer (the run stops with a sentence), throttling for want of
progress, memory cgroups (the group whose memory is reclaimed is everybody).
"""

from allocator.flush_sites import SITE_DIRECT
from allocator.hooks import HOOK_PRESSURE
from allocator.kswapd import MAX_RECLAIM_RETRIES, wakeup_kswapd
from allocator.lru import (
    LRU_ACTIVE_ANON,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    SWAP_CLUSTER_MAX,
)
from allocator.page_alloc import GFP_KSWAPD, GFP_NORETRY, GFP_RECLAIM, GFP_THISNODE, get_page_from_freelist
from allocator.page_list import NONE
from allocator.panic import OUT_OF_MEMORY, panic
from allocator.pcp import drain_all_pages
from allocator.sched import cond_resched
from allocator.shrink_lruvec import (
    DEF_PRIORITY,
    can_demote,
    note_group_figures,
    shrink_lruvec_step,
    shrink_node_begin,
    snapshot_refaults,
)
from allocator.vmscan import BY_DIRECT, BY_GROUP, SC_FORCE_DEACTIVATE, SC_FS, SC_SKIPPED_DEACTIVATE
from cpus.compiled import apart, call, kernel, later
from cpus.declare import VMSTAT, Counter
from cpus.events import CALL_DIRECT, EV_CALL, EV_RECLAIM, EV_RETURN, record
from cpus.steal import pass_time

COUNTERS = (
    Counter("allocstall_normal", VMSTAT, "allocations that had to reclaim themselves"),
    Counter("pgscan_direct_throttle", VMSTAT, "allocations made to wait for kswapd"),
)

run_waiting_kthread = later("run_waiting_kthread", 1)
# at most HZ, for who may not wait for a file system
THROTTLE_STEP_NS, THROTTLE_WAIT_NS = 100_000, 1_000_000_000


@kernel
def _is_new_node(ram, node, i):
    """Is the i-th zone of the zonelist the first of its node? (Each node is shrunk once.)"""
    return i == 0 or ram.zone_node[ram.zonelist[node, i]] != ram.zone_node[ram.zonelist[node, i - 1]]


@kernel
def _shrink_zones(ram, cpu, sc, node):
    """Do one round on every node of the zonelist."""
    for i in range(ram.nr_zones):
        if _is_new_node(ram, node, i):
            victim = ram.zone_node[ram.zonelist[node, i]]
            shrink_node_begin(ram, sc, victim)
            cond_resched(ram, cpu)
            while shrink_lruvec_step(ram, cpu, sc, victim):
                cond_resched(ram, cpu)


@kernel
def _do_try_to_free_pages(ram, cpu, sc, node):
    """Rounds of growing priority until enough was reclaimed; in vain, once more, and then deactivating by
    force.
    """
    for attempt in range(3):
        if ram.sc_by[sc] == BY_DIRECT:
            ram.allocstall_normal[cpu] += 1
        ram.sc_priority[sc] = DEF_PRIORITY
        while ram.sc_priority[sc] >= 0:
            ram.sc_scanned[sc] = 0
            _shrink_zones(ram, cpu, sc, node)
            if ram.sc_reclaimed[sc] >= ram.sc_to_reclaim[sc]:
                break
            ram.sc_priority[sc] -= 1
        for victim in range(ram.nr_nodes):
            snapshot_refaults(ram, victim)
        if ram.sc_reclaimed[sc] > 0 or (attempt == 1 and ram.sc_flags[sc] & SC_SKIPPED_DEACTIVATE == 0):
            break
        if attempt == 1:
            ram.sc_flags[sc] |= SC_FORCE_DEACTIVATE
    return ram.sc_reclaimed[sc]


@kernel
def _allow_direct_reclaim(ram, cpu, node):
    """Is more than half of the node's reserve left? If not, kswapd must be at it."""
    if ram.kswapd_failures[node] >= MAX_RECLAIM_RETRIES:
        return True
    free = reserve = 0
    for zone in range(ram.node_first_zone[node], ram.node_end_zone[node]):
        free += ram.zone_free[zone]
        reserve += ram.wmark_min[zone]
    if free > reserve // 2:
        return True
    wakeup_kswapd(ram, cpu, node)
    return False


@kernel
def _throttle_direct_reclaim(ram, cpu, node):
    """Wait, but not for ever, until kswapd has brought the reserve back. Interrupts are served meanwhile.

    The CPU is free: kswapd runs here if it waits for one. (Linux's would run any task that waits.)
    """
    waited = 0
    while waited < THROTTLE_WAIT_NS and not _allow_direct_reclaim(ram, cpu, node):
        if waited == 0:
            ram.pgscan_direct_throttle[cpu] += 1
        waited += THROTTLE_STEP_NS
        if run_waiting_kthread(ram, cpu) != 0 and _allow_direct_reclaim(ram, cpu, node):
            break
        pass_time(ram, cpu, THROTTLE_STEP_NS)
        cond_resched(ram, cpu)


@apart
def try_to_free_pages(ram, cpu, node, gfp):
    """Reclaim a batch's worth for an allocation from `node`; returns pages."""
    _throttle_direct_reclaim(ram, cpu, node)
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_DIRECT
    ram.sc_by[cpu], ram.sc_reclaimed[cpu], ram.sc_to_reclaim[cpu] = BY_DIRECT, 0, SWAP_CLUSTER_MAX
    # readahead runs inside the file system (memalloc_nofs_save)
    ram.sc_flags[cpu] = 0 if gfp & GFP_NORETRY else SC_FS
    record(ram, cpu, EV_CALL, CALL_DIRECT, node, 0, 0)
    reclaimed = _do_try_to_free_pages(ram, cpu, cpu, node)
    record(ram, cpu, EV_RETURN, CALL_DIRECT, node, 0, 0)
    ram.cpu_site[cpu] = site
    record(ram, cpu, EV_RECLAIM, node, BY_DIRECT, reclaimed, ram.sc_priority[cpu])
    return reclaimed


@apart
def memory_reclaim(ram, cpu, pages):
    """What writing a number of pages to memory.reclaim does (memory_reclaim, try_to_free_mem_cgroup_pages);
    returns pages reclaimed.

    Each turn asks for a quarter of what is missing, at least 32 pages. Counts pgscan_file, pgsteal_file and
    their anonymous counterparts, not the kswapd and direct ones, as global counters do.
    """
    ram.cpu_clock[cpu] += ram.cost_syscall
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_DIRECT
    reclaimed, retries = 0, MAX_RECLAIM_RETRIES
    note_group_figures(ram, cpu)
    while reclaimed < pages and retries >= 0:
        ram.sc_by[cpu], ram.sc_reclaimed[cpu], ram.sc_flags[cpu] = BY_GROUP, 0, SC_FS
        ram.sc_to_reclaim[cpu] = max((pages - reclaimed) // 4, SWAP_CLUSTER_MAX)
        got = _do_try_to_free_pages(ram, cpu, cpu, 0)
        reclaimed += got
        if got == 0:
            retries -= 1
    ram.cpu_site[cpu] = site
    return reclaimed


# --- the slow path ------------------------------------------------------------------------------------------


@kernel
def _wake_all_kswapds(ram, cpu, node, gfp):
    for i in range(ram.nr_zones):
        if _is_new_node(ram, node, i) and (i == 0 or gfp & GFP_THISNODE == 0):
            wakeup_kswapd(ram, cpu, ram.zone_node[ram.zonelist[node, i]])


@kernel
def _should_reclaim_retry(ram):
    """Could the allocation succeed if everything reclaimable were reclaimed (should_reclaim_retry)?"""
    for zone in range(ram.nr_zones):
        node = ram.zone_node[zone]
        available = (
            ram.zone_free[zone] + ram.lru_size[node, LRU_INACTIVE_FILE] + ram.lru_size[node, LRU_ACTIVE_FILE]
        )
        if can_demote(ram, node):
            available += ram.lru_size[node, LRU_INACTIVE_ANON] + ram.lru_size[node, LRU_ACTIVE_ANON]
        if available > ram.wmark_min[zone] + ram.zone_reserve[zone]:
            return True
    return False


@kernel
def _direct_reclaim(ram, cpu, node, gfp):
    """Reclaim and try again; what was reclaimed may lie in CPUs' lists. -1: no page, -2: nothing was
    reclaimed.
    """
    if try_to_free_pages(ram, cpu, node, gfp) == 0:
        return -2
    pfn = get_page_from_freelist(ram, cpu, node, gfp, False)
    if pfn == NONE:
        for zone in range(ram.nr_zones):
            drain_all_pages(ram, cpu, zone)
        pfn = get_page_from_freelist(ram, cpu, node, gfp, False)
    return pfn


@apart
def alloc_slow(ram, cpu, node, gfp):
    """Get a page when no zone is above LOW: wake kswapd, dip to MIN, reclaim; -1 if `gfp` does not allow
    that, or no retry.
    """
    no_progress = 0
    while True:
        if gfp & GFP_KSWAPD:
            _wake_all_kswapds(ram, cpu, node, gfp)
        call(ram, HOOK_PRESSURE, cpu, node, 0, 0, 0)
        pfn = get_page_from_freelist(ram, cpu, node, gfp, False)
        if pfn != NONE or gfp & GFP_RECLAIM == 0:
            return pfn
        answer = _direct_reclaim(ram, cpu, node, gfp)
        if answer >= 0:
            return answer
        if gfp & GFP_NORETRY:
            return NONE
        no_progress = no_progress + 1 if answer == -2 else 0
        if no_progress > MAX_RECLAIM_RETRIES or not _should_reclaim_retry(ram):
            panic(ram, cpu, OUT_OF_MEMORY, node, no_progress)
            return NONE
        cond_resched(ram, cpu)
