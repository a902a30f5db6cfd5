"""NUMA balancing in memory-tiering mode (kernel/sched/fair.c: task_numa_work, should_numa_migrate_memory;
mm/memory.c: do_numa_page).

A scanner makes pages of the slow node inaccessible (PROT_NONE) from time to time; the fault that the next
access takes tells how long ago that was, and a page used again soon is promoted to the node of the CPU that
uses it, within a rate limit and while that node is not nearly full. Read-only file mappings are not scanned,
as in Linux, so the weights of a model are never promoted; nor are dirty pages of a file. The scan period is
shorter for large processes; a task whose faults were promotions scans half as often after each pass. A task
scans by the time that it has run itself, so a busy one does it, and rarely while many share a CPU.
Left out: shared-fault statistics and task placement; skipping of VMAs that a task has not touched; slowing
down by what scans cost.
"""

from allocator.flush_sites import SITE_NUMA, SITE_PROMOTION
from allocator.hooks import HOOK_MAPPING_CHANGE
from allocator.kmap import MKWRITE_NUMA, mkwrite
from allocator.kswapd import wakeup_kswapd
from allocator.lru import isolate_page
from allocator.migrate import migrate_one
from allocator.page import PG_DIRTY, PG_SWAPBACKED, node_of
from allocator.pcp import zone_watermark_ok
from allocator.pgtables import PMD_PAGES
from allocator.rmap import lock_pte, rss, unlock_pte
from allocator.sched import TICK_NS
from allocator.tlb_flush import flush_tlb_mm_range
from allocator.vma import VM_ANON, VM_WRITE
from cpus.atomics import compare_exchange, fetch_add, load_acquire, store_release
from cpus.compiled import apart, call, kernel
from cpus.declare import (
    ANY,
    CONFIG,
    VMSTAT,
    Atomic,
    Constant,
    Counter,
    Exclusive,
    Field,
    OwnerOf,
    Racy,
    Struct,
)
from cpus.events import CALL_NUMA_SCAN, CALL_PROMOTION, EV_CALL, EV_RETURN, record
from cpus.locks import mmap_read_lock, mmap_read_unlock
from cpus.page_table import (
    LEVEL_MASK,
    NO_PAGE,
    PTE_WRITE,
    next_table,
    pte_mknone,
    pte_mkpresent,
    pte_pfn,
    pte_protnone,
    vm_normal_page,
)
from cpus.tlb import AGAIN

SCANNER = Exclusive("who has set mm_scan_next_ns")
FIELDS = (
    Constant("numa_balancing", "1: memory tiering (kernel.numa_balancing=2)"),
    Constant("promote_enough", "pgdat_free_space_enough", "pages"),
    Constant("promote_limit", "numa_balancing_promote_rate_limit_MBps", "pages a second"),
    Constant("hot_threshold_ns", "numa_balancing_hot_threshold_ms", "ns"),
    Constant("scan_pages", "numa_balancing_scan_size_mb", "pages"),
    Constant("scan_period_ns", "numa_balancing_scan_period_min_ms", "ns"),
    Constant("scan_period_max_ns", "numa_balancing_scan_period_max_ms", "ns"),
    Constant("scan_delay_ns", "numa_balancing_scan_delay_ms", "ns"),
    Struct("nr_mms", "lock", (
        Field("mm_scan_vpn", SCANNER, "next page of the NUMA scanner", reads=ANY),
        Field("mm_scan_next_ns", Atomic("compare_exchange", "store_release"),
              "when the next scan is due, 0 never set", unit="ns"),
        Field("mm_scan_seq", SCANNER, "passes over the whole mm", reads=ANY),
    )),
    Struct("nr_nodes", "config", (Field("node_latency", CONFIG, "0 fast, 1 slow tier"),)),
    Struct("nr_nodes", "kswapd", (
        Field("promote_start_ns", Atomic("compare_exchange"), "start of the rate limit's second", unit="ns"),
        Field("promote_start_count", Exclusive("who set promote_start_ns"), "promote_count then", reads=ANY),
        Field("promote_count", Atomic("fetch_add"), "PGPROMOTE_CANDIDATE"),
        Field("hot_threshold", Racy("as in Linux: who adjusts it last"), "adjusted threshold, 0 the default",
              unit="ns"),
        Field("hot_start_ns", Atomic("compare_exchange"), "start of the threshold's period", unit="ns"),
        Field("hot_start_count", Exclusive("who set hot_start_ns"), "promote_count then", reads=ANY),
    )),
    Struct("nr_tasks", "task", (
        Field("task_scan_period", OwnerOf("task_cpu"), "between scans of its mm by it, 0 the shortest",
              unit="ns"),
        Field("task_scan_seq", OwnerOf("task_cpu"), "mm_scan_seq judged last"),
        Field("task_scan_stamp", OwnerOf("task_cpu"), "task_runtime_ns from which its scan period counts",
              unit="ns"),
    )),
    Field("page_scan_ns", Racy("as in Linux: a guess how hot it is"), "when the NUMA scanner unmapped it",
          ("nr_frames",), unit="ns"),
)  # fmt: skip

