"""sync=kicker: pending pages are flushed in the background before clean ones run short, so that allocators need not.

When clean pages of a zone fall to LOW its kicker becomes active, and stays so until they are above HIGH again. While it is, the CPU
that next ticks, idles or switches tasks flushes what is pending, if that is a pcp batch at least; one CPU at a time. An allocator that is
faster finds MIN and flushes itself, as under sync=owner.
"""

from allocator.tlb_flush import SITE_OTHER
from cpus.atomics import compare_exchange, load_acquire, store_release
from cpus.compiled import kernel
from cpus.locks import LOCK_ZONE, spin_lock_irq, spin_unlock_irq
from designs.design import hook
from designs.luf_owner import finish_as_owner
from designs.luf_state import luf_state
from designs.luf_take import claim_generation, clean_left
from designs.measure import KICKED


@kernel
def flush_in_background(ram, state, cpu, zone):
    """Claim a zone's open generation and flush it, unless another CPU does so for some zone."""
    if ram.cpu_in_irq[cpu] or compare_exchange(state.kick_cpu, 0, 0, cpu + 1) != 0:
        return
    spin_lock_irq(ram, cpu, ram.zone_lock, zone, LOCK_ZONE | zone)
    due = ram.zone_pending[zone] > 0
    if due:
        claim_generation(ram, state, cpu, zone)
    spin_unlock_irq(ram, cpu, ram.zone_lock, zone, LOCK_ZONE | zone)
    if due:
        state.stat[cpu, KICKED] += 1
        finish_as_owner(ram, state, cpu, SITE_OTHER)
    store_release(state.kick_cpu, 0, 0)


@kernel
def kick(ram, cpu):
    """Look at all zones, and flush where the kicker is active."""
    state = luf_state(ram)
    for zone in range(ram.nr_zones):
        clean = clean_left(ram, zone)
        if load_acquire(state.kicking, zone):
            if clean > ram.wmark_high[zone]:
                store_release(state.kicking, zone, 0)
        elif clean <= ram.wmark_low[zone]:
            store_release(state.kicking, zone, 1)
        if load_acquire(state.kicking, zone) and ram.zone_pending[zone] >= ram.pcp_batch[zone]:
            flush_in_background(ram, state, cpu, zone)


@hook("tick")
def kicker_tick(ram, cpu, a, b, c, d):
    kick(ram, cpu)
    return 0


@hook("idle")
def kicker_idle(ram, cpu, a, b, c, d):
    kick(ram, cpu)
    return 0


@hook("context_switch")
def kicker_context_switch(ram, cpu, before, after, task, d):
    kick(ram, cpu)
    return 0
