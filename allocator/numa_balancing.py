"""NUMA balancing in memory-tiering mode (kernel/sched/fair.c: task_numa_work, should_numa_migrate_memory; mm/memory.c: do_numa_page).

A scanner makes pages of the slow node inaccessible (PROT_NONE) from time to time; the fault that the next access takes tells how
long ago that was, and a page used again soon is promoted to the fast node, within a rate limit. Read-only file mappings are
not scanned, as in Linux, so the weights of a model are never promoted.
Left out: the adaptive hot threshold, shared-fault statistics, task placement, scan-period adaptation.
"""

from allocator.hooks import HOOK_MAPPING_CHANGE
from allocator.lru import isolate_page
from allocator.migrate import migrate_one
from allocator.page import node_of
from allocator.pgtables import PMD_PAGES
from allocator.rmap import lock_pte, unlock_pte
from allocator.tlb_flush import SITE_NUMA, flush_tlb_mm_range
from allocator.vma import VM_ANON, VM_WRITE
from cpus.atomics import compare_exchange, fetch_add, load_acquire, store_release
from cpus.compiled import apart, call, kernel
from cpus.layout import COUNTER
from cpus.locks import mmap_read_lock, mmap_read_unlock
from cpus.page_table import LEVEL_MASK, PTE_MIGRATION, PTE_PFN_SHIFT, PTE_PRESENT, PTE_PROTNONE, PTE_SPECIAL, find_table

SECOND = 1_000_000_000
C_UPDATES, C_HINTS, C_LOCAL = COUNTER["numa_pte_updates"], COUNTER["numa_hint_faults"], COUNTER["numa_hint_faults_local"]
C_CANDIDATE, C_PROMOTED, C_MIGRATED = COUNTER["pgpromote_candidate"], COUNTER["pgpromote_success"], COUNTER["numa_pages_migrated"]


@kernel
def _within_rate_limit(ram, cpu, node):
    """Count a promotion candidate against the limit of this second (numa_promotion_rate_limit)."""
    start = load_acquire(ram.promote_start_ns, node)
    now = ram.cpu_clock[cpu]
    if now - start > SECOND and compare_exchange(ram.promote_start_ns, node, start, now) == start:
        store_release(ram.promote_count, node, 0)
    return fetch_add(ram.promote_count, node, 1) < ram.promote_limit


@kernel
def _should_promote(ram, cpu, pfn):
    """Is this page of the slow node hot enough to move to the fast one (should_numa_migrate_memory)?"""
    target = 0
    if ram.node_latency[node_of(ram, pfn)] == 0:
        return False
    if ram.zone_free[target] > ram.wmark_promo[target]:
        return True  # pgdat_free_space_enough
    if ram.cpu_clock[cpu] - ram.page_scan_ns[pfn] >= ram.hot_threshold_ns:
        return False
    ram.counter[cpu, C_CANDIDATE] += 1
    return _within_rate_limit(ram, cpu, target)


@apart
def do_numa_page(ram, cpu, mm, vpn, table):
    """A hint fault: make the page accessible again, and promote it if it is hot (do_numa_page)."""
    index = vpn & LEVEL_MASK
    lock_pte(ram, cpu, table)
    pte = load_acquire(ram.frame_word, (table, index))
    if pte & PTE_PROTNONE == 0 or pte & PTE_MIGRATION:
        unlock_pte(ram, cpu, table)
        return 0
    pfn = pte >> PTE_PFN_SHIFT
    store_release(ram.frame_word, (table, index), (pte & ~PTE_PROTNONE) | PTE_PRESENT)
    promote = _should_promote(ram, cpu, pfn)
    isolated = promote and isolate_page(ram, cpu, pfn)  # under the pte lock: the page is mapped, so it is not freed meanwhile
    unlock_pte(ram, cpu, table)
    ram.counter[cpu, C_HINTS] += 1
    if ram.node_latency[node_of(ram, pfn)] == 0:
        ram.counter[cpu, C_LOCAL] += 1
    if isolated:
        site = ram.cpu_site[cpu]
        ram.cpu_site[cpu] = SITE_NUMA
        if migrate_one(ram, cpu, pfn, 0):
            ram.counter[cpu, C_PROMOTED] += 1
            ram.counter[cpu, C_MIGRATED] += 1
        ram.cpu_site[cpu] = site
    return 0


@kernel
def _scan_table(ram, cpu, mm, table, first, last):
    """Make the slow-node pages of one PTE table inaccessible (change_pte_range with MM_CP_PROT_NUMA); returns how many."""
    changed = 0
    lock_pte(ram, cpu, table)
    call(ram, HOOK_MAPPING_CHANGE, cpu, mm, 0, 0, 0)
    for vpn in range(first, last):
        index = vpn & LEVEL_MASK
        pte = load_acquire(ram.frame_word, (table, index))
        if pte & PTE_PRESENT and pte & PTE_SPECIAL == 0 and ram.node_latency[node_of(ram, pte >> PTE_PFN_SHIFT)] != 0:
            fresh = (pte & ~PTE_PRESENT) | PTE_PROTNONE
            if compare_exchange(ram.frame_word, (table, index), pte, fresh) == pte:  # else a walk set a bit: next time
                ram.page_scan_ns[pte >> PTE_PFN_SHIFT] = ram.cpu_clock[cpu]
                changed += 1
    unlock_pte(ram, cpu, table)
    return changed


@apart
def task_numa_work(ram, cpu, mm):
    """Scan the next stretch of an mm when its period is over (task_numa_work)."""
    due = load_acquire(ram.mm_scan_next_ns, mm)
    now = ram.cpu_clock[cpu]
    if now < due or compare_exchange(ram.mm_scan_next_ns, mm, due, now + ram.scan_period_ns) != due:
        return 0
    mmap_read_lock(ram, cpu, mm)
    left = ram.scan_pages
    position = ram.mm_scan_vpn[mm]
    furthest = position
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_NUMA
    fetch_add(ram.mm_flush_pending, mm, 1)  # until all is flushed, TLBs may hold what the PTEs no longer show
    for i in range(ram.mm_nr_vmas[mm]):
        vma = ram.mm_vma[mm, i]
        if ram.vma_flags[vma] & (VM_ANON | VM_WRITE) == 0:
            continue  # read-only file mapping
        vpn = max(ram.vma_start[vma], position)
        first, changed = vpn, 0
        while vpn < ram.vma_end[vma] and left > 0:
            stop = min(ram.vma_end[vma], (vpn | (PMD_PAGES - 1)) + 1, vpn + left)
            table = find_table(ram, ram.mm_pgd[mm], vpn)
            if table >= 0:
                changed += _scan_table(ram, cpu, mm, table, vpn, stop)
            left -= stop - vpn
            vpn = stop
        if changed:
            flush_tlb_mm_range(ram, cpu, mm, first, vpn, False)
            ram.counter[cpu, C_UPDATES] += changed
        furthest = max(furthest, vpn)
    fetch_add(ram.mm_flush_pending, mm, -1)
    ram.mm_scan_vpn[mm] = furthest if left <= 0 else 0  # wrap around when the end was reached
    ram.cpu_site[cpu] = site
    mmap_read_unlock(ram, cpu, mm)
    return 0
