"""NUMA balancing: the scanner takes access away, the next access tells how hot a page is, hot ones move to
the fast node.
"""

import pytest

from allocator.kswapd import AWAKE
from allocator.lru import drop_page
from allocator.numa_balancing import SCAN_PERIOD_FLOOR_NS, task_numa_work, task_tick_numa
from allocator.page import PG_DIRTY, get_page, lock_page, node_of, set_flag, unlock_page
from allocator.rmap import UNMAP_FOR_RECLAIM, try_to_unmap
from cpus.abi.numbers import STORE
from cpus.page_table import PTE_PRESENT, PTE_PROTNONE, PTE_WRITE
from emulator.small_machine import ANON_VPN, FILE_VPN, SHARED_VPN

CPU, FAST, SLOW, PAGES = 0, 0, 1, 32


@pytest.fixture
def machine(small_machine):
    """Process 1 runs on CPUs 0 and 1; its pages were allocated while the fast node was full, so they lie on
    the slow one.
    """
    machine = small_machine(
        pages=(512, 512), mms=1, numa_balancing=1, scan_pages=1024, scan_period_max_ns=60_000_000_000
    )
    machine.run(1, cpu=0)
    machine.run(1, cpu=1)
    machine.touch(ANON_VPN + 200, STORE)  # page tables
    machine.touch(SHARED_VPN + 200, STORE)
    marks = (machine.ram.wmark_min, machine.ram.wmark_low, machine.ram.wmark_high)
    usual = [int(mark[FAST]) for mark in marks]
    for mark in marks:
        mark[FAST] = 600
    for cpu in (0, 1):
        machine.use(ANON_VPN, PAGES, STORE, cpu=cpu)
        machine.use(SHARED_VPN, PAGES, STORE, cpu=cpu)
    for mark, value in zip(marks, usual):
        mark[FAST] = value
    machine.ram.page_flags[:] &= ~PG_DIRTY  # all written back: what is dirty in a file is not scanned
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
    assert machine.ram.mm_rss[:, 1].sum() == sum(
        1 for vpn in (ANON_VPN, SHARED_VPN) for i in range(256) if machine.pte(1, vpn + i)
    )


def test_read_only_file_mappings_are_left_alone(machine):
    machine.use(FILE_VPN, PAGES)
    task_numa_work(machine.ram, CPU, 1)
    assert hints(machine, FILE_VPN) == []


def test_a_page_used_soon_after_the_scan_is_promoted(machine):
    """The hint fault moves it, with its content, and interrupts nobody: while it is inaccessible no TLB can
    have it.
    """
    task_numa_work(machine.ram, CPU, 1)
    page = ANON_VPN + slow(machine, ANON_VPN)[0]
    content = machine.content(machine.pfn(1, page))
    machine.asked()
    machine.touch(page)
    assert machine.asked() == []
    assert node_of(machine.ram, machine.pfn(1, page)) == FAST
    assert machine.content(machine.pfn(1, page)) == content
    assert machine.pte(1, page) & PTE_PRESENT
    assert [machine.count(name) for name in ("numa_hint_faults", "pgpromote_success")] == [1, 1]


def test_a_promoted_page_is_read_only_until_the_next_store(machine):
    """Its PTE had no right to write when it moved; the store that comes takes a fault, and goes to the page
    itself.
    """
    task_numa_work(machine.ram, CPU, 1)
    page = ANON_VPN + slow(machine, ANON_VPN)[0]
    machine.touch(page)
    promoted, faults = machine.pfn(1, page), machine.count("pgfault")
    assert machine.pte(1, page) & PTE_WRITE == 0
    machine.touch(page, STORE)
    assert machine.pte(1, page) & PTE_WRITE
    assert machine.pfn(1, page) == promoted
    assert machine.count("pgfault") == faults + 1


def test_a_page_that_cannot_move_is_as_it_was(machine):
    """Somebody has it locked, so it is not even unmapped: accessible and writable again, where it was."""
    task_numa_work(machine.ram, CPU, 1)
    page = ANON_VPN + slow(machine, ANON_VPN)[0]
    pfn = machine.pfn(1, page)
    lock_page(machine.ram, CPU, pfn)
    machine.touch(page)
    unlock_page(machine.ram, CPU, pfn)
    assert machine.pfn(1, page) == pfn
    assert machine.pte(1, page) & (PTE_PRESENT | PTE_WRITE | PTE_PROTNONE) == PTE_PRESENT | PTE_WRITE
    assert machine.count("pgpromote_success") == 0


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


@pytest.mark.parametrize("node, local", [(FAST, 0), (SLOW, 1)])
def test_a_hint_fault_is_local_if_the_page_is_on_the_node_of_the_cpu(machine, node, local):
    """As numa_migrate_check counts it: whatever tier that node is of."""
    machine.ram.cpu_node[CPU] = node
    task_numa_work(machine.ram, CPU, 1)
    machine.touch(ANON_VPN + slow(machine, ANON_VPN)[0], cpu=CPU)
    assert [machine.count(f"numa_hint_faults{of}") for of in ("", "_local")] == [1, local]


