"""mmap, munmap, mprotect and mremap: VMAs before and after, page tables that go or stay, what is flushed.

0123456789   pages of a region of 256, in tens or so; letters are VMAs, dots are gaps
"""

import pytest

from allocator.filemap import sync_file_page
from allocator.flush_sites import LOCAL_MM_SHOOTDOWN, REMOTE_SEND_IPI
from allocator.lru import isolate_page, lru_add_drain
from allocator.migrate import migrate_one
from allocator.mmap import UNPLACED, do_mmap, do_munmap
from allocator.mprotect import mprotect
from allocator.mremap import mremap
from allocator.page import PG_LOCKED
from allocator.pcp import drain_all_pages
from allocator.tlb_flush import ALL_PAGES
from allocator.vma import MMAP_BASE, VM_READ, VM_WRITE, find_vma
from cpus.abi.numbers import LOAD, STORE, TASK_SIZE
from cpus.page_table import PTE_DIRTY, PTE_PRESENT, PTE_PROTNONE, PTE_WRITE, find_table
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN, LATER, SHARED, SHARED_VPN

ANON, END = 2, ANON_VPN + 256
FAR = 1 << 27  # pages: another 512 GiB


@pytest.fixture
def machine(small_machine):
    """One process on two CPUs."""
    machine = small_machine()
    machine.run(1, cpu=0)
    machine.run(1, cpu=1)
    return machine


def vmas(machine, start=ANON_VPN, end=END, mm=1):
    """(first, end, page of the object) of the VMAs between, relative to `start`."""
    ram = machine.ram
    found = [int(v) for v in ram.mm_vma[mm, : ram.mm_nr_vmas[mm]]]
    return [
        (int(ram.vma_start[v]) - start, int(ram.vma_end[v]) - start, int(ram.vma_pgoff[v]))
        for v in found if ram.vma_end[v] > start and ram.vma_start[v] < end
    ]  # fmt: skip


def tables(machine):
    """Number of page-table frames that were taken and not given back."""
    return machine.count("pgalloc_normal") - machine.count("pgfree")


def test_unmapping_the_middle_leaves_two(machine):
    """aaaaaaaaaa
    aaa....bbb"""
    machine.touch(ANON_VPN, STORE, pages=256)
    do_munmap(machine.ram, 0, 1, ANON_VPN + 100, ANON_VPN + 150)
    assert vmas(machine) == [(0, 100, 0), (150, 256, 150)]
    assert machine.pte(1, ANON_VPN + 99)
    assert machine.pte(1, ANON_VPN + 150)
    assert not machine.pte(1, ANON_VPN + 100)
    assert not machine.pte(1, ANON_VPN + 149)


def test_mapping_it_again_makes_it_one(machine):
    """aaa....bbb
    aaaaaaaaaa   the same region at the same place: the three are alike"""
    do_munmap(machine.ram, 0, 1, ANON_VPN + 100, ANON_VPN + 150)
    do_mmap(machine.ram, 0, 1, ANON, 100, 50)
    assert vmas(machine) == [(0, 256, 0)]


def test_unmapping_over_several_takes_what_is_there(machine):
    """aaa.bbb.ccc
    a.........c"""
    for page in (60, 160):
        do_munmap(machine.ram, 0, 1, ANON_VPN + page, ANON_VPN + page + 10)
    do_munmap(machine.ram, 0, 1, ANON_VPN + 20, ANON_VPN + 200)
    assert vmas(machine) == [(0, 20, 0), (200, 256, 200)]


def test_unmapping_nothing_changes_and_flushes_nothing(machine):
    machine.asked()
    do_munmap(machine.ram, 0, 1, END + 1000, END + 1100)
    assert (vmas(machine), machine.asked()) == ([(0, 256, 0)], [])


def test_page_tables_go_with_a_mapping_that_is_alone_in_them(machine):
    """PTE, PMD and PUD table of a mapping in a 512 GiB of its own; those of the other regions stay."""
    machine.ram.proc_region[0, ANON] = FAR + 0x80000
    do_mmap(machine.ram, 0, 1, ANON, 0, 8)
    before = tables(machine)
    machine.touch(FAR + 0x80000, STORE, pages=8)
    assert tables(machine) == before + 8 + 3
    lru_add_drain(machine.ram, 0)
    do_munmap(machine.ram, 0, 1, FAR + 0x80000, FAR + 0x80008)
    assert tables(machine) == before
    assert find_table(machine.ram, machine.ram.mm_pgd[1], FAR + 0x80000) == -1


