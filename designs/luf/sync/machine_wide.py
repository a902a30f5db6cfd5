"""sync=global (v9-v11): one flusher in the machine. He takes everything pending, of all zones; the others try
again until he is done.

Left out: v9's fallback of unmappers to vanilla while somebody flushes (here a request that comes too late
joins the next generation), and the single mask: zones keep theirs, and he takes them all.
"""

from allocator.flush_sites import SITE_ALLOC
from cpus.atomics import address, compare_exchange, exchange, load_acquire
from cpus.compiled import kernel
from cpus.cpumask import cpumask_empty
from cpus.ipi import serve_interrupts
from cpus.lease import WAIT_WORD, begin_wait, cancel_wait, finish_wait, wake_all_waiting_for
from cpus.locks import spin_lock_irq, spin_unlock_irq
from designs.design import hook
from designs.luf.fields import luf_state
from designs.luf.generations import claim_generation
from designs.luf.published import charge_wait, publish_generation
from designs.luf.take_off import flush_taken, take_keyed
from designs.luf.ugen import NO_UGEN, diet
from designs.measure import MERGED, WAITS, note_takeoff


@hook("take")
def global_take(ram, cpu, zone, pfn, key, order):
    """A pending page leaves: remember what must be done before it is used. Nothing is claimed yet."""
    state = luf_state(ram)
    if zone < 0:
        take_keyed(ram, state, cpu, key)
    else:
        state.wait_generation[cpu, zone] = max(state.wait_generation[cpu, zone], key)
    return 0


@kernel
def _is_done(ram, state, cpu):
    """Has somebody's flush served all that this CPU took?"""
    for zone in range(ram.nr_zones):
        if state.wait_generation[cpu, zone] > load_acquire(ram.zone_key_done, zone):
            return False
    return cpumask_empty(state.take_mask, cpu) or diet(
        ram, state, cpu, state.take_mask, cpu, state.take_ugen[cpu]
    )


@kernel
def _flush_all(ram, state, cpu):
    """The flusher: claim every zone, flush, publish, let the others look again."""
    began = ram.cpu_clock[cpu]
    for zone in range(ram.nr_zones):
        needed = state.wait_generation[cpu, zone]
        spin_lock_irq(ram, cpu, ram.zone_lock, zone)
        # the last pending page may be the one taken
        if ram.zone_pending[zone] > 0 or needed > ram.zone_key_claimed[zone]:
            claim_generation(ram, state, cpu, zone)
        spin_unlock_irq(ram, cpu, ram.zone_lock, zone)
    flush_taken(ram, state, cpu, SITE_ALLOC)
    for zone in range(ram.nr_zones):
        own = state.own_generation[cpu, zone]
        if own:
            state.own_generation[cpu, zone] = 0
            publish_generation(ram, state, cpu, zone, own, began)
    state.flusher_ns[0], state.flusher_took[0] = ram.cpu_clock[cpu], ram.cpu_clock[cpu] - began
    exchange(state.flusher, 0, 0)  # a full barrier before the look at who waits
    wake_all_waiting_for(ram, WAIT_WORD, address(state.flusher, 0), ram.cpu_clock[cpu])


@kernel
def _wait_for_flusher(ram, state, cpu):
    """Sleep until nobody flushes; the wait is charged as at most what the flush took."""
    state.stat[cpu, WAITS] += 1
    while load_acquire(state.flusher, 0) != 0:
        if ram.cpu_bell[cpu] > 0:
            serve_interrupts(ram, cpu)
        if begin_wait(ram, cpu, WAIT_WORD, address(state.flusher, 0)):
            if load_acquire(state.flusher, 0) == 0:
                cancel_wait(ram, cpu)
            else:
                finish_wait(ram, cpu)
    charge_wait(ram, state, cpu, state.flusher_ns[0], state.flusher_took[0])


@hook("take_done")
def global_take_done(ram, cpu, a, b, c, d):
    """Until what was taken is flushed: flush everything, or wait for who does."""
    state = luf_state(ram)
    waited = False
    while not _is_done(ram, state, cpu):
        if compare_exchange(state.flusher, 0, 0, cpu + 1) == 0:
            _flush_all(ram, state, cpu)
            waited = False
        else:
            _wait_for_flusher(ram, state, cpu)
            waited = True
    if waited:
        state.stat[cpu, MERGED] += 1
    for zone in range(ram.nr_zones):
        state.wait_generation[cpu, zone] = 0
    state.take_ugen[cpu] = NO_UGEN
    note_takeoff(ram, state, cpu)
    return 0
