"""Who must flush what, and the flush itself (arch/x86/mm/tlb.c of 6.12).

Every request bumps the mm's tlb_gen first and only then looks at who may cache the mm; a CPU that loads the
mm (or stops being lazy) announces itself first and only then looks at tlb_gen. Between the two fences one of
them sees the other, so no translation survives unnoticed. Lazy CPUs (idle or kernel thread with the mm still
loaded) are left alone unless page tables are freed. Ranges above the ceiling become full flushes; a full
flush serves all requests so far.
How a round is carried out is the design's to say (HOOK_SHOOTDOWN): by interrupts acked after or before the
flush, or by a broadcast. Left out: PTI's second address space, the paravirtual flush, LAM.
"""

from allocator.flush_sites import (
    LOCAL_MM_SHOOTDOWN,
    LOCAL_SHOOTDOWN,
    NR_SITES,
    ON_TASK_SWITCH,
    REASONS,
    REMOTE_SEND_IPI,
    REMOTE_SHOOTDOWN,
)
from allocator.flush_times import note_time
from allocator.hooks import HOOK_FLUSHED, HOOK_INTERRUPT, HOOK_SHOOTDOWN
from cpus.atomics import fence, fence_after_atomic, fetch_add, load_acquire, store_release
from cpus.compiled import apart, call, inlined, kernel
from cpus.cpumask import (
    __cpumask_clear_cpu,
    cpumask_any_but,
    cpumask_clear,
    cpumask_clear_cpu,
    cpumask_copy,
    cpumask_empty,
    cpumask_set_cpu,
    cpumask_test_cpu,
    cpumask_weight,
    for_each_cpu,
)
from cpus.declare import (
    ANY,
    EXERCISED,
    INTERRUPTS,
    OURS,
    OWNER,
    VMSTAT,
    Atomic,
    Constant,
    Cost,
    Counter,
    Field,
    Struct,
)
from cpus.events import EV_FLUSH, EV_SHOOTDOWN, EV_SWITCH, record
from cpus.ipi import BROADCAST_FLUSH, IPI_FLUSH, IPI_FLUSH_EARLY_ACK, ack, send_interrupts, wait_for_acks
from cpus.live import touch_spin_pages
from cpus.spans import SPAN_SHOOTDOWN, end_span, span
from cpus.tlb import SLOTS, invalidate_asid, invalidate_page, new_context

# of tlb:tlb_flush events: pages 0..34, and one column for "all"
TRACE_REASONS, TRACE_PAGES = len(REASONS), 36
FIELDS = (
    Constant("pcid", "1: TLB entries bear an address-space tag"),
    Constant("flush_ceiling", "tlb_single_page_flush_ceiling", "pages"),
    Struct("nr_cpus", "clock", (Field("cpu_site", OWNER, "SITE_* that a shootdown is put down to"),)),
    Struct("nr_cpus", "mm", (Field("cpu_next_asid", OWNER, "slot to recycle next"),)),
    Struct("nr_mms", "generation", (
        Field("mm_tlb_gen", Atomic("fetch_add"), "invalidations asked for (context.tlb_gen)"),
    )),
    Field("mm_cpumask", Atomic("fetch_or", "fetch_and", why="CPU c sets and clears bit c"),
          "CPUs that may have translations of the mm", ("nr_mms", "mask_words")),
    Field("asid_mm", OWNER, "mm of each ASID slot, -1 none", SLOTS, reads=ANY),
    Field("asid_gen", OWNER, "tlb_gen that the slot has reached", SLOTS, reads=ANY),
    Field("site_ipis", OWNER, "requests sent, by SITE_*", ("nr_cpus", NR_SITES)),
    Field("site_flushes", OWNER, "broadcasts sent, by SITE_*", ("nr_cpus", NR_SITES), reads=ANY),
    Field("tlb_flush_count", OWNER, "tlb:tlb_flush events, reason * TRACE_PAGES + pages",
          ("nr_cpus", TRACE_REASONS * TRACE_PAGES), reads=ANY),
)  # fmt: skip