def test_a_neighbour_keeps_the_page_table(machine):
    """aaaa..bb   in one 2 MiB
    ......bb"""
    machine.touch(ANON_VPN, STORE, pages=256)
    lru_add_drain(machine.ram, 0)
    before = tables(machine)
    do_munmap(machine.ram, 0, 1, ANON_VPN, ANON_VPN + 100)
    assert tables(machine) == before - 100
    assert find_table(machine.ram, machine.ram.mm_pgd[1], ANON_VPN) >= 0


@pytest.mark.parametrize("pages, event", [(1, 1), (32, 32), (33, 33), (34, ALL_PAGES)])
def test_a_range_up_to_the_ceiling_is_flushed_page_by_page(machine, pages, event):
    machine.touch(ANON_VPN, STORE, pages=256)
    do_munmap(machine.ram, 0, 1, ANON_VPN + 10, ANON_VPN + 10 + pages)
    assert machine.events(REMOTE_SEND_IPI) == machine.events(LOCAL_MM_SHOOTDOWN) == {event: 1}


def test_lazy_cpus_are_flushed_only_when_page_tables_go(machine):
    machine.touch(ANON_VPN, STORE, pages=256)
    machine.idle(1)
    do_munmap(machine.ram, 0, 1, ANON_VPN, ANON_VPN + 100)
    assert machine.asked() == []
    do_munmap(machine.ram, 0, 1, ANON_VPN + 100, END)
    assert machine.asked() == [[1]]
    assert machine.ram.cpu_loaded_mm[1] == 0, "it has dropped the address space instead of flushing it"


def test_an_untouched_mapping_alone_in_its_512_gib_is_flushed_all_the_same(machine):
    """The folded P4D level: one page is noted, page tables count as freed, though there were none."""
    machine.ram.proc_region[0, ANON] = FAR + 0x80000
    do_mmap(machine.ram, 0, 1, ANON, 0, 8)
    do_munmap(machine.ram, 0, 1, FAR + 0x80000, FAR + 0x80008)
    assert machine.events(REMOTE_SEND_IPI) == {1: 1}


def test_two_who_change_ptes_at_the_same_time_flush_everything(machine):
    """mm_tlb_flush_nested: what another one has cleared and not flushed yet must not be taken for empty."""
    machine.touch(ANON_VPN, STORE, pages=8)
    machine.ram.mm_flush_pending[1] += 1
    do_munmap(machine.ram, 0, 1, ANON_VPN, ANON_VPN + 4)
    machine.ram.mm_flush_pending[1] -= 1
    assert machine.events(REMOTE_SEND_IPI) == {ALL_PAGES: 1}


def test_mmap_of_null_takes_the_highest_free_place(machine):
    """Below MMAP_BASE, then below the first one; a gap that is large enough is used before."""
    places = []
    for pages in (10, 20):
        machine.ram.proc_region[0, ANON] = -1
        places.append(int(do_mmap(machine.ram, 0, 1, ANON, 0, pages)))
    assert places == [MMAP_BASE - 10, MMAP_BASE - 30]
    do_munmap(machine.ram, 0, 1, MMAP_BASE - 10, MMAP_BASE)
    machine.ram.proc_region[0, ANON] = -1
    assert do_mmap(machine.ram, 0, 1, ANON, 0, 4) == MMAP_BASE - 4


def test_too_many_vmas_is_a_sentence(broken_machine):
    machine = broken_machine()

    def many(ram):
        for page in range(0, 256, 2):
            do_munmap(ram, 0, 1, ANON_VPN + page, ANON_VPN + page + 1)

    assert machine.panic_of(many) == "mmap: no VMA is left for mm 1 (the machine has 32)"


# --- mprotect -----------------------------------------------------------------------------------------------


def test_rights_of_a_part_split_the_vma_and_giving_them_back_joins_it(machine):
    """aaaaaaaaaa
    aaarrraaaa
    aaaaaaaaaa"""
    mprotect(machine.ram, 0, 1, ANON_VPN + 10, ANON_VPN + 20, VM_READ)
    assert vmas(machine) == [(0, 10, 0), (10, 20, 10), (20, 256, 20)]
    mprotect(machine.ram, 0, 1, ANON_VPN + 10, ANON_VPN + 20, VM_READ | VM_WRITE)
    assert vmas(machine) == [(0, 256, 0)]


