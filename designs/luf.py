"""LUF, Lazy Unmap Flush (SK hynix, LPC 2024; RFC v12): frames unmapped read-only go back to the allocator unflushed.

Mechanism: as long as nobody changes what a stale read-only translation shows, it may stay. So a page whose mappings were all
read-only is freed with a *key* instead of a flush. The key stands for the CPUs that may still read it. It goes with the page
into the pcp list and the buddy, where pages of one zone share a *generation*; whoever takes a page of an unflushed generation
flushes it, for all pages of that generation at once, and the others wait for that. CPUs that took part in any later flush need
no other: each flush carries a stamp of one counter, and every CPU remembers the newest stamp that it has completed.
Tracking: per page (key, zone generation), per mm, per file. Triggers: page allocation; user-driven mapping changes; faults
that create writable mappings; buffered writes; truncation and invalidation; folio_mkclean.

Safety: (1) a frame's bytes stay as they are until take-off, (2) nobody gets it before its generation is flushed, (3) the mm's or
file's pending CPUs are flushed BEFORE a different content becomes visible at that address or offset.
Differs from v12 as posted: flushes before the writable PTE is visible (v12 after: another CPU may use it first); dirty
read-only PTEs are not deferred; 64-bit generations, no wrap-around; allocations always run in a context that may wait; clean
blocks of any order are taken before pending ones; pending blocks do not
merge with clean ones (in v12 the merged block is pending as a whole);
who flushes a zone's generation takes on the other zones' too. (Generations are
published zone by zone in ascending order, each after its predecessor, so owners of several cannot wait for each other in a ring.)
"""

from allocator.buddy import CLEAN_ONLY, PEND_FIRST
from allocator.tlb_flush import SITE_ALLOC, SITE_FILE, add_cpumask, flush_batch, inc_mm_tlb_gen
from allocator.vma import VM_ANON, VM_SHARED
from cpus.atomics import compare_exchange, fetch_add, load_acquire, store_release
from cpus.compiled import kernel
from cpus.ipi import mask_clear, mask_empty, serve_interrupts
from cpus.layout import MASK_BITS, Sizes
from cpus.lease import WAIT_LOCK, begin_wait, cancel_wait, finish_wait, wake_all_waiting_for
from cpus.locks import LOCK_DESIGN, LOCK_ZONE, spin_lock, spin_lock_irq, spin_unlock, spin_unlock_irq
from cpus.page_table import PTE_DIRTY, PTE_WRITE
from designs.design import Design, hook
from designs.linux import count_pending, flush_batched_pending, set_flush_pending
from designs.state import own_fields

KEYS = 4096  # luf_batch records of pages on their way to the buddy; v12 has 65,536. Reuse only merges, it never loses
LOCK_KEY, LOCK_MM, LOCK_FILE = LOCK_DESIGN | 1 << 32, LOCK_DESIGN | 2 << 32, LOCK_DESIGN | 3 << 32
GENERATION = LOCK_DESIGN | 4 << 32