COUNTERS = (
    Counter("nr_tlb_remote_flush", VMSTAT, "shootdowns begun, also where all targets turn out to be lazy"),
    Counter("nr_tlb_remote_flush_received", VMSTAT, "flush functions executed for others"),
    Counter("nr_tlb_local_flush_all", VMSTAT, "full flushes of the own TLB, for oneself"),
    Counter("nr_tlb_local_flush_one", VMSTAT, "pages flushed from the own TLB, for oneself", "pages"),
    Counter("irq_tlb", INTERRUPTS, "TLB: flush functions executed for others"),
    Counter("irq_call", INTERRUPTS, "CAL and TLB: all functions executed for others"),
    Counter("context_switches", OURS, "address spaces loaded"),
    Counter("served_already", EXERCISED, "requests whose generation a newer flush had served"),
    Counter("missed_generation", EXERCISED, "ranges flushed as a whole, since an older request was open"),
    Counter("lazy_spared", EXERCISED, "lazy CPUs that a shootdown left out"),
    Counter("lazy_interrupted", EXERCISED, "CPUs that were lazy when the interrupt came, and let the mm go"),
    Counter("lazy_came_back_late", EXERCISED, "lazy CPUs back in an mm that was flushed meanwhile"),
    Counter("slot_came_back_late", EXERCISED, "mms loaded again, in a slot that had missed a flush"),
    Counter("slot_recycled", EXERCISED, "ASID slots taken from another mm"),
)
COSTS = (
    Cost("flush_full", "flushing an address space"),
    Cost("flush_one", "flushing one page"),
    Cost("context_switch", "loading another address space, and switching to a kernel thread"),
)

INIT_MM = 0
FLUSH_ALL = 1 << 60  # call_end of a full flush
# of `how`: page tables were freed, so lazy CPUs are flushed too; above it the stride (log2 of pages)
FREED_TABLES = 1
NO_GENERATION = 0  # TLB_GENERATION_INVALID: of a batch over several mms
BY_INTERRUPT, BY_EARLY_ACK, BY_BROADCAST = 0, 1, 2  # answers of HOOK_SHOOTDOWN

ALL_PAGES = TRACE_PAGES - 1  # column of full flushes in tlb:tlb_flush events


@kernel
def trace_tlb_flush(ram, cpu, reason, pages):
    """Count a tlb:tlb_flush event; pages of a range are at most the ceiling, ALL_PAGES says that everything
    goes.
    """
    ram.tlb_flush_count[cpu, reason * TRACE_PAGES + min(pages, ALL_PAGES)] += 1


@kernel
def inc_mm_tlb_gen(ram, mm):
    """Ask for one more invalidation of the mm; returns its generation."""
    return fetch_add(ram.mm_tlb_gen, mm, 1) + 1


@kernel
def others_cache(ram, cpu, mm):
    """May a CPU other than this one cache translations of the mm?"""
    return cpumask_any_but(ram.mm_cpumask, mm, cpu) >= 0


@inlined
def flush_tlb_func(ram, cpu, mm, start, end, gen, stride, initiator):
    """Bring this CPU's loaded address space up to date: the function that an interrupted CPU executes.

    `initiator` negative: the hardware does it (a broadcast), and nobody is interrupted.
    """
    if cpu != initiator and initiator >= 0:
        ram.irq_tlb[cpu] += 1
        # irq_call_count holds them too; /proc/interrupts shows the difference as CAL
        ram.irq_call[cpu] += 1
        ram.nr_tlb_remote_flush_received[cpu] += 1
    loaded = ram.cpu_loaded_mm[cpu]
    if loaded == INIT_MM or (mm != INIT_MM and mm != loaded):
        return
    if ram.cpu_lazy[cpu]:
        ram.lazy_interrupted[cpu] += 1
        switch_mm(ram, cpu, INIT_MM)
        return
    reason = (
        REMOTE_SHOOTDOWN if cpu != initiator else LOCAL_MM_SHOOTDOWN if mm != INIT_MM else LOCAL_SHOOTDOWN
    )
    slot = ram.cpu_asid[cpu]
    reached = ram.asid_gen[cpu, slot]
    if gen != NO_GENERATION and gen <= reached:  # somebody's flush has served this request already
        ram.served_already[cpu] += 1
        return
    newest = load_acquire(ram.mm_tlb_gen, loaded)
    if reached == newest:
        trace_tlb_flush(ram, cpu, reason, 0)
        return
    if end != FLUSH_ALL and gen != NO_GENERATION and gen == reached + 1 and gen == newest:
        for vpn in range(start, end, 1 << stride):
            invalidate_page(ram, cpu, vpn, ram.cpu_context[cpu])
        # as traced: 0 if a range is shorter than its stride, and one address was invalidated
        pages = (end - start) >> stride
        ram.cpu_clock[cpu] += max(pages, 1) * ram.cost_flush_one
        if cpu == initiator:
            ram.nr_tlb_local_flush_one[cpu] += pages
        trace_tlb_flush(ram, cpu, reason, pages)
        record(ram, cpu, EV_FLUSH, loaded, start, end - start, initiator)
    else:
        trace_tlb_flush(ram, cpu, reason, ALL_PAGES)
        ram.missed_generation[cpu] += end != FLUSH_ALL
        invalidate_asid(ram, cpu, slot)
        if cpu == initiator:
            ram.nr_tlb_local_flush_all[cpu] += 1
        ram.cpu_clock[cpu] += ram.cost_flush_full
        record(ram, cpu, EV_FLUSH, loaded, -1, -1, initiator)
        call(ram, HOOK_FLUSHED, cpu, loaded, 0, 0, 0)
    ram.asid_gen[cpu, slot] = newest
    if ram.cpu_spin_page[cpu] > 0:
        touch_spin_pages(ram, cpu)


