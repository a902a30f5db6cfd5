"""LUF's debug feature: every place where it looks, each forgotten flush that it must find, what it must not
take for one.

Schedules are planted: one thread plays all CPUs. Findings of whole runs are in
tests/emulator/test_debug_luf.py.
"""

from pathlib import Path

import pytest

from allocator.filemap import write_to_file
from allocator.hooks import nothing
from allocator.kmap import (
    FREE_PAGE,
    KMAP_COPY,
    KMAP_COW,
    KMAP_MOVE,
    KMAP_READ,
    KMAP_TABLE,
    KMAP_WRITE,
    KMAP_ZERO,
    MKWRITE_ANON,
    MKWRITE_COPY,
    MKWRITE_COW,
    MKWRITE_MOVED,
    MKWRITE_NUMA,
    MKWRITE_PROTECT,
    MKWRITE_REUSE,
    MKWRITE_SHARED,
    PLACES,
)
from allocator.lru import lru_add_drain
from allocator.migrate import move_pages
from allocator.mprotect import mprotect
from allocator.page import PG_PCP
from allocator.page_alloc import free_page
from allocator.vma import VM_READ, VM_WRITE, find_vma
from cpus.abi.numbers import LOAD, STORE
from cpus.cpumask import cpus_of
from cpus.locks import WAITERS
from cpus.page_table import PTE_PRESENT, PTE_PROTNONE, PTE_WRITE, find_table
from cpus.segment import word_at_address
from designs import design
from designs.luf.debug import LUFD_KEPT, OF_FILE, OF_MM, OF_PAGE
from designs.luf.luf import Luf
from designs.luf.records import of_key, of_mm
from designs.luf_v12.luf_v12 import LufV12
from designs.memory_map import MACHINE
from emulator.small_machine import ANON_VPN, FILE, FILE_VPN, SHARED_VPN
from tests.designs.test_luf import keyed, pend_all, reclaim, release_all, take, take_until_flushed

ZONE = 0
EXAMPLE = Path(__file__).parents[2] / "examples" / "debug_luf.py"
POSTED, REQUIRED = "luf_v12", "luf_v12:records=required"


def without(kind, *forgotten):
    """Give a design of this kind that has forgotten some hooks."""
    made = kind(records="required") if kind is LufV12 else kind()
    made.hooks = tuple(item for item in made.hooks if item.text.name.removeprefix("hook_") not in forgotten)
    return made


def debugged(build, name="luf", **wanted):
    """Process 1 runs on CPUs 0 and 1; the debug feature is on."""
    machine = build(cpus=3, mms=1, design=name, debug_luf=True, **wanted)
    for cpu in (0, 1):
        machine.run(1, cpu=cpu)
    machine.asked()
    return machine


def found(machine):
    """(whose record, site) of each finding."""
    rows = machine.ram.lufd_finding[: min(int(machine.ram.lufd_findings[0]), LUFD_KEPT)].tolist()
    return [(row[0], row[1]) for row in rows]


def plant_in_pages(machine, frames):
    """Give frames a record that CPU 1 has not done."""
    machine.ram.lufd_ugen[frames], machine.ram.lufd_mask[frames, 0] = 1 << 40, 1 << 1


def plant_in_records(machine):
    """Give mm 1 and both files a record that CPU 1 has not done."""
    state, keys_from = machine.ram.design, of_key(machine.ram, 0)
    state["record_mask"][:keys_from, 0], state["record_ugen"][:keys_from] = 1 << 1, 1 << 40


