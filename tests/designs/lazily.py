"""What tests of designs that hold frames back have in common: unmap pages that two CPUs have, and take all
memory there is.
"""

from allocator.lru import drop_page
from allocator.page_alloc import take_page
from allocator.pcp import drain_all_pages
from cpus.abi.numbers import LOAD
from emulator.small_machine import FILE, FILE_VPN

ZONE, PAGES = 0, 16


def two_cpus(build, design, **wanted):
    """Process 1 on CPUs 0 and 1, both with translations of the same pages of the file."""
    machine = build(cpus=2, mms=1, pages=(400,), design=design, **wanted)
    for cpu in (0, 1):
        machine.run(1, cpu=cpu)
        machine.enter("hook_context_switch", cpu, 0, 1, cpu)
    for cpu in (0, 1):
        machine.use(FILE_VPN, PAGES, LOAD, cpu=cpu)
    machine.asked()
    return machine


def reclaim(machine):
    """CPU 0 reclaims the file; all pages end up in the buddy. Returns the frames that CPU 1 has translations
    of.
    """
    frames = [machine.pfn(1, FILE_VPN + i) for i in range(PAGES)]
    machine.use(FILE_VPN, PAGES, LOAD, cpu=1)
    machine.asked()
    machine.reclaim_file(FILE, cpu=0)
    drain_all_pages(machine.ram, 0, ZONE)
    return frames


def held(machine, frames):
    """Which of these frames may not be taken as they are."""
    return [pfn for pfn in frames if machine.ram.page_key[pfn] > machine.ram.zone_key_done[ZONE]]


def take_all(machine, cpu=0):
    """Take every free page there is; each is poisoned. Returns them."""
    pages = []
    while (pfn := int(take_page(machine.ram, cpu, ZONE))) >= 0:
        pages.append(pfn)
    return pages


def give_back(machine, pages):
    for pfn in pages:
        drop_page(machine.ram, 0, pfn)


def everybody(machine, hook="tick"):
    for cpu in (0, 1):
        machine.enter(f"hook_{hook}", cpu)
