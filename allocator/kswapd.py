"""When reclaim runs: kswapd of each node, direct reclaim, and the allocator's slow path.

mm/vmscan.c: balance_pgdat, kswapd_shrink_node, do_try_to_free_pages, get_scan_count; mm/page_alloc.c: __alloc_pages_slowpath.
kswapd is a task: an allocation that finds a zone below LOW wakes it, it runs on an idle CPU in rounds of growing priority until
the node is above HIGH, and sleeps. It works one batch per step, so that its CPU can serve interrupts and other tasks.
An allocation that finds everything below MIN reclaims by itself.
Left out: watermark boosting, high orders and compaction, throttle_direct_reclaim, the OOM killer, kswapd's short sleep.
"""

from allocator.buddy import NONE
from allocator.lru import LRU_ACTIVE_FILE, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE
from allocator.page_alloc import GFP_KSWAPD, GFP_RECLAIM, drain_all_pages, get_page_from_freelist
from allocator.panic import OUT_OF_MEMORY, panic
from allocator.sched import cond_resched, wake_task
from allocator.tlb_flush import SITE_DIRECT, SITE_KSWAPD
from allocator.vmscan import BY_DIRECT, BY_KSWAPD, DEF_PRIORITY, SWAP_CLUSTER_MAX, inactive_is_low, shrink_list
from cpus.atomics import load_acquire
from cpus.compiled import apart, entry, kernel
from cpus.events import EV_RECLAIM, record
from cpus.layout import COUNTER, NR_LRU, TEXT
from cpus.locks import LOCK_KSWAPD, spin_lock, spin_unlock

KSWAPD_STEP, ALLOC_SLOW = TEXT["kswapd_step"], TEXT["alloc_slow"]
PHASE_SLEEP, PHASE_ROUND, PHASE_SCAN = 0, 1, 2
MAX_RECLAIM_RETRIES = 16
C_ALLOCSTALL, C_PAGEOUTRUN = COUNTER["allocstall_normal"], COUNTER["pageoutrun"]


@kernel
def get_scan_count(ram, goals, row, node, priority):
    """Set how many pages of each list one round looks at (get_scan_count): its size shifted by the priority.

    Anonymous pages count only where they can go (a slower node: there is no swap), and not while there is plenty of
    inactive file cache (cache_trim_mode).
    """
    for which in range(NR_LRU):
        goals[row, which] = 0
    file_low = inactive_is_low(ram, node, LRU_INACTIVE_FILE)
    trim = not file_low and (ram.lru_size[node, LRU_INACTIVE_FILE] >> priority) > 0
    anonymous = ram.demotion and ram.demotion_target[node] >= 0 and not trim
    for which in range(LRU_INACTIVE_ANON if anonymous else LRU_INACTIVE_FILE, LRU_ACTIVE_FILE + 1):
        size = ram.lru_size[node, which]
        goal = size >> priority
        goals[row, which] = goal if goal > 0 else min(size, SWAP_CLUSTER_MAX) if priority < DEF_PRIORITY else 0


@kernel
def shrink_lruvec_step(ram, cpu, goals, row, node, by):
    """Scan one batch of the list with most left to scan; returns reclaimed * 1024 + scanned, or -1 when the round is over."""
    best, most = -1, 0
    for which in range(LRU_INACTIVE_ANON, LRU_ACTIVE_FILE + 1):
        if goals[row, which] > most:
            best, most = which, goals[row, which]
    inactive_left = goals[row, LRU_INACTIVE_ANON] + goals[row, LRU_INACTIVE_FILE] + goals[row, LRU_ACTIVE_FILE]
    if best < 0 or inactive_left == 0:
        return -1
    batch = min(most, SWAP_CLUSTER_MAX)
    goals[row, best] -= batch
    return shrink_list(ram, cpu, node, best, batch, by)


# --- kswapd -------------------------------------------------------------------------------------------------------------


@kernel
def pgdat_balanced(ram, node):
    """Is the node above its high watermark (WMARK_PROMO with NUMA balancing in tiering mode, on the fast node)?"""
    mark = ram.wmark_high[node]
    if ram.numa_balancing and ram.node_latency[node] == 0 and ram.demotion_target[node] >= 0:
        mark = ram.wmark_promo[node]
    return ram.zone_free[node] > mark


@apart
def wakeup_kswapd(ram, cpu, node):
    """Wake the node's kswapd unless it is at it, or has given up (wakeup_kswapd)."""
    if load_acquire(ram.kswapd_awake, node) or ram.kswapd_failures[node] >= MAX_RECLAIM_RETRIES or pgdat_balanced(ram, node):
        return 0
    spin_lock(ram, cpu, ram.kswapd_lock, node, LOCK_KSWAPD | node)
    mine = ram.kswapd_awake[node] == 0
    ram.kswapd_awake[node] = 1
    spin_unlock(ram, cpu, ram.kswapd_lock, node, LOCK_KSWAPD | node)
    if mine:
        wake_task(ram, cpu, ram.kswapd_task[node], ram.cpu_clock[cpu])
    return 0


@kernel
def _begin_round(ram, node):
    get_scan_count(ram, ram.kswapd_target, node, node, ram.kswapd_priority[node])
    ram.kswapd_scanned[node] = 0
    ram.kswapd_round[node] = 0  # pages reclaimed in this round
    ram.kswapd_phase[node] = PHASE_SCAN


