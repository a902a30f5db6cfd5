"""Eager: one shootdown for every PTE, as before batching (Linux up to 4.2; Mel Gorman's TTU_BATCH_FLUSH,
2015, ended that).

Mechanism: whoever clears a PTE for reclaim or migration flushes that page at once, on every CPU that may have
it, under the page-table lock.
Safety: no translation outlives its PTE by more than one round of interrupts, and nobody goes on before that
is over. Simplified: nothing. munmap and its kin batch all the same, as they did before 4.3.
"""

from allocator.tlb_flush import flush_tlb_page
from designs.design import Design, hook


@hook("pte_cleared")
def eager_pte_cleared(ram, cpu, mm, vpn, pte, object):
    flush_tlb_page(ram, cpu, mm, vpn)
    return 0


class Eager(Design):
    """one shootdown for every page that reclaim or migration unmaps"""

    name = "eager"
    hooks = (eager_pte_cleared,)
