"""sync=tick (after LATR): a CPU with something to flush does it by itself at its tick, its idling or its next
task switch.

It draws a stamp, flushes its loaded address space, and counts as done, so a taker who comes later need not
interrupt it. At a tick a generation whose CPUs have all done so becomes clean without an interrupt; one that
has waited for two ticks is flushed with interrupts to whoever lags. A taker who needs pages at once flushes
for them as under sync=owner.
"""

from allocator.sched import TICK_NS
from allocator.tlb_flush import FLUSH_ALL, INIT_MM, NO_GENERATION, flush_tlb_func
from cpus.atomics import compare_exchange, load_acquire, store_release
from cpus.compiled import kernel
from cpus.cpumask import cpumask_test_cpu
from cpus.locks import spin_lock_irq, spin_unlock_irq
from designs.design import hook, hooks
from designs.luf.fields import luf_state
from designs.luf.generations import join_generation
from designs.luf.sync.kicker import flush_in_background
from designs.luf.ugen import check_done, is_done, lock_done, new_luf_ugen, unlock_done
from designs.measure import SELF_FLUSHED

TIMEOUT_NS = 2 * TICK_NS


@hook("page_freed")
def tick_page_freed(ram, cpu, zone, pfn, key, order):
    """As ever; the first page of a generation starts the clock."""
    state = luf_state(ram)
    if ram.zone_pending[zone] == 0:
        state.request_ns[zone] = ram.cpu_clock[cpu]
    return join_generation(ram, state, cpu, zone, key)


@kernel
def flush_myself(ram, cpu):
    """Flush this CPU if a zone waits for it. The stamp comes before the look at the address space's
    generation.
    """
    state = luf_state(ram)
    for zone in range(ram.nr_zones):
        if (
            ram.zone_pending[zone] > 0
            and cpumask_test_cpu(cpu, state.zone_mask, zone)
            and not is_done(state, cpu, state.zone_ugen[zone])
        ):
            done = load_acquire(state.ugen_done, cpu)
            ugen = new_luf_ugen(state)
            flush_tlb_func(ram, cpu, INIT_MM, 0, FLUSH_ALL, NO_GENERATION, 0, cpu)
            lock_done(ram, cpu)
            compare_exchange(state.ugen_done, cpu, done, ugen)  # lost: somebody's flush was faster
            unlock_done(ram, cpu)
            state.stat[cpu, SELF_FLUSHED] += 1


@hook("tick")
def tick_tick(ram, cpu, a, b, c, d):
    """Flush here; then see which generations are done, or have waited too long."""
    flush_myself(ram, cpu)
    state = luf_state(ram)
    for zone in range(ram.nr_zones):
        if ram.zone_pending[zone] > 0:
            spin_lock_irq(ram, cpu, ram.zone_lock, zone)
            due = ram.cpu_clock[cpu] - state.request_ns[zone] > TIMEOUT_NS or check_done(
                ram, state, cpu, state.zone_mask, zone, state.zone_ugen[zone]
            )
            spin_unlock_irq(ram, cpu, ram.zone_lock, zone)
            if due and compare_exchange(state.kick_cpu, 0, 0, cpu + 1) == 0:
                flush_in_background(ram, state, cpu, zone)
                store_release(state.kick_cpu, 0, 0)
    return 0


@hooks("idle", "context_switch")
def tick_between_ticks(ram, cpu, a, b, c, d):
    flush_myself(ram, cpu)
    return 0
