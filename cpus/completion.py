"""The oracle's other half: what the return of munmap, mprotect and their kin promises (access after
completion).

A change of mappings *begins* before it touches a PTE and is *complete* when the call that asked for it may
return. A translation that was filled before the change began, and is still used after it is complete, breaks
the promise, whatever the frame holds by then: a second thread may have learned that nobody can reach those
pages (or write to them) any more.

Each mm counts the changes that began, and keeps the last CHANGES_KEPT complete ones in a ring. A fill
remembers the count that it saw AFTER it had read the PTE: if that is below a change's number, the PTE was
read before the change began. A CPU that begins a slice, comes back from an interrupt, or has waited or called
the kernel, looks whether changes were completed and marks what it still holds of them in its TLB; the next
use of a marked entry is reported. Fills that overlap a change are never marked: no false alarms. Left out:
changes beyond the ring's length between two looks; uses between a completion and the next look (rows of
visits do not look).
"""

from cpus.atomics import fetch_add, load_acquire, store_release
from cpus.compiled import apart, kernel
from cpus.declare import ANY, OWNER, Atomic, Exclusive, Field, Struct
from cpus.events import EV_CHANGE, record
from cpus.page_table import PTE_WRITE
from cpus.ram import row
from cpus.tlb import CONTEXT_BITS, CONTEXT_MASK, NR_ASIDS

CHANGES_KEPT, CHANGE_WORDS = 256, 4  # completed changes of mappings that an mm remembers
FIELDS = (
    Struct("nr_mms", "changes", (
        Field("mm_changes_begun", Atomic("fetch_add"), "changes of mappings that have begun", oracle=True),
        Field("mm_changes_done", Atomic("fetch_add"), "changes that are complete", oracle=True),
    )),
    Field("mm_change", Exclusive("who completed the change; its number is stored last"),
          "ring of completed changes", ("nr_mms", CHANGES_KEPT * CHANGE_WORDS), reads=ANY, oracle=True),
    Field("tlb_change", OWNER, "changes of the mm that had begun when the entry was filled",
          ("nr_cpus", "tlb_entries"), reads=ANY, oracle=True),
    Field("tlb_marked", OWNER, "what the logical page of a marked entry was, and what was taken away",
          ("nr_cpus", "tlb_entries"), reads=ANY, oracle=True),
    Field("asid_changes", OWNER, "completed changes of the slot's mm that it has looked at",
          ("nr_cpus", NR_ASIDS), oracle=True),
)  # fmt: skip

UNMAPPED, WRITE_PROTECTED = 0, 1  # what a change has taken away
NUMBER, START, END, TAKEN = range(CHANGE_WORDS)


@kernel
def marked(ram):
    """The logical page that marked entries bear: one that no frame ever holds, so that their next use is
    looked at.
    """
    return ram.nr_logical - 1


@kernel
def change_begins(ram, mm):
    """Say that PTEs of an mm are about to be changed; returns the number to complete the change with."""
    return fetch_add(ram.mm_changes_begun, mm, 1) + 1


@kernel
def change_is_complete(ram, cpu, mm, number, start, end, taken):
    """Say that nobody can use the old translations of start..end any more (or write through them)."""
    record(ram, cpu, EV_CHANGE, mm, start, end, taken)
    position = fetch_add(ram.mm_changes_done, mm, 1)
    at = (position % CHANGES_KEPT) * CHANGE_WORDS
    # whoever reads the slot meanwhile sees that it changes
    store_release(ram.mm_change, (mm, at + NUMBER), 0)
    ram.mm_change[mm, at + START], ram.mm_change[mm, at + END] = start, end
    store_release(ram.mm_change, (mm, at + TAKEN), (position << 1) | taken)
    store_release(ram.mm_change, (mm, at + NUMBER), number)


@kernel
def _mark_entries(ram, cpu, number, start, end, taken):
    """Mark what this CPU's TLBs hold of one completed change."""
    tags, logicals, stamps = row(ram.tlb_tag, cpu), row(ram.tlb_logical, cpu), row(ram.tlb_change, cpu)
    context, bad = ram.cpu_context[cpu], marked(ram)
    for i in range(ram.tlb_entries):
        if tags[i] & CONTEXT_MASK == context and stamps[i] < number:
            vpn = tags[i] >> CONTEXT_BITS
            if not (start <= vpn < end and (taken == UNMAPPED or ram.tlb_value[cpu, i] & PTE_WRITE)):
                continue
            if logicals[i] != bad:
                ram.tlb_marked[cpu, i] = (logicals[i] << 1) | taken
                logicals[i] = bad
            elif taken == UNMAPPED:  # what could still be read cannot be any more
                ram.tlb_marked[cpu, i] = (ram.tlb_marked[cpu, i] >> 1 << 1) | UNMAPPED


@apart
def look_for_completed_changes(ram, cpu):
    """Mark what this CPU still holds of the changes that were completed since it looked last."""
    mm, slot = ram.cpu_loaded_mm[cpu], ram.cpu_asid[cpu]
    done, seen = load_acquire(ram.mm_changes_done, mm), ram.asid_changes[cpu, slot]
    seen = max(seen, done - CHANGES_KEPT)
    while seen < done:
        at = (seen % CHANGES_KEPT) * CHANGE_WORDS
        number = load_acquire(ram.mm_change, (mm, at + NUMBER))
        start, end, taken = (
            ram.mm_change[mm, at + START],
            ram.mm_change[mm, at + END],
            load_acquire(ram.mm_change, (mm, at + TAKEN)),
        )
        if number == 0 or taken >> 1 < seen:
            break  # it is being written: next time
        # not overtaken by a newer one
        if taken >> 1 == seen and load_acquire(ram.mm_change, (mm, at + NUMBER)) == number:
            _mark_entries(ram, cpu, number, start, end, taken & 1)
        seen += 1
    ram.asid_changes[cpu, slot] = seen
    return 0
