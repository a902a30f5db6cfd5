"""What a program sees of the counters while it runs: /proc/interrupts, /proc/vmstat, the tlb:tlb_flush
histogram (mm/vmstat.c).

As in Linux, every CPU counts for itself and a reader sums up without stopping anybody.
Left out: sampling while the run goes on (the series of free memory is cpu.py's).
"""

from allocator.flush_sites import NR_SITES
from allocator.tlb_flush import TRACE_PAGES, TRACE_REASONS
from cpus.compiled import apart
from cpus.declare import Constant, Exclusive, Field

NR_TRACED = TRACE_REASONS * TRACE_PAGES
TAKER = Exclusive("the task that takes it")
FIELDS = (
    Constant("nr_counters", "columns of counter"),
    Field("snapshot", TAKER, "counters summed over all CPUs", ("nr_snapshots", "nr_counters")),
    Field("snapshot_tlb", TAKER, "tlb_flush_count summed over all CPUs", ("nr_snapshots", NR_TRACED)),
    Field("snapshot_irq", TAKER, "irq_tlb of each CPU", ("nr_snapshots", "nr_cpus")),
    Field("snapshot_site", TAKER, "broadcasts by SITE_*", ("nr_snapshots", NR_SITES)),
    Field("snapshot_ns", TAKER, "virtual time, 0 not taken", ("nr_snapshots",), unit="ns"),
)  # fmt: skip


@apart
def take_snapshot(ram, cpu, number):
    """Sum all CPUs' counters up into snapshot `number`."""
    ram.cpu_clock[cpu] += ram.cost_syscall
    for c in range(ram.nr_cpus):
        for i in range(ram.nr_counters):
            ram.snapshot[number, i] += ram.counter[c, i]
        for i in range(NR_TRACED):
            ram.snapshot_tlb[number, i] += ram.tlb_flush_count[c, i]
        for i in range(NR_SITES):
            ram.snapshot_site[number, i] += ram.site_flushes[c, i]
        ram.snapshot_irq[number, c] = ram.irq_tlb[c]
    ram.snapshot_ns[number] = ram.cpu_clock[cpu]
    return 0
