"""A design is asked before a change is seen; what changes must be the page that it was asked about.

Schedules are planted: one thread plays all CPUs, and `after_hook` says what others do when the design has
answered.
"""

import pytest

from allocator.filemap import truncate_file_page, truncate_range
from cpus.abi.numbers import LOAD, STORE
from cpus.locks import WRITER
from cpus.page_table import PTE_WRITE
from emulator.small_machine import FILE, FILE_VPN, SHARED, SHARED_VPN

LAZY = ("luf", "luf:sync=each", "luf_hold", "latr", "epoch", "luf_v12:records=required")


@pytest.mark.parametrize("name", LAZY)
def test_a_page_that_comes_after_the_question_is_not_made_writable(broken_machine, name):
    """CPU 0     store fault at page 3, P is mapped read-only; the design is asked | begins anew, and asks
    again CPU 3                                                reclaims P lazily ^ CPU 2
    reads page 3: P' ^ CPU 1                                                       holds P from before; reads
    page 3 after CPU 0's store
    """
    machine = broken_machine(cpus=4, mms=1, design=name, readahead_pages=1)
    for cpu in range(3):
        machine.run(1, cpu=cpu)
        machine.use(SHARED_VPN + 3, 1, LOAD, cpu=cpu)
    before, played = machine.pfn(1, SHARED_VPN + 3), []

    def others(cpu, mm, vma, at, object):
        if at == SHARED_VPN + 3 and not played:
            played.append(at)
            machine.reclaim_file(SHARED, cpu=3)
            machine.forget_tlb(2)
            machine.touch(at, LOAD, cpu=2)
            assert machine.pfn(1, at) != before

    if "v12" not in name:  # that one is asked at the end of the fault
        machine.after_hook("write_fault", others)
    machine.touch(SHARED_VPN + 3, STORE, cpu=0)
    assert bool(played) == ("v12" not in name)
    assert machine.pte(1, SHARED_VPN + 3) & PTE_WRITE
    machine.touch(SHARED_VPN + 3, LOAD, cpu=1)
    assert machine.ram.run_violations[0] == 0


@pytest.mark.parametrize("locked", [True, False])
def test_nobody_brings_a_page_in_while_it_is_truncated(broken_machine, locked):
    """
    CPU 0     truncates page 3, which is not cached; the design is asked | the new version is published
    CPU 1                                             reads page 3: P ^ reads page 3 after it
    CPU 3                                      reclaims P lazily ^

    invalidate_lock keeps CPU 1 out. Planted: without it CPU 1 has a stale translation.
    """
    machine = broken_machine(cpus=4, mms=1, design="luf", readahead_pages=1)
    for cpu in (0, 1):
        machine.run(1, cpu=cpu)
    machine.touch(FILE_VPN, LOAD, cpu=1)
    played = []

    def others(cpu, object, page, c, d):
        played.append(int(machine.ram.invalidate_lock[FILE]))
        if not locked and len(played) == 1:
            for user in (1, 0):
                machine.use(FILE_VPN + 3, 1, LOAD, cpu=user)
            machine.reclaim_file(FILE, cpu=3)

    machine.after_hook("truncate", others)
    if locked:
        truncate_range(machine.ram, 0, FILE, 3, 4)
    else:
        truncate_file_page(machine.ram, 0, FILE, 3)
    assert played == [WRITER if locked else 0]
    machine.touch(FILE_VPN + 3, LOAD, cpu=1)
    assert machine.ram.run_violations[0] == (0 if locked else 1)
