"""What a program sees of the counters while it runs: /proc/interrupts, /proc/vmstat, the tlb:tlb_flush
histogram (mm/vmstat.c).

As in Linux, every CPU counts for itself and a reader sums up without stopping anybody.
Left out: sampling while the run goes on (the series of free memory is cpu.py's).
"""

from cpus.compiled import apart
from cpus.layout import NR_SITES, TRACE_PAGES, TRACE_REASONS

NR_TRACED = TRACE_REASONS * TRACE_PAGES


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
