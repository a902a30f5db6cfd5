"""kswapd: keeps a node above its high watermark in the background (mm/vmscan.c: kswapd, balance_pgdat,
wakeup_kswapd).

An allocation that finds every zone below LOW wakes the kswapd of each node. It works in rounds of growing
priority until a zone of its node is above HIGH (WMARK_PROMO when NUMA balancing is in tiering mode), naps for
HZ/10 and only then sleeps; woken from the nap it goes on at once. After 16 runs in vain it gives up until
somebody reclaims something.
It is a task on an idle CPU if there is one, and works in steps, so that its CPU can serve interrupts and
other tasks. Left out: watermark boosting, high orders and kcompactd, freezing.
"""

from allocator.flush_sites import SITE_KSWAPD
from allocator.lru import SWAP_CLUSTER_MAX
from allocator.pcp import zone_watermark_ok
from allocator.sched import wake_task
from allocator.shrink_lruvec import (
    DEF_PRIORITY,
    age_anonymous,
    shrink_lruvec_step,
    shrink_node_begin,
    snapshot_refaults,
)
from allocator.vmscan import BY_KSWAPD, SC_CACHE_TRIM_FAILED, SC_FS, SC_NO_CACHE_TRIM
from cpus.atomics import load_acquire, store_release
from cpus.compiled import apart, kernel
from cpus.declare import ANY, CONFIG, VMSTAT, Counter, Field, Held, Lock, OwnerOf, Racy, Struct
from cpus.events import CALL_KSWAPD, EV_CALL, EV_RECLAIM, EV_RETURN, record
from cpus.locks import spin_lock, spin_unlock

FIELDS = (
    Struct("nr_zones", "state", (
        Field("zone_reclaim_active", OwnerOf("zone_node", "kswapd_task", "task_cpu"), "ZONE_RECLAIM_ACTIVE",
              reads=ANY),
    )),
    Struct("nr_nodes", "kswapd", (
        Lock("kswapd_lock", "kswapd_wait", "wake-up of the node's kswapd"),
        Field("kswapd_task", CONFIG, "task number"),
        Field("kswapd_state", Held("kswapd_lock"), "ASLEEP, NAPS, AWAKE", reads=ANY),
        Field("kswapd_nap_ns", Held("kswapd_lock"), "end of its short sleep", reads=ANY, unit="ns"),
        Field("kswapd_phase", OwnerOf("kswapd_task", "task_cpu"), "PHASE_*"),
        Field("kswapd_failures", Racy("as in Linux: one lost try more or less"),
              "runs in a row that reclaimed nothing"),
    )),
)  # fmt: skip

COUNTERS = (
    Counter("pageoutrun", VMSTAT, "runs of kswapd"),
    Counter("kswapd_low_wmark_hit_quickly", VMSTAT, "wake-ups of a kswapd that was napping"),
    Counter(
        "kswapd_high_wmark_hit_quickly",
        VMSTAT,
        "runs begun because the node was out of balance again at the end of one",
    ),
)

PHASE_NEW, PHASE_ROUND, PHASE_SCAN = 0, 1, 2
ASLEEP, NAPS, AWAKE = 0, 1, 2
NAP_NS = 100_000_000  # HZ/10
MAX_RECLAIM_RETRIES = 16


@kernel
def pgdat_balanced(ram, node):
    """Has any zone of the node more free than its high watermark (WMARK_PROMO in tiering mode)?"""
    for zone in range(ram.node_first_zone[node], ram.node_end_zone[node]):
        if zone_watermark_ok(
            ram, zone, ram.wmark_promo[zone] if ram.numa_balancing else ram.wmark_high[zone]
        ):
            return True
    return False


# --- waking and sleeping ------------------------------------------------------------------------------------


@kernel
def _wake(ram, cpu, node):
    """Wake kswapd if nobody else has by now, and say whether: if it naps, or a tick has just made that a
    sleep, no wake-up is lost.
    """
    spin_lock(ram, cpu, ram.kswapd_lock, node)
    mine = ram.kswapd_state[node] != AWAKE
    if mine:
        store_release(ram.kswapd_state, node, AWAKE)
    spin_unlock(ram, cpu, ram.kswapd_lock, node)
    if mine:
        wake_task(ram, cpu, ram.kswapd_task[node], ram.cpu_clock[cpu])
    return mine


@apart
def wakeup_kswapd(ram, cpu, node):
    """Wake the node's kswapd unless it is at it, or has given up."""
    state = load_acquire(ram.kswapd_state, node)
    if state == AWAKE or ram.kswapd_failures[node] >= MAX_RECLAIM_RETRIES or pgdat_balanced(ram, node):
        return 0
    napping = state == NAPS and ram.cpu_clock[cpu] < ram.kswapd_nap_ns[node]
    if _wake(ram, cpu, node) and napping:
        ram.kswapd_low_wmark_hit_quickly[cpu] += 1
    return 0


