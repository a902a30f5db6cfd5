"""LATR, lazy TLB coherence (Kumar, Maass, Kashyap, Veselý, Yan, Kim, Bhattacharjee, Krishna, ASPLOS 2018).

Mechanism: unmapping read-only pages interrupts nobody. The unmapper leaves a record, {CPUs that may cache the
mms, stamp}, in its own ring of RING records. Every CPU, at its tick, at a context switch and when it idles,
sweeps the rings of all: if it finds its bit it flushes and clears the bit; who clears the last bit frees the
record. The frames are held back (held.py) until no record is as old as their stamp. If the ring is full, the
batch goes by interrupts. A generation of frames that has waited longer than TIMEOUT_NS is completed by
interrupts to whoever still has a bit (the paper's background thread); so is what is held when no other memory
is left. Safety: a frame gets a new owner only when every CPU that could have its old translation has flushed
after it was unmapped. CPUs that are away when the record is written are left out of it: they look at tlb_gen,
raised before, when they come back. A CPU that goes away clears its bits without a flush for the same reason.
With `munmap=lazy`, the default, a munmap of private anonymous memory flushes its own CPU and leaves a record
for the others as well; its frames are held, and who maps an address again before the last sweep (hook_map)
has the records completed first. A program that uses what it has unmapped is then reported as access after
completion, although the paper calls that the program's own race; with `munmap=wait` such a call returns when
all have flushed.
Simplified: the paper leaves addresses that are pending out of the search for a free range. Munmaps that free
page tables, or pages that others hold, flush as usual; madvise does, since its addresses stay in use. Since
the emulator unmaps and frees at once, where the paper leaves a page that is swapped or migrated mapped until
the last sweep, what must not contradict an old translation (write faults, file writes, truncation) completes
the records first. Ticks come every 4 ms, the paper's every 1 ms. Writing and reading records takes no virtual
time.
"""

from allocator.flush_sites import SITE_USER
from allocator.tlb_flush import flush_tlb_func, inc_mm_tlb_gen
from cpus.atomics import compare_exchange, fence, fetch_max, load_acquire, store_release
from cpus.compiled import Entry, entry, kernel
from cpus.cpumask import (
    __cpumask_clear_cpu,
    __cpumask_set_cpu,
    cpumask_clear,
    cpumask_clear_cpu,
    cpumask_copy,
    cpumask_empty,
    cpumask_or,
    cpumask_test_cpu,
    for_each_cpu,
)
from cpus.layout import Sizes
from designs.deferral import end_deferred_batch, give_up_deferring
from designs.design import Design, hook, hooks
from designs.held import (
    FORCE,
    HELD_HOOKS,
    HELD_RELIES_ON,
    NEWEST,
    VISIBLE,
    ask_called,
    catch_up,
    force,
    held_fields,
    held_statistics,
    hold_unmap,
    is_away,
    new_stamp,
    prepare_held,
    release_zones,
)
from designs.linux import flush_pending, linux_mapping_change
from designs.state import own_fields
from designs.unmapped import note_unmapped, other_cpus_may_wait, unmapped_fields, was_unmapped

RING = 64  # records of a CPU, if nothing else is chosen


def latr_fields(sizes: Sizes, ring: int = RING) -> dict[str, tuple[int, ...]]:
    """Shared fields: those of held frames, and the rings."""
    records = sizes.nr_cpus * ring
    return held_fields(sizes) | unmapped_fields(sizes) | {
        "ring": (1,),  # config: records of a ring
        # 0 free; the ring's CPU takes it, who clears the last bit frees it (compare-exchange)
        "record_stamp": (records,),
        # the ring's CPU before record_stamp; then each CPU clears its own bit
        "record_mask": (records, sizes.mask_words),
        "next_record": (sizes.nr_cpus,),  # owner
        # owner writes, any reads: no stamp of its batch is older; 0 it has none that is not published
        "open_stamp": (sizes.nr_cpus,),
        "fallbacks": (sizes.nr_cpus,),  # owner: batches and munmaps that found the ring full
        "lazy_munmaps": (sizes.nr_cpus,),  # owner: those that left a record
        "unmapped_stamp": (sizes.nr_mms,),  # mmap_lock held for writing: newest stamp of what is unmapped
        # owner: stamp of each record in which the sweep under way has found its bit
        "seen": (sizes.nr_cpus, records),
    }  # fmt: skip


latr_state = own_fields("latr", latr_fields)


@kernel
def next_record(state, cpu):
    """The place in its ring for this CPU's next record; it is free if its stamp is 0, and nobody else fills
    it.
    """
    return cpu * state.ring[0] + state.next_record[cpu] % state.ring[0]


