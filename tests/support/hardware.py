"""What only tests ask of the hardware: look at a PTE, walk alone, empty every TLB of a CPU."""

from cpus.atomics import load_acquire
from cpus.compiled import kernel
from cpus.page_table import LEVEL_MASK, find_table, use_entry
from cpus.tlb import clear_asid


@kernel
def read_pte(ram, pgd, vpn):
    """Give the PTE of `vpn`, 0 if there is no table."""
    table = find_table(ram, pgd, vpn)
    return 0 if table < 0 else load_acquire(ram.frame_word, (table, vpn & LEVEL_MASK))


@kernel
def hardware_walk(ram, pgd, vpn, store):
    """Translate as the MMU does: returns the PTE with its accessed (and dirty) bit set, or NOT_PRESENT /
    NOT_WRITABLE.
    """
    return use_entry(ram, find_table(ram, pgd, vpn), vpn & LEVEL_MASK, store)


@kernel
def invalidate_all(ram, cpu):
    """Flush every slot."""
    for slot in range(ram.nr_asids):
        clear_asid(ram, cpu, slot)
