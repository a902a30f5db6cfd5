"""LUF's take-off (designs/luf/luf.py): pages enter the buddy with a generation of their zone, and leave it
through a flush.

What is the same however CPUs synchronise (luf_sync.py): how a keyed page gets its generation, which pages are
taken first, how one claims a generation, and the flush itself.
"""

from allocator.buddy import CLEAN_ONLY, PEND_FIRST
from cpus.compiled import kernel
from cpus.cpumask import cpumask_clear, cpumask_copy, cpumask_empty, cpumask_or
from cpus.locks import spin_lock, spin_lock_irq, spin_unlock, spin_unlock_irq
from designs.design import hook
from designs.luf.state import diet, flush_and_mark, luf_state
from designs.measure import MERGED


@kernel
def join_generation(ram, state, cpu, zone, key):
    """A keyed page enters the buddy: its CPUs join the zone's open generation; 0 if they are all up to date
    already.
    """
    spin_lock(ram, cpu, state.key_lock, key)
    clean = diet(ram, state, cpu, state.key_mask, key, state.key_ugen[key])
    ugen = state.key_ugen[key]
    cpumask_or(state.zone_mask, zone, state.key_mask, key)
    spin_unlock(ram, cpu, state.key_lock, key)
    if clean:
        return 0
    if ugen > state.zone_ugen[zone]:
        state.zone_ugen[zone] = ugen
    return state.zone_generation[zone]


@hook("page_freed")
def luf_page_freed(ram, cpu, zone, pfn, key, order):
    return join_generation(ram, luf_state(ram), cpu, zone, key)


@hook("take_begin")
def luf_take_begin(ram, cpu, zone, b, c, d):
    luf_state(ram).takeoff_began[cpu] = ram.cpu_clock[cpu]
    return 0


@hook("take_check")
def luf_take_check(ram, cpu, zone, pfn, key, order):
    return 1  # every allocation here runs in a context that may wait


@kernel
def clean_left(ram, zone):
    """Free pages of a zone with nothing pending."""
    return ram.zone_free[zone] - ram.zone_pending[zone]


@hook("pend_first")
def luf_pend_first(ram, cpu, zone, b, c, d):
    """Take clean pages, of any order, until MIN of them are left; then one flush cleans the whole zone.

    v12 prefers clean blocks only within an order, so a small pending block is flushed while large clean ones
    lie idle.
    """
    return CLEAN_ONLY if clean_left(ram, zone) > ram.wmark_min[zone] else PEND_FIRST


@kernel
def take_keyed(ram, state, cpu, key):
    """A page with a key leaves a pcp list: its CPUs join what the take-off flushes."""
    spin_lock(ram, cpu, state.key_lock, key)
    cpumask_or(state.take_mask, cpu, state.key_mask, key)
    if state.key_ugen[key] > state.take_ugen[cpu]:
        state.take_ugen[cpu] = state.key_ugen[key]
    spin_unlock(ram, cpu, state.key_lock, key)


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
    cpumask_or(state.take_mask, cpu, state.zone_mask, zone)
    cpumask_clear(state.zone_mask, zone)
    state.claim_ugen[row] = state.zone_ugen[zone]
    if state.zone_ugen[zone] > state.take_ugen[cpu]:
        state.take_ugen[cpu] = state.zone_ugen[zone]
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


@kernel
def flush_taken(ram, state, cpu, site):
    """Flush for what was taken those CPUs that are not up to date; True if somebody had to be."""
    if cpumask_empty(state.take_mask, cpu):
        return False
    late = not diet(ram, state, cpu, state.take_mask, cpu, state.take_ugen[cpu])
    if late:
        before = ram.cpu_site[cpu]
        ram.cpu_site[cpu] = site
        flush_and_mark(ram, state, cpu, state.take_mask, cpu)
        ram.cpu_site[cpu] = before
    else:
        state.stat[cpu, MERGED] += 1
    cpumask_clear(state.take_mask, cpu)
    state.take_ugen[cpu] = 0
    return late
