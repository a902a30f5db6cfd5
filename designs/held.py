"""Frames that are free but held back until every CPU has flushed since they were unmapped: what `epoch`,
`latr` and `fpr` share.

A *stamp* is a number of one counter, drawn after a PTE was cleared and the mm's tlb_gen raised. `safe` is a
stamp up to which every CPU has flushed, or will before it next uses the address space; how that is known, and
how it is forced (FORCE), is each design's own. Held frames are the allocator's, so that it and the audit know
where each one is: a frame goes back with its stamp as key, in the pcp list by itself, in the buddy on a pend
list with the zone's open *generation*. A generation is closed (frees go into the next), and when `safe` has
reached the newest stamp in it, it is done and its blocks are as good as any. Clean blocks of any order are
taken before held ones; who finds nothing else forces: so memory cannot run out while frames are held, and
nobody waits for a tick. Only read-only, clean mappings are held back: what a stale one shows stays right
until the frame's bytes, the file's page or the mapping change, and before that the design forces too (write
faults, writes to a file, truncation, a user's change of mappings).
"""

from typing import Any

from allocator.buddy import NR_ORDERS
from allocator.flush_sites import SITE_ALLOC, SITE_FILE
from allocator.page_alloc import free_changes_bytes
from allocator.sched import TICK_NS
from allocator.tlb_flush import FLUSH_ALL, INIT_MM, NO_GENERATION, flush_called, flush_tlb_func
from allocator.vma import is_shared_file
from cpus.abi.numbered import Numbered
from cpus.atomics import fence, fetch_add, fetch_max, load_acquire, store_release
from cpus.compiled import Text, call, kernel
from cpus.cpumask import cpumask_test_cpu, cpumask_weight
from cpus.declare import DEFERRED, Counter
from cpus.layout import Sizes
from cpus.locks import spin_lock_irq, spin_unlock_irq
from designs.deferral import (
    cannot_defer,
    defer_flush,
    deferral_fields,
    deferral_walk_done,
    is_clean_read_only,
    must_flush_before_io,
)
from designs.design import hook
from designs.linux import Linux, flush_pending
from designs.state import own_fields

FIRST_GENERATION = 1
TIMEOUT_NS = 2 * TICK_NS  # a closed generation that has waited longer is forced
NEWEST = 1 << 60  # above all stamps
# why CPUs are asked by interrupts: nothing but held frames is left, they were held too long, something
# becomes visible
WHY = Numbered[str]()
TAKEN = WHY.add("taken")
TIMED_OUT = WHY.add("timed_out")
VISIBLE = WHY.add("visible")
FILE_CHANGED = WHY.add("file_changed")
# (cpu, stamp, why): the design's entry that asks by interrupts whom it must; all have flushed up to the stamp
# when it returns
FORCE = Text("held_force", 3)


COUNTERS = (
    Counter("held_forced", DEFERRED, "times that CPUs were asked by interrupts for what is held back"),
    Counter("held_safe_already", DEFERRED, "times that all had flushed by themselves by then"),
    Counter("held_closed", DEFERRED, "generations of held frames that were closed"),
    Counter("unmapped_used_again", DEFERRED, "addresses used again while a flush of them was pending"),
)


def held_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shared fields of a design that holds frames back; its own begin with these."""
    zones, cpus = (sizes.nr_zones,), (sizes.nr_cpus,)
    return deferral_fields(sizes) | {
        "stamp": (1,),  # any, add
        "safe": (1,),  # any, atomic maximum
        # any, atomic maximum: newest stamp of the mm, of the file
        "mm_stamp": (sizes.nr_mms,), "file_stamp": (sizes.nr_objects,),
        "zone_stamp": zones,  # zone lock held: newest stamp freed into the zone
        "zone_generation": zones,  # zone lock held: generation that frees go into
        "closed_stamp": zones,  # zone lock held: newest stamp of the generations that are closed
        "closed_ns": zones,  # zone lock held: virtual time at which the newest was closed
        "need": cpus,  # owner: stamp that what it takes off asks for
        "own_generation": (sizes.nr_cpus, sizes.nr_zones),  # owner: generation that it has taken blocks of
        # owner: interrupts sent, and to how many CPUs
        "rounds": (sizes.nr_cpus, len(WHY)), "asked": (sizes.nr_cpus, len(WHY)),
    }  # fmt: skip


held_state = own_fields("held", held_fields)


def prepare_held(ram) -> None:
    """Set the initial values; held blocks do not merge with clean ones."""
    ram.set_constant("pend_apart", 1)
    ram.design["stamp"][:] = ram.design["safe"][:] = 1
    ram.design["zone_generation"][:] = FIRST_GENERATION


def held_statistics(ram: Any) -> dict[str, Any]:
    """Say why CPUs were asked by interrupts, how often and how many, in a run that is over."""
    return {
        name: dict(zip(WHY.values(), ram.design[name].sum(axis=0).tolist(), strict=True))
        for name in ("rounds", "asked")
    }


# --- unmapping ----------------------------------------------------------------------------------------------


@kernel
def new_stamp(state):
    """Draw a stamp, for what was unmapped before."""
    return fetch_add(state.stamp, 0, 1) + 1


@kernel
def hold_unmap(ram, state, cpu, mm, pte, object):
    """A PTE was cleared: 1 if its flush may wait, else it joins vanilla's batch."""
    if not is_clean_read_only(pte) or free_changes_bytes(ram):
        cannot_defer(ram, state, cpu, mm, pte)
        return 0
    defer_flush(ram, state, cpu, mm)
    stamp = new_stamp(state)
    fetch_max(state.mm_stamp, mm, stamp)
    fetch_max(state.file_stamp, object, stamp)
    return 1