def luf_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shared fields of LUF; each record is {cpumask, newest request merged into it, lock}."""
    words = sizes.mask_words
    return {
        "ugen": (1,),  # any, add: source of request and flush stamps
        "ugen_done": (sizes.nr_cpus,),  # any, atomic maximum: newest flush stamp complete on this CPU
        "next_key": (1,),  # any, add
        "key_mask": (KEYS, words), "key_ugen": (KEYS,), "key_lock": (KEYS,),
        "mm_mask": (sizes.nr_mms, words), "mm_ugen": (sizes.nr_mms,), "mm_rec_lock": (sizes.nr_mms,),
        "file_mask": (sizes.nr_objects, words), "file_ugen": (sizes.nr_objects,), "file_lock": (sizes.nr_objects,),
        "zone_mask": (sizes.nr_zones, words), "zone_ugen": (sizes.nr_zones,),  # zone lock held: of the open generation
        "zone_generation": (sizes.nr_zones,),  # zone lock held: generation that frees go into
        "ro_mask": (sizes.nr_cpus, words), "ro_count": (sizes.nr_cpus,),  # owner: the folio being walked (tlb_ubc_ro)
        "rw_seen": (sizes.nr_cpus,),  # owner: a mapping of this folio could not be deferred
        "luf_mask": (sizes.nr_cpus, words), "luf_required": (sizes.nr_cpus,),  # owner: tlb_ubc_luf
        "take_mask": (sizes.nr_cpus, words), "take_ugen": (sizes.nr_cpus,),  # owner: tlb_ubc_takeoff
        "own_generation": (sizes.nr_cpus, sizes.nr_zones),  # owner: generation this CPU has promised to flush, 0 none
        "wait_generation": (sizes.nr_cpus, sizes.nr_zones),  # owner: generation somebody else flushes, 0 none
    }  # fmt: skip


_EXAMPLE = Sizes(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
luf_state = own_fields("luf", luf_fields(_EXAMPLE))


# --- stamps and records -------------------------------------------------------------------------------------------------


@kernel
def new_stamp(state):
    """Draw a stamp: a full barrier, so what was cleared before it is seen by flushes that start after it."""
    return fetch_add(state.ugen, 0, 1) + 1


@kernel
def diet(ram, state, mask, row, ugen):
    """Drop the CPUs that have completed a flush begun after request `ugen`; True if nobody is left."""
    left = 0
    for word in range(ram.mask_words):
        bits = mask[row, word]
        rest = bits
        while rest != 0:
            low = rest & -rest
            rest ^= low
            cpu = word * MASK_BITS
            while low > 1:
                low >>= 1
                cpu += 1
            if load_acquire(state.ugen_done, cpu) >= ugen:
                bits &= ~(1 << (cpu % MASK_BITS))
        mask[row, word] = bits
        left |= bits
    return left == 0


@kernel
def flush_and_mark(ram, state, cpu, mask, row):
    """Flush the CPUs of a mask that this CPU owns (it is emptied) and note for each that it is up to date."""
    stamp = new_stamp(state)  # before the flush begins
    for word in range(ram.mask_words):
        ram.tmp_mask[cpu, word] = mask[row, word]
    flush_batch(ram, cpu, mask, row)
    for word in range(ram.mask_words):
        bits = ram.tmp_mask[cpu, word]
        for bit in range(MASK_BITS):
            if (bits >> bit) & 1:
                target = word * MASK_BITS + bit
                seen = load_acquire(state.ugen_done, target)
                if seen < stamp:
                    compare_exchange(state.ugen_done, target, seen, stamp)  # lost: only a flush too many later


@kernel
def fold(ram, state, cpu, masks, ugens, locks, i, lock_number, source, source_row, ugen):
    """Merge CPUs and a request into record `i` (fold_batch); CPUs that are done with what was there before drop out."""
    spin_lock(ram, cpu, locks, i, lock_number | i)
    diet(ram, state, masks, i, ugens[i])
    for word in range(ram.mask_words):
        masks[i, word] |= load_acquire(source, (source_row, word))
    if ugen > ugens[i]:
        ugens[i] = ugen
    spin_unlock(ram, cpu, locks, i, lock_number | i)


@kernel
def flush_record(ram, state, cpu, masks, ugens, locks, i, lock_number):
    """Flush the CPUs of record `i` that are not up to date (luf_flush_mm, luf_flush_mapping)."""
    spin_lock(ram, cpu, locks, i, lock_number | i)
    clean = diet(ram, state, masks, i, ugens[i])
    for word in range(ram.mask_words):
        state.take_mask[cpu, word] |= masks[i, word]
    spin_unlock(ram, cpu, locks, i, lock_number | i)
    if not clean:
        flush_and_mark(ram, state, cpu, state.take_mask, cpu)
    mask_clear(ram, state.take_mask, cpu)


# --- unmapping ----------------------------------------------------------------------------------------------------------


@hook("pte_cleared")
def luf_pte_cleared(ram, cpu, mm, vpn, pte, thing):
    state = luf_state(ram)
    if pte & (PTE_WRITE | PTE_DIRTY) or ram.init_on_free or ram.kasan_poison:  # can_luf_init: the free page's bytes would change
        state.rw_seen[cpu] = 1
        set_flush_pending(ram, cpu, mm, pte)
        return 0
    inc_mm_tlb_gen(ram, mm)
    add_cpumask(ram, state.ro_mask, cpu, mm)
    state.ro_count[cpu] += 1
    count_pending(ram, mm)
    ugen = new_stamp(state)
    fold(ram, state, cpu, state.mm_mask, state.mm_ugen, state.mm_rec_lock, mm, LOCK_MM, ram.mm_cpumask, mm, ugen)
    fold(ram, state, cpu, state.file_mask, state.file_ugen, state.file_lock, thing, LOCK_FILE, ram.mm_cpumask, mm, ugen)
    return 1


@hook("walk_done")
def luf_walk_done(ram, cpu, pfn, all_deferred, complete, d):
    """One writable mapping anywhere makes the whole page vanilla; so does a mapping that is still there."""
    state = luf_state(ram)
    lazy = all_deferred and complete and not state.rw_seen[cpu]
    if state.ro_count[cpu]:
        for word in range(ram.mask_words):
            if lazy:
                state.luf_mask[cpu, word] |= state.ro_mask[cpu, word]
            else:
                ram.ubc_mask[cpu, word] |= state.ro_mask[cpu, word]
        if lazy:
            state.luf_required[cpu] = 1
        else:
            ram.ubc_required[cpu] = 1
        mask_clear(ram, state.ro_mask, cpu)
    state.ro_count[cpu], state.rw_seen[cpu] = 0, 0
    return 1 if lazy else 0


@kernel
def luf_flush_pending(ram, state, cpu):
    """Flush the vanilla batch."""
    if ram.ubc_required[cpu]:
        ram.ubc_required[cpu], ram.ubc_writable[cpu] = 0, 0
        flush_and_mark(ram, state, cpu, ram.ubc_mask, cpu)


@hook("unmap_flush")
def luf_unmap_flush(ram, cpu, a, b, c, d):
    luf_flush_pending(ram, luf_state(ram), cpu)
    return 0


@hook("unmap_flush_dirty")
def luf_unmap_flush_dirty(ram, cpu, everything, b, c, d):
    """Before IO; with `everything`, also what was deferred (a page that was unmapped lazily stays in use after all)."""
    state = luf_state(ram)
    if everything and state.luf_required[cpu]:
        for word in range(ram.mask_words):
            ram.ubc_mask[cpu, word] |= state.luf_mask[cpu, word]
        ram.ubc_required[cpu] = 1  # luf_mask stays: other pages of the batch still need a key
    if everything or ram.ubc_writable[cpu]:
        luf_flush_pending(ram, state, cpu)
    return 0


@hook("batch_key")
def luf_batch_key(ram, cpu, a, b, c, d):
    """Give the deferred batch a key (fold_unmap_luf); CPUs that the vanilla batch is about to flush need none."""
    state = luf_state(ram)
    if not state.luf_required[cpu]:
        return 0
    state.luf_required[cpu] = 0
    if ram.ubc_required[cpu]:
        for word in range(ram.mask_words):
            state.luf_mask[cpu, word] &= ~ram.ubc_mask[cpu, word]
    if mask_empty(ram, state.luf_mask, cpu):
        return 0
    key = 1 + fetch_add(state.next_key, 0, 1) % (KEYS - 1)
    ugen = new_stamp(state)
    fold(ram, state, cpu, state.key_mask, state.key_ugen, state.key_lock, key, LOCK_KEY, state.luf_mask, cpu, ugen)
    mask_clear(ram, state.luf_mask, cpu)
    return key


# --- the allocator ------------------------------------------------------------------------------------------------------


@hook("page_freed")
def luf_page_freed(ram, cpu, zone, pfn, key, order):
    """A keyed page enters the buddy: its CPUs join the zone's open generation; 0 if they are all up to date already."""
    state = luf_state(ram)
    spin_lock(ram, cpu, state.key_lock, key, LOCK_KEY | key)
    clean = diet(ram, state, state.key_mask, key, state.key_ugen[key])
    ugen = state.key_ugen[key]
    for word in range(ram.mask_words):
        state.zone_mask[zone, word] |= state.key_mask[key, word]
    spin_unlock(ram, cpu, state.key_lock, key, LOCK_KEY | key)
    if clean:
        return 0
    if ugen > state.zone_ugen[zone]:
        state.zone_ugen[zone] = ugen
    return state.zone_generation[zone]


