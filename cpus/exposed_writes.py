"""The oracle on states: when a page of a file is written to disk and counts as clean, no CPU may be able to
store to it unnoticed.

A store is noticed by the walk that sets a PTE's dirty bit. A TLB entry that has both the right to write and
the dirty bit needs no walk. So, as a page is written, each such entry must be gone, or its PTE must still say
that it is dirty: what is stored through another one is lost as soon as the page is dropped. It does not count
while somebody holds the lock of that PTE: who clears it notes its dirty bit, and flushes, before he lets go.
Nor does an entry of a CPU that flushes its own batch before it returns to user code. Who writes flushes his
own batch before. If the batch of a third CPU holds the flush, vanilla leaves that window open, too
(exposed_pages.py).
Left out: devices; entries of huge pages.
"""

from cpus.atomics import load_acquire
from cpus.compiled import apart, inlined, kernel, later
from cpus.exposed import (
    OCCASIONS,
    entries_of,
    expose,
    fillers_of,
    fills_of,
    note_window,
    read_entry,
    unflushed_by,
    was_filled,
)
from cpus.page_table import LEVEL_MASK, PTE_DIRTY, PTE_WRITE, find_table, pte_pfn, ptep_get
from cpus.tlb import CONTEXT_BITS

STORES = PTE_WRITE | PTE_DIRTY  # what an entry needs for a store to go through it without a walk
WRITTEN_OUT = OCCASIONS.add(("write {} to disk", "{} was written to disk"))

pte_is_locked = later("pte_is_locked", 2)


@kernel
def _is_noted(ram, mm, vpn, pfn):
    """Does the PTE say that the page is dirty?"""
    table = find_table(ram, ram.mm_pgd[mm], vpn)
    pte = ptep_get(ram, table, vpn & LEVEL_MASK) if table >= 0 else 0
    return pte_pfn(pte) == pfn and pte & PTE_DIRTY != 0


@kernel
def _look_at_entry(ram, cpu, other, i, pfn):
    """Report entry `i` of a CPU if stores go through it unnoticed.

    The PTE is read, then its lock: who has cleared the one has let go of the other. Then the tag: the entry
    outlived that. Then the PTE once more: the entry is not a new one.
    """
    tag, rights = load_acquire(ram.tlb_tag, (other, i)), load_acquire(ram.tlb_value, (other, i))
    if rights & STORES != STORES:
        return
    found = read_entry(ram, other, i, pfn, PTE_DIRTY)
    mm, why, vpn, unmapper = found[4], found[5], tag >> CONTEXT_BITS, unflushed_by(ram, pfn)
    if found[0] != tag or why == 0 or unmapper == other:
        return
    if _is_noted(ram, mm, vpn, pfn) or pte_is_locked(ram, mm, vpn) != 0:
        return
    if load_acquire(ram.tlb_tag, (other, i)) != tag or _is_noted(ram, mm, vpn, pfn):
        return
    if unmapper >= 0 and unmapper != cpu:
        note_window(ram, cpu, WRITTEN_OUT, other, vpn, pfn, found[2], mm, found[3], i, why, pfn)
    else:
        expose(ram, cpu, WRITTEN_OUT, other, vpn, pfn, found[2], mm, found[3], i, why, pfn)


@apart
def look_for_writers(ram, cpu, pfn):
    """Look at the TLBs of all CPUs that have filled an entry with a frame."""
    fillers, page = fills_of(ram, pfn)
    for other in fillers_of(ram, fillers):
        for i in entries_of(ram, other, page, pfn):
            _look_at_entry(ram, cpu, other, i, pfn)
    return 0


@inlined
def page_becomes_clean(ram, cpu, pfn):
    """A locked page of a file counts as clean from now on, and is about to be written to disk."""
    if ram.states and was_filled(ram, pfn):
        look_for_writers(ram, cpu, pfn)
