"""The oracle on states: before a page changes, no CPU may have a translation of it to another frame that it
would still use.

Two rules, each at the moment at which it could first matter.
- A page of a file gets a new content (write(2), truncation, a direct write), or a PTE of it becomes writable:
  no CPU may have a translation to the frame that the page had before, or it misses what is written. Entries
  filled from the new content already (direct writes) do not count.
- A PTE of private memory becomes writable: no CPU may have a translation of that address to another frame.
What an entry is, and who would use it, is said in exposed.py. Besides, an entry does not count as long as
what took its translation away is not over: a batch of reclaim or migration of its own CPU, which flushes it
before it returns to user code, or a change by a user whose call has not returned. If it is the batch of
another CPU, vanilla leaves that window open, too: it is counted apart (`run_windows`), and is no fault of a
design.
A page of a file remembers the frame that it left last while TLBs had entries of it. Left out: frames that it
left before that one; stores through PTEs that are writable already.
"""

from cpus.atomics import compare_exchange, fetch_or, load_acquire, store_release
from cpus.compiled import apart, inlined, kernel
from cpus.declare import Atomic, Field, Struct
from cpus.exposed import (
    OCCASIONS,
    OPEN,
    bit_of,
    entries_of,
    expose,
    fillers_of,
    fills_of,
    note_window,
    read_entry,
    was_filled,
)
from cpus.oracle import VERSION_BITS, VERSION_MASK
from cpus.ram import row
from cpus.tlb import CONTEXT_BITS, EMPTY, VALUE_SHIFT, find_way, has_page

FIELDS = (
    Field("page_left", Atomic("compare_exchange", "store_release"),
          "frame + 1 that a page of a file left last, while TLBs had entries of it", ("nr_logical",),
          oracle=True),
    Struct("nr_mms", "changes", (
        Field("mm_fills", Atomic("fetch_or"), "CPUs that have filled an entry of the mm, as in frame_fills",
              oracle=True),
    )),
)  # fmt: skip

WRITTEN = OCCASIONS.add(("write to {}", "{} was written to"))
TRUNCATED = OCCASIONS.add(("truncate {}", "{} was truncated"))
WRITTEN_DIRECTLY = OCCASIONS.add(("publish what a device wrote to {}", "{} was written directly"))
WRITABLE = OCCASIONS.add(("make {} writable", "{} became writable"))
NO_FRAME = -1


# --- pages of files -----------------------------------------------------------------------------------------


@inlined
def page_leaves(ram, pfn):
    """A page is about to leave a frame."""
    if ram.states and was_filled(ram, pfn):
        logical = load_acquire(ram.content, pfn) >> VERSION_BITS
        if logical < ram.zero_logical:
            store_release(ram.page_left, logical, pfn + 1)


@kernel
def _judge(ram, cpu, occasion, other, i, found, fresh):
    """Report one entry, as it was read, if its CPU would use it."""
    tag, pfn, logical, filled_ns, mm, why, waits_for = found
    if why != 0 and waits_for == 0:
        expose(ram, cpu, occasion, other, tag >> CONTEXT_BITS, pfn, logical, mm, filled_ns, i, why, fresh)
    elif why != 0 and waits_for == OPEN:
        note_window(
            ram, cpu, occasion, other, tag >> CONTEXT_BITS, pfn, logical, mm, filled_ns, i, why, fresh
        )


@kernel
def _has_page(ram, cpu, other, i, pfn, logical, version, fresh, occasion):
    """Has a CPU's TLB entry `i` a translation of the page to a frame that it has left?"""
    found = read_entry(ram, other, i, pfn, 0)
    if found[0] == EMPTY or found[2] != logical:
        return False
    word = load_acquire(ram.content, pfn)
    if word >> VERSION_BITS != logical or word & VERSION_MASK < version:
        _judge(ram, cpu, occasion, other, i, found, fresh)
    return True


@apart
def look_at_page(ram, cpu, logical, fresh, what):
    """Look for translations of a page of a file to the frame that it left last, unless that is `fresh`.
    `what` is the new version << 8 | the occasion.
    """
    left = load_acquire(ram.page_left, logical)
    pfn, version, occasion = left - 1, what >> 8, what & 255
    if left == 0 or pfn == fresh:
        return 0
    fillers, page = fills_of(ram, pfn)
    found = False
    for other in fillers_of(ram, fillers):
        for i in entries_of(ram, other, page, pfn):
            found = _has_page(ram, cpu, other, i, pfn, logical, version, fresh, occasion) or found
    if not found:
        compare_exchange(ram.page_left, logical, left, 0)
    return 0


@inlined
def page_changes(ram, cpu, logical, fresh, version, occasion):
    """A page of a file, in frame `fresh` or NO_FRAME, is about to get a new version."""
    if ram.states and load_acquire(ram.page_left, logical) != 0:
        look_at_page(ram, cpu, logical, fresh, (version << 8) | occasion)


# --- addresses ----------------------------------------------------------------------------------------------


@inlined
def note_mm_fill(ram, cpu, mm):
    """Say that this CPU is about to fill an entry of an mm."""
    if load_acquire(ram.mm_fills, mm) & bit_of(cpu) == 0:
        fetch_or(ram.mm_fills, mm, bit_of(cpu))


@kernel
def _look_for(ram, cpu, other, base, sets, ways, tag, fresh):
    """Look in one TLB of a CPU for an address that shows another frame than `fresh`."""
    i = find_way(row(ram.tlb_tag, other), base + ((tag >> CONTEXT_BITS) & (sets - 1)) * ways, ways, tag)
    if i >= 0 and ram.tlb_value[other, i] >> VALUE_SHIFT != fresh:
        found = read_entry(ram, other, i, -1, 0)
        if found[0] == tag and found[1] != fresh:
            _judge(ram, cpu, WRITABLE, other, i, found, fresh)


@apart
def look_at_address(ram, cpu, mm, vpn, fresh):
    """Look at the TLBs of all CPUs that have run in an mm for one of its addresses."""
    for other in fillers_of(ram, load_acquire(ram.mm_fills, mm)):
        if not has_page(ram, other, vpn):
            continue
        for slot in range(ram.nr_asids):
            if load_acquire(ram.asid_mm, (other, slot)) == mm:
                tag = (vpn << CONTEXT_BITS) | load_acquire(ram.asid_context, (other, slot))
                _look_for(ram, cpu, other, ram.stlb_base, ram.stlb_sets, ram.stlb_ways, tag, fresh)
                _look_for(ram, cpu, other, ram.dtlb_base, ram.dtlb_sets, ram.dtlb_ways, tag, fresh)
                _look_for(ram, cpu, other, ram.store_base, ram.store_sets, ram.store_ways, tag, fresh)
                _look_for(ram, cpu, other, ram.itlb_base, ram.itlb_sets, ram.itlb_ways, tag, fresh)
    return 0


@inlined
def becomes_writable(ram, cpu, pfn, mm, vpn):
    """A PTE is about to show a frame, writable; pte lock held."""
    if ram.states:
        word = load_acquire(ram.content, pfn)
        if word >> VERSION_BITS < ram.zero_logical:
            page_changes(ram, cpu, word >> VERSION_BITS, pfn, (word & VERSION_MASK) + 1, WRITABLE)
        else:
            look_at_address(ram, cpu, mm, vpn, pfn)
