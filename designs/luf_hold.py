"""LUF's first approach (migrc v1-v8, 2023-24; slides, "Approaches" 1): a page that was unmapped lazily is
kept back until it is flushed.

Mechanism: what was unmapped read-only is not freed at all: its frame stays aside with its bytes, and its CPUs
join one mask for the whole machine. Any flush of that mask gives all frames that are aside back at once. It
is sent when an allocation finds no zone above its low watermark (v3-v8: pause in __alloc_pages_slowpath),
when more than a bound are aside (v2: 512 per node), and before a mapping of one becomes writable, a file
changes, or is cleaned. Frames that are aside are not free: watermarks see less memory. Source: the patch
mails up to v8. They took it for migration only; here what reclaim frees is kept the same way. Safety: (1)
bytes of a kept frame do not change, (2) nobody can get it before its CPUs have flushed, for mask and list are
taken in one step and one flusher at a time completes; (3) the whole mask is flushed before a different
content becomes visible anywhere. Simplified: one mask and no generations, so any trigger flushes for
everybody; dirty read-only PTEs are not deferred (v3-v8 too); while somebody flushes, unmappers give up
laziness (v1-v8: the counter "flushing"), which here only keeps the mask short.
"""

from allocator.flush_sites import SITE_ALLOC, SITE_FILE
from allocator.page import PG_KEPT, clear_flag, set_flag
from allocator.page_alloc import free_page
from allocator.tlb_flush import flush_batch
from cpus.atomics import load_acquire, store_release
from cpus.compiled import kernel
from cpus.cpumask import cpumask_clear, cpumask_copy, cpumask_empty, cpumask_or
from cpus.layout import Sizes
from cpus.locks import spin_lock, spin_unlock
from designs.deferral import (
    cannot_defer,
    defer_flush,
    deferral_fields,
    deferral_walk_done,
    end_deferred_batch,
    is_clean_read_only,
)
from designs.design import Design, hook, hooks
from designs.linux import Linux, flush_pending, linux_mapping_change, linux_unmap_flush
from designs.measure import FLUSHES, clean_pages
from designs.state import own_fields

KEPT_MAX = 512  # per node, as v2 had it; less on a small machine: a node's high watermark
KEY = 1