@kernel
def _end_round(ram, cpu, node):
    """Decide after a round: done, or another one, harder if this one was weak (balance_pgdat); 0 when kswapd may sleep."""
    ram.kswapd_reclaimed[node] += ram.kswapd_round[node]
    wanted = max(ram.wmark_high[node], SWAP_CLUSTER_MAX)
    if pgdat_balanced(ram, node):
        ram.kswapd_phase[node] = PHASE_SLEEP
        return 0
    if ram.kswapd_scanned[node] < wanted or ram.kswapd_round[node] == 0:
        ram.kswapd_priority[node] -= 1
    if ram.kswapd_priority[node] < 1:
        if ram.kswapd_reclaimed[node] == 0:
            ram.kswapd_failures[node] += 1
        ram.kswapd_phase[node] = PHASE_SLEEP
        return 0
    ram.kswapd_phase[node] = PHASE_ROUND
    return 1


@entry(KSWAPD_STEP)
def kswapd_step(ram, cpu, node, b, c, d):
    """Do one batch of a node's balancing; 1: there is more to do, 0: asleep."""
    phase = ram.kswapd_phase[node]
    if phase == PHASE_SLEEP:
        ram.kswapd_priority[node] = DEF_PRIORITY
        ram.kswapd_reclaimed[node] = 0
        ram.counter[cpu, C_PAGEOUTRUN] += 1
        record(ram, cpu, EV_RECLAIM, node, BY_KSWAPD, ram.zone_free[node], 0)
        phase = PHASE_ROUND
    if phase == PHASE_ROUND:
        if pgdat_balanced(ram, node):
            ram.kswapd_phase[node] = PHASE_SLEEP
            return 0
        _begin_round(ram, node)
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_KSWAPD
    answer = shrink_lruvec_step(ram, cpu, ram.kswapd_target, node, node, BY_KSWAPD)
    ram.cpu_site[cpu] = site
    wanted = max(ram.wmark_high[node], SWAP_CLUSTER_MAX)
    if answer >= 0:
        ram.kswapd_round[node] += answer // 1024
        ram.kswapd_scanned[node] += answer % 1024
        if answer >= 1024:
            ram.kswapd_failures[node] = 0
    if answer < 0 or ram.kswapd_round[node] >= wanted:
        return _end_round(ram, cpu, node)
    return 1


@kernel
def kswapd_falls_asleep(ram, cpu, node):
    """kswapd is about to sleep: allow wake-ups again."""
    spin_lock(ram, cpu, ram.kswapd_lock, node, LOCK_KSWAPD | node)
    ram.kswapd_awake[node] = 0
    spin_unlock(ram, cpu, ram.kswapd_lock, node, LOCK_KSWAPD | node)


# --- direct reclaim -----------------------------------------------------------------------------------------------------


@kernel
def try_to_free_pages(ram, cpu, node):
    """Reclaim from every node of the zonelist until a batch's worth has come (do_try_to_free_pages); returns pages."""
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_DIRECT
    ram.counter[cpu, C_ALLOCSTALL] += 1
    reclaimed = 0
    priority = DEF_PRIORITY
    while priority >= 0 and reclaimed < SWAP_CLUSTER_MAX:
        for i in range(ram.nr_nodes):
            victim = ram.zonelist[node, i]
            get_scan_count(ram, ram.scan_goal, cpu, victim, priority)
            answer = 0
            from_node = 0
            while answer >= 0 and from_node < SWAP_CLUSTER_MAX:
                cond_resched(ram, cpu)
                answer = shrink_lruvec_step(ram, cpu, ram.scan_goal, cpu, victim, BY_DIRECT)
                from_node += max(answer, 0) // 1024
            reclaimed += from_node
        priority -= 1
    ram.cpu_site[cpu] = site
    record(ram, cpu, EV_RECLAIM, node, BY_DIRECT, reclaimed, priority)
    return reclaimed


@entry(ALLOC_SLOW)
def alloc_slow(ram, cpu, node, gfp, c, d):
    """Get a page when no zone is above LOW (__alloc_pages_slowpath): wake kswapd, dip to MIN, reclaim; -1 if that is not allowed."""
    if gfp & GFP_KSWAPD:
        for i in range(ram.nr_nodes):
            wakeup_kswapd(ram, cpu, ram.zonelist[node, i])
    pfn = get_page_from_freelist(ram, cpu, node, gfp, False)
    if pfn != NONE or gfp & GFP_RECLAIM == 0:
        return pfn
    rounds = 0
    while rounds < MAX_RECLAIM_RETRIES:
        progress = try_to_free_pages(ram, cpu, node)
        pfn = get_page_from_freelist(ram, cpu, node, gfp, False)
        if pfn == NONE:  # what was reclaimed may lie in CPUs' lists
            for zone in range(ram.nr_nodes):
                drain_all_pages(ram, cpu, zone)
            pfn = get_page_from_freelist(ram, cpu, node, gfp, False)
        if pfn != NONE:
            return pfn
        rounds = 0 if progress else rounds + 1
    panic(ram, cpu, OUT_OF_MEMORY, node, rounds)
    return NONE
