"""A machine without a kernel: CPUs, TLBs and page tables, with page faults and interrupts answered by a few
lines.

Pages are mapped by hand (`map_page`). A fault maps page vpn to frame FRAME_OF_PAGE_0 + vpn, unless the test
has put another answer into `ram.task_wait_ns[vpn]`. Everything here also runs with NUMBA_DISABLE_JIT=1.
"""

from cpus.access import page_fault
from cpus.compiled import apart_entries, entry, kernel
from cpus.exposed import address_is_mapped
from cpus.install import install
from cpus.ipi import irq_handler, shell_receive
from cpus.layout import Sizes
from cpus.memory_map import MODULES
from cpus.oracle import VERSION_BITS, set_content
from cpus.page_table import LEVEL_BITS, LEVEL_MASK, PTE_PFN_SHIFT, PTE_PRESENT, PTE_WRITE
from cpus.segment import build_ram
from cpus.tlb import AGAIN, WAIT, clear_asid, invalidate_asid
from designs.memory_map import MACHINE

FAULT_MAPS, FAULT_WAITS, FAULT_MAPS_AND_BELL_RINGS, UNMAPPED_FOR_GOOD = 0, 1, 2, 3  # answers to a fault
FRAME_OF_PAGE_0 = 100  # frames below hold page tables
NEVER = 1 << 50
# entries, ways: everything gets replaced soon
SMALL = {"dtlb": (4, 2), "store": (2, 2), "itlb": (4, 1), "stlb": (8, 2)}
GOLDEN_COVE = {"dtlb": (96, 6), "store": (16, 16), "itlb": (256, 8), "stlb": (2048, 16)}
COSTS = {
    "access_tenths": 5,
    "line_dram_tenths": 53,
    "line_cxl_tenths": 106,
    "stlb_hit": 3,
    "walk": 15,
    "ipi_handle": 400,
}


def build(geometry=SMALL, *, nr_cpus=2, pages=200, nr_logical=1000, mms=4, check=1):
    """Give RAM whose address spaces 0 .. mms-1 have empty page tables; every CPU runs address space 0."""
    sizes = Sizes(
        nr_cpus=nr_cpus, nr_nodes=2, nr_zones=2, nr_frames=FRAME_OF_PAGE_0 + pages, nr_mms=mms,
        nr_tasks=pages, nr_vmas=1, nr_objects=1, nr_cache_slots=1, nr_logical=nr_logical, nr_rows=1,
        nr_sections=1, nr_chunks=1, tlb_entries=sum(entries for entries, _ in geometry.values()),
        series_length=8,
    )  # fmt: skip
    constants, base = {"nr_asids": 4, "check": check, "first_anon_logical": nr_logical}, 0
    for name, (entries, ways) in geometry.items():
        constants |= {f"{name}_sets": entries // ways, f"{name}_ways": ways, f"{name}_base": base}
        base += entries
    ram = build_ram(MACHINE, sizes, constants)
    for name, value in COSTS.items():
        ram.set_constant(f"cost_{name}", value)
    ram.node_end[:] = FRAME_OF_PAGE_0 + pages // 2, FRAME_OF_PAGE_0 + pages
    ram.cpu_slice_end[:] = NEVER
    ram.page_next[0] = mms  # next free page-table frame; the first ones are the top tables
    ram.mm_pgd[:] = range(mms)
    for cpu in range(nr_cpus):
        for slot in range(4):
            clear_asid(ram, cpu, slot)
    install(ram, [*apart_entries(MODULES), answer_fault, flush_and_note, receive, answer_mapped])
    return ram


@kernel
def set_pte(ram, mm, vpn, pte):
    """Write a PTE, making tables on the way."""
    table = ram.mm_pgd[mm]
    for level in range(3, 0, -1):
        index = (vpn >> (LEVEL_BITS * level)) & LEVEL_MASK
        if ram.frame_word[table, index] == 0:
            ram.frame_word[table, index] = (ram.page_next[0] << PTE_PFN_SHIFT) | PTE_PRESENT | PTE_WRITE
            ram.page_next[0] += 1
        table = ram.frame_word[table, index] >> PTE_PFN_SHIFT
    ram.frame_word[table, vpn & LEVEL_MASK] = pte


@kernel
def map_page(ram, mm, vpn, pfn, logical):
    """Map page vpn to a frame filled with version 0 of a logical page: present, writable, not accessed,
    clean.
    """
    set_content(ram, pfn, logical, 0)
    set_pte(ram, mm, vpn, (pfn << PTE_PFN_SHIFT) | PTE_PRESENT | PTE_WRITE)


@entry(page_fault.text)
def answer_fault(ram, cpu, vpn, kind):
    """Do what the test has written down for this page."""
    ram.pgfault[cpu] += 1
    answer = ram.task_wait_ns[vpn]
    if answer == FAULT_WAITS:
        return WAIT
    map_page(ram, ram.cpu_loaded_mm[cpu], vpn, FRAME_OF_PAGE_0 + vpn, vpn)
    if answer == FAULT_MAPS_AND_BELL_RINGS:
        ring(ram, cpu, 1)
    return AGAIN


@entry(address_is_mapped.text)
def answer_mapped(ram, mm, vpn):
    """Say that a page is mapped, unless the test has marked it as unmapped for good."""
    return 0 if ram.task_wait_ns[vpn] == UNMAPPED_FOR_GOOD else 1


@kernel
def ring(ram, cpu, sender):
    """Have `sender` ask `cpu` to flush its current slot. (It expects one more ack than it gets, and so is
    never woken.)
    """
    node = sender * ram.nr_cpus + cpu
    ram.csd_next[sender, cpu] = ram.cpu_queue[cpu]
    ram.cpu_queue[cpu] = node + 1
    ram.cpu_acks[sender] += 2
    ram.cpu_bell[cpu] += 1


@entry(irq_handler.text)
def flush_and_note(ram, cpu, sender):
    """Flush, and note the clock and how many visits had begun."""
    invalidate_asid(ram, cpu, ram.cpu_asid[cpu])
    ram.series[0, 0], ram.series[0, 1] = ram.cpu_visit_stamp[cpu], ram.cpu_clock[cpu]
    return 0


@entry(shell_receive.text)
def receive(ram, cpu, what):
    """Take the message that the bell announced; there is none."""
    return 0


def switch(ram, slot, cpu=0):
    """Run address space `slot` in the ASID slot of the same number."""
    ram.cpu_asid[cpu] = ram.cpu_loaded_mm[cpu] = slot
    ram.cpu_context[cpu] = ram.asid_context[cpu, slot]


def counts(ram, *names, cpu=0):
    """Give some counters of a CPU as a list."""
    return [int(getattr(ram, name)[cpu]) for name in names]


def pte_of(ram, mm, vpn):
    """Read a PTE the slow way: (pfn, flags), or None if there is no table."""
    table = int(ram.mm_pgd[mm])
    for level in (3, 2, 1):
        entry = int(ram.frame_word[table, (vpn >> (LEVEL_BITS * level)) & LEVEL_MASK])
        if not entry & PTE_PRESENT:
            return None
        table = entry >> PTE_PFN_SHIFT
    pte = int(ram.frame_word[table, vpn & LEVEL_MASK])
    return pte >> PTE_PFN_SHIFT, pte & 0xFFF


def content_of(ram, pfn):
    """Read a frame's content: (logical page, version)."""
    word = int(ram.content[pfn])
    return word >> VERSION_BITS, word & ((1 << VERSION_BITS) - 1)
