"""sync=kicker: a kernel thread flushes pending pages before clean ones run short, so that allocators need
not.

Half-way from HIGH to LOW a zone's kicker becomes active, so that it flushes before clean pages reach LOW, and
stays so until they are above HIGH again. While it is, whoever allocates wakes the thread as soon as a pcp
batch is pending, and the thread flushes. It is scheduled as kswapd is: where no CPU idles it waits its turn,
and an allocator that is faster finds MIN and flushes itself, as under sync=owner.
"""

from allocator.flush_sites import SITE_ALLOC, SITE_OTHER
from allocator.kthread import wake_kthread
from cpus.atomics import load_acquire, store_release
from cpus.compiled import kernel
from cpus.locks import spin_lock_irq, spin_unlock_irq
from designs.design import hook
from designs.luf.fields import luf_state
from designs.luf.generations import claim_generation, clean_left
from designs.luf.sync.owner import finish_as_owner
from designs.measure import KICKED, note_takeoff


@kernel
def flush_in_background(ram, state, cpu, zone):
    """Claim a zone's open generation and flush it; False if nothing was pending."""
    spin_lock_irq(ram, cpu, ram.zone_lock, zone)
    due = ram.zone_pending[zone] > 0
    if due:
        claim_generation(ram, state, cpu, zone)
    spin_unlock_irq(ram, cpu, ram.zone_lock, zone)
    if due:
        state.stat[cpu, KICKED] += 1
        finish_as_owner(ram, state, cpu, SITE_OTHER)
    return due


@kernel
def _is_due(ram, state, zone):
    """Is the zone's kicker active, and is there a batch to flush?"""
    clean = clean_left(ram, zone)
    if load_acquire(state.kicking, zone):
        if clean > ram.wmark_high[zone]:
            store_release(state.kicking, zone, 0)
            return False
    elif clean <= (ram.wmark_low[zone] + ram.wmark_high[zone]) // 2:
        store_release(state.kicking, zone, 1)
    else:
        return False
    return ram.zone_pending[zone] >= ram.pcp_batch[zone]


@hook("take_done")
def kicker_take_done(ram, cpu, a, b, c, d):
    """End of take-off; the thread is woken if what was taken made clean pages few."""
    state = luf_state(ram)
    finish_as_owner(ram, state, cpu, SITE_ALLOC)
    note_takeoff(ram, state, cpu)
    for zone in range(ram.nr_zones):
        if _is_due(ram, state, zone):
            wake_kthread(ram, cpu)
            break
    return 0


@hook("kthread")
def kicker_kthread(ram, cpu, a, b, c, d):
    """Flush one zone that is due; 0 if none is."""
    state = luf_state(ram)
    for zone in range(ram.nr_zones):
        if _is_due(ram, state, zone):
            flush_in_background(ram, state, cpu, zone)
            return 1
    return 0