@hook("take_check")
def luf_take_check(ram, cpu, zone, pfn, key, order):
    return 1  # every allocation here runs in a context that may wait


@hook("pend_first")
def luf_pend_first(ram, cpu, zone, b, c, d):
    """Take clean pages, of any order, until MIN of them are left; then one flush cleans the whole zone.

    v12 prefers clean blocks only within an order, so a small pending block is flushed while large clean ones lie idle.
    """
    return CLEAN_ONLY if ram.zone_free[zone] - ram.zone_pending[zone] > ram.wmark_min[zone] else PEND_FIRST


@kernel
def claim_generation(ram, state, cpu, zone):
    """Become the one who flushes the zone's open generation; later frees go into the next. Zone lock held."""
    generation = state.zone_generation[zone]
    state.own_generation[cpu, zone] = generation
    for word in range(ram.mask_words):
        state.take_mask[cpu, word] |= state.zone_mask[zone, word]
        state.zone_mask[zone, word] = 0
    if state.zone_ugen[zone] > state.take_ugen[cpu]:
        state.take_ugen[cpu] = state.zone_ugen[zone]
    state.zone_generation[zone] = generation + 1
    ram.zone_key_claimed[zone] = generation
    ram.zone_pending[zone] = 0


@kernel
def claim_other_zones(ram, state, cpu):
    """A round of interrupts is due: let it serve the pending pages of every zone, not only of the one that ran short."""
    for zone in range(ram.nr_zones):
        if state.own_generation[cpu, zone] == 0 and ram.zone_pending[zone] > 0:
            spin_lock_irq(ram, cpu, ram.zone_lock, zone, LOCK_ZONE | zone)
            if ram.zone_pending[zone] > 0:
                claim_generation(ram, state, cpu, zone)
            spin_unlock_irq(ram, cpu, ram.zone_lock, zone, LOCK_ZONE | zone)


