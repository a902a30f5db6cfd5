"""ABIS, access-based invalidation (Amit, "Optimizing the TLB Shootdown Algorithm with Page Access Tracking",
USENIX ATC 2017).

Mechanism: a CPU that fills its TLB sets the PTE's accessed bit first. So a PTE whose bit is clear has not
been cached since the bit was cleared, and if every CPU that runs the address space has flushed it completely
since then (or the bit was never set), no TLB has it: it is unmapped without any flush. Everything else goes
the way of vanilla's batch. The clock is a stamp that every clearing of a bit advances (kept for each frame,
the newest of all its PTEs); a CPU that has flushed notes the stamp of that moment for that mm. Safety: what a
CPU fills after its flush sets the bit again. So an entry that is still there was filled after the flush (the
bit is set, or was cleared later than the flush's stamp), and in both cases the flush is not skipped. CPUs
that do not have the mm loaded, or have it lazily, are behind in tlb_gen, which is raised all the same, and
flush when they come back. While a gather of the mm is open (madvise clears bits too, and flushes at its end)
nothing is skipped.
Simplified: of the paper's two cases only the *long-lived idle* one. For *short-lived private* pages it loads
the faulting CPU's TLB through a second page table, so that the bit tells whether a second CPU came; the
emulator has no second table, so a bit that is set means "anybody". munmap does not ask (the paper does).
"""

from allocator.tlb_flush import inc_mm_tlb_gen
from cpus.atomics import fence, fetch_add, load_acquire, store_release
from cpus.compiled import kernel
from cpus.cpumask import for_each_cpu
from cpus.layout import Sizes
from cpus.page_table import PTE_ACCESSED, pte_pfn
from designs.design import Design, hook
from designs.linux import (
    Linux,
    linux_mapping_change,
    linux_unmap_flush,
    linux_unmap_flush_dirty,
    set_flush_pending,
)
from designs.state import own_fields


def abis_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shared fields: the clock, and what was seen at which time."""
    return {
        "stamp": (1,),  # any, add
        # pte lock of one of its PTEs, racy between them: stamp of the newest clearing of a bit
        "cleared": (sizes.nr_frames,),
        # the CPU writes, any reads: stamp when it last flushed all of the mm
        "flushed": (sizes.nr_cpus, sizes.nr_mms),
        "skipped": (sizes.nr_cpus,),  # owner: unmaps that needed no flush
    }


abis_state = own_fields("abis", abis_fields)


@kernel
def nobody_has_it(ram, state, cpu, mm, pfn):
    """Has every CPU that runs the mm flushed it since the frame's accessed bits were cleared? tlb_gen was
    raised before.
    """
    fence()  # after the PTE was cleared and tlb_gen raised, before the look at who runs the mm
    cleared = load_acquire(state.cleared, pfn)
    for other in for_each_cpu(ram.mm_cpumask, mm):
        if load_acquire(ram.cpu_lazy, other) == 0 and load_acquire(state.flushed, (other, mm)) < cleared:
            return False
    return True


@hook("young_cleared")
def abis_young_cleared(ram, cpu, mm, vpn, pfn, d):
    """The stamp is drawn after the bit was cleared: a flush that notes this one or a newer began later."""
    state = abis_state(ram)
    stamp = fetch_add(state.stamp, 0, 1) + 1
    if load_acquire(state.cleared, pfn) < stamp:
        store_release(state.cleared, pfn, stamp)
    return 0


@hook("flushed")
def abis_flushed(ram, cpu, mm, b, c, d):
    """Nothing was filled on this CPU between its flush and here."""
    state = abis_state(ram)
    store_release(state.flushed, (cpu, mm), load_acquire(state.stamp, 0))
    return 0


@hook("pte_cleared")
def abis_pte_cleared(ram, cpu, mm, vpn, pte, object):
    state = abis_state(ram)
    if pte & PTE_ACCESSED == 0 and load_acquire(ram.mm_flush_pending, mm) == 0:
        inc_mm_tlb_gen(ram, mm)
        if nobody_has_it(ram, state, cpu, mm, pte_pfn(pte)):
            state.skipped[cpu] += 1
            return 0
    set_flush_pending(ram, cpu, mm, pte)
    return 0


class Abis(Design):
    """no flush for pages that accessed bits prove to be in no TLB (ATC 2017)"""

    name = "abis"
    relies_on = (*Linux.relies_on, "unmaps_not_flushed")
    hooks = (
        abis_young_cleared,
        abis_flushed,
        abis_pte_cleared,
        linux_unmap_flush,
        linux_unmap_flush_dirty,
        linux_mapping_change,
    )

    def fields(self, sizes: Sizes):
        return abis_fields(sizes)

    def statistics(self, ram):
        return {"unmaps_not_flushed": int(ram.design["skipped"].sum())}
