"""The oracle on states: when a call that took mappings or rights away returns, no CPU may have what it took.

A use after the return is judged when it happens (completion.py). Here the return itself is the moment: a
translation that was filled before the change began, or one through which a CPU could store though its PTE has
lost that right, must be gone from each CPU that would use it as it is (exposed.py says who would). The second
kind may be younger than the change: it was filled between a flush that came too early and the loss of the
right. Nothing that others have under way excuses an entry: who changes mappings flushes for them, too.
Left out: munmap, since no program uses addresses that it has unmapped, and designs may keep their frames.
"""

from cpus.atomics import load_acquire
from cpus.compiled import apart, inlined, kernel
from cpus.completion import UNMAPPED, change_is_complete
from cpus.exposed import OCCASIONS, expose, fillers_of, read_entry
from cpus.page_table import PTE_DIRTY, PTE_WRITE
from cpus.ram import row
from cpus.tlb import CONTEXT_BITS, CONTEXT_MASK, EMPTY, has_page

FEW_PAGES = 4  # up to so many are looked up one by one, else the whole TLB is read
STORES = PTE_WRITE | PTE_DIRTY  # what an entry needs for a store to go through it

TAKEN_AWAY = OCCASIONS.add(("return from the call that took {} away", "the call that took {} away returned"))
PROTECTED = OCCASIONS.add(
    ("return from the call that write-protected {}", "the call that write-protected {} returned")
)


@kernel
def _look_at_entry(ram, cpu, other, i, mm, change):
    """Report entry `i` of a CPU, which is of the change's addresses, if it must be gone, and would be used.

    The tag is read first and last: what was read in between is of one entry.
    """
    number, taken = change >> 1, change & 1
    tag, older = load_acquire(ram.tlb_tag, (other, i)), load_acquire(ram.tlb_change, (other, i)) < number
    rights = load_acquire(ram.tlb_value, (other, i))
    if taken == UNMAPPED and not older:
        return
    if taken != UNMAPPED and rights & STORES != STORES:
        return
    found = read_entry(ram, other, i, -1, 0 if taken == UNMAPPED else PTE_WRITE)
    if found[0] != tag or found[4] != mm or found[5] == 0:
        return
    occasion = TAKEN_AWAY if taken == UNMAPPED else PROTECTED
    expose(ram, cpu, occasion, other, tag >> CONTEXT_BITS, found[1], found[2], mm, found[3], i, found[5], -1)


@kernel
def _look_through(ram, cpu, other, first, count, context, change, mm, start, end):
    """Look at `count` TLB entries of a CPU from `first` on for addresses start..end under a context."""
    tags = row(ram.tlb_tag, other)
    for i in range(first, first + count):
        tag = tags[i]
        if tag & CONTEXT_MASK == context and tag != EMPTY and start <= tag >> CONTEXT_BITS < end:
            _look_at_entry(ram, cpu, other, i, mm, change)


@kernel
def _look_at_few(ram, cpu, other, context, change, mm, start, end):
    """Look at the sets in which a few pages would be."""
    for vpn in range(start, end):
        if has_page(ram, other, vpn):
            for base, sets, ways in (
                (ram.stlb_base, ram.stlb_sets, ram.stlb_ways),
                (ram.dtlb_base, ram.dtlb_sets, ram.dtlb_ways),
                (ram.store_base, ram.store_sets, ram.store_ways),
                (ram.itlb_base, ram.itlb_sets, ram.itlb_ways),
            ):
                first = base + (vpn & (sets - 1)) * ways
                _look_through(ram, cpu, other, first, ways, context, change, mm, vpn, vpn + 1)


@apart
def look_for_leftovers(ram, cpu, mm, change, start, end):
    """Look at the TLBs of all CPUs that have run in an mm for what a change has taken away. `change` is its
    number << 1 | what it took.
    """
    for other in fillers_of(ram, load_acquire(ram.mm_fills, mm)):
        for slot in range(ram.nr_asids):
            if load_acquire(ram.asid_mm, (other, slot)) != mm:
                continue
            context = load_acquire(ram.asid_context, (other, slot))
            if end - start <= FEW_PAGES:
                _look_at_few(ram, cpu, other, context, change, mm, start, end)
            else:
                _look_through(ram, cpu, other, 0, ram.tlb_entries, context, change, mm, start, end)
    return 0


@inlined
def call_returns(ram, cpu, mm, number, start, end, taken):
    """A call that took away start..end of an mm, or the right to write to it, may return: look who still has
    it, and say that nobody may use it from now on.
    """
    if ram.states:
        look_for_leftovers(ram, cpu, mm, (number << 1) | taken, start, end)
    change_is_complete(ram, cpu, mm, number, start, end, taken)
