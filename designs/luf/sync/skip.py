"""sync=skip: while somebody flushes a generation, its pages are passed over; another block is taken, and one
comes back later.

Only if the zone has no clean block of any order left does a taker wait for the owner, as under sync=owner.
"""

from allocator.buddy import NR_ORDERS
from cpus.compiled import kernel
from designs.design import hook
from designs.luf.fields import luf_state
from designs.measure import SKIPPED


@kernel
def _has_clean_block(ram, zone):
    for order in range(NR_ORDERS):
        if ram.free_count[zone, order] > 0:
            return True
    return False


@hook("take_check")
def skip_take_check(ram, cpu, zone, pfn, key, order):
    """Refuse a block of a generation that is being flushed, unless there is nothing else."""
    if zone < 0 or key > ram.zone_key_claimed[zone]:
        return 1
    state = luf_state(ram)
    if state.own_generation[cpu, zone] >= key or not _has_clean_block(ram, zone):
        return 1
    state.stat[cpu, SKIPPED] += 1
    return 0
