"""Frames that are free but held back until every CPU has flushed since they were unmapped: what `epoch`,
`latr` and `fpr` share.

A *stamp* is a number of one counter, drawn after a PTE was cleared and the mm's tlb_gen raised. `safe` is a
stamp up to which every CPU has flushed, or will before it next uses the address space; how that is known, and
how it is forced, is each design's own. Held frames are the allocator's, so that it and the audit know where
each one is: a frame goes back with its stamp as key, in the pcp list by itself, in the buddy on a pend list
with the zone's open *generation*. A generation is closed (frees go into the next), and when `safe` has
reached the newest stamp in it, it is done and its blocks are as good as any. Clean blocks of any order are
taken before held ones; who finds nothing else forces: so memory cannot run out while frames are held, and
nobody waits for a tick. Only read-only, clean mappings are held back: what a stale one shows stays right
until the frame's bytes, the file's page or the mapping change, and before that the design forces too (write
faults, writes to a file, truncation, a user's change of mappings).
"""

from typing import Any

from allocator.flush_sites import SITE_ALLOC, SITE_FILE
from allocator.lru import lru_add_drain
from allocator.page_alloc import free_changes_bytes
from allocator.page_cache import OBJECT_ANON
from allocator.tlb_flush import (
    FLUSH_ALL,
    INIT_MM,
    NO_GENERATION,
    flush_called,
    flush_tlb_func,
    inc_mm_tlb_gen,
)
from allocator.vma import VM_ANON, VM_SHARED
from cpus.atomics import fence, fetch_add, fetch_max, load_acquire, store_release
from cpus.compiled import kernel
from cpus.cpumask import cpumask_clear, cpumask_or, cpumask_test_cpu, cpumask_weight
from cpus.layout import NR_ORDERS, Sizes
from cpus.locks import LOCK_ZONE, spin_lock_irq, spin_unlock_irq
from cpus.page_table import PTE_DIRTY, PTE_WRITE
from designs.design import hook
from designs.linux import count_pending, flush_pending, set_flush_pending
from designs.state import own_fields

FIRST_GENERATION = 1
# why CPUs are asked by interrupts: nothing but held frames is left, they were held too long, something
# becomes visible
TAKEN, TIMED_OUT, VISIBLE, FILE_CHANGED = range(4)
WHY = ("taken", "timed_out", "visible", "file_changed")


def held_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shared fields of a design that holds frames back."""
    return {
        "stamp": (1,),  # any, add
        "safe": (1,),  # any, atomic maximum
        # any, atomic maximum: newest stamp of the mm, of the file
        "mm_stamp": (sizes.nr_mms,), "file_stamp": (sizes.nr_objects,),
        "zone_stamp": (sizes.nr_zones,),  # zone lock held: newest stamp freed into the zone
        "zone_generation": (sizes.nr_zones,),  # zone lock held: generation that frees go into
        "closed_stamp": (sizes.nr_zones,),  # zone lock held: newest stamp of the generations that are closed
        "closed_ns": (sizes.nr_zones,),  # zone lock held: virtual time at which the newest was closed
        # owner: the page being unmapped
        "ro_mask": (sizes.nr_cpus, sizes.mask_words), "ro_count": (sizes.nr_cpus,),
        "rw_seen": (sizes.nr_cpus,),  # owner: one of its mappings could not be deferred
        # owner: deferred mappings of the batch
        "lazy_mask": (sizes.nr_cpus, sizes.mask_words), "lazy_count": (sizes.nr_cpus,),
        "need": (sizes.nr_cpus,),  # owner: stamp that what it takes off asks for
        "own_generation": (sizes.nr_cpus, sizes.nr_zones),  # owner: generation that it has taken blocks of
        # owner: interrupts sent, and to how many CPUs
        "rounds": (sizes.nr_cpus, len(WHY)), "asked": (sizes.nr_cpus, len(WHY)),
    }  # fmt: skip


# A design's own fields begin with these, so the hooks below see them in every such design.
held_state = own_fields("held", held_fields(Sizes(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)))


def prepare_held(ram) -> None:
    """Set the initial values; held blocks do not merge with clean ones."""
    ram.set_constant("pend_apart", 1)
    ram.design["stamp"][:] = ram.design["safe"][:] = 1
    ram.design["zone_generation"][:] = FIRST_GENERATION


def held_statistics(ram: Any) -> dict[str, Any]:
    """Say why CPUs were asked by interrupts, how often and how many, in a run that is over."""
    return {
        name: dict(zip(WHY, ram.design[name].sum(axis=0).tolist(), strict=True))
        for name in ("rounds", "asked")
    }


# --- unmapping ----------------------------------------------------------------------------------------------


@kernel
def defer_unmap(ram, state, cpu, mm, pte, thing):
    """A PTE was cleared: 1 if its flush may wait, else it joins vanilla's batch."""
    if pte & (PTE_WRITE | PTE_DIRTY) or free_changes_bytes(ram):
        state.rw_seen[cpu] = 1
        set_flush_pending(ram, cpu, mm, pte)
        return 0
    inc_mm_tlb_gen(ram, mm)
    count_pending(ram, mm)
    cpumask_or(state.ro_mask, cpu, ram.mm_cpumask, mm)
    state.ro_count[cpu] += 1
    stamp = fetch_add(state.stamp, 0, 1) + 1
    fetch_max(state.mm_stamp, mm, stamp)
    fetch_max(state.file_stamp, thing, stamp)
    return 1


