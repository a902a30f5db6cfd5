"""What only tests ask of the hardware: a walk alone."""

from cpus.compiled import kernel
from cpus.page_table import LEVEL_MASK, find_table, use_entry


@kernel
def hardware_walk(ram, pgd, vpn, store):
    """Translate as the MMU does: returns the PTE with its accessed (and dirty) bit set, or NOT_PRESENT /
    NOT_WRITABLE.
    """
    return use_entry(ram, find_table(ram, pgd, vpn), vpn & LEVEL_MASK, store)
