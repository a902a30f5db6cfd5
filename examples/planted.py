"""Planted: let cpu0 stop at the worst moment, let the others do that meanwhile.

Covers:
- A small machine on which one thread plays all CPUs, with the real kernel and a real design
- What others do at a hook, and what the oracle says of it

Scenario:
  Three threads have read a page of a shared file, and it was reclaimed without a flush. cpu0 stores to it and
  faults: a new frame is mapped writable. LUF v12 as posted flushes when the fault is done. But cpu2 can use
  the new PTE before that: it stores, and cpu1 still reads the old frame. Our `luf` flushes earlier.
"""

from cpus.abi.numbers import STORE
from cpus.page_table import PTE_WRITE
from emulator.small_machine import SHARED, SHARED_VPN, SmallMachine

PAGE = SHARED_VPN + 3


def play(design):
    """Play the schedule, and tell what was wrong."""
    machine = SmallMachine(cpus=3, mms=1, design=design, readahead_pages=1)
    for cpu in range(3):
        machine.run(1, cpu=cpu)
        machine.use(SHARED_VPN, 16, cpu=cpu)
    machine.reclaim_file(SHARED, cpu=0)

    def meanwhile(cpu, mm, vma, vpn, store):
        """cpu0 has mapped the page, and comes no further. cpu2 walks, finds the new PTE, and stores."""
        if machine.pte(1, PAGE) & PTE_WRITE:
            machine.forget_tlb(cpu=2)
            machine.touch(PAGE, STORE, cpu=2)
            machine.touch(PAGE, cpu=1)

    machine.on_hook("fault_done", meanwhile)
    machine.touch(PAGE, STORE, cpu=0)
    return machine.violations()


for design in ("luf_v12:records=required", "luf"):
    print(f"{design:<24} {', '.join(play(design)) or 'no violation'}")
