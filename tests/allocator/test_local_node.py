"""Each CPU allocates from its own node first, page tables likewise, and from the nearest other one when that
is short.
"""

from __future__ import annotations

import pytest

from allocator.mmap import do_mmap, do_munmap
from allocator.page import node_of
from cpus.abi.numbers import LOAD, STORE
from cpus.page_table import find_table
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN

MM, REGION_ANON = 1, 2


@pytest.fixture
def machine(small_machine):
    """Two nodes of memory; CPU 0 belongs to node 0, CPU 1 to node 1. Both run process 1."""
    machine = small_machine(pages=(512, 512), cpus=2, mms=1)
    machine.ram.cpu_node[:] = [0, 1]
    for cpu in (0, 1):
        machine.run(MM, cpu=cpu)
    return machine


def nodes(machine, vpn, pages):
    return {int(node_of(machine.ram, machine.pfn(MM, vpn + i))) for i in range(pages)}


@pytest.mark.parametrize("cpu", [0, 1])
def test_memory_comes_from_the_node_of_the_cpu_that_asks(machine, cpu):
    """Anonymous pages, pages of a file, page tables."""
    machine.touch(ANON_VPN, STORE, pages=8, cpu=cpu)
    machine.touch(FILE_VPN, LOAD, pages=8, cpu=cpu)
    assert nodes(machine, ANON_VPN, 8) == nodes(machine, FILE_VPN, 8) == {cpu}
    assert {int(node_of(machine.ram, machine.cached(FILE, page))) for page in machine.cached_pages(FILE)} == {
        cpu
    }
    for vpn in (ANON_VPN, FILE_VPN):
        assert node_of(machine.ram, int(find_table(machine.ram, machine.ram.mm_pgd[MM], vpn))) == cpu
    assert (machine.count("numa_hit") > 0, machine.count("numa_miss")) == (True, 0)


def test_the_other_node_helps_out(machine):
    """Node 1 is at its low mark: CPU 1 gets pages of node 0, and goes on with those of its own when there are
    some again.
    """
    ram = machine.ram
    machine.touch(ANON_VPN, STORE, pages=1, cpu=1)
    marks = int(ram.wmark_low[1]), int(ram.wmark_high[1])
    ram.wmark_low[1] = ram.wmark_high[1] = 512
    machine.touch(ANON_VPN + 1, STORE, pages=4, cpu=1)
    ram.wmark_low[1], ram.wmark_high[1] = marks
    machine.touch(ANON_VPN + 5, STORE, pages=4, cpu=1)
    assert (
        nodes(machine, ANON_VPN, 1),
        nodes(machine, ANON_VPN + 1, 4),
        nodes(machine, ANON_VPN + 5, 4),
    ) == ({1}, {0}, {1})
    assert machine.count("numa_miss") >= 4


def test_a_page_table_made_anew_is_near_its_maker(machine):
    """The region is unmapped, tables and all, and mapped by the CPU of the other node."""
    machine.touch(ANON_VPN, STORE, cpu=0)
    do_munmap(machine.ram, 0, MM, ANON_VPN, ANON_VPN + 256)
    do_mmap(machine.ram, 1, MM, REGION_ANON, 0, 256)
    machine.touch(ANON_VPN, STORE, cpu=1)
    assert node_of(machine.ram, int(find_table(machine.ram, machine.ram.mm_pgd[MM], ANON_VPN))) == 1
