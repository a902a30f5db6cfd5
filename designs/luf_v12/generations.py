"""Generations of a zone in LUF v12 (patches 11, 13, 21); a page keeps the low 16 bits of its one."""

from cpus.compiled import kernel
from cpus.cpumask import cpumask_or
from designs.design import hook
from designs.luf.records import lock_record, of_key, unlock_record
from designs.luf.ugen import LOW, before, newer
from designs.luf_v12.fields import v12_state


@kernel
def next_ugen(ugen):
    """The generation after this one; those whose low 16 bits are 0 are not valid."""
    return ugen + 1 if (ugen + 1) & LOW != 0 else ugen + 2


@kernel
def prev_ugen(ugen):
    """The generation before this one."""
    return ugen - 1 if (ugen - 1) & LOW != 0 else ugen - 2


@kernel
def whole_generation(low, newest):
    """Rebuild a zone's generation from its low 16 bits: the largest that is not newer than the zone's
    (page_zone_ugen).
    """
    ugen = (newest & ~LOW) | low
    return ugen - (LOW + 1) if before(newest, ugen) else ugen


@hook("page_freed")
def v12_page_freed(ram, cpu, zone, pfn, key, order):
    """A keyed page enters the buddy: the table's entry is folded into zone_batch, the page gets the zone's
    generation.
    """
    state = v12_state(ram)
    record = of_key(ram, key)
    lock_record(ram, state, cpu, record)
    if state.record_required[record]:
        cpumask_or(state.zone_batch, zone, state.record_mask, record)
    ugen = state.record_ugen[record]
    unlock_record(ram, state, cpu, record)
    state.zone_luf_ugen[zone] = newer(state.zone_luf_ugen[zone], ugen)
    return state.zone_ugen[zone]
