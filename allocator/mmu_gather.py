"""Gather what unmapping takes out, flush once, and only then give it back (mm/mmu_gather.c,
include/asm-generic/tlb.h).

A gather notes the range of addresses touched, the levels at which entries were cleared (they decide the
stride of the flush), the pages whose PTEs are gone and the page tables that were taken out. Its CPU owns it;
one is open at a time.
Left out: large pages, batches that cannot be allocated, RCU for the tables (whoever walks them in software
holds a lock that keeps the table; the hardware's walks end before the interrupt is served).
"""

from allocator.hooks import HOOK_USER_FLUSH
from allocator.lru import drop_page
from allocator.page_alloc import put_page
from allocator.rmap import DELAYED_RMAP, remove_rmap
from allocator.tlb_flush import FLUSH_ALL, FREED_TABLES, flush_tlb_mm_range
from cpus.atomics import fetch_add, load_acquire
from cpus.compiled import call, kernel
from cpus.declare import EXERCISED, OWNER, Atomic, Counter, Field, Struct
from cpus.page_table import LEVEL_BITS

GATHER_PAGES = 9690  # 19 batches of 510 (mm_types.h: MAX_GATHER_BATCH_COUNT, MAX_GATHER_BATCH)
GATHER_TABLES = 8192  # page tables that one gather may free: as many as map 16 GiB
FIELDS = (
    Struct("nr_mms", "lock", (
        Field("mm_flush_pending", Atomic("fetch_add"),
              "changes of PTEs under way whose flush has not been sent yet (tlb_flush_pending)"),
    )),
    Struct("nr_cpus", "gather", (
        Field("gather_mm", OWNER, "address space of its mmu_gather"),
        Field("gather_start", OWNER, "first vpn to flush"),
        Field("gather_end", OWNER, "behind the last vpn to flush"),
        Field("gather_cleared", OWNER, "levels cleared, bit 0 PTEs ... bit 3 P4Ds"),
        Field("gather_freed", OWNER, "page tables were taken out"),
        Field("gather_pages", OWNER, "pages in gather"),
        Field("gather_tables", OWNER, "tables in gather_table"),
    )),
    Field("gather", OWNER, "pages whose PTEs are cleared and not yet flushed (mmu_gather)",
          ("nr_cpus", GATHER_PAGES)),
    Field("gather_table", OWNER, "page tables taken out and not yet flushed (mmu_table_batch)",
          ("nr_cpus", GATHER_TABLES)),
)  # fmt: skip

COUNTERS = (
    Counter("gathers_nested", EXERCISED, "gathers closed while others changed PTEs of the mm: a full flush"),
)

NO_START = 1 << 60
PTES, PMDS, PUDS, P4DS = 1, 2, 4, 8  # levels at which entries were cleared


@kernel
def _reset_range(ram, cpu):
    ram.gather_start[cpu], ram.gather_end[cpu] = NO_START, 0
    ram.gather_cleared[cpu] = ram.gather_freed[cpu] = 0


@kernel
def tlb_gather_mmu(ram, cpu, mm):
    """Open the CPU's gather for an mm; until it is finished, TLBs may hold what the PTEs no longer show."""
    ram.gather_mm[cpu] = mm
    ram.gather_pages[cpu] = ram.gather_tables[cpu] = 0
    _reset_range(ram, cpu)
    fetch_add(ram.mm_flush_pending, mm, 1)


@kernel
def tlb_flush_range(ram, cpu, start, end, level):
    """Note that entries of a level were cleared or changed in start..end (tlb_flush_pte_range and kin)."""
    ram.gather_start[cpu] = min(ram.gather_start[cpu], start)
    ram.gather_end[cpu] = max(ram.gather_end[cpu], end)
    ram.gather_cleared[cpu] |= level


@kernel
def tlb_remove_page(ram, cpu, pfn):
    """Keep a page until the flush; True if the gather is full and must be flushed now."""
    ram.gather[cpu, ram.gather_pages[cpu]] = pfn
    ram.gather_pages[cpu] += 1
    return ram.gather_pages[cpu] >= GATHER_PAGES


