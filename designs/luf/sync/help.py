"""sync=help: nobody waits for the owner of a generation; who needs it interrupts the CPUs that still lag and
publishes it himself.

The masks of claimed generations are remembered until they are done. A helper takes those of all generations
up to his, drops the CPUs that have completed a flush since, and flushes the rest: flushing twice harms
nobody. After that everything up to his generation is flushed, whoever owned it, so it may be published by a
maximum, in any order.
"""

from allocator.flush_sites import SITE_ALLOC
from cpus.atomics import address, fetch_max, load_acquire
from cpus.compiled import kernel
from cpus.cpumask import cpumask_or
from cpus.lease import WAIT_WORD, wake_all_waiting_for
from cpus.locks import spin_lock_irq, spin_unlock_irq
from designs.design import hook
from designs.luf.fields import luf_state
from designs.luf.generations import claim_other_zones, claim_row, owns_a_generation
from designs.luf.take_off import flush_taken
from designs.luf.ugen import newer
from designs.measure import HELPED, note_takeoff


@kernel
def _gather_claimed(ram, state, cpu, zone, generation):
    """Add the CPUs of all generations up to this one that are claimed and not done."""
    spin_lock_irq(ram, cpu, ram.zone_lock, zone)
    for older in range(load_acquire(ram.zone_key_done, zone) + 1, generation + 1):
        row = claim_row(ram, zone, older)
        cpumask_or(state.take_mask, cpu, state.claim_mask, row)
        state.take_ugen[cpu] = newer(state.take_ugen[cpu], state.claim_ugen[row])
    spin_unlock_irq(ram, cpu, ram.zone_lock, zone)


@kernel
def _publish_maximum(ram, cpu, zone, generation):
    if fetch_max(ram.zone_key_done, zone, generation) < generation:
        wake_all_waiting_for(ram, WAIT_WORD, address(ram.zone_key_done, zone), ram.cpu_clock[cpu])


@hook("take_done")
def help_take_done(ram, cpu, a, b, c, d):
    """Flush for what was taken and for whatever older is not done yet; then it is."""
    state = luf_state(ram)
    if owns_a_generation(ram, state, cpu):
        claim_other_zones(ram, state, cpu)
    for zone in range(ram.nr_zones):
        needed = max(state.own_generation[cpu, zone], state.wait_generation[cpu, zone])
        if needed > load_acquire(ram.zone_key_done, zone):
            _gather_claimed(ram, state, cpu, zone, needed)
    late = flush_taken(ram, state, cpu, SITE_ALLOC)
    for zone in range(ram.nr_zones):
        own, other = state.own_generation[cpu, zone], state.wait_generation[cpu, zone]
        if own or other:
            state.own_generation[cpu, zone] = state.wait_generation[cpu, zone] = 0
            _publish_maximum(ram, cpu, zone, max(own, other))
            if own == 0 and late:
                state.stat[cpu, HELPED] += 1
    note_takeoff(ram, state, cpu)
    return 0
