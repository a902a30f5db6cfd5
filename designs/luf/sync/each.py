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
from cpus.compiled import kernel
from cpus.cpumask import cpumask_clear, cpumask_copy, cpumask_or
from designs.design import hook
from designs.luf.fields import EACH_ROWS, luf_state
from designs.luf.records import of_key, take_pending
from designs.luf.take_off import flush_taken, take_keyed
from designs.luf.ugen import NO_UGEN, diet, newer
from designs.measure import note_takeoff


@kernel
def _row(state, zone, generation):
    """Row of a generation of a zone."""
    return zone * EACH_ROWS + generation % EACH_ROWS


@hook("page_freed")
def each_page_freed(ram, cpu, zone, pfn, key, order):
    """A keyed page enters the buddy; with another key than the one before, a new generation begins."""
    state = luf_state(ram)
    cpumask_clear(ram.tmp_mask, cpu)
    ugen = take_pending(ram, state, cpu, of_key(ram, key), ram.tmp_mask, cpu)
    if ugen == NO_UGEN:
        return 0
    row = _row(state, zone, state.zone_generation[zone])
    if state.each_key[zone] != key:
        before = row
        diet(ram, state, cpu, state.each_mask, before, state.each_ugen[before])
        state.each_key[zone] = key
        state.zone_generation[zone] += 1
        row = _row(state, zone, state.zone_generation[zone])
        cpumask_copy(state.each_mask, row, state.each_mask, before)
        state.each_ugen[row] = state.each_ugen[before]
    cpumask_or(state.each_mask, row, ram.tmp_mask, cpu)
    state.each_ugen[row] = newer(state.each_ugen[row], ugen)
    return state.zone_generation[zone]


@hook("take")
def each_take(ram, cpu, zone, pfn, key, order):
    """A pending page leaves: its CPUs join what this take-off flushes."""
    state = luf_state(ram)
    if zone < 0:
        take_keyed(ram, state, cpu, key)
        return 0
    row = _row(state, zone, key)
    cpumask_or(state.take_mask, cpu, state.each_mask, row)
    state.take_ugen[cpu] = newer(state.take_ugen[cpu], state.each_ugen[row])
    return 0


@hook("take_done")
def each_take_done(ram, cpu, a, b, c, d):
    """Flush for what was taken, whatever others are doing."""
    state = luf_state(ram)
    flush_taken(ram, state, cpu, SITE_ALLOC)
    note_takeoff(ram, state, cpu)
    return 0