# --- records ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["luf", POSTED, REQUIRED])
def test_a_page_freed_with_a_key_has_a_record_until_it_is_used(small_machine, name):
    """
    reclaim   every keyed frame: the key, its CPUs, what it was      take-off: CPU 1 is interrupted
              store: looked at, and forgotten
    """
    machine = debugged(small_machine, name)
    ram = machine.ram
    frames = keyed(machine, reclaim(machine, users=(0, 1)))
    in_pcp = [pfn for pfn in frames if machine.flags(pfn) & PG_PCP]
    assert in_pcp
    for pfn in frames:
        assert (ram.lufd_object[pfn], ram.lufd_freed_by[pfn]) == (FILE + 1, 0)
        assert 1 in cpus_of(ram.lufd_mask[pfn])
        assert ram.lufd_ugen[pfn] == ram.design["record_ugen"][of_key(ram, int(ram.lufd_key[pfn]))] > 0
    assert ram.lufd_key[in_pcp].tolist() == ram.page_key[in_pcp].tolist()  # in the buddy that is a generation
    pend_all(machine)
    ram.wmark_min[ZONE] = 512
    for page in range(200):
        machine.touch(ANON_VPN + page, STORE, cpu=0)
    ram.wmark_min[ZONE] = 16
    assert [1] in machine.asked()
    assert found(machine) == []
    assert ram.lufd_cleared.sum() > 0
    assert ram.lufd_marked.sum() == ram.lufd_cleared.sum() + (ram.lufd_ugen != 0).sum()
    machine.forget_wakeups()


def test_a_vanilla_page_has_none(small_machine):
    machine = debugged(small_machine)
    machine.use(SHARED_VPN, 16, STORE, cpu=1)
    frames = reclaim(machine, vpn=SHARED_VPN, users=(0, 1))
    assert machine.ram.lufd_ugen[frames].any() == 0


def test_a_record_that_is_not_done_when_the_page_is_freed_again_is_found(broken_machine):
    machine = debugged(broken_machine)
    frame = keyed(machine, reclaim(machine, users=(0, 1)))[-1]
    key = int(machine.ram.page_key[frame])
    page = take(machine, cpu=0)
    plant_in_pages(machine, [page])
    machine.ram.page_refcount[page] = 0
    free_page(machine.ram, 0, page, key)
    assert found(machine) == [(OF_PAGE, FREE_PAGE)]
    assert machine.ram.lufd_key[page] == key


# --- where it looks -----------------------------------------------------------------------------------------


def private(machine):
    """Make the read-only file's mapping private and writable."""
    vma = find_vma(machine.ram, 1, FILE_VPN)
    machine.ram.vma_anon[vma] = 2
    machine.ram.vma_flags[vma] |= VM_WRITE


def zero(machine):
    machine.touch(ANON_VPN + 3, STORE)


def copy(machine):
    machine.touch(ANON_VPN + 3, LOAD)
    machine.touch(ANON_VPN + 3, STORE)  # of the zero page


def copy_of_file(machine):
    private(machine)
    machine.touch(FILE_VPN + 3, STORE)


def table(machine):
    machine.enter("ensure_table", 0, 1, 1 << 27)


def read(machine):
    machine.touch(FILE_VPN + 3, LOAD)


def write(machine):
    write_to_file(machine.ram, 0, FILE, 3)


def move(machine):
    machine.use(ANON_VPN, 4, STORE)
    plant_in_pages(machine, slice(None))
    assert move_pages(machine.ram, 0, 1, ANON_VPN, ANON_VPN + 4, 1) == 4


@pytest.mark.parametrize(
    "use, site",
    [(zero, KMAP_ZERO), (copy, KMAP_COPY), (copy_of_file, KMAP_COW), (table, KMAP_TABLE), (read, KMAP_READ),
     (write, KMAP_WRITE), (move, KMAP_MOVE)],
    ids=lambda value: PLACES[value].name if isinstance(value, int) else "",
)  # fmt: skip
def test_it_looks_wherever_a_frame_is_written_to(broken_machine, use, site):
    """All frames have a record that is not done: the first use of one in this way is found there."""
    machine = debugged(broken_machine, pages=(512, 512), readahead_pages=1)
    if use is write:  # its page is cached already
        machine.touch(FILE_VPN + 3, LOAD)
    plant_in_pages(machine, slice(None))
    use(machine)
    assert (OF_PAGE, site) in found(machine)


def reuse(machine):
    machine.touch(SHARED_VPN + 3, LOAD)
    machine.touch(SHARED_VPN + 3, STORE)


def shared(machine):
    machine.touch(SHARED_VPN + 3, STORE)