@kernel
def owns_a_generation(ram, state, cpu):
    """Has this CPU promised to flush a generation in this take-off?"""
    for zone in range(ram.nr_zones):
        if state.own_generation[cpu, zone]:
            return True
    return False


@hook("take")
def luf_take(ram, cpu, zone, pfn, key, order):
    """A pending page leaves: remember whom to flush, or whom to wait for (check_and_fold)."""
    state = luf_state(ram)
    if zone < 0:
        spin_lock(ram, cpu, state.key_lock, key, LOCK_KEY | key)
        for word in range(ram.mask_words):
            state.take_mask[cpu, word] |= state.key_mask[key, word]
        if state.key_ugen[key] > state.take_ugen[cpu]:
            state.take_ugen[cpu] = state.key_ugen[key]
        spin_unlock(ram, cpu, state.key_lock, key, LOCK_KEY | key)
    elif key <= ram.zone_key_claimed[zone]:
        state.wait_generation[cpu, zone] = max(state.wait_generation[cpu, zone], key)
    else:
        claim_generation(ram, state, cpu, zone)
    return 0


@kernel
def wait_for_generation(ram, cpu, zone, generation):
    """Sleep until a zone's generation has been flushed by its owner."""
    while load_acquire(ram.zone_key_done, zone) < generation:
        if ram.cpu_bell[cpu] > 0:
            serve_interrupts(ram, cpu)
        if begin_wait(ram, cpu, WAIT_LOCK, GENERATION | zone):
            if load_acquire(ram.zone_key_done, zone) >= generation:
                cancel_wait(ram, cpu)
            else:
                finish_wait(ram, cpu)


