"""NUMA balancing: the scanner takes access away, the next access tells how hot a page is, hot ones move to the fast node."""

import pytest

from allocator.lru import drop_page
from allocator.numa_balancing import task_numa_work
from allocator.page import get_page, lock_page, node_of, unlock_page
from allocator.rmap import UNMAP_FOR_RECLAIM, try_to_unmap
from cpus.page_table import PTE_PRESENT, PTE_PROTNONE
from cpus.tlb import STORE
from tests.allocator.small_machine import ANON_VPN, FILE_VPN, SHARED_VPN

CPU, FAST, SLOW, PAGES = 0, 0, 1, 32


@pytest.fixture
def machine(small_machine):
    """Process 1 runs on CPUs 0 and 1; its pages were allocated while the fast node was full, so they lie on the slow one."""
    machine = small_machine(pages=(512, 512), mms=1, numa_balancing=1, scan_pages=1024)
    machine.run(1, cpu=0)
    machine.run(1, cpu=1)
    machine.touch(ANON_VPN + 200, STORE)  # page tables
    machine.touch(SHARED_VPN + 200, STORE)
    machine.ram.wmark_low[FAST] = machine.ram.wmark_min[FAST] = 600
    for cpu in (0, 1):
        machine.use(ANON_VPN, PAGES, STORE, cpu=cpu)
        machine.use(SHARED_VPN, PAGES, STORE, cpu=cpu)
    machine.ram.wmark_low[FAST], machine.ram.wmark_min[FAST] = 24, 16
    machine.ram.cpu_clock[:] = 1_000_000_000
    machine.asked()
    return machine


def slow(machine, vpn):
    return [i for i in range(PAGES) if node_of(machine.ram, machine.pfn(1, vpn + i)) == SLOW]


def hints(machine, vpn):
    """Pages that are mapped and must not be accessed."""
    return [i for i in range(PAGES) if machine.pte(1, vpn + i) & (PTE_PRESENT | PTE_PROTNONE) == PTE_PROTNONE]


def test_the_scanner_takes_access_to_slow_pages_away(machine):
    """Anonymous and shared pages of the slow node; others stay; every CPU of the process is flushed."""
    task_numa_work(machine.ram, CPU, 1)
    assert hints(machine, ANON_VPN) == slow(machine, ANON_VPN) != []
    assert hints(machine, SHARED_VPN) == slow(machine, SHARED_VPN) != []
    assert set(map(tuple, machine.asked())) == {(1,)}
    assert machine.ram.mm_rss[1] == sum(1 for vpn in (ANON_VPN, SHARED_VPN) for i in range(256) if machine.pte(1, vpn + i))


def test_read_only_file_mappings_are_left_alone(machine):
    machine.use(FILE_VPN, PAGES)
    task_numa_work(machine.ram, CPU, 1)
    assert hints(machine, FILE_VPN) == []


def test_a_page_used_soon_after_the_scan_is_promoted(machine):
    """The hint fault moves it, with its content; its mapping is as before."""
    task_numa_work(machine.ram, CPU, 1)
    page = ANON_VPN + slow(machine, ANON_VPN)[0]
    content = machine.content(machine.pfn(1, page))
    machine.touch(page)
    assert node_of(machine.ram, machine.pfn(1, page)) == FAST
    assert machine.content(machine.pfn(1, page)) == content
    assert machine.pte(1, page) & PTE_PRESENT
    assert [machine.count(name) for name in ("numa_hint_faults", "pgpromote_success")] == [1, 1]


def test_a_page_used_late_stays(machine):
    """Colder than the threshold, and the fast node has no room to spare."""
    task_numa_work(machine.ram, CPU, 1)
    machine.ram.wmark_promo[FAST] = 600
    machine.ram.cpu_clock[CPU] += int(machine.ram.hot_threshold_ns)
    page = ANON_VPN + slow(machine, ANON_VPN)[0]
    machine.touch(page)
    assert node_of(machine.ram, machine.pfn(1, page)) == SLOW
    assert machine.pte(1, page) & PTE_PRESENT
    assert [machine.count(name) for name in ("numa_hint_faults", "pgpromote_candidate")] == [1, 0]


def test_promotion_has_a_rate_limit(machine):
    task_numa_work(machine.ram, CPU, 1)
    machine.ram.wmark_promo[FAST] = 600
    machine.ram.promote_start_ns[FAST] = machine.ram.cpu_clock[CPU]
    machine.ram.promote_count[FAST] = int(machine.ram.promote_limit) - 2
    machine.touch(ANON_VPN, pages=PAGES)
    assert machine.count("pgpromote_candidate") == len(slow(machine, ANON_VPN)) + 2
    assert machine.count("pgpromote_success") == 2


@pytest.mark.parametrize("flushed", [False, True])
def test_an_inaccessible_page_counts_as_accessible_until_the_scanner_has_flushed(machine, flushed):
    """
    scanner on CPU 0: PTE made PROT_NONE, its flush not sent yet     CPU 1 still has the translation
    reclaim unmaps the page                                          it must flush, though the PTE is not present
    """
    page = ANON_VPN + slow(machine, ANON_VPN)[0]
    pending_while_flushing = []
    machine.on_send = lambda *_: pending_while_flushing.append(int(machine.ram.mm_flush_pending[1]))
    task_numa_work(machine.ram, CPU, 1)
    assert set(pending_while_flushing) == {1}
    assert machine.ram.mm_flush_pending[1] == 0
    asked = []
    machine.on_hook("pte_cleared", lambda *args: asked.append(args))
    machine.ram.mm_flush_pending[1] = int(not flushed)
    pfn = machine.pfn(1, page)
    get_page(machine.ram, pfn)
    lock_page(machine.ram, CPU, pfn)
    try_to_unmap(machine.ram, CPU, pfn, UNMAP_FOR_RECLAIM)
    unlock_page(machine.ram, CPU, pfn)
    drop_page(machine.ram, CPU, pfn)
    machine.ram.mm_flush_pending[1] = 0
    assert len(asked) == int(not flushed)