# --- the allocator ------------------------------------------------------------------------------------------


@kernel
def enter_zone(ram, state, zone, stamp):
    """A page with a stamp enters the buddy, zone lock held: the generation to keep on the block, 0 if nothing
    is pending any more.
    """
    if stamp <= load_acquire(state.safe, 0):
        return 0
    state.zone_stamp[zone] = max(state.zone_stamp[zone], stamp)
    return state.zone_generation[zone]


@kernel
def may_take(ram, state, zone, key):
    """May a held block or page be taken? From a pcp list if it is safe; from the buddy only if there is
    nothing clean.
    """
    if zone < 0:
        return 1 if key <= load_acquire(state.safe, 0) else 0
    for order in range(NR_ORDERS):
        if ram.free_first[zone, order] >= 0:
            return 0
    return 1


@kernel
def close_generation(ram, state, cpu, zone):
    """Let later frees go into the next generation; zone lock held."""
    ram.zone_key_claimed[zone] = state.zone_generation[zone]
    state.closed_stamp[zone], state.closed_ns[zone] = state.zone_stamp[zone], ram.cpu_clock[cpu]
    ram.held_closed[cpu] += 1
    state.zone_generation[zone] += 1
    ram.zone_pending[zone] = 0


@kernel
def note_taken(ram, state, cpu, zone, key):
    """A held block leaves the buddy, zone lock held: its generation is closed, and to be forced at the end of
    the take-off.
    """
    if zone < 0:
        return
    if key > ram.zone_key_claimed[zone]:
        close_generation(ram, state, cpu, zone)
    state.need[cpu] = max(state.need[cpu], state.closed_stamp[zone])
    state.own_generation[cpu, zone] = max(state.own_generation[cpu, zone], key)


@kernel
def publish_taken(ram, state, cpu):
    """What this CPU has taken off is flushed: so is everything up to its generations."""
    state.need[cpu] = 0
    for zone in range(ram.nr_zones):
        own = state.own_generation[cpu, zone]
        if own:
            state.own_generation[cpu, zone] = 0
            spin_lock_irq(ram, cpu, ram.zone_lock, zone)
            if ram.zone_key_done[zone] < own:
                store_release(ram.zone_key_done, zone, own)
            spin_unlock_irq(ram, cpu, ram.zone_lock, zone)


@kernel
def advance_zones(ram, state, cpu):
    """Release what is safe and close what is open; returns virtual ns that the oldest closed generation has
    waited, 0 if none waits.
    """
    waited = 0
    for zone in range(ram.nr_zones):
        if (
            ram.zone_pending[zone] == 0
            and load_acquire(ram.zone_key_done, zone) == ram.zone_key_claimed[zone]
        ):
            continue  # racy look: next time
        spin_lock_irq(ram, cpu, ram.zone_lock, zone)
        if ram.zone_key_done[zone] == ram.zone_key_claimed[zone] and ram.zone_pending[zone] > 0:
            close_generation(ram, state, cpu, zone)
            # closed, before the look at `safe`: of two CPUs that go idle at once one sees the other's
            fence()
        if ram.zone_key_done[zone] < ram.zone_key_claimed[zone]:
            if load_acquire(state.safe, 0) >= state.closed_stamp[zone]:
                store_release(ram.zone_key_done, zone, ram.zone_key_claimed[zone])
            else:
                waited = max(waited, ram.cpu_clock[cpu] - state.closed_ns[zone])
        spin_unlock_irq(ram, cpu, ram.zone_lock, zone)
    return waited


# --- flushing, and asking for it ----------------------------------------------------------------------------


