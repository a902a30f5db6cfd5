"""Generations of a zone (patch 21 of v12): one flush serves all pages that were freed since the last.

A page that enters the buddy with a key joins the zone's open generation, with the CPUs that its key stands
for. Who takes a page of the open generation claims all of it: he will flush, and later frees go into the
next.
"""

from cpus.compiled import kernel
from cpus.cpumask import cpumask_clear, cpumask_copy, cpumask_or
from cpus.locks import spin_lock_irq, spin_unlock_irq
from designs.design import hook
from designs.luf.fields import luf_state
from designs.luf.records import of_key, take_pending
from designs.luf.ugen import NO_UGEN, newer


@kernel
def clean_left(ram, zone):
    """Free pages of a zone with nothing pending."""
    return ram.zone_free[zone] - ram.zone_pending[zone]


@kernel
def join_generation(ram, state, cpu, zone, key):
    """A page with a key enters the buddy, zone lock held: the generation that it joins, 0 if all CPUs are up
    to date already.
    """
    ugen = take_pending(ram, state, cpu, of_key(ram, key), state.zone_mask, zone)
    if ugen == NO_UGEN:
        return 0
    state.zone_ugen[zone] = newer(state.zone_ugen[zone], ugen)
    return state.zone_generation[zone]


@hook("page_freed")
def luf_page_freed(ram, cpu, zone, pfn, key, order):
    return join_generation(ram, luf_state(ram), cpu, zone, key)


@kernel
def claim_row(ram, zone, generation):
    """Row of claim_mask that remembers whom a claimed generation waits for. Each CPU claims one of a zone at
    most: none is lost.
    """
    return zone * (ram.nr_cpus + 2) + generation % (ram.nr_cpus + 2)


@kernel
def claim_generation(ram, state, cpu, zone):
    """Become the one who flushes the zone's open generation; later frees go into the next. Zone lock held."""
    generation = state.zone_generation[zone]
    state.own_generation[cpu, zone] = generation
    row = claim_row(ram, zone, generation)
    cpumask_copy(state.claim_mask, row, state.zone_mask, zone)
    state.claim_ugen[row] = state.zone_ugen[zone]
    cpumask_or(state.take_mask, cpu, state.zone_mask, zone)
    state.take_ugen[cpu] = newer(state.take_ugen[cpu], state.zone_ugen[zone])
    cpumask_clear(state.zone_mask, zone)
    state.zone_generation[zone] = generation + 1
    ram.zone_key_claimed[zone] = generation
    ram.zone_pending[zone] = 0


@kernel
def claim_other_zones(ram, state, cpu):
    """A round of interrupts is due: let it serve the pending pages of every zone, not only of the one that
    ran short.
    """
    for zone in range(ram.nr_zones):
        if state.own_generation[cpu, zone] == 0 and ram.zone_pending[zone] > 0:
            spin_lock_irq(ram, cpu, ram.zone_lock, zone)
            if ram.zone_pending[zone] > 0:
                claim_generation(ram, state, cpu, zone)
            spin_unlock_irq(ram, cpu, ram.zone_lock, zone)


@kernel
def owns_a_generation(ram, state, cpu):
    """Has this CPU promised to flush a generation in this take-off?"""
    for zone in range(ram.nr_zones):
        if state.own_generation[cpu, zone]:
            return True
    return False