def hold_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shared fields."""
    words = sizes.mask_words
    return deferral_fields(sizes) | {
        # kept_lock held
        "kept_lock": (1,), "kept": (sizes.nr_frames,), "kept_count": (1,), "kept_mask": (1, words),
        # flusher_lock: who flushes the mask; held while it waits for acks
        "flusher_lock": (1,), "flushing": (1,),
        "released": (sizes.nr_frames,),  # flusher_lock held: frames being given back
        "kept_most": (1,), "kept_total": (1,),  # kept_lock held
        "kept_max": (1,),  # config
        "take_mask": (sizes.nr_cpus, words),  # owner: the mask that it flushes
        "stat": (sizes.nr_cpus, 8),  # owner
    }  # fmt: skip


hold_state = own_fields("luf_hold", hold_fields)


@kernel
def _nothing_kept(ram, state):
    """Is nothing aside and no flush under way? Who empties list and mask has said before that he flushes."""
    if load_acquire(state.kept_count, 0) != 0:
        return False
    return cpumask_empty(state.kept_mask, 0) and load_acquire(state.flushing, 0) == 0


@kernel
def flush_kept(ram, state, cpu, site):
    """Flush the mask, then free the frames that were aside when it was taken. Whoever comes second waits for
    the first.
    """
    if _nothing_kept(ram, state):
        return
    before = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = site
    spin_lock(ram, cpu, state.flusher_lock, 0)
    store_release(state.flushing, 0, 1)
    spin_lock(ram, cpu, state.kept_lock, 0)
    count = state.kept_count[0]
    for i in range(count):
        state.released[i] = state.kept[i]
    state.kept_count[0] = 0
    cpumask_copy(state.take_mask, cpu, state.kept_mask, 0)
    cpumask_clear(state.kept_mask, 0)
    spin_unlock(ram, cpu, state.kept_lock, 0)
    if not cpumask_empty(state.take_mask, cpu):
        flush_batch(ram, cpu, state.take_mask, cpu)
        state.stat[cpu, FLUSHES] += 1
    for i in range(count):
        pfn = state.released[i]
        clear_flag(ram, pfn, PG_KEPT)
        free_page(ram, cpu, pfn, 0)
    store_release(state.flushing, 0, 0)
    spin_unlock(ram, cpu, state.flusher_lock, 0)
    ram.cpu_site[cpu] = before


@hook("pte_cleared")
def hold_pte_cleared(ram, cpu, mm, vpn, pte, object):
    """A read-only PTE: its CPUs join the mask at once, before the page can be freed, so no release can miss
    them.
    """
    state = hold_state(ram)
    if not is_clean_read_only(pte) or load_acquire(state.flushing, 0):
        cannot_defer(ram, state, cpu, mm, pte)
        return 0
    defer_flush(ram, state, cpu, mm)
    spin_lock(ram, cpu, state.kept_lock, 0)
    cpumask_or(state.kept_mask, 0, state.ro_mask, cpu)
    spin_unlock(ram, cpu, state.kept_lock, 0)
    return 1


@hook("batch_key")
def hold_batch_key(ram, cpu, a, b, c, d):
    """Every lazy page is kept; when too many are, all are flushed for and freed first."""
    state = hold_state(ram)
    if state.kept_count[0] > state.kept_max[0]:
        flush_kept(ram, state, cpu, ram.cpu_site[cpu])
    end_deferred_batch(state, cpu)  # the mask of what is kept stands for it
    return KEY


@hook("unmap_flush_dirty")
def hold_unmap_flush_dirty(ram, cpu, everything, b, c, d):
    """Before IO; with `everything`, what was unmapped lazily stays in use after all."""
    if ram.ubc_writable[cpu]:
        flush_pending(ram, cpu)
    if everything:
        flush_kept(ram, hold_state(ram), cpu, ram.cpu_site[cpu])
    return 0


@hook("keep")
def hold_keep(ram, cpu, pfn, key, c, d):
    """A lazily unmapped page would be freed: put it aside instead."""
    state = hold_state(ram)
    set_flag(ram, pfn, PG_KEPT)
    spin_lock(ram, cpu, state.kept_lock, 0)
    state.kept[state.kept_count[0]] = pfn
    state.kept_count[0] += 1
    state.kept_total[0] += 1
    state.kept_most[0] = max(state.kept_most[0], state.kept_count[0])
    spin_unlock(ram, cpu, state.kept_lock, 0)
    return 1


@hook("pressure")
def hold_pressure(ram, cpu, node, b, c, d):
    flush_kept(ram, hold_state(ram), cpu, SITE_ALLOC)
    return 0


@hook("write_fault")
def hold_write_fault(ram, cpu, mm, vma, vpn, object):
    flush_kept(ram, hold_state(ram), cpu, ram.cpu_site[cpu])
    return 0


@hooks("file_write", "truncate", "mkclean")
def hold_file_changes(ram, cpu, object, page, c, d):
    flush_kept(ram, hold_state(ram), cpu, SITE_FILE)
    return 0


class LufHold(Design):
    """LUF's first approach: pages unmapped read-only are kept back until the next flush (migrc v1-v8)"""

    name = "luf_hold"
    relies_on = (*Linux.relies_on, "kept_with_pending", "kept_total", "flushes")
    hooks = (
        hold_pte_cleared, deferral_walk_done, hold_batch_key, linux_unmap_flush, hold_unmap_flush_dirty,
        hold_keep, hold_pressure, hold_write_fault, linux_mapping_change, *hold_file_changes,
    )  # fmt: skip

    def fields(self, sizes: Sizes):
        return hold_fields(sizes)

    def prepare(self, ram) -> None:
        for node in range(ram.nr_nodes):
            zones = slice(int(ram.node_first_zone[node]), int(ram.node_end_zone[node]))
            ram.design["kept_max"][0] += min(KEPT_MAX, int(ram.wmark_high[zones].sum()))

    def statistics(self, ram):
        """Pages kept in all, at most at once, flushes for them, and free pages over time."""
        state = ram.design
        return {
            "kept_total": int(state["kept_total"][0]),
            "kept_most": int(state["kept_most"][0]),
            "flushes": int(state["stat"][:, FLUSHES].sum()),
            "clean_pages": clean_pages(ram),
        }