@pytest.mark.parametrize("rights", [VM_READ, 0])
def test_fewer_rights_are_flushed_once(machine, rights):
    machine.touch(ANON_VPN, STORE, pages=10)
    machine.asked()
    mprotect(machine.ram, 0, 1, ANON_VPN, END, rights)
    assert machine.asked() == [[1]]
    assert machine.events(REMOTE_SEND_IPI) == {10: 1}
    pte = machine.pte(1, ANON_VPN)
    assert (pte & PTE_WRITE, pte & PTE_DIRTY, bool(pte & PTE_PROTNONE)) == (0, PTE_DIRTY, rights == 0)


def test_more_rights_are_flushed_too_and_need_no_fault(machine):
    """As Linux does since pte_needs_flush looks at changes of RW either way; an exclusive page becomes
    writable at once.
    """
    machine.touch(ANON_VPN, STORE, pages=10)
    mprotect(machine.ram, 0, 1, ANON_VPN, END, VM_READ)
    machine.asked()
    mprotect(machine.ram, 0, 1, ANON_VPN, END, VM_READ | VM_WRITE)
    assert machine.asked() == [[1]]
    faults = machine.count("pgfault")
    machine.touch(ANON_VPN, STORE, pages=10)
    assert machine.count("pgfault") == faults


@pytest.mark.parametrize("synced", [False, True])
def test_a_clean_shared_file_page_faults_before_it_is_written_again(machine, synced):
    """page_mkwrite: who syncs must learn of it. Of one that was written since, the file system knows
    (can_change_pte_writable).
    """
    machine.touch(SHARED_VPN, STORE)
    mprotect(machine.ram, 0, 1, SHARED_VPN, SHARED_VPN + 256, VM_READ)
    if synced:
        sync_file_page(machine.ram, 0, SHARED, 0)
    mprotect(machine.ram, 0, 1, SHARED_VPN, SHARED_VPN + 256, VM_READ | VM_WRITE)
    assert bool(machine.pte(1, SHARED_VPN) & PTE_WRITE) is not synced


def test_what_has_no_rights_cannot_be_read(broken_machine):
    machine = broken_machine()
    machine.run(1)
    machine.touch(ANON_VPN, STORE)
    mprotect(machine.ram, 0, 1, ANON_VPN, END, 0)
    assert "SIGSEGV" in machine.panic_of(lambda ram: machine.touch(ANON_VPN, LOAD))


def test_what_has_no_rights_cannot_be_read_where_it_has_moved_to(small_machine):
    """A migration entry becomes what its VMA allows by then (vm_page_prot); given back, the rights hold at
    the new place.
    """
    machine = small_machine(pages=(512, 512))
    machine.run(1)
    machine.touch(ANON_VPN, STORE)
    lru_add_drain(machine.ram, 0)
    mprotect(machine.ram, 0, 1, ANON_VPN, END, 0)
    old = machine.pfn(1, ANON_VPN)
    assert isolate_page(machine.ram, 0, old)
    assert migrate_one(machine.ram, 0, old, 1)
    assert machine.pfn(1, ANON_VPN) != old
    assert machine.pte(1, ANON_VPN) & (PTE_PRESENT | PTE_PROTNONE | PTE_WRITE) == PTE_PROTNONE
    mprotect(machine.ram, 0, 1, ANON_VPN, END, VM_READ | VM_WRITE)
    assert machine.pte(1, ANON_VPN) & (PTE_PRESENT | PTE_PROTNONE | PTE_WRITE) == PTE_PRESENT | PTE_WRITE
    machine.touch(ANON_VPN, STORE)


# --- mremap -------------------------------------------------------------------------------------------------


def moved(machine, page, pages, target):
    """Move a part of the anonymous region."""
    frames = [machine.pfn(1, ANON_VPN + page + i) for i in range(pages)]
    machine.asked()
    mremap(machine.ram, 0, 1, ANON_VPN + page, pages, target)
    return frames


def test_pages_move_with_their_frames(machine):
    """aaaaaaaaaa . . . .
    aaa...aaaa . bbb ."""
    machine.touch(ANON_VPN, STORE, pages=256)
    target = FAR + 0x1000
    frames = moved(machine, 50, 20, target)
    assert [machine.pfn(1, target + i) for i in range(20)] == frames
    assert vmas(machine) == [(0, 50, 0), (70, 256, 70)]
    assert vmas(machine, target, target + 20) == [(0, 20, 50)], "it shows the same pages of the same object"
    assert machine.asked() == [[1]]
    machine.touch(target, STORE, pages=20)