def test_promotion_has_a_rate_limit(machine):
    task_numa_work(machine.ram, CPU, 1)
    machine.ram.wmark_promo[FAST] = 600
    machine.ram.promote_start_ns[FAST] = machine.ram.cpu_clock[CPU]
    machine.ram.promote_count[FAST] = int(machine.ram.promote_limit) - 3  # the limit itself is not reached
    machine.touch(ANON_VPN, pages=PAGES)
    assert machine.count("pgpromote_candidate") == len(slow(machine, ANON_VPN)) + 2
    assert machine.count("pgpromote_success") == 2


@pytest.mark.parametrize("flushed", [False, True])
def test_an_inaccessible_page_counts_as_accessible_until_the_scanner_has_flushed(machine, flushed):
    """scanner on CPU 0: PTE made PROT_NONE, its flush not sent yet     CPU 1 still has the translation
    reclaim unmaps the page                                          it must flush, though the PTE is not
    present
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


def test_dirty_pages_of_a_file_are_left_alone(machine):
    """They could not be moved from here; their PTEs stay as they are."""
    page = slow(machine, SHARED_VPN)[0]
    set_flag(machine.ram, machine.pfn(1, SHARED_VPN + page), PG_DIRTY)
    task_numa_work(machine.ram, CPU, 1)
    assert hints(machine, SHARED_VPN) == slow(machine, SHARED_VPN)[1:]


def test_nothing_is_promoted_into_a_node_that_is_nearly_full(machine):
    """migrate_balanced_pgdat: at HIGH the page stays, and kswapd is woken to make room for the next."""
    task_numa_work(machine.ram, CPU, 1)
    machine.ram.wmark_high[FAST], machine.ram.wmark_promo[FAST] = 600, 600
    page = ANON_VPN + slow(machine, ANON_VPN)[0]
    machine.touch(page)
    assert node_of(machine.ram, machine.pfn(1, page)) == SLOW
    assert (machine.count("pgpromote_candidate"), machine.count("pgpromote_success")) == (1, 0)
    assert machine.ram.kswapd_state[FAST] == AWAKE
    machine.forget_wakeups()


def test_the_first_scan_comes_a_while_after_the_process(small_machine):
    """scan_delay: an mm is not looked at when it is new."""
    machine = small_machine(pages=(512, 512), mms=1, numa_balancing=1, scan_pages=1024, scan_delay_ns=5_000)
    machine.run(1)
    for clock, passes in ((1_000, 0), (5_999, 0), (6_000, 1)):
        machine.ram.cpu_clock[CPU] = clock
        task_numa_work(machine.ram, CPU, 1)
        assert machine.ram.mm_scan_seq[1] == passes


def test_after_a_promotion_a_task_scans_half_as_often(machine):
    """update_task_scan_period: no local and no shared faults, so the period doubles, once a pass."""
    machine.ram.mm_scan_next_ns[1] = 1
    task_numa_work(machine.ram, CPU, 1)
    assert machine.ram.mm_scan_seq[1] == 1
    pages = [ANON_VPN + i for i in slow(machine, ANON_VPN)[:2]]
    machine.touch(pages[0])
    period = int(machine.ram.task_scan_period[CPU])
    assert (period, machine.ram.mm_scan_next_ns[1] - machine.ram.cpu_clock[CPU] > period // 2) == (
        2 * SCAN_PERIOD_FLOOR_NS,
        True,
    )
    machine.touch(pages[1])
    assert machine.ram.task_scan_period[CPU] == period


def test_the_hot_threshold_falls_when_too_many_are_hot(machine):
    """numa_promotion_adjust_threshold: once in the longest scan period, a sixteenth of twice the default."""
    task_numa_work(machine.ram, CPU, 1)
    machine.ram.wmark_promo[FAST] = 600
    machine.ram.hot_start_ns[FAST], machine.ram.promote_count[FAST] = -60_000_000_001, 10_000_000
    machine.touch(ANON_VPN + slow(machine, ANON_VPN)[0])
    default = int(machine.ram.hot_threshold_ns)
    assert machine.ram.hot_threshold[FAST] == default - default * 2 // 16


def test_a_task_scans_when_it_has_run_for_its_period(machine):
    """task_tick_numa: by its own run time, not by the clock; the first time after the delay."""
    ram = machine.ram
    ram.task_mm[CPU], ram.mm_scan_next_ns[1] = 1, 1
    for runtime, passes in ((0, 0), (1, 1), (SCAN_PERIOD_FLOOR_NS, 1), (2 * SCAN_PERIOD_FLOOR_NS, 2)):
        ram.cpu_clock[CPU] += 10 * SCAN_PERIOD_FLOOR_NS
        ram.task_runtime_ns[CPU] = runtime
        task_tick_numa(ram, CPU, CPU)
        assert ram.mm_scan_seq[1] == passes
