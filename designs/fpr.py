"""FPR, fast page recycling (arXiv 2409.10946, 2024): pages that munmap takes stay with their process,
unflushed, until they leave it.

Mechanism: munmap of private anonymous memory flushes this CPU alone and frees the pages with a key. They lie
in the CPU's list, or held in the buddy (held.py); a clean page is taken before them. If the same process
takes one again from its CPU's list, nobody is flushed: an old translation of that process shows memory of
that process. If anybody else takes one, or the buddy gives one out, all processes with something pending are
flushed first, once for all that they have unmapped so far.
Safety: no process reads a page of another process. Within the process an old translation is harmless as long
as nobody uses its address again, which a program does not before it is mapped anew (hook_map: then the
process is flushed). munmap raised tlb_gen, so any other flush of that process that reaches a CPU is a full
one there, and completes what was left; who loads it later compares. Simplified: every private anonymous
mapping counts as made with the paper's mmap flag; its pools are the CPUs' lists; a page table or page-cache
page that a process takes for itself counts as its own (so it could still read it, and write to it, at the old
address, where the paper flushes before any other use), as do the pages and tables of a child that it forks
and the copies that it makes in other processes for a breakpoint; munmaps that free page tables, or pages that
others hold, flush as usual; madvise does, since its addresses stay in use. Reclaim and migration are
vanilla's. A program that uses what it has unmapped is reported as access after completion, although the paper
calls that its own fault.
"""

from allocator.flush_sites import SITE_ALLOC, SITE_USER
from allocator.tlb_flush import flush_tlb_func, flush_tlb_mm, inc_mm_tlb_gen
from cpus.atomics import fetch_max, load_acquire
from cpus.compiled import entry, kernel
from cpus.layout import Sizes
from designs.design import Design, hook
from designs.held import (
    FORCE,
    held_fields,
    held_take_done,
    may_take,
    new_stamp,
    note_taken,
    prepare_held,
)
from designs.linux import Linux
from designs.state import own_fields
from designs.unmapped import note_unmapped, other_cpus_may_wait, unmapped_fields, was_unmapped


def fpr_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shared fields: those of held frames, and what each process has pending."""
    return held_fields(sizes) | unmapped_fields(sizes) | {
        "mm_done": (sizes.nr_mms,),  # any, atomic maximum: stamp up to which the mm is flushed everywhere
        # who frees the frame: whose it was, and until when
        "frame_mm": (sizes.nr_frames,), "frame_stamp": (sizes.nr_frames,),
        "recycled": (sizes.nr_cpus,),  # owner: pages that went back to their process
        "kept": (sizes.nr_cpus,),  # owner: munmaps without a shootdown
    }  # fmt: skip


fpr_state = own_fields("fpr", fpr_fields)


@kernel
def is_pending(state, mm):
    """Has the process unmapped anything that is not flushed?"""
    return load_acquire(state.mm_done, mm) < load_acquire(state.mm_stamp, mm)


@kernel
def complete(ram, state, cpu, mm):
    """Flush what a process has pending, on every CPU."""
    if is_pending(state, mm):
        stamp = load_acquire(state.stamp, 0)
        flush_tlb_mm(ram, cpu, mm)
        fetch_max(state.mm_done, mm, stamp)


@hook("user_flush")
def fpr_user_flush(ram, cpu, mm, start, end, munmap):
    """A munmap is about to flush: keep its pages for the process instead."""
    state = fpr_state(ram)
    if not other_cpus_may_wait(ram, cpu, munmap):
        return 0
    note_unmapped(state, mm, start, end, not is_pending(state, mm))
    gen = inc_mm_tlb_gen(ram, mm)
    stamp = new_stamp(state)
    fetch_max(state.mm_stamp, mm, stamp)
    for i in range(ram.gather_pages[cpu]):
        state.frame_mm[ram.gather[cpu, i]], state.frame_stamp[ram.gather[cpu, i]] = mm, stamp
    flush_tlb_func(ram, cpu, mm, start, end, gen, 0, cpu)
    state.kept[cpu] += 1
    return stamp


@hook("map")
def fpr_map(ram, cpu, mm, start, end, d):
    """Addresses are about to be used: none of them may have an old translation."""
    state = fpr_state(ram)
    if was_unmapped(state, mm, start, end):
        ram.unmapped_used_again[cpu] += 1
        site = ram.cpu_site[cpu]
        ram.cpu_site[cpu] = SITE_USER
        complete(ram, state, cpu, mm)
        ram.cpu_site[cpu] = site
    return 0


@kernel
def frame_is_done(state, pfn):
    """Has the process that had the frame been flushed since it unmapped it?"""
    return state.frame_stamp[pfn] <= load_acquire(state.mm_done, state.frame_mm[pfn])


@hook("page_freed")
def fpr_page_freed(ram, cpu, zone, pfn, key, order):
    """A page leaves its CPU's list for the buddy."""
    state = fpr_state(ram)
    if frame_is_done(state, pfn):
        return 0
    state.zone_stamp[zone] = max(state.zone_stamp[zone], key)
    return state.zone_generation[zone]


@hook("take_check")
def fpr_take_check(ram, cpu, zone, pfn, key, order):
    state = fpr_state(ram)
    if zone >= 0:
        return may_take(ram, state, zone, key)
    own = ram.cpu_lazy[cpu] == 0 and ram.cpu_loaded_mm[cpu] == state.frame_mm[pfn]
    return 1 if own or frame_is_done(state, pfn) else 0


@hook("take")
def fpr_take(ram, cpu, zone, pfn, key, order):
    state = fpr_state(ram)
    if zone < 0:
        state.recycled[cpu] += 1
    note_taken(ram, state, cpu, zone, key)
    return 0


@entry(FORCE)
def fpr_force(ram, cpu, stamp, why):
    """Frames have left the pools: flush every process that has something pending."""
    state = fpr_state(ram)
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_ALLOC
    for mm in range(ram.nr_mms):
        complete(ram, state, cpu, mm)
    ram.cpu_site[cpu] = site
    return 0


class Fpr(Design):
    """pages of a munmap go back to their own process without a shootdown (arXiv 2409.10946)"""

    name = "fpr"
    relies_on = (
        *Linux.relies_on, "taken_pending", "held_closed", "munmaps_kept", "pages_recycled",
        "unmapped_used_again",
    )  # fmt: skip
    hooks = (
        *Linux.hooks,
        fpr_user_flush,
        fpr_map,
        fpr_page_freed,
        fpr_take_check,
        fpr_take,
        fpr_force,
        held_take_done,
    )

    def fields(self, sizes: Sizes):
        return fpr_fields(sizes)

    def prepare(self, ram) -> None:
        prepare_held(ram)

    def statistics(self, ram):
        return {
            "munmaps_kept": int(ram.design["kept"].sum()),
            "pages_recycled": int(ram.design["recycled"].sum()),
        }
