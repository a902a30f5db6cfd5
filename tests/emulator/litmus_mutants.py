"""Wrong designs for the litmus tests: linux and luf with one thing left out or done wrong in each.

tests/emulator/litmus_mutants.py:Spare:site=user         interrupts nobody for changes by the user
tests/emulator/litmus_mutants.py:WrongLuf:wrong=write_fault
"""

from allocator.flush_sites import (
    SITE_ALLOC,
    SITE_DIRECT,
    SITE_DIRECT_DEMOTION,
    SITE_FAULT,
    SITE_FILE,
    SITE_KSWAPD,
    SITE_KSWAPD_DEMOTION,
    SITE_NUMA,
    SITE_USER,
    SITE_WRITE_FAULT,
)
from cpus.compiled import kernel
from cpus.cpumask import __cpumask_clear_cpu, cpumask_clear, cpumask_or
from cpus.page_table import PTE_DIRTY, PTE_WRITE
from designs.deferral import cannot_defer, defer_flush, end_deferred_batch
from designs.design import Design, hook, replaced
from designs.linux import Linux, count_pending
from designs.luf.fields import luf_state
from designs.luf.luf import Luf
from designs.luf.records import fold, of_file, of_mm
from designs.luf.sync.answers import SYNC
from designs.luf.ugen import new_luf_ugen


def without(hooks, *names):
    """Leave hooks out."""
    return tuple(item for item in hooks if item.text.name.removeprefix("hook_") not in names)


# --- linux: who is not interrupted --------------------------------------------------------------------------


@kernel
def spare(ram, cpu, site):
    if ram.cpu_site[cpu] == site:
        cpumask_clear(ram.call_mask, cpu)
    return 0


@hook("shootdown")
def not_for_user(ram, cpu, mm, freed_tables, targets, d):
    return spare(ram, cpu, SITE_USER)


@hook("shootdown")
def not_for_fault(ram, cpu, mm, freed_tables, targets, d):
    spare(ram, cpu, SITE_WRITE_FAULT)
    return spare(ram, cpu, SITE_FAULT)


@hook("shootdown")
def not_for_file(ram, cpu, mm, freed_tables, targets, d):
    return spare(ram, cpu, SITE_FILE)


@hook("shootdown")
def not_for_kswapd(ram, cpu, mm, freed_tables, targets, d):
    return spare(ram, cpu, SITE_KSWAPD)


@hook("shootdown")
def not_for_direct(ram, cpu, mm, freed_tables, targets, d):
    return spare(ram, cpu, SITE_DIRECT)


@hook("shootdown")
def not_for_demotion(ram, cpu, mm, freed_tables, targets, d):
    spare(ram, cpu, SITE_DIRECT_DEMOTION)
    return spare(ram, cpu, SITE_KSWAPD_DEMOTION)


@hook("shootdown")
def not_for_numa(ram, cpu, mm, freed_tables, targets, d):
    return spare(ram, cpu, SITE_NUMA)


@hook("shootdown")
def not_for_alloc(ram, cpu, mm, freed_tables, targets, d):
    return spare(ram, cpu, SITE_ALLOC)


@hook("shootdown")
def not_the_last(ram, cpu, mm, freed_tables, targets, d):
    __cpumask_clear_cpu(ram.nr_cpus - 1, ram.call_mask, cpu)
    return 0


@hook("shootdown")
def not_for_batches(ram, cpu, mm, freed_tables, targets, d):
    if mm == 0:
        cpumask_clear(ram.call_mask, cpu)
    return 0


SPARED = {
    "user": (not_for_user,), "fault": (not_for_fault,), "file": (not_for_file,), "kswapd": (not_for_kswapd,),
    "direct": (not_for_direct,), "demotion": (not_for_demotion,), "numa": (not_for_numa,),
    "last": (not_the_last,), "batches": (not_for_batches,),
}  # fmt: skip