@kernel
def tlb_remove_table(ram, cpu, table, start, level):
    """Keep a page table that was taken out at `start` until the flush (pte_free_tlb: PMDS, pmd_free_tlb:
    PUDS, pud_free_tlb: P4DS).
    """
    tlb_flush_range(ram, cpu, start, start + 1, level)
    ram.gather_freed[cpu] = FREED_TABLES
    if table < 0:
        return
    ram.gather_table[cpu, ram.gather_tables[cpu]] = table
    ram.gather_tables[cpu] += 1
    if ram.gather_tables[cpu] >= GATHER_TABLES:
        tlb_flush_mmu(ram, cpu)


@kernel
def _stride(cleared):
    """Pages between two addresses that need invalidation, log2 (tlb_get_unmap_shift)."""
    if cleared & PTES or cleared == 0:
        return 0
    if cleared & PMDS:
        return LEVEL_BITS
    return 2 * LEVEL_BITS if cleared & PUDS else 3 * LEVEL_BITS


@kernel
def tlb_flush_mmu_tlbonly(ram, cpu):
    """Flush what was gathered so far, if anything was (tlb_flush of x86)."""
    if ram.gather_cleared[cpu] or ram.gather_freed[cpu]:
        how = ram.gather_freed[cpu] | (_stride(ram.gather_cleared[cpu]) << 1)
        flush_tlb_mm_range(ram, cpu, ram.gather_mm[cpu], ram.gather_start[cpu], ram.gather_end[cpu], how)
        _reset_range(ram, cpu)


@kernel
def tlb_flush_rmaps(ram, cpu):
    """The flush is done: gathered pages whose mapcount was kept until then lose it."""
    for i in range(ram.gather_pages[cpu]):
        if ram.gather[cpu, i] & DELAYED_RMAP:
            ram.gather[cpu, i] &= ~DELAYED_RMAP
            remove_rmap(ram, cpu, ram.gather[cpu, i])


@kernel
def tlb_flush_everything(ram, cpu):
    """Make the gather's next flush a full one (fullmm)."""
    tlb_flush_range(ram, cpu, 0, FLUSH_ALL, PTES)


@kernel
def tlb_flush_mmu(ram, cpu):
    """Flush, then drop the pages and free the tables that were kept."""
    _flush_and_drop(ram, cpu, 0)


@kernel
def _flush_and_drop(ram, cpu, munmap):
    """The same; the design may have a munmap's pages freed with a key instead of the flush."""
    key = 0
    if ram.gather_pages[cpu]:
        whole = munmap if ram.gather_freed[cpu] == 0 else 0
        key = call(
            ram, HOOK_USER_FLUSH, cpu, ram.gather_mm[cpu], ram.gather_start[cpu], ram.gather_end[cpu], whole
        )
    if key == 0:
        tlb_flush_mmu_tlbonly(ram, cpu)
    else:
        _reset_range(ram, cpu)
    for i in range(ram.gather_tables[cpu]):
        table = ram.gather_table[cpu, i]
        ram.page_flags[table] = 0
        # not free_page: a late look-up of what the frame held before may hold it for a moment
        put_page(ram, cpu, table)
    for i in range(ram.gather_pages[cpu]):
        if key:
            ram.page_key[ram.gather[cpu, i]] = key  # whoever drops the last reference frees it with the key
        drop_page(ram, cpu, ram.gather[cpu, i])
    ram.gather_pages[cpu] = ram.gather_tables[cpu] = 0


@kernel
def tlb_finish_mmu(ram, cpu):
    """Close the gather. If others change PTEs of the mm at the same time, we may have met what they cleared
    and have not flushed yet.
    """
    _finish(ram, cpu, 0)


@kernel
def tlb_finish_munmap(ram, cpu):
    """Close the gather of a munmap, whose addresses nobody uses until they are mapped anew."""
    _finish(ram, cpu, 1)


@kernel
def _finish(ram, cpu, munmap):
    if load_acquire(ram.mm_flush_pending, ram.gather_mm[cpu]) > 1:  # mm_tlb_flush_nested
        tlb_flush_everything(ram, cpu)
        ram.gather_freed[cpu] = FREED_TABLES
        ram.gathers_nested[cpu] += 1
    _flush_and_drop(ram, cpu, munmap)
    fetch_add(ram.mm_flush_pending, ram.gather_mm[cpu], -1)
