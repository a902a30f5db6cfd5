"""Before the CPUs start: give all frames to the buddy, make address spaces.

Runs in the supervisor, as if on CPU 0, once per machine. Left out: memblock, memory holes, reserved pages
(the frames that the kernel has in use itself are not there at all).
"""

from allocator.buddy import NR_ORDERS, free_one_page
from allocator.lru import NR_LRU
from allocator.mmap import map_region, new_mm
from allocator.page_list import NONE
from cpus.compiled import kernel
from cpus.oracle import poison, set_content
from cpus.tlb import new_context


@kernel
def boot_zones(ram):
    """Empty all lists, poison all frames and free them in the largest aligned blocks; returns the number of
    frames freed.
    """
    total = 0
    for node in range(ram.nr_nodes):
        for which in range(NR_LRU):
            ram.lru_first[node, which], ram.lru_last[node, which] = NONE, NONE
    for zone in range(ram.nr_zones):
        for order in range(NR_ORDERS):
            ram.free_first[zone, order], ram.free_last[zone, order] = NONE, NONE
            ram.pend_first[zone, order], ram.pend_last[zone, order] = NONE, NONE
        for cpu in range(ram.nr_cpus):
            ram.pcp_first[cpu, zone], ram.pcp_last[cpu, zone] = NONE, NONE
        pfn = ram.zone_start[zone]
        while pfn < ram.zone_end[zone]:
            order = NR_ORDERS - 1
            while pfn & ((1 << order) - 1) or pfn + (1 << order) > ram.zone_end[zone]:
                order -= 1
            for i in range(pfn, pfn + (1 << order)):
                poison(ram, i)
            free_one_page(ram, 0, zone, pfn, order, 0)
            pfn += 1 << order
            total += 1 << order
    return total


@kernel
def boot_cpus(ram):
    """Load init_mm on every CPU, with fresh TLB contexts."""
    for cpu in range(ram.nr_cpus):
        for slot in range(ram.nr_asids):
            ram.asid_mm[cpu, slot] = -1
            ram.asid_gen[cpu, slot] = -1
        ram.cpu_context[cpu] = new_context(ram, cpu)
        ram.cpu_task[cpu] = NONE


@kernel
def boot_mm(ram, mm):
    """Make an address space without mappings."""
    new_mm(ram, 0, mm)


@kernel
def boot_region(ram, mm, region, pages):
    """Map a whole region of a process, at its place."""
    map_region(ram, 0, mm, region, 0, pages)


@kernel
def boot_zero_page(ram, pfn, logical):
    """Make frame `pfn`, which lies in no zone, the page of zeros that all processes share."""
    set_content(ram, pfn, logical, 0)
