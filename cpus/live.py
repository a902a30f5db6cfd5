"""Pages that a thread is in the midst of using when its TLB is flushed: it touches them again at once, and
misses.

A workload's row says "page p was visited, with n accesses, while it stayed among the 16 pages used last"
(that is how traces are recorded and generators written): a hot page, say the stack, has a row only every few
dozen visits although it is accessed all the time. Without a flush that makes no difference to a TLB of 96
entries. After one it does: each page in use misses once more. So a flush of the loaded address space notes
the first-level entries that were used again since they were filled, within the last LIVE_VISITS visits, and
the thread visits them before it goes on. Pages that are merely swept over are used once, not again. A thread
that spins at a barrier uses two pages without a row saying so: the barrier's and its code's. Each flush costs
it both. Rows of a workload that says that they are exact name every use, and nothing is noted.
Left out: pages in use that had left the first level before the flush.
"""

from cpus.abi.numbers import IFETCH, LOAD
from cpus.access import visit_pages
from cpus.compiled import apart, kernel
from cpus.declare import OWNER, Field, Struct
from cpus.tlb import LIVE_PAGES

FIELDS = (
    Struct("nr_cpus", "clock", (
        Field("cpu_spin_page", OWNER,
              "page that its thread reads while it spins at a barrier + 1, 0 not spinning"),
        Field("cpu_last_fetch", OWNER, "code page that its thread entered last"),
        Field("cpu_probing", OWNER,
              "PROBES while it visits pages that need not be mapped, REFUSED when one was not"),
    )),
    Field("live_now", OWNER, "live pages that are being visited again", ("nr_cpus", LIVE_PAGES)),
)  # fmt: skip

FOREVER = 1 << 56
PROBES, REFUSED = 1, 2  # of cpu_probing


@kernel
def touch_live_pages(ram, cpu):
    """Visit, once each, the pages that were in use when the TLB was flushed."""
    count = ram.cpu_live_count[cpu]
    for i in range(count):
        ram.live_now[cpu, i] = ram.live_page[cpu, i]
    ram.cpu_live_count[cpu] = 0  # first: another flush meanwhile notes its own
    ram.cpu_probing[cpu] = PROBES  # another thread may have unmapped them: then it does not use them any more
    for i in range(count):
        noted = ram.live_now[cpu, i]
        visit_pages(ram, cpu, noted & 3, noted >> 2, 1, 1, 0)
    ram.cpu_probing[cpu] = 0


@apart
def touch_spin_pages(ram, cpu):
    """Go on spinning after an interrupt: read the barrier's page and the code's, without faulting (we are in
    an interrupt).
    """
    slice_end = ram.cpu_slice_end[cpu]
    ram.cpu_slice_end[cpu] = FOREVER  # spinning takes no part in the slice
    visit_pages(ram, cpu, LOAD, ram.cpu_spin_page[cpu] - 1, 1, 1, 0)
    visit_pages(ram, cpu, IFETCH, ram.cpu_last_fetch[cpu], 1, 1, 0)
    ram.cpu_slice_end[cpu] = slice_end
    return 0