@kernel
def catch_up(ram, state, cpu):
    """Bring the loaded address space up to date; returns a stamp up to which this CPU has flushed. Not while
    interrupted user code waits.

    Stamps are drawn after tlb_gen was raised, so whoever reads the stamp first finds the generation behind
    it. A lazy CPU does nothing: it compares generations before it runs user code again.
    """
    stamp = load_acquire(state.stamp, 0)
    fence()
    if ram.cpu_lazy[cpu] == 0:
        flush_tlb_func(ram, cpu, INIT_MM, 0, FLUSH_ALL, NO_GENERATION, 0, cpu)
    return stamp


@kernel
def ask_called(ram, state, cpu, why):
    """Flush the CPUs in `call_mask`, this one among them or not, and put the interrupts down to what asks for
    them.
    """
    asked = cpumask_weight(ram.call_mask, cpu)
    if asked == 0:
        return
    others = asked - (1 if cpumask_test_cpu(cpu, ram.call_mask, cpu) else 0)
    if others > 0:
        state.rounds[cpu, why] += 1
        state.asked[cpu, why] += others
    before = ram.cpu_site[cpu]
    if why == TAKEN:
        ram.cpu_site[cpu] = SITE_ALLOC
    elif why == FILE_CHANGED:
        ram.cpu_site[cpu] = SITE_FILE
    flush_called(ram, cpu)
    ram.cpu_site[cpu] = before


@kernel
def is_away(ram, other):
    """Will this CPU look at tlb_gen before it next runs user code? (idle, kernel thread, nothing loaded)"""
    return load_acquire(ram.cpu_lazy, other) != 0 or load_acquire(ram.cpu_loaded_mm, other) == INIT_MM


@kernel
def force(ram, state, cpu, stamp, why):
    """All have flushed up to `stamp` when this returns; CPUs are asked unless that is known already."""
    if load_acquire(state.safe, 0) < stamp:
        ram.held_forced[cpu] += 1
        call(ram, FORCE, cpu, stamp, why)
    elif stamp > 0:
        ram.held_safe_already[cpu] += 1


@kernel
def release_zones(ram, state, cpu, newest):
    """Release what is safe; what has waited too long is forced, up to stamp `newest`."""
    if advance_zones(ram, state, cpu) > TIMEOUT_NS:
        force(ram, state, cpu, min(load_acquire(state.stamp, 0), newest), TIMED_OUT)
        advance_zones(ram, state, cpu)


# --- hooks --------------------------------------------------------------------------------------------------


@hook("unmap_flush_dirty")
def held_unmap_flush_dirty(ram, cpu, everything, b, c, d):
    if must_flush_before_io(ram, held_state(ram), cpu, everything):
        flush_pending(ram, cpu)
    return 0


@hook("page_freed")
def held_page_freed(ram, cpu, zone, pfn, key, order):
    return enter_zone(ram, held_state(ram), zone, key)


@hook("take_check")
def held_take_check(ram, cpu, zone, pfn, key, order):
    return may_take(ram, held_state(ram), zone, key)


@hook("take")
def held_take(ram, cpu, zone, pfn, key, order):
    note_taken(ram, held_state(ram), cpu, zone, key)
    return 0


@hook("take_done")
def held_take_done(ram, cpu, a, b, c, d):
    """Held frames have left the allocator: they may be used when all have flushed."""
    state = held_state(ram)
    if state.need[cpu]:
        force(ram, state, cpu, state.need[cpu], TAKEN)
        publish_taken(ram, state, cpu)
    return 0


@hook("write_fault")
def held_write_fault(ram, cpu, mm, vma, vpn, object):
    """A mapping becomes writable: nobody may go on reading the mm's, or the shared file's, old pages."""
    state = held_state(ram)
    stamp = load_acquire(state.mm_stamp, mm)
    if is_shared_file(ram, vma):
        stamp = max(stamp, load_acquire(state.file_stamp, object))
    force(ram, state, cpu, stamp, VISIBLE)
    return 0


@hook("file_write")
def held_file_write(ram, cpu, object, page, c, d):
    state = held_state(ram)
    force(ram, state, cpu, load_acquire(state.file_stamp, object), FILE_CHANGED)
    return 0


@hook("truncate")
def held_truncate(ram, cpu, object, page, c, d):
    state = held_state(ram)
    force(ram, state, cpu, load_acquire(state.file_stamp, object), VISIBLE)
    return 0


HELD_HOOKS = (
    deferral_walk_done, held_unmap_flush_dirty, held_page_freed, held_take_check, held_take, held_take_done,
    held_write_fault, held_file_write, held_truncate,
)  # fmt: skip
HELD_RELIES_ON: tuple[str, ...] = (
    *Linux.relies_on, "taken_pending", "kept_with_pending", "held_forced", "held_safe_already", "held_closed",
)  # fmt: skip
