"""INVLPGB with global ASIDs, and reclaim beside the transition to one (x86, Linux patch series of 2025).

A process that runs on three CPUs or more gets an ASID that means the same on all of them, so that one
broadcast instruction can flush it everywhere. Each CPU begins to use it when it switches to the process the
next time; until then it has translations under its old ASID, which no broadcast reaches.
`transition=overlooked`: reclaim broadcasts for a process with a global ASID, and forgets the CPUs that do not
use it yet. `transition=interrupts`: it interrupts these as well.
"""

from allocator.tlb_flush import BY_BROADCAST, BY_INTERRUPT, INIT_MM, inc_mm_tlb_gen
from cpus.atomics import load_acquire, store_release
from cpus.compiled import kernel
from cpus.cpumask import __cpumask_set_cpu, cpumask_weight, for_each_cpu
from designs.design import hook, replaced
from designs.linux import Linux, count_pending, set_flush_pending
from designs.state import own_fields

GLOBAL_CPUS = 3


def asid_fields(sizes):
    """Shared fields."""
    # any, racy: the mm has a global ASID; owner writes, any reads: this CPU uses it
    return {"is_global": (sizes.nr_mms,), "uses": (sizes.nr_cpus, sizes.nr_mms)}


asid_state = own_fields("asid", asid_fields)


@hook("context_switch")
def switch(ram, cpu, before, after, task, d):
    """The third CPU that runs an mm gives it a global ASID; who switches to it uses that."""
    state = asid_state(ram)
    if after != INIT_MM and cpumask_weight(ram.mm_cpumask, after) >= GLOBAL_CPUS:
        store_release(state.is_global, after, 1)
        store_release(state.uses, (cpu, after), 1)
    return 0


@kernel
def broadcast_later(ram, state, cpu, mm):
    """Add to the batch the CPUs that a broadcast reaches."""
    inc_mm_tlb_gen(ram, mm)
    for other in for_each_cpu(ram.mm_cpumask, mm):
        if load_acquire(state.uses, (other, mm)):
            __cpumask_set_cpu(other, ram.ubc_mask, cpu)
    ram.ubc_required[cpu] = 1
    count_pending(ram, mm)


@hook("pte_cleared")
def overlooks(ram, cpu, mm, vpn, pte, object):
    state = asid_state(ram)
    if load_acquire(state.is_global, mm):
        broadcast_later(ram, state, cpu, mm)
        ram.ubc_writable[cpu] |= pte & 0x40
    else:
        set_flush_pending(ram, cpu, mm, pte)
    return 0


@hook("shootdown")
def round_of(ram, cpu, mm, freed_tables, targets, d):
    return BY_BROADCAST if targets >= GLOBAL_CPUS else BY_INTERRUPT


class AsidTransition(Linux):
    """global ASIDs for processes on three CPUs or more"""

    name = "asid_transition"
    parameters = {  # noqa: RUF012
        "transition": {
            "interrupts": "CPUs that do not use the global ASID yet are interrupted",
            "overlooked": "they are forgotten",
        }
    }
    hooks = (*Linux.hooks, switch, round_of)

    def __init__(self, **given):
        super().__init__(**given)
        if self.chosen["transition"] == "overlooked":
            self.hooks = replaced(type(self).hooks, overlooks)

    def fields(self, sizes):
        return asid_fields(sizes)