def test_reverse_mapping_finds_what_has_moved(machine):
    from allocator.rmap import page_referenced

    machine.touch(ANON_VPN, STORE, pages=4)
    (pfn,) = moved(machine, 2, 1, FAR + 0x1000)
    assert page_referenced(machine.ram, 0, pfn) == (1, False)


def test_a_whole_page_table_moves_as_one(small_machine):
    """Both ends aligned to 2 MiB: the table itself is hung in at its new place, with one flush
    (move_normal_pmd).
    """
    machine = small_machine(pages=(2048,), region=1024)
    machine.run(1, cpu=0)
    machine.run(1, cpu=1)
    start = ANON_VPN
    machine.touch(start, STORE, pages=1024)
    tables_before = [find_table(machine.ram, machine.ram.mm_pgd[1], start + 512 * i) for i in range(2)]
    machine.asked()
    mremap(machine.ram, 0, 1, start, 1024, FAR)
    assert [find_table(machine.ram, machine.ram.mm_pgd[1], FAR + 512 * i) for i in range(2)] == tables_before
    assert len(machine.asked()) == 2, "one for each table; no table was left to be freed"


def test_pages_that_were_written_are_flushed_before_the_pte_lock_is_released(machine):
    """munmap of a shared file's pages: once for the table with dirty ones (force_flush), and once as the page
    tables go.
    """
    machine.touch(SHARED_VPN, STORE, pages=8)
    machine.touch(SHARED_VPN, LOAD, pages=8, cpu=1)
    machine.asked()
    pfn, table, seen = (
        machine.pfn(1, SHARED_VPN),
        int(find_table(machine.ram, machine.ram.mm_pgd[1], SHARED_VPN)),
        [],
    )
    machine.on_send = lambda *_: seen.append(
        (int(machine.ram.page_mapcount[pfn]), int(machine.ram.page_lock_word[table]) != 0)
    )
    do_munmap(machine.ram, 0, 1, SHARED_VPN, SHARED_VPN + 256)
    assert machine.asked() == [[1], [1]]
    assert seen == [(1, True), (0, False)], (
        "mapped, so that nobody takes it for clean, until CPU 1 has flushed"
    )


def test_pages_that_were_only_read_are_flushed_once(machine):
    machine.touch(SHARED_VPN, LOAD, pages=8)
    machine.touch(SHARED_VPN, LOAD, pages=8, cpu=1)
    machine.asked()
    do_munmap(machine.ram, 0, 1, SHARED_VPN, SHARED_VPN + 256)
    assert machine.asked() == [[1]]


@pytest.mark.parametrize("pages", [64, 512])
def test_a_table_for_the_new_place_is_allocated_before_reverse_mapping_is_kept_away(small_machine, pages):
    """No memory is left: to have a new table the call must reclaim a page of the file that it moves, PTE by
    PTE or a table in one go.
    """
    machine = small_machine(pages=(2048,), region=1024)
    ram = machine.ram
    machine.run(1)
    machine.touch(FILE_VPN, LOAD, pages=1024)
    lru_add_drain(ram, 0)
    ram.cpu_clock[:] = int(ram.cpu_clock.max()) + LATER
    drain_all_pages(ram, 0, 0)
    usual, held = int(ram.wmark_min[0]), []

    def pressed(*_):
        held.append(int(ram.object_lock[FILE]))
        if held[-1]:  # reclaim would wait for ever
            ram.wmark_min[0] = usual

    machine.on_hook("pressure", pressed)
    ram.wmark_min[0] = ram.wmark_low[0] = ram.wmark_high[0] = int(ram.zone_free[0])
    mremap(ram, 0, 1, FILE_VPN, pages, FAR)
    assert held == [0] * len(held)
    assert machine.count("pgsteal_direct") > 0
    machine.forget_wakeups()


def test_what_lay_at_the_new_place_is_unmapped(machine):
    """MREMAP_FIXED. Shared file: ssssssss  ->  aaaa ssss; anonymous: aaaaaaaa  ->  .... aaaa"""
    machine.touch(ANON_VPN, STORE, pages=8)
    machine.touch(SHARED_VPN, STORE, pages=8)
    pfn, old = machine.pfn(1, ANON_VPN), machine.pfn(1, SHARED_VPN)
    assert mremap(machine.ram, 0, 1, ANON_VPN, 4, SHARED_VPN) == SHARED_VPN
    assert machine.pfn(1, SHARED_VPN) == pfn
    assert machine.ram.page_mapcount[old] == 0
    assert vmas(machine, SHARED_VPN, SHARED_VPN + 256) == [(0, 4, 0), (4, 256, 4)]
    assert vmas(machine) == [(4, 256, 4)]


