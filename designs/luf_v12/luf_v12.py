"""LUF RFC v12 (Byungchul Park, SK hynix, February 2025) as posted, statement by statement, to be judged by
the oracle.

Mechanism: what designs/luf/luf.py describes, with the series' own bookkeeping (luf_v12_state.py): patch 16
LUF proper, 18 three tries in a pcp list, 19 and 20 records of mm and mapping, 21 generations of a zone, 22 no
shootdown that the allocation can do without, 25 debug (luf_v12_debug.py), only with --debug-luf. Safety as
claimed: a stale read-only translation shows bytes that do not change before take-off flushes it; flushes of
the mm and of the mapping follow whatever makes the content differ. Where that does not hold, nothing is
repaired here:
- The folds into mm and mapping (fold_luf_batch_mm and its twin, patches 19, 20) update mask and generation
  but not flush_required, and a fold takes only what is flush_required: luf_flush_mm and luf_flush_mapping
  flush nobody. With `records=required` they do.
- handle_mm_fault flushes at its end, when others can use the writable PTE already (patch 19).
- truncate_inode_folio flushes at its end: a reader still finds the old bytes after the new length is seen.
- A dirty read-only PTE is deferred (patch 14 cancels on the write bit only): between mprotect's or fork's
  write protection and its flush a CPU stores to a frame that has been copied already.
tests/designs/test_luf_v12.py has a schedule for each, which designs/luf/luf.py survives; a run in which the
first happens by itself is in tests/designs/test_file_writers.py. Simplified: rmqueue_bulk waits after it has
let go of the pcp lock (v12: under it); the buddy keeps the whole generation beside a block, of which the
design looks at the low 16 bits only, asks for clean or pending blocks first only while some are pending, puts
the rest of a split pending block at the head of its list if it is older than what is there, and looks at the
newest generation of a list; a wait is a sleep, not a spin with cond_resched; an empty tlb_ubc is not left
marked as required (it would flush nobody); finish_task_switch flushes at each borrowed mm that is left, not
at the last reference; VM_MAYWRITE is "private, or VM_WRITE"; pages of shared anonymous memory, KSM,
highatomic, isolation, hotplug and page reporting do not exist here; mm_cpumask is that of 6.12, cleared at
switch-out. (Since 6.14 the bits stay: flush_tlb_batched_pending of one mm then marks CPUs as done that run
another and are not flushed. Not shown here.)
"""

from allocator.buddy import CLEAN_FIRST, PEND_FIRST
from allocator.flush_sites import SITE_ALLOC, SITE_FILE
from allocator.page import is_large
from allocator.page_alloc import free_changes_bytes
from allocator.tlb_flush import flush_tlb_mm, inc_mm_tlb_gen
from cpus.atomics import compare_exchange, fence, load_acquire
from cpus.compiled import kernel
from cpus.cpumask import cpumask_andnot, cpumask_clear, cpumask_copy, cpumask_empty, cpumask_or
from cpus.locks import spin_lock, spin_unlock
from cpus.page_table import PTE_DIRTY, PTE_WRITE, pte_pfn
from designs.design import Design, hook, hooks
from designs.linux import FLUSHED_SHIFT, PENDING_MASK, count_pending, set_flush_pending
from designs.luf_v12.debug import V12_DEBUG
from designs.luf_v12.state import (
    LOW,
    before,
    check_done,
    diet,
    flush_and_mark,
    flush_for_fault,
    fold_into_key,
    fold_into_mapping,
    fold_into_mm,
    is_shared_file,
    luf_flush,
    luf_flush_mapping,
    luf_flush_mm,
    mark_done,
    new_luf_key,
    new_luf_ugen,
    next_ugen,
    prev_ugen,
    reset_luf,
    reset_ro,
    try_to_unmap_flush,
    v12_fields,
    v12_state,
    whole_generation,
)
from designs.measure import MERGED, note_takeoff, publish_generation, takeoff_statistics, wait_for_generation

# --- unmapping (patches 14, 16, 24) -------------------------------------------------------------------------


@hook("pte_cleared")
def v12_pte_cleared(ram, cpu, mm, vpn, pte, thing):
    """set_tlb_ubc_flush_pending: with the write bit once in the old PTE, the folio is vanilla; dirty alone
    only marks the batch.
    """
    state = v12_state(ram)
    if pte & PTE_WRITE or free_changes_bytes(ram) or is_large(ram, pte_pfn(pte)):  # can_luf_init
        state.cannot_luf[cpu] = 1
    if state.cannot_luf[cpu]:
        set_flush_pending(ram, cpu, mm, pte)
        return 0
    inc_mm_tlb_gen(ram, mm)
    cpumask_or(state.ro_mask, cpu, ram.mm_cpumask, mm)
    state.ro_required[cpu] = 1
    if pte & PTE_DIRTY:
        state.ro_writable[cpu] = 1
    fold_into_mm(ram, state, cpu, mm)
    fold_into_mapping(ram, state, cpu, thing, mm)
    count_pending(ram, mm)
    return 1


