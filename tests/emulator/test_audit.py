"""The audit: a machine that has worked is accounted for to the last word, and every planted bug fails just
the check it should.
"""

import pytest

from allocator.lru import lru_add_drain
from allocator.page import PG_ACTIVE, PG_DIRTY, PG_EXCLUSIVE, PG_LOCKED, PG_LRU, PG_SWAPBACKED, PG_TABLE
from allocator.unmap import zap_range
from allocator.vma import VM_RIGHTS
from cpus.abi.numbers import STORE
from cpus.page_table import PTE_DIRTY, PTE_MIGRATION, PTE_PFN_SHIFT, PTE_PRESENT, PTE_WRITE
from emulator.judge.audit import audit, audit_text
from emulator.small_machine import ANON_VPN, FILE_VPN, SHARED_VPN, SmallMachine

CHECKS = {
    "frame", "free block", "pcp page", "page table", "cached page", "LRU page", "PTE", "mapcount",
    "reference", "resident page", "VMA", "key", "message", "request", "ack", "batched flush", "lock", "task",
}  # fmt: skip


@pytest.fixture
def machine():
    """Three CPUs and two processes have read, written and reclaimed under LUF; some pages are free with a
    key.
    """
    machine = SmallMachine(pages=(512, 256), cpus=3, design="luf")
    machine.run(1, cpu=0)
    machine.run(1, cpu=1)
    machine.run(2, cpu=2)
    for cpu in (0, 1, 2):
        machine.touch(FILE_VPN, pages=200, cpu=cpu)
        machine.touch(SHARED_VPN, STORE, pages=16, cpu=cpu)
        machine.touch(ANON_VPN + 16 * cpu, STORE, pages=16, cpu=cpu)
        lru_add_drain(machine.ram, cpu)
    machine.ram.cpu_clock[:] = 1_000_000_000  # all reads are done
    machine.ram.wmark_high[0] = 400
    while machine.count("pgsteal_kswapd") < 100:  # the first look at a page clears its accessed bit
        machine.enter("kswapd_step", 1, 0)
    machine.touch(SHARED_VPN + 100, STORE)  # readahead brings more than is mapped
    machine.interrupts.clear()
    zap_range(machine.ram, 0, 1, ANON_VPN + 5, ANON_VPN + 6)
    assert machine.asked() == [[1], [1]]  # what reclaim has left pending, and the page itself
    yield machine
    machine.ram.close()


def failing(machine):
    """Names of the checks that fail; each must have something to say."""
    found = audit(machine.ram)
    assert set(found) == CHECKS
    names = {name for name, (expected, right) in found.items() if expected != right}
    assert {line.split(":")[0] for line in audit_text(machine.ram).splitlines()} == names
    return names


def test_a_machine_that_has_worked_is_accounted_for(machine):
    """Nothing is wrong, and no check had nothing to look at."""
    assert failing(machine) == set()
    assert all(expected > 0 for name, (expected, _) in audit(machine.ram).items() if name != "task")
    assert audit(machine.ram)["frame"] == (768, 768)


def file_page(machine):
    """A cached page of the read-only file that some process maps."""
    return next(
        pfn
        for index in range(200)
        if (pfn := machine.cached(0, index)) >= 0 and machine.ram.page_mapcount[pfn] > 0
    )


def unmapped(machine):
    """Pages of the shared file that came by readahead and nobody has touched."""
    return [i for i in range(256) if (p := machine.cached(1, i)) >= 0 and machine.ram.page_mapcount[p] == 0]


def anon_page(machine):
    return machine.pfn(1, ANON_VPN)


def table_of(machine, mm, vpn):
    """The PTE table of a page, and the index there."""
    table = int(machine.ram.mm_pgd[mm])
    for level in (3, 2, 1):
        table = int(machine.ram.frame_word[table, (vpn >> 9 * level) & 511]) >> 12
    return table, vpn & 511


def free_block(machine, order=None):
    """(zone, order, pfn) of a block at the head of a free list that has more than one."""
    ram = machine.ram
    return next(
        (z, o, int(ram.free_first[z, o])) for z in (0, 1) for o in range(11) if ram.free_count[z, o] > 0
    )


def lru_tail(machine, which):
    return int(machine.ram.lru_last[0, which])


PLANTS = {}


