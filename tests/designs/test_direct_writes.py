"""A direct write after a lazy unmap: nothing is cached, nothing mapped, and still every reader must be
flushed before it returns.

One thread plays all CPUs. The same schedule shows who does not flush there: a LUF without that trigger, and
v12 as posted.
"""

from __future__ import annotations

import pytest

from allocator.direct_io import UNDER_WAY, direct_io
from allocator.outcome import SLEEP
from cpus.abi.numbers import STORE
from cpus.abi.row_kinds import DIRECT_WRITE
from designs.luf.luf import Luf
from designs.luf_v12.luf_v12 import LufV12
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN

PAGES, MEMORY = 8, 2


class LufPastTheCache(Luf):
    """LUF that has forgotten what goes past the page cache."""

    name = "luf_past_the_cache"

    def __init__(self):
        super().__init__()
        self.hooks = tuple(item for item in self.hooks if item.text.name != "hook_truncate")


def read_and_reclaimed(machine):
    """CPUs 0 and 1 of process 1 have read the file; all of it is reclaimed, and CPU 1 goes on reading through
    its translations.
    """
    for cpu, mm in ((0, 1), (1, 1), (2, 2)):
        machine.run(mm, cpu=cpu)
    for cpu in (0, 1):
        machine.use(FILE_VPN, PAGES, cpu=cpu)
    machine.touch(ANON_VPN, STORE, pages=PAGES, cpu=2)
    machine.asked()
    machine.reclaim_file(FILE)
    machine.touch(FILE_VPN, pages=PAGES, cpu=1)
    return machine


def call(machine):
    """Write PAGES pages directly, on CPU 2, from the memory of process 2; gives whom it interrupted."""
    ram = machine.ram
    ram.task_mm[2], ram.task_process[2], ram.proc_file[1, 0] = 2, 1, FILE
    ram.row_op[0], ram.row_kind[0], ram.row_region[0], ram.row_pages[0] = DIRECT_WRITE, MEMORY, 0, PAGES
    machine.asked()
    while int(direct_io(ram, 2, 2, 0)) == SLEEP:
        assert ram.task_step[2] == UNDER_WAY
        ram.cpu_clock[:] = max(int(ram.cpu_clock.max()), int(ram.task_wait_ns[2]))
    return machine.asked()


@pytest.mark.parametrize(
    ("design", "cached"), [("linux", PAGES), (Luf(), 0), (LufV12(records="required"), 0)]
)
def test_readers_see_what_was_written(small_machine, design, cached):
    """Vanilla has flushed when it reclaimed, and CPU 1 has read the pages again. LUF has nothing in the
    cache, and flushes it now.
    """
    machine = read_and_reclaimed(small_machine(cpus=3, mms=2, design=design))
    assert len({*machine.cached_pages(FILE)} & {*range(PAGES)}) == cached
    assert {cpu for targets in call(machine) for cpu in targets} == {0, 1}
    machine.touch(FILE_VPN, pages=PAGES, cpu=1)
    assert {machine.content(machine.pfn(1, FILE_VPN + i))[1] for i in range(PAGES)} == {1}


@pytest.mark.parametrize("design", [LufPastTheCache(), LufV12()])
def test_who_defers_there_is_caught(broken_machine, design):
    """Nobody is interrupted, and CPU 1 reads what was in the file before."""
    machine = read_and_reclaimed(broken_machine(cpus=3, mms=2, design=design))
    assert call(machine) == []
    machine.touch(FILE_VPN, cpu=1)
    assert machine.violations()[0] == "stale read"
