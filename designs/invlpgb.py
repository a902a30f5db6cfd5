"""INVLPGB and TLBSYNC: the hardware of AMD's Zen 3 and later invalidates other CPUs' TLBs (Linux 6.15, Rik
van Riel, 2025).

Mechanism: vanilla's batches and decisions. A round that goes to three CPUs or more is a broadcast: one
instruction sends it, one (TLBSYNC) waits until all have obeyed. Nobody is interrupted, so no CPU counts a
shootdown and no target loses time. Smaller rounds go by interrupt, as Linux keeps its scarce global ASIDs for
processes that run on several CPUs.
Safety: vanilla's: when TLBSYNC is over, no TLB has the translation.
Simplified: the emulator's wire is the interrupts' own (request queue, doorbell, message, ack: only its owner
touches a TLB), but the request bears the mark of a broadcast: it is executed at the target's next page visit
without a handler, uncounted and free of charge, and costs the sender one send and one latency however many
targets there are. These are stand-ins: nobody has published the latency of the two instructions for the
machine at hand. The threshold is applied to a round, not to a process; global ASIDs do not run out; a reclaim
batch waits once at its end, as Linux does, but is sent then too. Flush sites count these rounds' targets.
"""

from allocator.tlb_flush import BY_BROADCAST, BY_INTERRUPT
from designs.design import Design, hook
from designs.linux import Linux

BROADCAST_CPUS = 3  # mm_active_cpus_exceeds


@hook("shootdown")
def invlpgb_shootdown(ram, cpu, mm, freed_tables, targets, d):
    return BY_BROADCAST if targets >= BROADCAST_CPUS else BY_INTERRUPT


class Invlpgb(Design):
    """vanilla's batches, broadcast by the hardware instead of interrupts (AMD, Linux 6.15)"""

    name = "invlpgb"
    relies_on = Linux.relies_on
    hooks = (*Linux.hooks, invlpgb_shootdown)