def plant(*names):
    """Name the checks that must fail after the decorated function has changed the machine."""
    return lambda function: PLANTS.setdefault(function.__name__, (set(names), function)) and function


@plant("frame")
def a_page_leaked_from_the_pcp_list(m):
    cpu, zone = next((c, z) for c in range(3) for z in (0, 1) if m.ram.pcp_count[c, z] > 1)
    m.ram.pcp_first[cpu, zone] = m.ram.page_next[m.ram.pcp_first[cpu, zone]]
    m.ram.page_prev[m.ram.pcp_first[cpu, zone]] = -1
    m.ram.pcp_count[cpu, zone] -= 1


@plant("frame")
def a_cached_page_without_slot_or_mapping(m):
    """Its reference was dropped, and still nobody gave it back."""
    index = unmapped(m)[0]
    pfn = m.cached(1, index)
    m.ram.cache_slot[m.ram.object_cache[1] + index] = 0
    m.ram.object_nrpages[1] -= 1
    m.ram.page_refcount[pfn] = 0


@plant("frame", "pcp page")
def a_page_in_use_on_a_pcp_list(m):
    pfn, cpu = file_page(m), 0
    first = int(m.ram.pcp_first[cpu, 0])
    on_lru = m.ram.page_prev[pfn], m.ram.page_next[pfn]
    before, after = (int(n) for n in on_lru)  # take it off the LRU by hand, so that only this is wrong
    if after >= 0:
        m.ram.page_prev[after] = before
    if before >= 0:
        m.ram.page_next[before] = after
    for which in range(4):
        if m.ram.lru_first[0, which] == pfn:
            m.ram.lru_first[0, which] = after
        if m.ram.lru_last[0, which] == pfn:
            m.ram.lru_last[0, which] = before
    which = 3 if m.flags(pfn) & PG_ACTIVE else 2
    m.ram.lru_size[0, which] -= 1
    m.ram.page_flags[pfn] &= ~PG_LRU
    m.ram.page_prev[pfn], m.ram.page_next[pfn], m.ram.pcp_first[cpu, 0] = -1, first, pfn
    if first >= 0:
        m.ram.page_prev[first] = pfn
    else:
        m.ram.pcp_last[cpu, 0] = pfn
    m.ram.pcp_count[cpu, 0] += 1


@plant("free block")
def a_zone_that_counts_one_page_too_many(m):
    m.ram.zone_free[0] += 1


@plant("free block")
def a_list_that_counts_a_block_too_few(m):
    zone, order, _ = free_block(m)
    m.ram.free_count[zone, order] -= 1


@plant("free block")
def a_free_block_without_its_flag(m):
    m.ram.page_flags[free_block(m)[2]] = 0


@plant("free block")
def a_pend_list_with_a_clean_block(m):
    zone, order = next((z, o) for z in (0, 1) for o in range(11) if m.ram.pend_count[z, o] > 0)
    m.ram.zone_pending[zone] -= 1 << order
    m.ram.page_key[m.ram.pend_first[zone, order]] = 0


@plant("free block")
def pending_pages_counted_twice(m):
    m.ram.zone_pending[0] += 1


@plant("free block", "frame")
def a_free_list_that_is_a_ring(m):
    pfn = free_block(m)[2]
    m.ram.page_next[pfn] = m.ram.page_prev[pfn] = pfn


@plant("pcp page")
def a_pcp_list_that_counts_wrong(m):
    m.ram.pcp_count[2, 0] += 1


@plant("pcp page")
def a_pcp_page_with_other_flags(m):
    cpu = next(c for c in range(3) if m.ram.pcp_count[c, 0] > 0)
    m.ram.page_flags[m.ram.pcp_first[cpu, 0]] = PG_DIRTY


@plant("page table")
def a_page_table_that_lost_its_flag(m):
    m.ram.page_flags[m.ram.mm_pgd[1]] = 0


@plant("page table")
def a_page_that_is_called_a_page_table(m):
    m.ram.page_flags[anon_page(m)] |= PG_TABLE


@plant("cached page")
def a_slot_of_another_page(m):
    """Two slots were exchanged; nobody maps them."""
    one, other = [int(m.ram.object_cache[1]) + index for index in unmapped(m)[:2]]
    m.ram.cache_slot[[one, other]] = m.ram.cache_slot[[other, one]]