@pytest.mark.parametrize(
    "use, site",
    [
        (zero, MKWRITE_ANON),
        (copy, MKWRITE_COPY),
        (copy_of_file, MKWRITE_COW),
        (shared, MKWRITE_SHARED),
        (reuse, MKWRITE_REUSE),
    ],
    ids=lambda value: PLACES[value].name if isinstance(value, int) else "",
)
def test_it_looks_wherever_a_fault_makes_a_pte_writable(broken_machine, use, site):
    """The mm's record is not done, and the design has forgotten its write fault; of a shared file, the file's
    too.
    """
    machine = debugged(broken_machine, without(Luf, "write_fault"))
    plant_in_records(machine)
    use(machine)
    files = [(OF_FILE, site)] if use in (shared, reuse) else []
    assert found(machine) == [(OF_MM, site), *files]


def protect(machine, vpn):
    mprotect(machine.ram, 0, 1, ANON_VPN, ANON_VPN + 256, VM_READ)
    plant_in_pages(machine, [machine.pfn(1, vpn)])
    mprotect(machine.ram, 0, 1, ANON_VPN, ANON_VPN + 256, VM_READ | VM_WRITE)


def hint(machine, vpn):
    tables = find_table(machine.ram, machine.ram.mm_pgd[1], vpn)
    machine.ram.frame_word[tables, vpn & 511] ^= PTE_PRESENT | PTE_PROTNONE
    machine.forget_tlb()
    plant_in_pages(machine, [machine.pfn(1, vpn)])
    machine.touch(vpn, STORE)


def moved(machine, vpn):
    # somebody looks at it: the page stays, and is mapped again
    machine.ram.page_refcount[machine.pfn(1, vpn)] += 1
    plant_in_pages(machine, [machine.pfn(1, vpn)])
    assert move_pages(machine.ram, 0, 1, vpn, vpn + 1, 1) == 0


@pytest.mark.parametrize(
    "use, site",
    [(protect, MKWRITE_PROTECT), (hint, MKWRITE_NUMA), (moved, MKWRITE_MOVED)],
    ids=lambda value: PLACES[value].name if isinstance(value, int) else "",
)
def test_it_looks_at_the_frame_wherever_else_a_pte_becomes_writable(broken_machine, use, site):
    """A writable page of anonymous memory whose frame has a record that is not done."""
    machine = debugged(broken_machine, pages=(512, 512))
    machine.use(ANON_VPN + 3, 1, STORE)
    assert machine.pte(1, ANON_VPN + 3) & PTE_WRITE
    use(machine, ANON_VPN + 3)
    assert machine.pte(1, ANON_VPN + 3) & PTE_WRITE
    assert found(machine) == [(OF_PAGE, site)]


# --- planted bugs -------------------------------------------------------------------------------------------


def test_a_skipped_take_off_is_found_at_kmap(broken_machine):
    """CPU 0 takes a page that CPU 1 may still read, and zeroes it: the finding says all of that. The oracle
    has seen no access.
    """
    machine = debugged(broken_machine, design(f"{EXAMPLE}:SkipsTakeOff"))
    ram = machine.ram
    machine.touch(ANON_VPN + 250, STORE, cpu=0)  # page tables
    frames = reclaim(machine, users=(0, 1))
    pend_all(machine)
    ram.wmark_min[ZONE] = 512
    for page in range(200):
        machine.touch(ANON_VPN + page, STORE, cpu=0)
        if ram.lufd_findings[0]:
            break
    whose, site, cpu, pfn, mm, vpn, ugen, number, key, object, index, freed_by = ram.lufd_finding[
        0, :12
    ].tolist()
    assert (whose, site, cpu, mm, vpn) == (OF_PAGE, KMAP_ZERO, 0, 1, ANON_VPN + page)
    assert pfn in frames
    assert (number, object - 1, index, freed_by) == (pfn, FILE, frames.index(pfn), 0)
    assert ugen == ram.design["record_ugen"][of_key(ram, int(key))]
    assert cpus_of(ram.lufd_lag[0]) == [0, 1]
    assert ram.lufd_done[0].tolist() == [1, 1, 1], "the dump: nobody has done anything"
    assert ugen > 1
    assert ram.run_violations[0] == 0


