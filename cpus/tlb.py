"""A CPU's private TLBs: first level for loads, for stores, for instruction fetches, and a shared second level.

Geometry comes from the machine file (Golden Cove: 96 entries 6-way, 16 fully associative, 256 8-way, 2048 16-way). Replacement
is least recently used within a set. An entry is tagged with its *context*: every (CPU, ASID slot) has one, drawn from a
counter and never used twice, so that flushing a whole address space is one increment; entries of dead contexts are never
hit and age out first. Entries remember the logical page that they were filled for (the oracle's side) and when.
Only the owner CPU touches its TLBs: remote CPUs must send interrupts.
Left out: huge-page entries, global entries, speculative fills, prefetch.
"""

from cpus.compiled import kernel
from cpus.layout import COUNTER

CONTEXT_BITS = 24
CONTEXT_LAST = (1 << CONTEXT_BITS) - 1
TLB_WRITE, TLB_DIRTY = 2, 0x40  # as in the PTE
VALUE_SHIFT = 8

LOAD, STORE, IFETCH = 0, 1, 2

C_FLUSH_ALL, C_FLUSH_ONE = COUNTER["nr_tlb_local_flush_all"], COUNTER["nr_tlb_local_flush_one"]


@kernel
def find_way(tags, first, ways, tag):
    """Look for `tag` in one set; returns the entry or -1."""
    for i in range(first, first + ways):
        if tags[i] == tag:
            return i
    return -1


@kernel
def oldest_way(ages, first, ways):
    """Choose the entry of a set to replace."""
    best = first
    for i in range(first + 1, first + ways):
        if ages[i] < ages[best]:
            best = i
    return best


@kernel
def first_level(ram, kind):
    """Give (base, sets, ways) of the first-level TLB that serves this kind of access."""
    if kind == LOAD:
        return ram.dtlb_base, ram.dtlb_sets, ram.dtlb_ways
    if kind == STORE:
        return ram.store_base, ram.store_sets, ram.store_ways
    return ram.itlb_base, ram.itlb_sets, ram.itlb_ways


@kernel
def invalidate_page(ram, cpu, vpn, context):
    """INVLPG: drop one page of one context from all levels."""
    tag = (vpn << CONTEXT_BITS) | context
    for base, sets, ways in (
        (ram.dtlb_base, ram.dtlb_sets, ram.dtlb_ways),
        (ram.store_base, ram.store_sets, ram.store_ways),
        (ram.itlb_base, ram.itlb_sets, ram.itlb_ways),
        (ram.stlb_base, ram.stlb_sets, ram.stlb_ways),
    ):
        first = base + (vpn % sets) * ways
        for i in range(first, first + ways):
            if ram.tlb_tag[cpu, i] == tag:
                ram.tlb_tag[cpu, i] = 0
                ram.tlb_age[cpu, i] = 0
    ram.counter[cpu, C_FLUSH_ONE] += 1


@kernel
def new_context(ram, cpu):
    """Draw a context that no entry of this CPU carries; when the numbers run out, empty the TLB and start again.

    Returns the context. After a restart the other ASID slots' contexts are dead too: their tags are reset to 0.
    """
    if ram.cpu_next_context[cpu] >= CONTEXT_LAST:
        for i in range(ram.tlb_entries):
            ram.tlb_tag[cpu, i] = 0
            ram.tlb_age[cpu, i] = 0
        for slot in range(ram.nr_asids):
            ram.asid_context[cpu, slot] = 0
        ram.cpu_next_context[cpu] = 0
    ram.cpu_next_context[cpu] += 1
    return ram.cpu_next_context[cpu]


@kernel
def invalidate_asid(ram, cpu, slot):
    """Flush everything of one ASID slot (INVPCID single context, or a write to cr3)."""
    context = new_context(ram, cpu)
    ram.asid_context[cpu, slot] = context
    if ram.cpu_asid[cpu] == slot:
        ram.cpu_context[cpu] = context
    ram.counter[cpu, C_FLUSH_ALL] += 1


@kernel
def invalidate_all(ram, cpu):
    """Flush every slot."""
    for slot in range(ram.nr_asids):
        ram.asid_context[cpu, slot] = new_context(ram, cpu)
    ram.cpu_context[cpu] = ram.asid_context[cpu, ram.cpu_asid[cpu]]
    ram.counter[cpu, C_FLUSH_ALL] += 1
