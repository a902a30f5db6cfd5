"""sync=owner (v12, patch 21): who takes the first page of a zone's open generation flushes for it, the others
wait for him.

Generations are published zone by zone in ascending order, each after its predecessor, so owners of several
cannot wait for each other in a ring.
"""

from allocator.flush_sites import SITE_ALLOC
from cpus.compiled import kernel
from designs.design import hook
from designs.luf.fields import luf_state
from designs.luf.generations import claim_generation, claim_other_zones, owns_a_generation
from designs.luf.published import publish_generation, wait_for_generation
from designs.luf.take_off import flush_taken, take_keyed
from designs.measure import MERGED, note_takeoff


@hook("take")
def owner_take(ram, cpu, zone, pfn, key, order):
    """A pending page leaves: remember whom to flush, or whom to wait for (check_and_fold)."""
    state = luf_state(ram)
    if zone < 0:
        take_keyed(ram, state, cpu, key)
    elif key <= ram.zone_key_claimed[zone]:
        state.wait_generation[cpu, zone] = max(state.wait_generation[cpu, zone], key)
    else:
        claim_generation(ram, state, cpu, zone)
    return 0


@kernel
def finish_as_owner(ram, state, cpu, site):
    """Flush for what was taken, publish own generations in order, wait for others'."""
    began = ram.cpu_clock[cpu]
    if owns_a_generation(ram, state, cpu):
        claim_other_zones(ram, state, cpu)
    flush_taken(ram, state, cpu, site)
    for zone in range(ram.nr_zones):
        own = state.own_generation[cpu, zone]
        if own:
            state.own_generation[cpu, zone] = 0
            wait_for_generation(ram, state, cpu, zone, own - 1)
            publish_generation(ram, state, cpu, zone, own, began)
        other = state.wait_generation[cpu, zone]
        if other:
            state.wait_generation[cpu, zone] = 0
            if own == 0:
                state.stat[cpu, MERGED] += 1
            wait_for_generation(ram, state, cpu, zone, other)


@hook("take_done")
def owner_take_done(ram, cpu, a, b, c, d):
    """End of take-off."""
    state = luf_state(ram)
    finish_as_owner(ram, state, cpu, SITE_ALLOC)
    note_takeoff(ram, state, cpu)
    return 0