@kernel
def kswapd_falls_asleep(ram, cpu, node):
    """kswapd is about to nap: allow wake-ups again, then look once more (prepare_to_wait,
    prepare_kswapd_sleep).
    """
    if pgdat_balanced(ram, node):
        ram.node_dirty[node] = 0  # clear_pgdat_congested
    spin_lock(ram, cpu, ram.kswapd_lock, node)
    ram.kswapd_nap_ns[node] = ram.cpu_clock[cpu] + NAP_NS
    store_release(ram.kswapd_state, node, NAPS)
    spin_unlock(ram, cpu, ram.kswapd_lock, node)
    if ram.kswapd_failures[node] < MAX_RECLAIM_RETRIES and not pgdat_balanced(ram, node):
        ram.kswapd_high_wmark_hit_quickly[cpu] += _wake(ram, cpu, node)


@kernel
def end_naps(ram, cpu):
    """At a tick: a nap that is over becomes sleep, or another run if the node is not balanced any more
    (kswapd_try_to_sleep).
    """
    for node in range(ram.nr_nodes):
        if load_acquire(ram.kswapd_state, node) == NAPS and ram.cpu_clock[cpu] >= ram.kswapd_nap_ns[node]:
            if ram.kswapd_failures[node] < MAX_RECLAIM_RETRIES and not pgdat_balanced(ram, node):
                ram.kswapd_high_wmark_hit_quickly[cpu] += _wake(ram, cpu, node)
            else:
                spin_lock(ram, cpu, ram.kswapd_lock, node)
                if ram.kswapd_state[node] == NAPS:
                    store_release(ram.kswapd_state, node, ASLEEP)
                spin_unlock(ram, cpu, ram.kswapd_lock, node)


# --- balance_pgdat ------------------------------------------------------------------------------------------


@kernel
def _set_reclaim_active(ram, node, active):
    """While kswapd works, per-CPU lists of the node's zones stay short."""
    for zone in range(ram.node_first_zone[node], ram.node_end_zone[node]):
        ram.zone_reclaim_active[zone] = active


@kernel
def _begin_run(ram, cpu, sc, node):
    ram.pageoutrun[cpu] += 1
    ram.sc_by[sc], ram.sc_flags[sc] = BY_KSWAPD, SC_FS
    ram.sc_priority[sc], ram.sc_reclaimed[sc] = DEF_PRIORITY, 0
    _set_reclaim_active(ram, node, 1)
    record(ram, cpu, EV_RECLAIM, node, BY_KSWAPD, ram.zone_free[ram.node_end_zone[node] - 1], 0)


@kernel
def _end_run(ram, node):
    _set_reclaim_active(ram, node, 0)
    snapshot_refaults(ram, node)
    ram.kswapd_phase[node] = PHASE_NEW
    return 0


@kernel
def _begin_round(ram, cpu, sc, node):
    """kswapd_shrink_node: what to reclaim in this round is what the zones' high watermarks ask for."""
    age_anonymous(ram, cpu, sc, node)
    ram.sc_scanned[sc], ram.sc_before[sc], ram.sc_to_reclaim[sc] = 0, ram.sc_reclaimed[sc], 0
    for zone in range(ram.node_first_zone[node], ram.node_end_zone[node]):
        ram.sc_to_reclaim[sc] += max(ram.wmark_high[zone], SWAP_CLUSTER_MAX)
    shrink_node_begin(ram, sc, node)
    ram.kswapd_phase[node] = PHASE_SCAN


@kernel
def _end_round(ram, sc, node):
    """Decide after a round: again, harder if this one looked at too little or got nothing; 0 when the run is
    over.
    """
    got = ram.sc_reclaimed[sc] - ram.sc_before[sc]
    if max(ram.sc_scanned[sc], got) < ram.sc_to_reclaim[sc] or got == 0:
        ram.sc_priority[sc] -= 1
    ram.kswapd_phase[node] = PHASE_ROUND
    if ram.sc_priority[sc] >= 1:
        return 1
    if ram.sc_reclaimed[sc] == 0:
        if ram.sc_flags[sc] & (SC_NO_CACHE_TRIM | SC_CACHE_TRIM_FAILED) == SC_CACHE_TRIM_FAILED:
            ram.sc_flags[sc] |= SC_NO_CACHE_TRIM  # once more, with anonymous pages too
            ram.sc_priority[sc] = DEF_PRIORITY
            return 1
        ram.kswapd_failures[node] += 1
    return _end_run(ram, node)


@apart
def kswapd_step(ram, cpu, node):
    """Do one step of a node's balancing; 1: there is more to do, 0: the run is over."""
    sc = ram.nr_cpus + node
    if ram.kswapd_phase[node] == PHASE_NEW:
        _begin_run(ram, cpu, sc, node)
        ram.kswapd_phase[node] = PHASE_ROUND
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_KSWAPD
    if ram.kswapd_phase[node] == PHASE_ROUND:
        if pgdat_balanced(ram, node):
            ram.cpu_site[cpu] = site
            return _end_run(ram, node)
        _begin_round(ram, cpu, sc, node)
    record(ram, cpu, EV_CALL, CALL_KSWAPD, node, 0, 0)
    more = shrink_lruvec_step(ram, cpu, sc, node)
    record(ram, cpu, EV_RETURN, CALL_KSWAPD, node, 0, 0)
    ram.cpu_site[cpu] = site
    return 1 if more else _end_round(ram, sc, node)