@hook("walk_done")
def v12_walk_done(ram, cpu, pfn, all_deferred, complete, writable):
    """try_to_unmap's end: can_luf survived, or everything gathered goes to tlb_ubc. Nothing deferred at all
    counts as LUF too.

    One writable mapping anywhere makes the folio vanilla, one that was flushed at once too.
    """
    state = v12_state(ram)
    lazy = complete and not writable and not state.cannot_luf[cpu] and not is_large(ram, pfn)
    state.cannot_luf[cpu] = 0  # can_luf_init for the next folio
    if state.ro_required[cpu]:
        if lazy:
            cpumask_or(state.luf_mask, cpu, state.ro_mask, cpu)
            state.luf_required[cpu] = 1
            state.luf_writable[cpu] |= state.ro_writable[cpu]
        else:
            cpumask_or(ram.ubc_mask, cpu, state.ro_mask, cpu)
            ram.ubc_required[cpu] = 1
            ram.ubc_writable[cpu] |= state.ro_writable[cpu]
        reset_ro(ram, state, cpu)
    return 1 if lazy else 0


@kernel
def fold_unmap_luf(ram, state, cpu):
    """Turn tlb_ubc_luf into a key; whom tlb_ubc is about to flush needs none (patch 16)."""
    if not state.luf_required[cpu]:
        return 0
    if not cpumask_andnot(state.luf_mask, cpu, ram.ubc_mask, cpu):
        reset_luf(ram, state, cpu)
        return 0
    ugen, key = new_luf_ugen(state), new_luf_key(state)
    fold_into_key(ram, state, cpu, key, state.luf_mask, cpu, state.luf_writable[cpu], ugen)
    reset_luf(ram, state, cpu)
    return key


@hook("batch_key")
def v12_batch_key(ram, cpu, a, b, c, d):
    return fold_unmap_luf(ram, v12_state(ram), cpu)


@hook("unmap_flush")
def v12_unmap_flush(ram, cpu, a, b, c, d):
    try_to_unmap_flush(ram, v12_state(ram), cpu)
    return 0


@hook("unmap_flush_dirty")
def v12_unmap_flush_dirty(ram, cpu, kept, b, c, d):
    """try_to_unmap_flush_dirty looks at all three batches; a folio kept after a LUF unmap is flushed at once
    (patch 24).
    """
    state = v12_state(ram)
    if kept:
        luf_flush(ram, state, cpu, fold_unmap_luf(ram, state, cpu))
    elif ram.ubc_writable[cpu] or state.ro_writable[cpu] or state.luf_writable[cpu]:
        try_to_unmap_flush(ram, state, cpu)
    return 0


# --- freeing (patches 11, 13, 21) ---------------------------------------------------------------------------


@hook("page_freed")
def v12_page_freed(ram, cpu, zone, pfn, key, order):
    """A keyed page enters the buddy: the table's entry is folded into zone_batch, the page gets the zone's
    generation.
    """
    state = v12_state(ram)
    spin_lock(ram, cpu, state.key_lock, key)
    if state.key_required[key]:
        cpumask_or(state.zone_batch, zone, state.key_mask, key)
    ugen = state.key_ugen[key]
    spin_unlock(ram, cpu, state.key_lock, key)
    if before(state.zone_luf_ugen[zone], ugen):
        state.zone_luf_ugen[zone] = ugen
    return state.zone_ugen[zone]


# --- take-off (patches 09, 10, 12, 17, 21, 22) --------------------------------------------------------------


@kernel
def enough_clean_pages(ram, zone):
    """non_luf_pages_ok: NR_FREE_PAGES - nr_luf_pages > MIN."""
    return ram.zone_free[zone] - ram.zone_pending[zone] > ram.wmark_min[zone]


@hook("take_begin")
def v12_take_begin(ram, cpu, zone, preemptible, c, d):
    """luf_takeoff_start: may this section shoot down? Patch 22: not under the pcp lock while the zone has
    enough clean pages.
    """
    state = v12_state(ram)
    state.takeoff_began[cpu] = ram.cpu_clock[cpu]
    state.section_zone[cpu] = zone
    state.takeoff_started[cpu] += 1
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
        return 1 if check_done(ram, state, cpu, state.key_mask, key, state.key_ugen[key]) else 0
    done = not before(ram.zone_key_done[zone], whole_generation(key & LOW, state.zone_ugen[zone]))
    return 1 if done else 0