@hook("take_done")
def luf_take_done(ram, cpu, a, b, c, d):
    """End of take-off: flush for what was taken, publish own generations in order, wait for others'."""
    state = luf_state(ram)
    if owns_a_generation(ram, state, cpu):
        claim_other_zones(ram, state, cpu)
    if not mask_empty(ram, state.take_mask, cpu) and not diet(ram, state, state.take_mask, cpu, state.take_ugen[cpu]):
        site = ram.cpu_site[cpu]
        ram.cpu_site[cpu] = SITE_ALLOC
        flush_and_mark(ram, state, cpu, state.take_mask, cpu)
        ram.cpu_site[cpu] = site
    state.take_ugen[cpu] = 0
    for zone in range(ram.nr_zones):
        own = state.own_generation[cpu, zone]
        if own:
            state.own_generation[cpu, zone] = 0
            wait_for_generation(ram, cpu, zone, own - 1)
            store_release(ram.zone_key_done, zone, own)
            wake_all_waiting_for(ram, WAIT_LOCK, GENERATION | zone, ram.cpu_clock[cpu])
        other = state.wait_generation[cpu, zone]
        if other:
            state.wait_generation[cpu, zone] = 0
            wait_for_generation(ram, cpu, zone, other)
    return 0


# --- other triggers -----------------------------------------------------------------------------------------------------


@kernel
def flush_file(ram, state, cpu, thing):
    """Flush what is pending for a file."""
    flush_record(ram, state, cpu, state.file_mask, state.file_ugen, state.file_lock, thing, LOCK_FILE)


@hook("write_fault")
def luf_write_fault(ram, cpu, mm, vma, vpn, thing):
    """A mapping becomes writable: nobody may go on reading the mm's, or the shared file's, old pages."""
    state = luf_state(ram)
    flush_record(ram, state, cpu, state.mm_mask, state.mm_ugen, state.mm_rec_lock, mm, LOCK_MM)
    if ram.vma_flags[vma] & VM_SHARED and ram.vma_flags[vma] & VM_ANON == 0:
        flush_file(ram, state, cpu, thing)
    return 0


@hook("mapping_change")
def luf_mapping_change(ram, cpu, mm, b, c, d):
    flush_batched_pending(ram, cpu, mm)
    return 0


@hook("file_write")
def luf_file_write(ram, cpu, thing, page, c, d):
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_FILE
    flush_file(ram, luf_state(ram), cpu, thing)
    ram.cpu_site[cpu] = site
    return 0


@hook("truncate")
def luf_truncate(ram, cpu, thing, page, c, d):
    flush_file(ram, luf_state(ram), cpu, thing)
    return 0


@hook("mkclean")
def luf_mkclean(ram, cpu, thing, page, c, d):
    flush_file(ram, luf_state(ram), cpu, thing)
    return 0


class Luf(Design):
    """LUF: read-only unmaps are flushed when the page is allocated again"""

    name = "luf"
    hooks = (
        luf_pte_cleared, luf_walk_done, luf_unmap_flush, luf_unmap_flush_dirty, luf_batch_key, luf_page_freed, luf_take_check,
        luf_pend_first, luf_take, luf_take_done, luf_write_fault, luf_mapping_change, luf_file_write, luf_truncate, luf_mkclean,
    )  # fmt: skip

    def fields(self, sizes: Sizes):
        return luf_fields(sizes)

    def prepare(self, ram) -> None:
        ram.set_constant("pend_apart", 1)
        ram.design["ugen"][0] = 2
        ram.design["ugen_done"][:] = 1
        ram.design["zone_generation"][:] = 2
        ram.zone_key_done[:] = 1
        ram.zone_key_claimed[:] = 1
