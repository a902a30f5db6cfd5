"""Early acknowledgement ("Don't shoot down TLB shootdowns!", Amit, Tai, Wei, EuroSys 2020).

Mechanism: vanilla's batches and decisions. A target acks when it enters the handler, before it flushes, so
the initiator waits for the way there alone. Its own flush runs while the interrupts are under way (upstream
since 5.13, so vanilla has it here too). Safety: between ack and flush the target executes nothing but the
handler; before it returns to user code it has flushed. So when the initiator goes on and gives the frame
away, no access through the old translation can follow. The target copies the request before it acks, since
the initiator may then make its next one. Not if page tables were freed: a speculative walk in that window
would read a table that is somebody else's by now; those rounds are acked late.
Simplified: the paper's other points are costs of cache lines (flush information beside the call data, lazy
flag with the queue's head), which the emulator does not tell apart, or need page-table isolation (flush of
the user half on return). Its checks against NMI handlers and copies from user memory in that window have
nothing to check here: neither exists.
"""

from allocator.tlb_flush import BY_EARLY_ACK, BY_INTERRUPT
from designs.design import Design, hook
from designs.linux import Linux


@hook("shootdown")
def early_ack_shootdown(ram, cpu, mm, freed_tables, targets, d):
    return BY_INTERRUPT if freed_tables else BY_EARLY_ACK


class EarlyAck(Design):
    """vanilla's batches, but targets ack an interrupt before they flush (EuroSys 2020)"""

    name = "early_ack"
    relies_on = Linux.relies_on
    hooks = (*Linux.hooks, early_ack_shootdown)
