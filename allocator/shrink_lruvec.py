"""How much of which list reclaim looks at (mm/vmscan.c: prepare_scan_control, get_scan_count, shrink_lruvec,
shrink_node).

A round of priority p looks at 1/2^p of each list. Lists take turns, a batch each; when enough has been
reclaimed the smaller kind (anonymous or file) is let off and the larger one scanned in proportion. Anonymous
pages are looked at only where they can go: there is no swap, so the node must have a demotion target.
The work is cut into steps, so that kswapd's CPU can serve interrupts and other tasks in between.
Left out: memory cgroups and their protection, slab, reclaim for compaction, congestion.
"""

from allocator.lru import (
    LRU_ACTIVE_ANON,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    LRU_UNEVICTABLE,
    NR_LRU,
    SWAP_CLUSTER_MAX,
)
from allocator.vmscan import (
    BY_DIRECT,
    BY_GROUP,
    BY_KSWAPD,
    SC_CACHE_TRIM,
    SC_CACHE_TRIM_FAILED,
    SC_DEACTIVATE_ANON,
    SC_DEACTIVATE_FILE,
    SC_FILE_IS_TINY,
    SC_FORCE_DEACTIVATE,
    SC_NO_CACHE_TRIM,
    SC_SKIPPED_DEACTIVATE,
    shrink_active_list,
    shrink_inactive_list,
)
from cpus.atomics import load_acquire
from cpus.compiled import apart, kernel
from cpus.declare import Constant, Field, OwnerOf, Racy, Struct

FIELDS = (
    Constant("swappiness", "vm.swappiness"),
    Struct("nr_nodes", "lru", (
        Field("node_activated_seen", Racy("who ends a reclaim: a guess how much is used"),
              "node_activated then (lruvec->refaults)"),
    )),
    Field("sc_left", OwnerOf("scan"), "pages left to scan per list", ("nr_scans", NR_LRU)),
    Field("sc_target", OwnerOf("scan"), "pages to scan per list, as get_scan_count said",
          ("nr_scans", NR_LRU)),
)  # fmt: skip

DEF_PRIORITY = 12
MAX_SWAPPINESS = 200


@kernel
def _isqrt(n):
    root = 0
    while (root + 1) * (root + 1) <= n:
        root += 1
    return root


@kernel
def inactive_is_low(ram, node, inactive):
    """Should active pages move down? The inactive list may be smaller the larger memory is."""
    small, large = ram.lru_size[node, inactive], ram.lru_size[node, inactive + 1]
    gib = (small + large) >> 18
    ratio = _isqrt(10 * gib) if gib else 1
    return small * ratio < large


@kernel
def note_group_figures(ram, sc):
    """Note which inactive lists are low before a group is reclaimed from.

    What Linux asks there are the group's statistics, which are brought up to date every two seconds, not
    while it reclaims (lruvec_page_state, mem_cgroup_flush_stats_ratelimited).
    """
    low = 0
    for node in range(ram.nr_nodes):
        for inactive in (LRU_INACTIVE_ANON, LRU_INACTIVE_FILE):
            if inactive_is_low(ram, node, inactive):
                low |= 1 << (node * LRU_UNEVICTABLE + inactive)
    ram.sc_group_low[sc] = low


@kernel
def _is_low(ram, sc, node, inactive):
    """Is an inactive list low, as far as this reclaimer knows?"""
    if ram.sc_by[sc] == BY_GROUP:
        return ram.sc_group_low[sc] >> (node * LRU_UNEVICTABLE + inactive) & 1 != 0
    return inactive_is_low(ram, node, inactive)


@kernel
def can_demote(ram, node):
    """Can pages of the node go to a slower one?"""
    return ram.demotion_target[node] >= 0


@kernel
def _file_is_tiny(ram, sc, node, flags):
    """Is the page cache so small that it would only thrash, while there is anonymous memory to take?"""
    free = high = 0
    for zone in range(ram.node_first_zone[node], ram.node_end_zone[node]):
        free += ram.zone_free[zone]
        high += ram.wmark_high[zone]
    file = ram.lru_size[node, LRU_ACTIVE_FILE] + ram.lru_size[node, LRU_INACTIVE_FILE]
    anonymous = ram.lru_size[node, LRU_INACTIVE_ANON] >> ram.sc_priority[sc]
    return file + free <= high and flags & SC_DEACTIVATE_ANON == 0 and anonymous > 0


@kernel
def prepare_scan_control(ram, sc, node):
    """Decide for one round on a node: may active pages move down, is there file cache enough to leave
    anonymous memory alone?
    """
    flags = ram.sc_flags[sc] & ~(SC_DEACTIVATE_ANON | SC_DEACTIVATE_FILE | SC_CACHE_TRIM | SC_FILE_IS_TINY)
    force = flags & SC_FORCE_DEACTIVATE
    if force or _is_low(ram, sc, node, LRU_INACTIVE_ANON):
        flags |= SC_DEACTIVATE_ANON
    refaulted = load_acquire(ram.node_activated, node) != ram.node_activated_seen[node]
    if force or refaulted or _is_low(ram, sc, node, LRU_INACTIVE_FILE):
        flags |= SC_DEACTIVATE_FILE
    plenty = ram.lru_size[node, LRU_INACTIVE_FILE] >> ram.sc_priority[sc] > 0
    if plenty and flags & (SC_DEACTIVATE_FILE | SC_NO_CACHE_TRIM) == 0:
        flags |= SC_CACHE_TRIM
    if ram.sc_by[sc] != BY_GROUP and _file_is_tiny(ram, sc, node, flags):
        flags |= SC_FILE_IS_TINY
    ram.sc_flags[sc] = flags