def test_the_kernel_finds_room_for_a_region_without_a_place(machine):
    machine.touch(ANON_VPN, STORE, pages=8)
    pfn = machine.pfn(1, ANON_VPN + 2)
    new = int(mremap(machine.ram, 0, 1, ANON_VPN + 2, 4, UNPLACED))
    assert new == MMAP_BASE - 4
    assert machine.pfn(1, new) == pfn


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (ANON_VPN + 250, FAR, "page fault at vpn 0x30100 of mm 1: no mapping there (SIGSEGV)"),
        (ANON_VPN + 4, FAR, "mremap: another mapping begins at vpn 0x30008 of mm 1 (EFAULT)"),
        (ANON_VPN, ANON_VPN + 7, "mremap: 8 pages at vpn 0x30000 are moved onto themselves (EINVAL)"),
        (ANON_VPN, TASK_SIZE - 7, "mmap: 8 pages at vpn 0x7fffffff9 reach beyond the end of user space "
         "(ENOMEM)"),
    ],
)  # fmt: skip
def test_what_linux_refuses_to_move_stops_the_run(broken_machine, old, new, said):
    """Behind the end of a mapping, across two, onto itself, beyond user space."""
    machine = broken_machine()
    machine.run(1)
    mprotect(machine.ram, 0, 1, ANON_VPN + 8, ANON_VPN + 16, VM_READ)
    assert machine.panic_of(lambda ram: mremap(ram, 0, 1, old, 8, new)) == said


def test_rights_that_are_the_same_again_make_one_mapping(machine):
    """r.r.rw  ->  rrrrrr: merged at each boundary inside the range, so that it can be moved as one."""
    for first in (8, 24):
        mprotect(machine.ram, 0, 1, ANON_VPN + first, ANON_VPN + first + 8, VM_READ)
    assert len(vmas(machine)) == 5
    mprotect(machine.ram, 0, 1, ANON_VPN, ANON_VPN + 40, VM_READ)
    assert vmas(machine) == [(0, 40, 0), (40, 256, 40)]
    mprotect(machine.ram, 0, 1, ANON_VPN + 4, END, VM_READ | VM_WRITE)
    mprotect(machine.ram, 0, 1, ANON_VPN, ANON_VPN + 4, VM_READ | VM_WRITE)
    assert vmas(machine) == [(0, 256, 0)]


def test_rights_across_a_hole_stop_the_run_at_the_hole(broken_machine):
    machine = broken_machine()
    machine.run(1)
    do_munmap(machine.ram, 0, 1, ANON_VPN + 8, ANON_VPN + 10)
    said = machine.panic_of(lambda ram: mprotect(ram, 0, 1, ANON_VPN, END, VM_READ))
    assert said == "page fault at vpn 0x30008 of mm 1: no mapping there (SIGSEGV)"


def test_a_private_file_mapping_gives_its_writer_a_copy(machine):
    """The file keeps its page; others go on seeing it (do_cow_fault, wp_page_copy)."""
    machine.touch(FILE_VPN, LOAD)
    mprotect(machine.ram, 0, 1, SHARED_VPN, SHARED_VPN + 256, VM_READ | VM_WRITE)
    ram, vma = machine.ram, int(find_vma(machine.ram, 1, SHARED_VPN))
    assert ram.vma_object[vma] == SHARED
    do_munmap(ram, 0, 1, SHARED_VPN, SHARED_VPN + 256)
    ram.proc_flags[0, 1], ram.proc_anon[0, 1] = VM_READ | VM_WRITE, ram.proc_anon[0, ANON]
    do_mmap(ram, 0, 1, 1, 0, 256)
    machine.touch(SHARED_VPN, LOAD)  # the file's page, read-only
    machine.touch(SHARED_VPN, STORE)
    locked = []
    machine.after_hook(
        "write_fault", lambda *_: locked.append(ram.page_flags[machine.cached(SHARED, 40)] & PG_LOCKED != 0)
    )
    machine.touch(SHARED_VPN + 40, STORE)  # its first access
    assert locked == [True], "nobody can map it here, and unmap it again, after the design was asked"
    for page in (0, 40):
        assert machine.pfn(1, SHARED_VPN + page) != machine.cached(SHARED, page) >= 0
        assert machine.pte(1, SHARED_VPN + page) & PTE_WRITE