@kernel
def has_others(ram, state, cpu, mm):
    """Put the CPUs of an mm into this CPU's deferred batch, but for itself; is anybody left?"""
    cpumask_or(state.lazy_mask, cpu, ram.mm_cpumask, mm)
    __cpumask_clear_cpu(cpu, state.lazy_mask, cpu)
    return not cpumask_empty(state.lazy_mask, cpu)


@kernel
def publish(ram, state, cpu):
    """Leave a record for the deferred batch; returns its pages' stamp, 0 if the ring is full."""
    record = next_record(state, cpu)
    if load_acquire(state.record_stamp, record) != 0:
        return 0
    state.next_record[cpu] += 1
    fence()  # the PTEs are cleared and tlb_gen is raised, before the look at who is away
    for other in for_each_cpu(state.lazy_mask, cpu):
        if is_away(ram, other):
            __cpumask_clear_cpu(other, state.lazy_mask, cpu)
    cpumask_copy(state.record_mask, record, state.lazy_mask, cpu)
    if not cpumask_empty(state.lazy_mask, cpu):
        store_release(state.record_stamp, record, state.open_stamp[cpu])  # that of its oldest unmap, or older
    return new_stamp(state)


@kernel
def leave_record(state, record, cpu, stamp):
    """Drop this CPU from a record; the last one frees it."""
    cpumask_clear_cpu(cpu, state.record_mask, record)
    if cpumask_empty(state.record_mask, record):
        # whoever saw it empty too may have been faster
        compare_exchange(state.record_stamp, record, stamp, 0)


@kernel
def sweep_records(ram, state, cpu):
    """Flush if any record names this CPU, then leave the records that were there before the flush."""
    found = False
    for record in range(ram.nr_cpus * state.ring[0]):
        stamp = load_acquire(state.record_stamp, record)
        named = stamp != 0 and cpumask_test_cpu(cpu, state.record_mask, record)
        state.seen[cpu, record] = stamp if named else 0
        found |= named
    if found:
        catch_up(ram, state, cpu)
        for record in range(ram.nr_cpus * state.ring[0]):
            if state.seen[cpu, record] != 0:
                leave_record(state, record, cpu, state.seen[cpu, record])


@kernel
def is_waited_for(ram, state, record):
    """Does a record still name a CPU that is not away?"""
    for other in for_each_cpu(state.record_mask, record):
        if not is_away(ram, other):
            return True
    return False


@kernel
def look_at_all(ram, state):
    """Raise `safe` to just below the oldest batch that has a record, or none yet; the stamp of the oldest
    without, a large one if none is.

    Batches before records: one that ends in between has its record by then.
    """
    stamp = load_acquire(state.stamp, 0)
    fence()  # the counter first: what begins later draws larger stamps
    oldest = NEWEST
    for other in range(ram.nr_cpus):
        open_stamp = load_acquire(state.open_stamp, other)
        if open_stamp != 0:
            oldest = min(oldest, open_stamp)
    stamp = min(stamp, oldest - 1)
    for record in range(ram.nr_cpus * state.ring[0]):
        older = load_acquire(state.record_stamp, record)
        if older != 0 and older <= stamp and is_waited_for(ram, state, record):
            stamp = older - 1
    fetch_max(state.safe, 0, stamp)
    return oldest


@entry(FORCE)
def latr_force(ram, cpu, stamp, why):
    """Interrupt whoever a record up to `stamp` still names.

    A batch that somebody is gathering names nobody yet: if it is as old, everybody is asked.
    """
    state = latr_state(ram)
    sweep_records(ram, state, cpu)
    cpumask_clear(ram.call_mask, cpu)
    if look_at_all(ram, state) <= stamp:
        for other in range(ram.nr_cpus):
            if not is_away(ram, other):
                __cpumask_set_cpu(other, ram.call_mask, cpu)
    for record in range(ram.nr_cpus * state.ring[0]):
        older = load_acquire(state.record_stamp, record)
        if older != 0 and older <= stamp:
            cpumask_or(ram.call_mask, cpu, state.record_mask, record)
    ask_called(ram, state, cpu, why)
    look_at_all(ram, state)
    return 0


@kernel
def open_batch(state, cpu):
    """Say that stamps are about to be drawn for what has no record yet."""
    if state.open_stamp[cpu] == 0:
        store_release(state.open_stamp, cpu, load_acquire(state.stamp, 0) + 1)
        fence()  # before the first stamp of the batch is drawn: pairs with look_at_all


@hook("pte_cleared")
def latr_pte_cleared(ram, cpu, mm, vpn, pte, object):
    state = latr_state(ram)
    open_batch(state, cpu)
    return hold_unmap(ram, state, cpu, mm, pte, object)


@hook("unmap_flush")
def latr_unmap_flush(ram, cpu, a, b, c, d):
    flush_pending(ram, cpu)
    store_release(latr_state(ram).open_stamp, cpu, 0)  # flushed or published
    return 0