@apart
def irq_handler(ram, cpu, sender):
    """Execute the request of CPU `sender`; 1 if it has been acked here."""
    kind = ram.call_kind[sender]
    if kind != IPI_FLUSH and kind != IPI_FLUSH_EARLY_ACK and kind != BROADCAST_FLUSH:
        return 0
    mm, start, end = ram.call_mm[sender], ram.call_start[sender], ram.call_end[sender]
    gen, stride = ram.call_gen[sender], ram.call_stride[sender]
    # no user code runs here before the flush; the sender's words are not looked at again
    if kind == IPI_FLUSH_EARLY_ACK:
        ack(ram, cpu, sender)
    flush_tlb_func(ram, cpu, mm, start, end, gen, stride, sender if kind != BROADCAST_FLUSH else -1)
    call(ram, HOOK_INTERRUPT, cpu, sender, 0, 0, 0)
    return 1 if kind == IPI_FLUSH_EARLY_ACK else 0


@kernel
def _request_kind(ram, cpu, mm, how):
    """Ask the design how the round to `call_mask` is to be carried out."""
    answer = call(ram, HOOK_SHOOTDOWN, cpu, mm, how & FREED_TABLES, cpumask_weight(ram.call_mask, cpu), 0)
    if answer == BY_EARLY_ACK:
        return IPI_FLUSH_EARLY_ACK
    return BROADCAST_FLUSH if answer == BY_BROADCAST else IPI_FLUSH


@kernel
def flush_mask(ram, cpu, mm, start, end, gen, how):
    """Interrupt the CPUs in this CPU's `call_mask`, flush here if it is in it, wait for the acks
    (flush_tlb_multi).

    Returns how many were interrupted. Lazy CPUs drop out unless page tables are freed; this one too, if there
    are others to ask (should_flush_tlb; smp_call_function_many_cond asks it for the local CPU as well).
    """
    here = cpumask_test_cpu(cpu, ram.call_mask, cpu)
    __cpumask_clear_cpu(cpu, ram.call_mask, cpu)
    asked = 0
    remote = not cpumask_empty(ram.call_mask, cpu)
    if remote:
        site = ram.cpu_site[cpu]
        # as Linux counts: also a broadcast whose targets all turn out to be lazy
        ram.nr_tlb_remote_flush[cpu] += 1
        span(ram, cpu, SPAN_SHOOTDOWN, site, mm)
        ram.site_flushes[cpu, site] += 1
        trace_tlb_flush(ram, cpu, REMOTE_SEND_IPI, ALL_PAGES if end == FLUSH_ALL else end - start)
        if how & FREED_TABLES == 0:
            here = here and ram.cpu_lazy[cpu] == 0
            for target in for_each_cpu(ram.call_mask, cpu):
                if load_acquire(ram.cpu_lazy, target):
                    ram.lazy_spared[cpu] += 1
                    __cpumask_clear_cpu(target, ram.call_mask, cpu)
        record(ram, cpu, EV_SHOOTDOWN, mm, cpumask_weight(ram.call_mask, cpu), site, 0)
        ram.call_kind[cpu], ram.call_mm[cpu], ram.call_gen[cpu] = _request_kind(ram, cpu, mm, how), mm, gen
        ram.call_start[cpu], ram.call_end[cpu], ram.call_stride[cpu] = start, end, how >> 1
        asked = send_interrupts(ram, cpu)
        ram.site_ipis[cpu, site] += asked
        note_time(ram, cpu, site, asked)
    if here:  # while the others are at it
        flush_tlb_func(ram, cpu, mm, start, end, gen, how >> 1, cpu)
    if asked:
        wait_for_acks(ram, cpu, asked)
    if remote:
        end_span(ram, cpu, SPAN_SHOOTDOWN)
    return asked


@apart
def flush_tlb_mm_range(ram, cpu, mm, start, end, how):
    """Flush pages start..end of an mm on every CPU that may cache them (flush_tlb_mm_range).

    `how`: FREED_TABLES or 0, plus twice the stride: with 9 (a PMD) or more, every so many pages one address
    is invalidated.
    """
    if end == FLUSH_ALL or (end - start) >> (how >> 1) > ram.flush_ceiling:
        start, end = 0, FLUSH_ALL
    gen = inc_mm_tlb_gen(ram, mm)
    fence_after_atomic()  # the generation before the look at who has the mm: pairs with switch_mm
    cpumask_copy(ram.call_mask, cpu, ram.mm_cpumask, mm)
    return flush_mask(ram, cpu, mm, start, end, gen, how)


