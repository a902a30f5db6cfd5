"""What the oracle says of an access that did not find what it should have: the kind of violation, or a read
in a window of Linux itself.

Such a window is a translation that another CPU's batch of reclaim has taken away and not flushed yet, or a
call of the reader's own process that has not returned (docs/coherence.md). It is looked for when the read
happens: a design that has flushed, and spared this CPU, is found.
"""

from cpus.atomics import load_acquire
from cpus.compiled import apart, kernel
from cpus.completion import WRITE_PROTECTED, marked
from cpus.exposed import LOADED, OCCASIONS, OPEN, batch_of, note_window, shows
from cpus.exposed_pages import NO_FRAME
from cpus.oracle import LATE, LOST, REUSE, STALE, VERSION_BITS, check_load, report
from cpus.tlb import CONTEXT_BITS, VALUE_SHIFT

READ = OCCASIONS.add(("read {}", "{} was read"))


@kernel
def _is_left_open(ram, cpu, vpn, pfn):
    """Is what took the translation away not over: another CPU's batch, or a change of this mm by a user?"""
    mm = ram.cpu_loaded_mm[cpu]
    if load_acquire(ram.mm_flush_pending, mm) > 0 and not shows(ram, mm, vpn, pfn, 0):
        return True
    return batch_of(ram, cpu, pfn) == OPEN


@apart
def incoherent(ram, cpu, access, logical, published, word):
    """Say what is wrong with an access (twice the TLB entry, plus 1 for a store) that found `word`; 1 if
    nothing is.

    Apart, to keep the loop of visits small. A read of a page that a completed change has only write-protected
    is judged as any other: the loop has compared it with a logical page that nothing bears. A read of an old
    content in a window that vanilla leaves open, too, is noted apart, and nothing is wrong.
    """
    entry, store = access >> 1, access & 1
    vpn, pfn = ram.tlb_tag[cpu, entry] >> CONTEXT_BITS, ram.tlb_value[cpu, entry] >> VALUE_SHIFT
    what = STALE if store == 0 else LOST
    if logical == marked(ram):
        logical, taken = ram.tlb_marked[cpu, entry] >> 1, ram.tlb_marked[cpu, entry] & 1
        coherent, published, word = check_load(ram, pfn, logical)
        if store or taken != WRITE_PROTECTED:
            what = LATE
        elif coherent:
            return 1
    if what != LATE and word >> VERSION_BITS != logical:
        what = REUSE
    if what == STALE and _is_left_open(ram, cpu, vpn, pfn):
        mm, filled_ns = ram.cpu_loaded_mm[cpu], ram.tlb_filled_ns[cpu, entry]
        note_window(ram, cpu, READ, cpu, vpn, pfn, logical, mm, filled_ns, entry, LOADED, NO_FRAME)
        return 1
    report(ram, cpu, what, vpn, pfn, (logical << VERSION_BITS) | published, word, entry)
    return 0
