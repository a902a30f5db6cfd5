"""sync=each (v12 before patch 21): no generation belongs to anybody, every taker flushes for the pages that
it took itself.

Each batch of unmapped pages makes a generation of its own in its zone. A row remembers its CPUs and those of
older ones that are not up to date, so a block merged from several batches is covered by the newest. Nobody
waits, and two CPUs that take pages of one batch at the same moment both flush for it. Who comes later finds
the CPUs up to date.
Left out: a bound on age. A generation whose row was used again has the row of a newer one, which stands for
more.
"""

from allocator.flush_sites import SITE_ALLOC
from cpus.cpumask import cpumask_copy, cpumask_or
from cpus.locks import spin_lock, spin_unlock
from designs.design import hook
from designs.luf.state import EACH_ROWS, diet, luf_state
from designs.luf.take import flush_taken, take_keyed
from designs.measure import note_takeoff


@hook("page_freed")
def each_page_freed(ram, cpu, zone, pfn, key, order):
    """A keyed page enters the buddy; with another key than the one before, a new generation begins."""
    state = luf_state(ram)
    spin_lock(ram, cpu, state.key_lock, key)
    clean = diet(ram, state, cpu, state.key_mask, key, state.key_ugen[key])
    ugen = state.key_ugen[key]
    row = zone * EACH_ROWS + state.zone_generation[zone] % EACH_ROWS
    if not clean:
        if state.each_key[zone] != key:
            before = row
            diet(ram, state, cpu, state.each_mask, before, state.each_ugen[before])
            state.each_key[zone] = key
            state.zone_generation[zone] += 1
            row = zone * EACH_ROWS + state.zone_generation[zone] % EACH_ROWS
            state.each_ugen[row] = state.each_ugen[before]
            cpumask_copy(state.each_mask, row, state.each_mask, before)
        cpumask_or(state.each_mask, row, state.key_mask, key)
        state.each_ugen[row] = max(state.each_ugen[row], ugen)
    spin_unlock(ram, cpu, state.key_lock, key)
    return 0 if clean else state.zone_generation[zone]


@hook("take")
def each_take(ram, cpu, zone, pfn, key, order):
    """A pending page leaves: its CPUs join what this take-off flushes."""
    state = luf_state(ram)
    if zone < 0:
        take_keyed(ram, state, cpu, key)
        return 0
    row = zone * EACH_ROWS + key % EACH_ROWS
    cpumask_or(state.take_mask, cpu, state.each_mask, row)
    state.take_ugen[cpu] = max(state.take_ugen[cpu], state.each_ugen[row])
    return 0


@hook("take_done")
def each_take_done(ram, cpu, a, b, c, d):
    """Flush for what was taken, whatever others are doing."""
    state = luf_state(ram)
    flush_taken(ram, state, cpu, SITE_ALLOC)
    note_takeoff(ram, state, cpu)
    return 0