COUNTERS = (
    Counter("numa_pte_updates", VMSTAT, "PTEs made inaccessible by the scanner"),
    Counter("numa_hint_faults", VMSTAT, "faults on those"),
    Counter("numa_hint_faults_local", VMSTAT, "the same on pages of the faulting CPU's node"),
    Counter("pgpromote_candidate", VMSTAT, "pages found hot enough to be promoted", "pages"),
    Counter("pgpromote_success", VMSTAT, "pages promoted", "pages"),
    Counter("numa_pages_migrated", VMSTAT, "pages moved because of a hint fault", "pages"),
)

SECOND = 1_000_000_000
ADJUST_STEPS = 16  # NUMA_MIGRATION_ADJUST_STEPS
VIRTUAL_PAGES = 8  # scan at most so many times scan_pages of address space
SCAN_PERIOD_FLOOR_NS = 100_000_000  # task_scan_min: MAX_SCAN_WINDOW 2560 MB/s in windows of 256 MB


# --- is it hot? ---------------------------------------------------------------------------------------------


@kernel
def _above(ram, node, extra):
    """Has a zone of the node more free than WMARK_PROMO and `extra`?"""
    for zone in range(ram.node_first_zone[node], ram.node_end_zone[node]):
        if zone_watermark_ok(ram, zone, ram.wmark_promo[zone] + extra):
            return True
    return False


@kernel
def _within_rate_limit(ram, cpu, node):
    """Count a promotion candidate against the limit of this second (numa_promotion_rate_limit)."""
    count = fetch_add(ram.promote_count, node, 1) + 1
    start = load_acquire(ram.promote_start_ns, node)
    now = ram.cpu_clock[cpu]
    if now - start > SECOND and compare_exchange(ram.promote_start_ns, node, start, now) == start:
        store_release(ram.promote_start_count, node, count)
    return count - load_acquire(ram.promote_start_count, node) < ram.promote_limit