@kernel
def get_scan_count(ram, sc, node):
    """Set how many pages of each list the round looks at: its size shifted by the priority, weighed by what
    each kind has cost.
    """
    flags, priority = ram.sc_flags[sc], ram.sc_priority[sc]
    anonymous_share = file_share = whole = 1
    if not can_demote(ram, node):
        anonymous_share = 0
    elif priority == 0 and ram.swappiness > 0:
        pass  # close to out of memory: everything alike
    elif flags & SC_FILE_IS_TINY:
        file_share = 0
    elif flags & SC_CACHE_TRIM:
        anonymous_share = 0
    else:
        total = ram.node_anon_cost[node] + ram.node_file_cost[node]
        anonymous_cost, file_cost = total + ram.node_anon_cost[node], total + ram.node_file_cost[node]
        total = anonymous_cost + file_cost
        anonymous_share = ram.swappiness * (total + 1) // (anonymous_cost + 1)
        file_share = (MAX_SWAPPINESS - ram.swappiness) * (total + 1) // (file_cost + 1)
        whole = anonymous_share + file_share
    for which in range(LRU_INACTIVE_ANON, LRU_UNEVICTABLE):
        share = file_share if which >= LRU_INACTIVE_FILE else anonymous_share
        goal = (ram.lru_size[node, which] >> priority) * share // whole
        ram.sc_left[sc, which] = ram.sc_target[sc, which] = goal


@kernel
def shrink_node_begin(ram, sc, node):
    """Begin a round on a node."""
    prepare_scan_control(ram, sc, node)
    get_scan_count(ram, sc, node)
    ram.sc_got[sc] = ram.sc_dirty[sc] = ram.sc_file_taken[sc] = 0


@kernel
def _stop_smaller(ram, sc):
    """Enough was reclaimed: let the smaller kind off, scan of the larger what is in proportion; False if
    there is nothing to level.
    """
    left, target = ram.sc_left, ram.sc_target
    file = left[sc, LRU_INACTIVE_FILE] + left[sc, LRU_ACTIVE_FILE]
    anonymous = left[sc, LRU_INACTIVE_ANON] + left[sc, LRU_ACTIVE_ANON]
    if file == 0 or anonymous == 0:
        return False
    smaller, larger = (
        (LRU_INACTIVE_ANON, LRU_INACTIVE_FILE) if file > anonymous else (LRU_INACTIVE_FILE, LRU_INACTIVE_ANON)
    )
    percentage = min(file, anonymous) * 100 // (target[sc, smaller] + target[sc, smaller + 1] + 1)
    left[sc, smaller] = left[sc, smaller + 1] = 0
    for which in range(larger, larger + 2):
        scanned = target[sc, which] - left[sc, which]
        left[sc, which] = max(target[sc, which] * (100 - percentage) // 100 - scanned, 0)
    return True


@kernel
def _shrink_list(ram, cpu, sc, node, which):
    """Work on a batch of one list; returns pages reclaimed (shrink_list)."""
    if which in (LRU_INACTIVE_ANON, LRU_INACTIVE_FILE):
        return shrink_inactive_list(ram, cpu, sc, node, which)
    if ram.sc_flags[sc] & (SC_DEACTIVATE_FILE if which == LRU_ACTIVE_FILE else SC_DEACTIVATE_ANON):
        shrink_active_list(ram, cpu, sc, node, which)
    else:
        ram.sc_flags[sc] |= SC_SKIPPED_DEACTIVATE
    return 0


@kernel
def age_anonymous(ram, cpu, sc, node):
    """Keep the inactive anonymous list long enough where it can be reclaimed at all (kswapd_age_node)."""
    if can_demote(ram, node) and inactive_is_low(ram, node, LRU_INACTIVE_ANON):
        ram.sc_batch[sc] = SWAP_CLUSTER_MAX
        shrink_active_list(ram, cpu, sc, node, LRU_ACTIVE_ANON)


@apart
def shrink_lruvec_step(ram, cpu, sc, node):
    """Take a batch off each list that has its turn; returns 0 when the round on the node is over
    (shrink_lruvec, shrink_node).
    """
    left = ram.sc_left
    if left[sc, LRU_INACTIVE_ANON] or left[sc, LRU_ACTIVE_FILE] or left[sc, LRU_INACTIVE_FILE]:
        for which in range(LRU_INACTIVE_ANON, LRU_UNEVICTABLE):
            batch = min(left[sc, which], SWAP_CLUSTER_MAX)
            if batch:
                left[sc, which] -= batch
                ram.sc_batch[sc] = batch
                ram.sc_got[sc] += _shrink_list(ram, cpu, sc, node, which)
        # direct reclaim of the first round goes on: that it came to this shows that kswapd does not keep up
        proportional = ram.sc_by[sc] == BY_DIRECT and ram.sc_priority[sc] == DEF_PRIORITY
        if ram.sc_got[sc] < ram.sc_to_reclaim[sc] or proportional or _stop_smaller(ram, sc):
            return 1
    ram.sc_reclaimed[sc] += ram.sc_got[sc]
    if ram.sc_by[sc] == BY_KSWAPD and ram.sc_dirty[sc] and ram.sc_dirty[sc] == ram.sc_file_taken[sc]:
        ram.node_dirty[node] = 1
    age_anonymous(ram, cpu, sc, node)
    if ram.sc_got[sc]:
        ram.kswapd_failures[node] = 0
    elif ram.sc_flags[sc] & SC_CACHE_TRIM:
        ram.sc_flags[sc] |= SC_CACHE_TRIM_FAILED
    return 0


@kernel
def snapshot_refaults(ram, node):
    """Remember how many refaults were activated so far: more of them later mean that a new workingset comes
    up.
    """
    ram.node_activated_seen[node] = load_acquire(ram.node_activated, node)