@hook("take")
def v12_take(ram, cpu, zone, pfn, key, order):
    """luf_takeoff_check_and_fold: whom to flush, or whose flush to wait for."""
    state = v12_state(ram)
    if zone < 0:
        spin_lock(ram, cpu, state.key_lock, key)
        ugen = state.key_ugen[key]
        if check_done(ram, state, cpu, state.key_mask, key, ugen):
            state.stat[cpu, MERGED] += 1
        else:
            cpumask_or(state.take_mask, cpu, state.key_mask, key)
            if before(state.take_ugen[cpu], ugen):
                state.take_ugen[cpu] = ugen
        spin_unlock(ram, cpu, state.key_lock, key)
        return 0
    generation = whole_generation(key & LOW, state.zone_ugen[zone])
    if state.own_generation[cpu]:
        return 0  # the flush that this section owes covers it
    if generation != state.zone_ugen[zone]:  # somebody else owns it
        if state.wait_generation[cpu] == 0 or before(state.wait_generation[cpu], generation):
            state.wait_generation[cpu] = generation
        return 0
    state.own_generation[cpu], state.wait_generation[cpu] = generation, prev_ugen(generation)
    if before(state.take_ugen[cpu], state.zone_luf_ugen[zone]):
        state.take_ugen[cpu] = state.zone_luf_ugen[zone]
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
        reset_ro(ram, state, cpu)
    if state.luf_required[cpu] and not cpumask_andnot(state.luf_mask, cpu, ram.tmp_mask, cpu):
        reset_luf(ram, state, cpu)


@hook("take_done")
def v12_take_done(ram, cpu, a, b, c, d):
    """luf_takeoff_end: flush, wait for the generation before, publish the own one. Only then the pages may be
    used.
    """
    state = v12_state(ram)
    state.takeoff_started[cpu] -= 1
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


# --- other triggers (patches 15, 16, 19, 20) ----------------------------------------------------------------


@hook("mapping_change")
def v12_mapping_change(ram, cpu, mm, b, c, d):
    """flush_tlb_batched_pending, with a stamp before it and the mm's CPUs marked after it."""
    state = v12_state(ram)
    batched = load_acquire(ram.mm_batched, mm)
    pending, flushed = batched & PENDING_MASK, batched >> FLUSHED_SHIFT
    if pending != flushed:
        ugen = new_luf_ugen(state)
        flush_tlb_mm(ram, cpu, mm)
        cpumask_copy(ram.tmp_mask, cpu, ram.mm_cpumask, mm)
        mark_done(ram, state, cpu, ram.tmp_mask, cpu, ugen)
        compare_exchange(ram.mm_batched, mm, batched, pending | (pending << FLUSHED_SHIFT))
    return 0


@hook("fault_done")
def v12_fault_done(ram, cpu, mm, vma, vpn, store):
    """The end of handle_mm_fault, after the new PTE is there for all."""
    flush_for_fault(ram, v12_state(ram), cpu, mm, vma, store)
    return 0


@hook("vma_done")
def v12_vma_done(ram, cpu, mm, vma, c, d):
    """tlb_end_vma: luf_flush_vma."""
    state = v12_state(ram)
    if is_shared_file(ram, vma):
        luf_flush_mapping(ram, state, cpu, ram.vma_object[vma])
    luf_flush_mm(ram, state, cpu, mm)
    return 0


@hook("release")
def v12_release(ram, cpu, mm, b, c, d):
    """finish_task_switch: the mm that a kernel thread had borrowed."""
    luf_flush_mm(ram, v12_state(ram), cpu, mm)
    return 0


@hooks("file_write", "truncated", "mkclean")
def v12_file_changes(ram, cpu, thing, page, c, d):
    """mapping_write_begin, before the bytes are copied; truncate_inode_folio and its kin, and
    mapping_try_invalidate, at their end; folio_mkclean, after the walk.
    """
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_FILE
    luf_flush_mapping(ram, v12_state(ram), cpu, thing)
    ram.cpu_site[cpu] = site
    return 0


class LufV12(Design):
    """LUF RFC v12 as posted, nothing repaired: the oracle may catch it"""

    name = "luf_v12"
    parameters = {  # noqa: RUF012
        "records": {
            "posted": "folds into mm and mapping leave flush_required alone, so their triggers flush nobody",
            "required": "they set it: what is left are flushes that come too late (fault, truncation), and "
            "dirty PTEs that are deferred",
        }
    }
    hooks = (
        v12_pte_cleared, v12_walk_done, v12_batch_key, v12_unmap_flush, v12_unmap_flush_dirty, v12_page_freed,
        v12_take_begin, v12_take_check, v12_take, v12_take_done, v12_pend_first, v12_mapping_change,
        v12_fault_done, v12_vma_done, v12_release, *v12_file_changes,
    )  # fmt: skip
    debug_hooks = V12_DEBUG

    def fields(self, sizes):
        return v12_fields(sizes)

    def prepare(self, ram) -> None:
        state = ram.design
        state["ugen"][0] = 2
        state["ugen_done"][:] = 1
        for name in ("key_ugen", "mm_ugen", "file_ugen"):
            state[name][:] = 1  # luf_ugen - 1
        state["records_required"][0] = self.chosen["records"] == "required"
        state["zone_ugen"][:], state["zone_luf_ugen"][:] = 2, 1
        ram.zone_key_done[:] = ram.zone_key_claimed[:] = 1

    def statistics(self, ram):
        return takeoff_statistics(ram)