class Spare(Linux):
    """linux, but some are not interrupted"""

    name = "spare"
    parameters = {"site": dict.fromkeys(SPARED, "whom, or for what")}  # noqa: RUF012

    def __init__(self, **given):
        super().__init__(**given)
        self.hooks = (*Linux.hooks, *SPARED[self.chosen["site"]])


@hook("pte_cleared")
def without_tlb_gen(ram, cpu, mm, vpn, pte, object):
    cpumask_or(ram.ubc_mask, cpu, ram.mm_cpumask, mm)
    ram.ubc_required[cpu] = 1
    if pte & PTE_DIRTY:
        ram.ubc_writable[cpu] = 1
    count_pending(ram, mm)
    return 0


class WrongLinux(Linux):
    """linux with a hook that is left out, or wrong"""

    name = "wrong_linux"
    parameters = {  # noqa: RUF012
        "wrong": dict.fromkeys(("mapping_change", "unmap_flush", "tlb_gen"), "which")
    }

    def __init__(self, **given):
        super().__init__(**given)
        wrong = self.chosen["wrong"]
        own = replaced(Linux.hooks, without_tlb_gen)
        self.hooks = own if wrong == "tlb_gen" else without(Linux.hooks, wrong)


# --- luf ----------------------------------------------------------------------------------------------------


@kernel
def deferred(ram, cpu, mm, object):
    state = luf_state(ram)
    defer_flush(ram, state, cpu, mm)
    ugen = new_luf_ugen(state)
    fold(ram, state, cpu, of_mm(ram, mm), ram.mm_cpumask, mm, ugen)
    fold(ram, state, cpu, of_file(object), ram.mm_cpumask, mm, ugen)
    return 1


@hook("pte_cleared")
def defers_all(ram, cpu, mm, vpn, pte, object):
    return deferred(ram, cpu, mm, object)


@hook("pte_cleared")
def not_for_the_mm(ram, cpu, mm, vpn, pte, object):
    state = luf_state(ram)
    if pte & (PTE_WRITE | PTE_DIRTY):
        cannot_defer(ram, state, cpu, mm, pte)
        return 0
    defer_flush(ram, state, cpu, mm)
    fold(ram, state, cpu, of_file(object), ram.mm_cpumask, mm, new_luf_ugen(state))
    return 1


@hook("pte_cleared")
def not_for_the_file(ram, cpu, mm, vpn, pte, object):
    state = luf_state(ram)
    if pte & (PTE_WRITE | PTE_DIRTY):
        cannot_defer(ram, state, cpu, mm, pte)
        return 0
    defer_flush(ram, state, cpu, mm)
    fold(ram, state, cpu, of_mm(ram, mm), ram.mm_cpumask, mm, new_luf_ugen(state))
    return 1


@hook("batch_key")
def no_key(ram, cpu, a, b, c, d):
    end_deferred_batch(luf_state(ram), cpu)
    return 0


@hook("page_freed")
def forgets_the_key(ram, cpu, zone, pfn, key, order):
    return 0


CHANGED = {
    "all_deferred": (defers_all,), "mm_record": (not_for_the_mm,), "file_record": (not_for_the_file,),
    "no_key": (no_key,), "page_freed": (forgets_the_key,), "alloc": (not_for_alloc,),
}  # fmt: skip
LEFT_OUT = (
    "write_fault", "file_write", "truncate", "mapping_change", "unmap_flush", "take", "take_done",
)  # fmt: skip


class WrongLuf(Luf):
    """luf with a hook that is left out, or wrong"""

    name = "wrong_luf"
    parameters = {"wrong": dict.fromkeys((*LEFT_OUT, *CHANGED), "which")}  # noqa: RUF012

    def __init__(self, **given):
        Design.__init__(self, **given)
        wrong, hooks = self.chosen["wrong"], (*Luf.hooks, *SYNC["owner"][1])
        self.hooks = without(hooks, wrong) if wrong in LEFT_OUT else replaced(hooks, *CHANGED[wrong])