@kernel
def flush_tlb_mm(ram, cpu, mm):
    """Flush everything of an mm everywhere, lazy CPUs included (flush_tlb_mm)."""
    return flush_tlb_mm_range(ram, cpu, mm, 0, FLUSH_ALL, FREED_TABLES)


@kernel
def flush_tlb_page(ram, cpu, mm, vpn):
    """Flush one page of an mm everywhere."""
    return flush_tlb_mm_range(ram, cpu, mm, vpn, vpn + 1, 0)


@kernel
def flush_batch(ram, cpu, mask, row):
    """Flush everything on the CPUs of a mask that this CPU owns, and empty it (arch_tlbbatch_flush); how many
    were asked.
    """
    fence()
    cpumask_copy(ram.call_mask, cpu, mask, row)
    cpumask_clear(mask, row)
    return flush_called(ram, cpu)


@apart
def flush_called(ram, cpu):
    """Flush everything on the CPUs in this CPU's `call_mask`."""
    return flush_mask(ram, cpu, INIT_MM, 0, FLUSH_ALL, NO_GENERATION, 0)


# --- which address space a CPU has loaded -------------------------------------------------------------------


@kernel
def _choose_asid(ram, cpu, mm):
    """Find the slot of an mm, or recycle one (choose_new_asid). Without PCID there is one slot, flushed at
    every load.
    """
    if ram.pcid:
        for slot in range(ram.nr_asids):
            if ram.asid_mm[cpu, slot] == mm and ram.asid_context[cpu, slot] != 0:
                return slot
    slot = (ram.cpu_next_asid[cpu]) % ram.nr_asids
    ram.cpu_next_asid[cpu] += 1
    if ram.asid_context[cpu, slot] != 0:
        ram.slot_recycled[cpu] += 1
        record(ram, cpu, EV_FLUSH, ram.asid_mm[cpu, slot], -1, -1, cpu)
    ram.asid_mm[cpu, slot] = mm
    ram.asid_context[cpu, slot] = new_context(ram, cpu)
    ram.asid_gen[cpu, slot] = -1
    # it is empty: nothing of older changes is in it
    ram.asid_changes[cpu, slot] = load_acquire(ram.mm_changes_done, mm)
    return slot


@apart
def switch_mm(ram, cpu, mm):
    """Load an address space (switch_mm_irqs_off); cheap if it is loaded already."""
    previous = ram.cpu_loaded_mm[cpu]
    was_lazy = ram.cpu_lazy[cpu]
    if previous == mm and not was_lazy:
        return 0
    store_release(ram.cpu_switches, cpu, ram.cpu_switches[cpu] + 1)  # who looks at our TLB must not now
    if previous == mm:
        ram.cpu_lazy[cpu] = 0
        fence()  # not lazy any more, before the look at tlb_gen: pairs with flush_tlb_mm_range
        slot = ram.cpu_asid[cpu]
    else:
        if previous != INIT_MM:
            cpumask_clear_cpu(cpu, ram.mm_cpumask, previous)
        if mm != INIT_MM:
            cpumask_set_cpu(cpu, ram.mm_cpumask, mm)
        ram.cpu_loaded_mm[cpu] = mm
        ram.cpu_lazy[cpu] = 0
        fence()  # in the mm's cpumask, before the look at tlb_gen
        slot = _choose_asid(ram, cpu, mm)
        ram.cpu_asid[cpu] = slot
        ram.cpu_context[cpu] = ram.asid_context[cpu, slot]
        ram.context_switches[cpu] += 1
        ram.cpu_clock[cpu] += ram.cost_context_switch
        record(ram, cpu, EV_SWITCH, previous, mm, 0, 0)
    newest = load_acquire(ram.mm_tlb_gen, mm)
    if ram.asid_gen[cpu, slot] < newest:
        trace_tlb_flush(ram, cpu, ON_TASK_SWITCH, ALL_PAGES)
        if ram.asid_gen[cpu, slot] >= 0:
            if previous == mm:
                ram.lazy_came_back_late[cpu] += 1
            else:
                ram.slot_came_back_late[cpu] += 1
            invalidate_asid(ram, cpu, slot)
            record(ram, cpu, EV_FLUSH, mm, -1, -1, cpu)
            call(ram, HOOK_FLUSHED, cpu, mm, 0, 0, 0)
        ram.asid_gen[cpu, slot] = newest
    store_release(ram.cpu_switches, cpu, ram.cpu_switches[cpu] + 1)
    return 0


@kernel
def enter_lazy_tlb(ram, cpu):
    """Keep the address space loaded but promise not to use it (idle, kernel threads)."""
    if ram.cpu_loaded_mm[cpu] != INIT_MM:
        ram.cpu_lazy[cpu] = 1
