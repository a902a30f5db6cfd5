"""Take-off of LUF v12 as posted (patches 09, 10, 12, 17, 21, 22)."""

from allocator.buddy import CLEAN_FIRST, PEND_FIRST
from allocator.flush_sites import SITE_ALLOC
from cpus.atomics import fence
from cpus.compiled import kernel
from cpus.cpumask import cpumask_andnot, cpumask_clear, cpumask_empty, cpumask_or
from designs.design import hook
from designs.luf.generations import clean_left
from designs.luf.published import publish_generation, wait_for_generation
from designs.luf.records import lock_record, of_key, unlock_record
from designs.luf.ugen import LOW, before, check_done, diet, flush_and_mark, newer
from designs.luf_v12.batches import reset_luf, reset_ro
from designs.luf_v12.fields import v12_state
from designs.luf_v12.generations import next_ugen, prev_ugen, whole_generation
from designs.measure import MERGED, note_takeoff


@kernel
def enough_clean_pages(ram, zone):
    """non_luf_pages_ok: NR_FREE_PAGES - nr_luf_pages > MIN."""
    return clean_left(ram, zone) > ram.wmark_min[zone]


@hook("take_begin")
def v12_take_begin(ram, cpu, zone, preemptible, c, d):
    """luf_takeoff_start: may this section shoot down? Patch 22: not under the pcp lock while the zone has
    enough clean pages.
    """
    state = v12_state(ram)
    state.takeoff_began[cpu] = ram.cpu_clock[cpu]
    state.section_zone[cpu] = zone
    allowed = ram.cpu_irq_off[cpu] == 0 and ram.cpu_in_irq[cpu] == 0
    if zone >= 0 and not preemptible and enough_clean_pages(ram, zone):
        allowed = False
    if not allowed or state.no_shootdown[cpu]:
        state.no_shootdown[cpu] += 1
    return 0


@hook("take_check")
def v12_take_check(ram, cpu, zone, pfn, key, order):
    """luf_takeoff_check: nothing pending any more, or a shootdown is allowed."""
    state = v12_state(ram)
    if not state.no_shootdown[cpu]:
        return 1
    if zone < 0:
        record = of_key(ram, key)
        return 1 if check_done(ram, state, cpu, state.record_mask, record, state.record_ugen[record]) else 0
    done = not before(ram.zone_key_done[zone], whole_generation(key & LOW, state.zone_ugen[zone]))
    return 1 if done else 0


@hook("take")
def v12_take(ram, cpu, zone, pfn, key, order):
    """luf_takeoff_check_and_fold: whom to flush, or whose flush to wait for."""
    state = v12_state(ram)
    if zone < 0:
        record = of_key(ram, key)
        lock_record(ram, state, cpu, record)
        ugen = state.record_ugen[record]
        if check_done(ram, state, cpu, state.record_mask, record, ugen):
            state.stat[cpu, MERGED] += 1
        else:
            cpumask_or(state.take_mask, cpu, state.record_mask, record)
            state.take_ugen[cpu] = newer(state.take_ugen[cpu], ugen)
        unlock_record(ram, state, cpu, record)
        return 0
    generation = whole_generation(key & LOW, state.zone_ugen[zone])
    if state.own_generation[cpu]:
        return 0  # the flush that this section owes covers it
    if generation != state.zone_ugen[zone]:  # somebody else owns it
        if state.wait_generation[cpu] == 0 or before(state.wait_generation[cpu], generation):
            state.wait_generation[cpu] = generation
        return 0
    state.own_generation[cpu], state.wait_generation[cpu] = generation, prev_ugen(generation)
    state.take_ugen[cpu] = newer(state.take_ugen[cpu], state.zone_luf_ugen[zone])
    state.zone_ugen[zone] = next_ugen(generation)
    ram.zone_key_claimed[zone] = generation
    ram.zone_pending[zone] = 0  # nr_luf_pages
    cpumask_or(state.take_mask, cpu, state.zone_batch, zone)
    cpumask_clear(state.zone_batch, zone)
    return 0


@kernel
def flush_takeoff(ram, state, cpu):
    """Flush for the pages taken; whom it reaches is also done with what the task itself has pending (cleared
    earlier).
    """
    if diet(ram, state, cpu, state.take_mask, cpu, state.take_ugen[cpu]):
        return
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_ALLOC
    flush_and_mark(ram, state, cpu, state.take_mask, cpu)
    ram.cpu_site[cpu] = site
    if ram.ubc_required[cpu] and not cpumask_andnot(ram.ubc_mask, cpu, ram.tmp_mask, cpu):
        ram.ubc_required[cpu] = ram.ubc_writable[cpu] = 0
    if state.ro_required[cpu] and not cpumask_andnot(state.ro_mask, cpu, ram.tmp_mask, cpu):
        reset_ro(state, cpu)
    if state.lazy_required[cpu] and not cpumask_andnot(state.lazy_mask, cpu, ram.tmp_mask, cpu):
        reset_luf(state, cpu)


@hook("take_done")
def v12_take_done(ram, cpu, a, b, c, d):
    """luf_takeoff_end: flush, wait for the generation before, publish the own one. Only then the pages may be
    used.
    """
    state = v12_state(ram)
    if state.no_shootdown[cpu]:
        state.no_shootdown[cpu] -= 1
        note_takeoff(ram, state, cpu)
        return 0
    began, zone = ram.cpu_clock[cpu], state.section_zone[cpu]
    if not cpumask_empty(state.take_mask, cpu):
        flush_takeoff(ram, state, cpu)
    fence()
    own, other = state.own_generation[cpu], state.wait_generation[cpu]
    state.own_generation[cpu] = state.wait_generation[cpu] = state.take_ugen[cpu] = 0
    if other:
        if own == 0:
            state.stat[cpu, MERGED] += 1
        wait_for_generation(ram, state, cpu, zone, other)
    if own:
        publish_generation(ram, state, cpu, zone, own, began)
    note_takeoff(ram, state, cpu)
    return 0


@hook("pend_first")
def v12_pend_first(ram, cpu, zone, b, c, d):
    """get_page_from_free_area: within an order, clean blocks first while there are enough of them, else
    pending ones first.
    """
    return CLEAN_FIRST if enough_clean_pages(ram, zone) else PEND_FIRST
