"""LUF's take-off: pages leave the allocator through a flush, unless their CPUs are up to date.

A take-off is a section (v12 patches 09, 10, 12) in which pages are taken; who must be flushed for them is
gathered, and they may be used when it is over. What happens at its end is the parameter `sync`
(designs/luf/sync/).
"""

from allocator.buddy import CLEAN_ONLY, PEND_FIRST
from cpus.compiled import kernel
from cpus.cpumask import cpumask_clear, cpumask_empty
from designs.design import hook
from designs.luf.fields import luf_state
from designs.luf.generations import clean_left
from designs.luf.records import add_record, of_key
from designs.luf.ugen import NO_UGEN, diet, flush_and_mark, newer
from designs.measure import MERGED


@hook("take_begin")
def luf_take_begin(ram, cpu, zone, b, c, d):
    luf_state(ram).takeoff_began[cpu] = ram.cpu_clock[cpu]
    return 0


@hook("take_check")
def luf_take_check(ram, cpu, zone, pfn, key, order):
    return 1  # every allocation here runs in a context that may wait


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
    ugen = add_record(ram, state, cpu, of_key(ram, key), state.take_mask, cpu)
    state.take_ugen[cpu] = newer(state.take_ugen[cpu], ugen)


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
    state.take_ugen[cpu] = NO_UGEN
    return late