@hook("batch_key")
def latr_batch_key(ram, cpu, a, b, c, d):
    """Publish the batch in this CPU's ring; if that is full, the batch is flushed by interrupts, as
    vanilla's.
    """
    state = latr_state(ram)
    if not state.lazy_required[cpu]:
        return 0
    stamp = publish(ram, state, cpu)
    if stamp == 0:
        give_up_deferring(ram, state, cpu)
        state.fallbacks[cpu] += 1
    end_deferred_batch(state, cpu)
    return stamp


# --- munmap -------------------------------------------------------------------------------------------------


@kernel
def is_unswept(state, mm):
    """Has the process unmapped anything that a record may still be about?"""
    return load_acquire(state.safe, 0) < state.unmapped_stamp[mm]


@hook("user_flush")
def latr_user_flush(ram, cpu, mm, start, end, munmap):
    """A munmap is about to flush: leave a record for the other CPUs instead, and have the pages held. Nobody
    else, or no room: as usual.
    """
    state = latr_state(ram)
    if state.open_stamp[cpu] != 0 or not other_cpus_may_wait(ram, cpu, munmap):
        return 0
    room = load_acquire(state.record_stamp, next_record(state, cpu)) == 0
    stamp = 0
    # else who flushes as usual raises tlb_gen: raised twice, a range becomes everything
    if room and has_others(ram, state, cpu, mm):
        gen = inc_mm_tlb_gen(ram, mm)
        # who has loaded the mm since then has seen the new tlb_gen; who had before is here
        has_others(ram, state, cpu, mm)
        open_batch(state, cpu)
        flush_tlb_func(ram, cpu, mm, start, end, gen, 0, cpu)
        stamp = publish(ram, state, cpu)
    state.fallbacks[cpu] += not room
    if stamp:
        note_unmapped(state, mm, start, end, not is_unswept(state, mm))
        state.unmapped_stamp[mm] = stamp
        state.lazy_munmaps[cpu] += 1
    store_release(state.open_stamp, cpu, 0)
    end_deferred_batch(state, cpu)
    return stamp


@hook("map")
def latr_map(ram, cpu, mm, start, end, d):
    """Addresses are about to be used: none of them may have an old translation."""
    state = latr_state(ram)
    if is_unswept(state, mm) and was_unmapped(state, mm, start, end):
        ram.unmapped_used_again[cpu] += 1
        site = ram.cpu_site[cpu]
        ram.cpu_site[cpu] = SITE_USER
        force(ram, state, cpu, state.unmapped_stamp[mm], VISIBLE)
        ram.cpu_site[cpu] = site
    return 0


# --- where CPUs sweep ---------------------------------------------------------------------------------------


@hooks("context_switch", "tick", "idle")
def latr_sweep(ram, cpu, a, b, c, d):
    """Do what the rings ask for, and release what that makes safe."""
    state = latr_state(ram)
    sweep_records(ram, state, cpu)
    oldest = look_at_all(ram, state)
    release_zones(ram, state, cpu, oldest - 1)  # a batch that is being gathered ends by itself
    return 0


@hook("interrupt")
def latr_interrupt(ram, cpu, sender, b, c, d):
    """Whoever is interrupted for a flush sweeps at once."""
    sweep_records(ram, latr_state(ram), cpu)
    return 0


class Latr(Design):
    """unmappers leave notes, each CPU sweeps them at tick and switch; frames wait for all (ASPLOS 2018)"""

    name = "latr"
    relies_on = (*HELD_RELIES_ON, "ring_full")
    parameters = {  # noqa: RUF012
        "ring": {
            str(RING): "a ring of 64 records for each CPU",
            "256": "256 records, as in the authors' code",
        },
        "munmap": {
            "lazy": "munmap of private anonymous memory leaves a record, too",
            "wait": "munmap returns when all have flushed",
        },
    }
    hooks: tuple[Entry, ...] = (
        *HELD_HOOKS, linux_mapping_change, latr_force, latr_pte_cleared, latr_unmap_flush, latr_batch_key,
        *latr_sweep, latr_interrupt,
    )  # fmt: skip

    def __init__(self, **given: str):
        super().__init__(**given)
        if self.chosen["munmap"] == "lazy":
            self.hooks = (*type(self).hooks, latr_user_flush, latr_map)
            self.relies_on = (*self.relies_on, "lazy_munmaps", "unmapped_used_again")

    def fields(self, sizes: Sizes):
        return latr_fields(sizes, int(self.chosen["ring"]))

    def prepare(self, ram) -> None:
        prepare_held(ram)
        ram.design["ring"][0] = int(self.chosen["ring"])

    def statistics(self, ram):
        own = ram.design
        return held_statistics(ram) | {
            "ring_full": int(own["fallbacks"].sum()),
            "lazy_munmaps": int(own["lazy_munmaps"].sum()),
        }