@pytest.mark.parametrize("name", ["luf", REQUIRED])
def test_with_the_flush_nothing_is_found(small_machine, name):
    """The same, nothing forgotten."""
    machine = debugged(small_machine, name)
    reclaim(machine, users=(0, 1))
    pend_all(machine)
    machine.ram.wmark_min[ZONE] = 512
    take_until_flushed(machine, cpu=0)
    for page in range(100):
        machine.touch(ANON_VPN + page, STORE, cpu=0)
    machine.ram.wmark_min[ZONE] = 16
    assert machine.ram.lufd_checks[0] > 100
    assert found(machine) == []
    release_all(machine)
    machine.forget_wakeups()


@pytest.mark.parametrize(
    "kind, hook", [(Luf, "write_fault"), (Luf, None), (LufV12, "fault_done"), (LufV12, None)],
    ids=["luf without write_fault", "luf", "v12 without fault_done", "v12"],
)  # fmt: skip
def test_a_forgotten_write_fault_is_found_at_mkwrite(broken_machine, kind, hook):
    """
    reclaim   P of page 3 freed lazily, CPU 1 may read it      CPU 0 stores to page 3, which is P' now
    Not so for v12: with debug on the fault flushes before, whatever its end does.
    """
    machine = debugged(broken_machine, without(kind, hook), readahead_pages=1)
    reclaim(machine, vpn=SHARED_VPN, users=(0, 1))
    machine.touch(SHARED_VPN + 3, STORE, cpu=0)
    forgotten = hook == "write_fault"
    assert found(machine) == ([(OF_MM, MKWRITE_SHARED), (OF_FILE, MKWRITE_SHARED)] if forgotten else [])
    if forgotten:
        assert cpus_of(machine.ram.lufd_lag[0]) == [0, 1]


@pytest.mark.parametrize("kind", [Luf, LufV12])
@pytest.mark.parametrize("forgets", [True, False])
def test_a_forgotten_file_write_is_found_at_kmap(broken_machine, kind, forgets):
    """CPU 0 writes(2) page 3 of a file whose old page CPU 1 may still read."""
    machine = debugged(broken_machine, without(kind, *(["file_write"] if forgets else [])), readahead_pages=1)
    reclaim(machine, users=(0, 1))
    write_to_file(machine.ram, 0, FILE, 3)
    assert found(machine) == ([(OF_FILE, KMAP_WRITE)] if forgets else [])


# --- what is no finding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["luf", REQUIRED])
def test_what_is_unmapped_after_the_fault_began_is_not_asked_for(small_machine, name):
    """CPU 0   store fault: notes the mm's record   flushes |         mkwrite: CPU 1 has not done the newer
    request (v12: flushes for it now) CPU 2                unmaps another page of the mm lazily ^
    """
    machine = debugged(small_machine, name)
    machine.touch(ANON_VPN + 250, STORE, cpu=0)
    reclaim(machine, users=(0, 1))
    newer = []

    def note_newer(*_):
        newer.append(
            bool(
                machine.ram.design["record_ugen"][of_mm(machine.ram, 1)] > machine.ram.design["ugen_done"][1]
            )
        )

    def unmap_meanwhile(*_):
        machine.on_send = note_newer
        machine.enter("hook_pte_cleared", 2, 1, FILE_VPN + 40, PTE_PRESENT, FILE)
        machine.enter("hook_walk_done", 2, 0, 1, 1)

    machine.on_send = unmap_meanwhile
    machine.touch(ANON_VPN + 3, STORE, cpu=0)
    if name == "luf":
        note_newer()
    assert newer == [True]
    assert found(machine) == []
    machine.on_send = None
    machine.enter("hook_unmap_flush_dirty", 2, 1)