@plant("cached page")
def a_file_that_counts_a_page_too_many(m):
    m.ram.object_nrpages[0] += 1


@plant("cached page")
def a_store_that_nobody_remembers(m):
    """A dirty bit was lost: reclaim would drop the page as clean."""
    at = table_of(m, m.ram.asid_mm[0, m.ram.cpu_asid[0]], SHARED_VPN + 100)
    pfn = int(m.ram.frame_word[at]) >> PTE_PFN_SHIFT
    m.ram.frame_word[at] &= ~PTE_DIRTY
    m.ram.page_flags[pfn] &= ~PG_DIRTY


@plant("LRU page")
def an_lru_list_that_counts_wrong(m):
    m.ram.lru_size[0, 2] += 1


@plant("LRU page")
def a_page_on_the_wrong_lru_list(m):
    m.ram.page_flags[lru_tail(m, 2)] |= PG_ACTIVE


@plant("LRU page")
def a_page_that_only_believes_to_be_on_the_lru(m):
    m.ram.page_flags[m.ram.mm_pgd[1]] |= PG_LRU


@plant("LRU page")
def an_isolated_page_never_put_back(m):
    m.ram.isolated_file[0, 0] += 1


@plant("LRU page")
def a_broken_link_of_the_lru(m):
    m.ram.page_prev[m.ram.lru_last[0, 2]] = 3


@plant("mapcount")
def a_mapcount_too_high(m):
    m.ram.page_mapcount[file_page(m)] += 1


@plant("mapcount")
def an_exclusive_page_that_two_processes_map(m):
    pfn = next(p for index in range(200) if (p := m.cached(0, index)) >= 0 and m.ram.page_mapcount[p] == 2)
    m.ram.page_flags[pfn] |= PG_EXCLUSIVE


@plant("reference")
def a_reference_never_dropped(m):
    m.ram.page_refcount[file_page(m)] += 1


@plant("reference")
def a_reference_dropped_twice(m):
    m.ram.page_refcount[anon_page(m)] -= 1


@plant("reference")
def a_batch_without_references(m):
    m.ram.lru_batch[0, 0] = file_page(m)
    m.ram.lru_batch_count[0] = 1


@plant("PTE")
def a_pte_with_more_rights_than_its_vma(m):
    vpn = next(v for v in range(FILE_VPN, FILE_VPN + 200) if m.pte(1, v) & PTE_PRESENT)
    m.ram.frame_word[table_of(m, 1, vpn)] |= PTE_WRITE


@plant("PTE")
def a_page_that_can_be_read_where_nothing_may(m):
    m.ram.vma_flags[m.ram.mm_vma[1, 0]] &= ~VM_RIGHTS


@plant("PTE")
def two_ptes_exchanged(m):
    one, other = table_of(m, 1, ANON_VPN), table_of(m, 1, ANON_VPN + 1)
    m.ram.frame_word[one], m.ram.frame_word[other] = int(m.ram.frame_word[other]), int(m.ram.frame_word[one])


@plant("PTE", "mapcount", "reference", "resident page")
def a_migration_entry_left_behind(m):
    at = table_of(m, 1, SHARED_VPN)
    m.ram.frame_word[at] = (int(m.ram.frame_word[at]) & ~PTE_PRESENT) | PTE_MIGRATION


@plant("mapcount", "reference", "resident page")
def a_pte_lost(m):
    m.ram.frame_word[table_of(m, 1, SHARED_VPN)] = 0


@plant("resident page")
def an_mm_that_counts_wrong(m):
    m.ram.mm_rss[0, 2] -= 1


@plant("VMA")
def a_vma_missing_from_its_files_list(m):
    m.ram.object_vmas[0] = m.ram.vma_next[m.ram.object_vmas[0] - 1]


@plant("VMA")
def two_vmas_that_overlap(m):
    m.ram.vma_end[m.ram.mm_vma[1, 0]] = SHARED_VPN + 1


@plant("key")
def a_page_in_use_with_a_key(m):
    m.ram.page_key[anon_page(m)] = 77


@plant("key")
def a_generation_that_nobody_flushed(m):
    m.ram.zone_key_done[1] -= 1


@plant("message")
def a_message_lost(m):
    m.ram.ipi_received[2] -= 1


