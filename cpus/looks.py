"""What somebody asks of a machine's hardware who plays with it from outside: look at a PTE, empty a TLB."""

from cpus.atomics import load_acquire
from cpus.compiled import kernel
from cpus.page_table import LEVEL_MASK, find_table
from cpus.tlb import clear_asid


@kernel
def read_pte(ram, pgd, vpn):
    """Give the PTE of `vpn`, 0 if there is no table."""
    table = find_table(ram, pgd, vpn)
    return 0 if table < 0 else load_acquire(ram.frame_word, (table, vpn & LEVEL_MASK))


@kernel
def invalidate_all(ram, cpu):
    """Flush every slot."""
    for slot in range(ram.nr_asids):
        clear_asid(ram, cpu, slot)