def test_v12_as_posted_has_nothing_to_look_at(broken_machine):
    """Its records of mm and mapping are never flush_required, and the debug feature takes them by the same
    fold: it is blind there.
    """
    machine = debugged(broken_machine, POSTED, readahead_pages=1)
    reclaim(machine, users=(0, 1))
    write_to_file(machine.ram, 0, FILE, 3)
    assert machine.ram.run_violations[0] == 0
    machine.touch(FILE_VPN + 3, cpu=1)
    assert machine.ram.run_violations[0] == 1, "the oracle sees the old bytes"
    assert found(machine) == []


@pytest.mark.parametrize("on, violations", [(True, 0), (False, 1)])
def test_debugging_closes_the_window_of_v12s_faults(broken_machine, on, violations):
    """
    CPU 0   (on: flush) store fault at page 3: P' is mapped writable | handle_mm_fault's end: flush
    CPU 2                                 stores to P' without a fault ^
    CPU 1                                  ^ reads page 3: off, through its translation of P
    """
    machine = broken_machine(cpus=3, mms=1, design=REQUIRED, debug_luf=on, readahead_pages=1)
    for cpu in range(3):
        machine.run(1, cpu=cpu)
    reclaim(machine, vpn=SHARED_VPN, users=(0, 1, 2))
    vpn, played = SHARED_VPN + 3, []

    def others(cpu, mm, vma, at, store):
        if cpu == 0 and at == vpn and store and machine.pte(1, vpn) & PTE_WRITE and not played:
            played.append(True)
            machine.forget_tlb(2)
            machine.touch(vpn, STORE, cpu=2)
            machine.touch(vpn, cpu=1)

    machine.on_hook("fault_done", others)
    machine.touch(vpn, STORE, cpu=0)
    assert played
    assert machine.ram.run_violations[0] == violations
    assert machine.ram.lufd_findings[0] == 0


# --- the lock, the limit, and what it costs when it is off --------------------------------------------------


@pytest.mark.parametrize("name", ["luf", "luf:sync=tick", REQUIRED])
def test_one_lock_holds_all_done_numbers(small_machine, name):
    """CPU 1 is in the middle of an operation on done-numbers: CPU 0 sleeps for the lock, not in the other
    zone's or record's.
    """
    machine = debugged(small_machine, name)
    reclaim(machine, users=(0, 1))
    machine.ram.lufd_lock[0] = 2
    slept = []

    def holder_goes_on(cpu):
        slept.append((cpu, word_at_address(machine.ram, int(machine.ram.cpu_wait_object[cpu]))))
        machine.ram.lufd_lock[0] = 0

    machine.on_wait = holder_goes_on
    write_to_file(machine.ram, 0, FILE, 3)
    assert slept == [(0, ("lufd_lock", (0,), 2 | WAITERS))]
    lru_add_drain(machine.ram, 0)


def test_without_it_nothing_is_taken_kept_or_called(small_machine):
    """The lock may be anybody's; there is one row of records for all frames; the hooks are the default."""
    machine = small_machine(cpus=2, mms=1, design="luf")
    ram = machine.ram
    for cpu in (0, 1):
        machine.run(1, cpu=cpu)
    ram.lufd_lock[0] = 2
    reclaim(machine, users=(0, 1))
    write_to_file(ram, 0, FILE, 3)
    machine.touch(ANON_VPN, STORE)
    ram.lufd_lock[0] = 0
    assert ram.lufd_ugen.shape == (1,)
    assert ram.lufd_checks.sum() == ram.lufd_marked.sum() == 0
    default = nothing.compile(ram._type)
    for name in ("keep", "kmap", "mkwrite", "fault_begins", "write_begins"):
        assert ram.text[MACHINE.text[f"hook_{name}"]] == default


def test_findings_are_counted_when_no_more_are_kept(broken_machine):
    machine = debugged(broken_machine)
    plant_in_pages(machine, slice(None))
    for page in range(LUFD_KEPT + 4):
        machine.touch(ANON_VPN + page, STORE)
    assert machine.ram.lufd_findings[0] == machine.ram.lufd_wrong.sum() >= LUFD_KEPT + 4
    assert len(found(machine)) == LUFD_KEPT