@plant("message")
def a_bell_still_ringing(m):
    m.ram.cpu_bell[1] = 1


@plant("request")
def a_request_not_executed(m):
    m.ram.ipi_executed[1] -= 1


@plant("request")
def a_queue_not_empty(m):
    m.ram.cpu_queue[1] = 2


@plant("request")
def a_request_without_a_site(m):
    m.ram.site_ipis[1, 3] -= 1


@plant("request")
def a_request_missing_in_time(m):
    busiest = m.ram.site_time[0].argmax()
    assert m.ram.site_time[0, busiest] > 0
    m.ram.site_time[0, busiest] -= 1


@plant("ack")
def an_ack_too_many(m):
    m.ram.ipi_acked[0] += 1


@plant("ack")
def an_ack_still_due(m):
    m.ram.cpu_acks[0] = 1


@plant("batched flush")
def a_batch_never_flushed(m):
    m.ram.ubc_required[1] = 1


@plant("lock")
def a_page_left_locked(m):
    m.ram.page_flags[file_page(m)] |= PG_LOCKED


@plant("lock")
def a_zone_lock_still_held(m):
    m.ram.zone_lock[1] = 3


@plant("lock")
def an_inode_lock_still_shared(m):
    m.ram.inode_lock[0] = 2


@plant("lock")
def an_invalidate_lock_still_held(m):
    m.ram.invalidate_lock[0] = -1


@plant("lock")
def a_design_lock_still_held(m):
    m.ram.design["record_lock"][5] = 1


@plant("lock")
def interrupts_left_off(m):
    m.ram.cpu_irq_off[2] = 1


@plant("task")
def a_task_still_queued(m):
    m.ram.queue_count[0] = 1


@plant("frame")
def an_anonymous_page_that_says_it_is_of_a_file(m):
    """It is mapped, but no cache knows it. (The same flag chooses its list: it is put where that says.)"""
    pfn = anon_page(m)
    for other in range(m.ram.nr_objects):
        if m.ram.object_kind[other] == 2 and m.ram.page_object[pfn] == other + 1:
            m.ram.object_kind[other] = 1
            m.ram.object_pages[other] = 0
            m.ram.page_flags[pfn] |= PG_SWAPBACKED


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_fails_just_its_check(machine, name):
    names, break_it = PLANTS[name]
    break_it(machine)
    assert failing(machine) == names


def test_every_check_has_a_planted_bug():
    assert set.union(*(names for names, _ in PLANTS.values())) == CHECKS


def test_a_sentence_names_frames_and_what_is_wrong(machine):
    pfn = file_page(machine)
    machine.ram.page_refcount[pfn] += 1
    holders = int(machine.ram.page_refcount[pfn]) - 1
    assert (
        audit_text(machine.ram)
        == f"reference: frame {pfn} has {holders} holders and reference count {holders + 1}"
    )


def test_many_faults_are_counted_and_only_the_first_are_told(machine):
    machine.ram.page_key[:] += 1
    said = next(line for line in audit_text(machine.ram).splitlines() if line.startswith("key"))
    assert "; and " in said
    assert len(said) < 500


def test_zones_of_one_node_are_told_apart():
    """A page on the pcp list of another zone of its own node is a finding; its LRU list knows nodes alone."""
    machine = SmallMachine(pages=(64, 448, 256), node_of=(0, 0, 1), cpus=1)
    machine.run(1)
    machine.touch(FILE_VPN, pages=40)
    lru_add_drain(machine.ram, 0)
    assert failing(machine) == set()
    pfn = int(machine.ram.pcp_first[0, 1])
    machine.ram.pcp_first[0, 1] = machine.ram.page_next[pfn]
    machine.ram.page_prev[machine.ram.pcp_first[0, 1]] = -1
    machine.ram.pcp_count[0, 1] -= 1
    machine.ram.pcp_first[0, 0] = machine.ram.pcp_last[0, 0] = pfn
    machine.ram.page_next[pfn] = machine.ram.page_prev[pfn] = -1
    machine.ram.pcp_count[0, 0] = 1
    assert failing(machine) == {"pcp page"}
    assert (
        audit_text(machine.ram)
        == f"pcp page: pcp list of cpu0, zone 0: frame {pfn} has flags 0x1000 and lies in zone 1"
    )
    machine.ram.close()
