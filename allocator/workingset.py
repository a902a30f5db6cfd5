"""Refault distances: did a page that comes back go too early? (mm/workingset.c, without MGLRU)

A node has an age that grows by one with every eviction and every activation. An evicted page leaves the age
in its slot (a shadow); if it comes back before the age has grown by more than the active list is long, it
would still be there had that list been inactive too, so it starts active.
Left out: memory cgroups, bucket_order (a shadow has room for the whole age), the shadow nodes' shrinker,
anonymous refaults (there is no swap, and demotion leaves no shadow).
"""

from allocator.lru import LRU_ACTIVE_FILE, lru_note_cost
from allocator.page import PG_ACTIVE, PG_WORKINGSET, node_of, set_flag
from cpus.atomics import fetch_add, load_acquire
from cpus.compiled import kernel
from cpus.declare import VMSTAT, Atomic, Counter, Field, Struct

FIELDS = (
    Struct(
        "nr_nodes",
        "lru",
        (
            Field("node_age", Atomic("fetch_add"), "lruvec->nonresident_age"),
            Field("node_activated", Atomic("fetch_add"), "WORKINGSET_ACTIVATE_FILE"),
        ),
    ),
)

COUNTERS = (
    Counter("workingset_refault_file", VMSTAT, "pages of files read again that reclaim had evicted", "pages"),
    Counter(
        "workingset_activate_file",
        VMSTAT,
        "those activated at once: they would have stayed in a longer list",
        "pages",
    ),
    Counter("workingset_restore_file", VMSTAT, "those that had been active when they were evicted", "pages"),
)

SHADOW_NODE_BITS = 4


@kernel
def workingset_eviction(ram, pfn):
    """Pack what a refault must know: the node's age, the node, and whether the page was part of the
    workingset. Ages the node.
    """
    node = node_of(ram, pfn)
    age = fetch_add(ram.node_age, node, 1)
    workingset = 1 if ram.page_flags[pfn] & PG_WORKINGSET else 0
    return -1 - ((age << (SHADOW_NODE_BITS + 1)) | (node << 1) | workingset)


@kernel
def workingset_refault(ram, cpu, pfn, shadow):
    """Judge a page that comes back: activate it if it would have stayed in a larger inactive list."""
    packed = -1 - shadow
    evicted_from = (packed >> 1) & ((1 << SHADOW_NODE_BITS) - 1)
    distance = load_acquire(ram.node_age, evicted_from) - (packed >> (SHADOW_NODE_BITS + 1))
    ram.workingset_refault_file[cpu] += 1
    if distance > ram.lru_size[evicted_from, LRU_ACTIVE_FILE]:
        return 0
    node = node_of(ram, pfn)
    set_flag(ram, pfn, PG_ACTIVE)
    fetch_add(ram.node_age, node, 1)
    fetch_add(ram.node_activated, node, 1)
    ram.workingset_activate_file[cpu] += 1
    if packed & 1:
        set_flag(ram, pfn, PG_WORKINGSET)
        lru_note_cost(ram, cpu, node, True, 1, 0)
        ram.workingset_restore_file[cpu] += 1
    return 0