@kernel
def judge_page(ram, state, cpu, all_deferred, complete):
    """One mapping that could not wait, or one that is still there, makes the whole page vanilla; 1 if it may
    be held.
    """
    lazy = all_deferred != 0 and complete != 0 and state.rw_seen[cpu] == 0
    if state.ro_count[cpu]:
        if lazy:
            cpumask_or(state.lazy_mask, cpu, state.ro_mask, cpu)
            state.lazy_count[cpu] += state.ro_count[cpu]
        else:
            cpumask_or(ram.ubc_mask, cpu, state.ro_mask, cpu)
            ram.ubc_required[cpu] = 1
        cpumask_clear(state.ro_mask, cpu)
    state.ro_count[cpu], state.rw_seen[cpu] = 0, 0
    return 1 if lazy else 0


@kernel
def gathered_is_private(ram, cpu):
    """Is every page of this CPU's open gather private anonymous memory that nobody else holds?"""
    lru_add_drain(ram, cpu)  # a reference of this CPU's batch is nobody's
    for i in range(ram.gather_pages[cpu]):
        pfn = ram.gather[cpu, i]
        thing = ram.page_object[pfn] - 1
        if thing < 0 or ram.object_kind[thing] != OBJECT_ANON or load_acquire(ram.page_refcount, pfn) != 1:
            return False
    return ram.gather_pages[cpu] > 0


@kernel
def give_up_deferring(ram, state, cpu):
    """Have the batch flushed now after all; its pages may still get a key."""
    if state.lazy_count[cpu]:
        cpumask_or(ram.ubc_mask, cpu, state.lazy_mask, cpu)
        ram.ubc_required[cpu] = 1


@kernel
def end_batch(ram, state, cpu):
    """Forget the deferred batch, whose stamp is its pages' key from here on."""
    state.lazy_count[cpu] = 0
    cpumask_clear(state.lazy_mask, cpu)


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
def close_generation(ram, state, zone, now):
    """Let later frees go into the next generation; zone lock held."""
    ram.zone_key_claimed[zone] = state.zone_generation[zone]
    state.closed_stamp[zone], state.closed_ns[zone] = state.zone_stamp[zone], now
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
        close_generation(ram, state, zone, ram.cpu_clock[cpu])
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
            spin_lock_irq(ram, cpu, ram.zone_lock, zone, LOCK_ZONE | zone)
            if ram.zone_key_done[zone] < own:
                store_release(ram.zone_key_done, zone, own)
            spin_unlock_irq(ram, cpu, ram.zone_lock, zone, LOCK_ZONE | zone)


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
        spin_lock_irq(ram, cpu, ram.zone_lock, zone, LOCK_ZONE | zone)
        if ram.zone_key_done[zone] == ram.zone_key_claimed[zone] and ram.zone_pending[zone] > 0:
            close_generation(ram, state, zone, ram.cpu_clock[cpu])
            # closed, before the look at `safe`: of two CPUs that go idle at once one sees the other's
            fence()
        if ram.zone_key_done[zone] < ram.zone_key_claimed[zone]:
            if load_acquire(state.safe, 0) >= state.closed_stamp[zone]:
                store_release(ram.zone_key_done, zone, ram.zone_key_claimed[zone])
            else:
                waited = max(waited, ram.cpu_clock[cpu] - state.closed_ns[zone])
        spin_unlock_irq(ram, cpu, ram.zone_lock, zone, LOCK_ZONE | zone)
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
    """Will this CPU look at tlb_gen before it next runs user code? (idle, a kernel thread, or nothing loaded)"""
    return load_acquire(ram.cpu_lazy, other) != 0 or load_acquire(ram.cpu_loaded_mm, other) == INIT_MM


@kernel
def stamp_of_write_fault(ram, state, mm, vma, thing):
    """Stamp up to which all must have flushed before a mapping of this VMA becomes writable."""
    stamp = load_acquire(state.mm_stamp, mm)
    if ram.vma_flags[vma] & VM_SHARED and ram.vma_flags[vma] & VM_ANON == 0:
        stamp = max(stamp, load_acquire(state.file_stamp, thing))
    return stamp


# --- hooks that say no more than this -----------------------------------------------------------------------


@hook("walk_done")
def held_walk_done(ram, cpu, pfn, all_deferred, complete, d):
    return judge_page(ram, held_state(ram), cpu, all_deferred, complete)


@hook("unmap_flush_dirty")
def held_unmap_flush_dirty(ram, cpu, everything, b, c, d):
    if everything:
        give_up_deferring(ram, held_state(ram), cpu)
    if everything or ram.ubc_writable[cpu]:
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


HELD_HOOKS = (held_walk_done, held_unmap_flush_dirty, held_page_freed, held_take_check, held_take)
