"""Eager: a design of your own, one shootdown for every page that is unmapped.

Covers:
- Hooks: compiled functions that the kernel calls where a flush may be skipped, deferred or merged
- A design that runs from the command line too: luf compare linux examples/eager.py:Eager

Scenario:
  Linux clears the PTEs of up to 32 pages before it interrupts anybody, once for all of them. Eager flushes
  each page at once, under the page-table lock. It is correct, as the oracle confirms, and shows what batching
  saves. It is also on the shelf (designs/eager.py); this file needs nothing of that.
"""

from allocator.tlb_flush import flush_tlb_page
from designs.design import Design, hook
from emulator import load_machine, run_design


@hook("pte_cleared")
def eager_pte_cleared(ram, cpu, mm, vpn, pte, object):
    """Reclaim or migration has cleared a PTE. Flush it everywhere; 0: there is nothing left to defer."""
    flush_tlb_page(ram, cpu, mm, vpn)
    return 0


class Eager(Design):
    """one shootdown for every page that reclaim or migration unmaps"""

    name = "eager"
    hooks = (eager_pte_cleared,)


if __name__ == "__main__":
    machine = load_machine("guest-8cpu", scale=16)
    for design in ("linux", Eager()):
        run = run_design(design, machine, "tiny8:scale=1", tokens=1, leases=1, seed=1)
        broadcasts = run.vmstat["nr_tlb_remote_flush"]
        shootdowns = f"{run.tlb_shootdowns:>7,} shootdowns"
        print(f"{run.design:<6} {broadcasts:>7,} broadcasts, {shootdowns}, clean: {run.clean}")
