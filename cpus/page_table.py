"""x86-64's 4-level page table in shared memory, and the hardware's walk of it.

A table is one frame of 512 entries (`frame_word[pfn, i]`), exactly as on the machine. Walks set accessed and
dirty bits with a compare-exchange on the present entry, as the hardware does, so an unmapper that exchanges
the entry with 0 sees every bit.

    vpn  35..27 PGD | 26..18 PUD | 17..9 PMD | 8..0 PTE
Left out: huge pages, 5 levels, NX and user bits, accessed bits of the upper levels, paging-structure caches
(the walk's cost stands for them).
"""

from cpus.atomics import compare_exchange, load_acquire
from cpus.compiled import kernel
from cpus.declare import ANY, Atomic, Constant, Exclusive, Field, OneOf, Struct

FIELDS = (
    Constant("zero_page", "frame that reads of untouched memory show"),
    Struct("nr_mms", "identity", (
        Field("mm_pgd", Exclusive("who makes or ends the mm"), "frame of its top page table", reads=ANY),
    )),
    Field("frame_word",
          OneOf(Atomic("compare_exchange", "exchange", "store_release", "fetch_and", "fetch_or"),
                Exclusive("who fills or frees the table")),
          "what page-table frames hold: 512 entries each (other frames are never touched)",
          ("nr_frames", 512), pages=True),
)  # fmt: skip

PTE_PRESENT, PTE_WRITE, PTE_ACCESSED, PTE_DIRTY = 1, 2, 0x20, 0x40
PTE_WRITTEN = PTE_WRITE | PTE_ACCESSED | PTE_DIRTY  # what an entry has through which was written
PTE_SPECIAL = 0x400  # _PAGE_SPECIAL: the zero page, which nobody counts
PTE_PROTNONE = 0x100  # _PAGE_PROTNONE: mapped, but every access faults (NUMA hints)
PTE_MIGRATION = 0x200  # not present: the page is being migrated; pfn of the source
PTE_PFN_SHIFT = 12
LEVEL_BITS = 9
LEVEL_MASK = 511

NOT_PRESENT, NOT_WRITABLE = -1, -2
NO_PAGE = -1


@kernel
def pte_pfn(pte):
    """Frame that an entry names."""
    return pte >> PTE_PFN_SHIFT


@kernel
def pfn_pte(pfn, bits):
    """Entry that names a frame."""
    return (pfn << PTE_PFN_SHIFT) | bits


@kernel
def pte_present(pte):
    """Does the entry map a frame, even if no access may go through it (pte_present, pte_protnone)?"""
    return pte & (PTE_PRESENT | PTE_PROTNONE) != 0


@kernel
def pte_protnone(pte):
    """Does the entry map a frame that no access may go through?"""
    return pte & PTE_PROTNONE != 0


@kernel
def pte_mknone(pte):
    """Take access away: what the entry maps stays mapped (pte_modify, PAGE_NONE)."""
    return (pte & ~PTE_PRESENT) | PTE_PROTNONE


@kernel
def pte_mkpresent(pte):
    """Give access again."""
    return (pte & ~PTE_PROTNONE) | PTE_PRESENT


@kernel
def vm_normal_page(pte):
    """Give the frame that an access may reach through the entry, NO_PAGE if there is none or nobody counts
    it.
    """
    return pte_pfn(pte) if pte & PTE_PRESENT and pte & PTE_SPECIAL == 0 else NO_PAGE


@kernel
def zero_pte(ram):
    """Give the entry of the zero page."""
    return pfn_pte(ram.zero_page, PTE_PRESENT | PTE_SPECIAL)


@kernel
def ptep_get(ram, table, vpn):
    """Give the entry of `vpn` in its PTE table."""
    return load_acquire(ram.frame_word, (table, vpn & LEVEL_MASK))


@kernel
def find_table(ram, pgd, vpn):
    """Walk to the PTE table of `vpn`; -1 if a level is missing."""
    table = pgd
    for level in range(3, 0, -1):
        entry = load_acquire(ram.frame_word, (table, (vpn >> (LEVEL_BITS * level)) & LEVEL_MASK))
        if entry & PTE_PRESENT == 0:
            return -1
        table = pte_pfn(entry)
    return table


@kernel
def next_table(ram, pgd, vpn, end):
    """Give the first PTE table with a part of vpn..end, where that part begins and where it ends; table -1
    if there is none.
    """
    while vpn < end:
        stop = min(end, (vpn | LEVEL_MASK) + 1)
        table = find_table(ram, pgd, vpn)
        if table >= 0:
            return table, vpn, stop
        vpn = stop
    return -1, end, end


@kernel
def use_entry(ram, table, index, store):
    """Set the accessed (and dirty) bit of one PTE as the MMU does; returns the PTE then, or NOT_PRESENT /
    NOT_WRITABLE.

    A compare-exchange on the entry that was judged: what an unmapper takes out by exchange has every bit that
    was ever used, and after that nothing can be set any more.
    """
    if table < 0:
        return NOT_PRESENT
    wanted = PTE_ACCESSED | PTE_DIRTY if store else PTE_ACCESSED
    pte = load_acquire(ram.frame_word, (table, index))
    while True:
        if pte & PTE_PRESENT == 0:
            return NOT_PRESENT
        if store and pte & PTE_WRITE == 0:
            return NOT_WRITABLE
        if pte & wanted == wanted:
            return pte
        seen = compare_exchange(ram.frame_word, (table, index), pte, pte | wanted)
        if seen == pte:
            return pte | wanted
        pte = seen