@kernel
def _adjusted_threshold(ram, cpu, node):
    """Give the hot threshold, adjusted once in the longest scan period to the rate limit
    (numa_promotion_adjust_threshold).
    """
    start, now = load_acquire(ram.hot_start_ns, node), ram.cpu_clock[cpu]
    threshold = ram.hot_threshold[node] if ram.hot_threshold[node] else ram.hot_threshold_ns
    if now - start > ram.scan_period_max_ns and compare_exchange(ram.hot_start_ns, node, start, now) == start:
        count = load_acquire(ram.promote_count, node)
        candidates = count - ram.hot_start_count[node]
        expected = ram.promote_limit * (ram.scan_period_max_ns // SECOND)
        step = ram.hot_threshold_ns * 2 // ADJUST_STEPS
        if candidates > expected * 11 // 10:
            threshold = max(threshold - step, step)
        elif candidates < expected * 9 // 10:
            threshold = min(threshold + step, ram.hot_threshold_ns * 2)
        ram.hot_start_count[node] = count
        ram.hot_threshold[node] = threshold
    return threshold


@kernel
def _should_promote(ram, cpu, pfn):
    """Is this page of the slow node hot enough to move to the fast one (should_numa_migrate_memory)?"""
    target = ram.cpu_node[cpu]
    if ram.node_latency[node_of(ram, pfn)] == 0:
        return False
    if _above(ram, target, ram.promote_enough):  # pgdat_free_space_enough
        ram.hot_threshold[target] = 0
        return True
    threshold = _adjusted_threshold(ram, cpu, target)
    latency = ram.cpu_clock[cpu] - ram.page_scan_ns[pfn]
    ram.page_scan_ns[pfn] = ram.cpu_clock[cpu]
    if latency >= threshold:
        return False
    ram.pgpromote_candidate[cpu] += 1
    return _within_rate_limit(ram, cpu, target)


@kernel
def _isolate_for_promotion(ram, cpu, pfn):
    """Take a page off the LRU, unless it is a dirty page of a file or the fast node is nearly full
    (migrate_misplaced_folio_prepare).

    A nearly full node's kswapd is woken, so that there is room for the next one.
    """
    if ram.page_flags[pfn] & (PG_SWAPBACKED | PG_DIRTY) == PG_DIRTY:
        return False
    target = ram.cpu_node[cpu]
    for zone in range(ram.node_first_zone[target], ram.node_end_zone[target]):
        if zone_watermark_ok(ram, zone, ram.wmark_high[zone] + 1):  # migrate_balanced_pgdat
            return isolate_page(ram, cpu, pfn)
    wakeup_kswapd(ram, cpu, target)
    return False


@kernel
def _shortest_period(ram, mm):
    """Time between scans: the shorter the more windows the process has (task_scan_min)."""
    windows = max(1, -(-rss(ram, mm) // ram.scan_pages))
    return max(SCAN_PERIOD_FLOOR_NS, ram.scan_period_ns // windows)


@kernel
def _slow_down(ram, cpu, task, mm):
    """After a promotion, once a pass: scan half as often (task_numa_fault, task_numa_placement,
    update_task_scan_period).

    In tiering mode only faults that led to a promotion are counted, as private and not local ones, and
    without local or shared faults the period doubles.
    """
    if ram.task_scan_seq[task] == ram.mm_scan_seq[mm]:
        return
    ram.task_scan_seq[task] = ram.mm_scan_seq[mm]
    shortest = _shortest_period(ram, mm)
    windows = max(1, -(-rss(ram, mm) // ram.scan_pages))
    period = 2 * max(ram.task_scan_period[task], shortest)
    ram.task_scan_period[task] = min(period, max(shortest, ram.scan_period_max_ns // windows))
    store_release(ram.mm_scan_next_ns, mm, ram.cpu_clock[cpu] + ram.task_scan_period[task])


@kernel
def _make_accessible(ram, cpu, mm, vpn, table, pte):
    """Undo what the scanner did to a PTE; pte lock held."""
    if pte & PTE_WRITE:
        mkwrite(ram, cpu, pte_pfn(pte), MKWRITE_NUMA, mm, vpn)
    store_release(ram.frame_word, (table, vpn & LEVEL_MASK), pte_mkpresent(pte))


@apart
def do_numa_page(ram, cpu, mm, vpn, table):
    """A hint fault: promote the page if it is hot, else make it accessible again.

    A page that is promoted stays inaccessible until it has moved. So no TLB has it and nobody is interrupted,
    and what its PTE showed then, no right to write, is what it has at its new place: the next store takes a
    fault (do_numa_page of 6.12).
    """
    index = vpn & LEVEL_MASK
    lock_pte(ram, cpu, table)
    pte = load_acquire(ram.frame_word, (table, index))
    if not pte_protnone(pte):
        unlock_pte(ram, cpu, table)
        return AGAIN
    pfn = pte_pfn(pte)
    promote = _should_promote(ram, cpu, pfn)
    # under the pte lock: it is mapped, so not freed meanwhile
    isolated = promote and _isolate_for_promotion(ram, cpu, pfn)
    if not isolated:
        _make_accessible(ram, cpu, mm, vpn, table, pte)
    unlock_pte(ram, cpu, table)
    ram.numa_hint_faults[cpu] += 1
    if node_of(ram, pfn) == ram.cpu_node[cpu]:
        ram.numa_hint_faults_local[cpu] += 1
    if isolated:
        site = ram.cpu_site[cpu]
        ram.cpu_site[cpu] = SITE_PROMOTION
        record(ram, cpu, EV_CALL, CALL_PROMOTION, vpn, mm, vpn)
        if migrate_one(ram, cpu, pfn, ram.cpu_node[cpu]):
            ram.pgpromote_success[cpu] += 1
            ram.numa_pages_migrated[cpu] += 1
            _slow_down(ram, cpu, ram.cpu_task[cpu], mm)
        else:
            lock_pte(ram, cpu, table)
            if load_acquire(ram.frame_word, (table, index)) == pte:
                _make_accessible(ram, cpu, mm, vpn, table, pte)
            unlock_pte(ram, cpu, table)
        record(ram, cpu, EV_RETURN, CALL_PROMOTION, vpn, 0, 0)
        ram.cpu_site[cpu] = site
    return AGAIN


# --- the scanner --------------------------------------------------------------------------------------------


@kernel
def _scannable(ram, pfn):
    """May the scanner make this page inaccessible? Only where a fault can lead to a promotion."""
    if ram.node_latency[node_of(ram, pfn)] == 0:
        return False
    return ram.page_flags[pfn] & (PG_SWAPBACKED | PG_DIRTY) != PG_DIRTY


@kernel
def _scan_table(ram, cpu, mm, table, first, last):
    """Make the slow-node pages of one PTE table inaccessible (change_pte_range with MM_CP_PROT_NUMA).

    Returns how many, the first of them, and the page after the last.
    """
    changed, low, high = 0, last, first
    lock_pte(ram, cpu, table)
    call(ram, HOOK_MAPPING_CHANGE, cpu, mm, 0, 0, 0)
    for vpn in range(first, last):
        index = vpn & LEVEL_MASK
        pte = load_acquire(ram.frame_word, (table, index))
        pfn = vm_normal_page(pte)
        if pfn != NO_PAGE and _scannable(ram, pfn):
            # else a walk set a bit: next time
            if compare_exchange(ram.frame_word, (table, index), pte, pte_mknone(pte)) == pte:
                ram.page_scan_ns[pfn] = ram.cpu_clock[cpu]
                changed, low, high = changed + 1, min(low, vpn), vpn + 1
    unlock_pte(ram, cpu, table)
    return changed, low, high


@kernel
def _change_prot_numa(ram, cpu, mm, first, end):
    """Make the slow-node pages of a range inaccessible, and flush once from the first to the last, if there
    were any; returns how many.
    """
    changed, low, high = 0, end, first
    table, vpn, stop = next_table(ram, ram.mm_pgd[mm], first, end)
    while table >= 0:
        found, begin, stop_at = _scan_table(ram, cpu, mm, table, vpn, stop)
        if found:
            changed, low, high = changed + found, min(low, begin), stop_at
        table, vpn, stop = next_table(ram, ram.mm_pgd[mm], stop, end)
    if changed:
        flush_tlb_mm_range(ram, cpu, mm, low, high, 0)
        ram.numa_pte_updates[cpu] += changed
    return changed


@kernel
def _is_due(ram, cpu, mm):
    """Is the mm to be scanned now, by this CPU's task? Then say when the next time is. The first is a while
    after it was made.
    """
    due, now = load_acquire(ram.mm_scan_next_ns, mm), ram.cpu_clock[cpu]
    if due == 0:
        due = now + ram.scan_delay_ns
        compare_exchange(ram.mm_scan_next_ns, mm, 0, max(due, 1))
    if now < due:
        return False
    task = ram.cpu_task[cpu]
    period = max(ram.task_scan_period[task], _shortest_period(ram, mm))
    ram.task_scan_stamp[task] += 2 * TICK_NS  # another task of the mm is more likely to win next time
    return compare_exchange(ram.mm_scan_next_ns, mm, due, now + period) == due


@apart
def task_numa_work(ram, cpu, mm):
    """Scan the next stretch of an mm when its period is over."""
    if not _is_due(ram, cpu, mm):
        return 0
    mmap_read_lock(ram, cpu, mm)
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_NUMA
    record(ram, cpu, EV_CALL, CALL_NUMA_SCAN, mm, mm, ram.mm_scan_vpn[mm])
    fetch_add(ram.mm_flush_pending, mm, 1)  # until all is flushed, TLBs may hold what the PTEs no longer show
    pages, space = ram.scan_pages, VIRTUAL_PAGES * ram.scan_pages
    position = ram.mm_scan_vpn[mm]
    offset = 0  # wraps around when the end was reached
    for i in range(ram.mm_nr_vmas[mm]):
        vma = ram.mm_vma[mm, i]
        if ram.vma_flags[vma] & (VM_ANON | VM_WRITE) == 0 or ram.vma_end[vma] <= position:
            continue  # read-only file mapping, or done already
        vpn = max(ram.vma_start[vma], position)
        while vpn < ram.vma_end[vma] and pages > 0 and space > 0:
            end = min(ram.vma_end[vma], (vpn + pages + PMD_PAGES - 1) & ~(PMD_PAGES - 1))
            if _change_prot_numa(ram, cpu, mm, vpn, end):
                pages -= end - vpn
            space -= end - vpn
            vpn = end
        if pages <= 0 or space <= 0:
            offset = vpn
            break
    fetch_add(ram.mm_flush_pending, mm, -1)
    ram.mm_scan_vpn[mm] = offset
    if offset == 0:
        ram.mm_scan_seq[mm] += 1
    record(ram, cpu, EV_RETURN, CALL_NUMA_SCAN, mm, 0, 0)
    ram.cpu_site[cpu] = site
    mmap_read_unlock(ram, cpu, mm)
    return 0


@kernel
def task_tick_numa(ram, cpu, task):
    """At a tick: has the task run for its scan period since it last came by? Then it looks whether its mm is
    due.
    """
    mm, first = ram.task_mm[task], ram.task_scan_stamp[task] == 0
    period = ram.scan_delay_ns if first else max(ram.task_scan_period[task], _shortest_period(ram, mm))
    if ram.task_runtime_ns[task] <= ram.task_scan_stamp[task] + period:
        return
    ram.task_scan_stamp[task] += max(period, 1)
    task_numa_work(ram, cpu, mm)
