"""Small, well defined operations on memory, as scripts: those whose TLB shootdowns were recorded on a real kernel.

A scenario is measured on T CPUs. Thread 0, on CPU 0, does the operation on P pages; the others spin in the same address space (or sleep, or
leave their CPUs to another process), each after touching every page; in some, T processes of one thread map the same file. A *cell* is
(scenario, T, P), done some times over; each time four moments are noted: `vm0`, `vm1` around all (page faults are counted there),
`trace0`, `trace1` inside (tlb_flush events), `irq0`, `irq1` at the operation (interrupts).

Mappings lie as in the recording: *alone* ones begin a GiB each, one after the other ("slots"), so that page tables go with them;
*neighbour* ones lie between touched pages that keep the tables; *natural* ones where mmap(NULL) puts them, below what the program
has mapped.
Left out: the recording program itself, but for the pages that it writes while it measures: after fork they are copied on write, and
these copies are in the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from workloads.program import (
    MADV_COLD,
    MADV_DONTNEED,
    MADV_FREE,
    MADV_PAGEOUT,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    Region,
    Workload,
)
from workloads.script import Script, ThreadScript

SPIN, SLEEP, SWITCH = "spin", "sleep", "switch"  # what the other CPUs do meanwhile
THREADS, PROCESSES = "threads", "processes"
FIRST_SLOT, SLOT_PAGES, NR_SLOTS = 0x100000000, 1 << 18, 4096  # 1 GiB each, from 16 TiB on
MARGIN = 256  # pages between the ends of a neighbour mapping and what is measured
FILE_PAGES = 5120
SETTLE_NS = 3_000_000
TIMES, SLOW_TIMES, SLOW_PAGES = 20, 3, 4096  # repetitions of a cell in the recording
SLOW_SCENARIOS = ("h_munmap_1xP", "f_cow_write", "f_zero_write", "i_fdatasync_dirty")
# What the recording program has mapped at the top before, so that mmap(NULL) finds room below it. Linux places a program at random when
# it starts; by the record, 34 pages below this one still lie in its page table and 64 do not, so 34 to 63 pages are left: we leave 50.
ABOVE_PAGES = 461
# Pages that the recording program writes: between `vm0` and `trace0`, `trace0` and `irq0`, behind `irq0`, behind `irq1`.
# (fork: its own stack comes first; the rest is what it reads /proc into.)
COPIED = {"f_cow_write": (2, 1, 2, 0), "f_cow_reuse": (2, 1, 2, 0), "f_fork": (0, 0, 1, 3)}
IMAGE_PAGES = 64
MOMENTS = ("vm0", "trace0", "irq0", "irq1", "trace1", "vm1")

Steps = Iterator[Any]
Part = Callable[["Cell"], Steps]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is done before, what is measured, what is done after; what the other CPUs do; slots that are used up each time."""

    name: str
    text: str
    setup: Part
    operation: Part
    clean: Part
    others: str = SPIN
    kind: str = THREADS
    slots: int = 1
    pages_max: int = 1 << 20


@dataclass(slots=True)
class Cell:
    """One repetition of one cell, as main sees it."""

    t: ThreadScript
    threads: int
    pages: int
    slot: int
    script_counts: dict[str, int]

    def place(self, region: str, page: int = 0) -> Any:
        """Place a region in the next slot."""
        vpn = FIRST_SLOT + (self.slot % NR_SLOTS) * SLOT_PAGES + page
        self.slot += 1
        return self.t.place(region, vpn)

    def all(self, *rows: Any) -> Steps:
        """Have each other thread (or process) do something, and wait for them, spinning."""
        yield Together(rows)

    def times(self, flag: str) -> int:
        """Count the times that main has waited for a flag, this one included."""
        counts = self.script_counts
        counts[flag] = counts.get(flag, 0) + 1
        return counts[flag]


@dataclass(frozen=True, slots=True)
class Together:
    """A step at which all others do `rows`, and main waits until they have."""

    rows: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A step of which each role does its own part: main, the others, the threads of the other process."""

    main: tuple[Any, ...]
    others: tuple[Any, ...] = ()
    stranger: tuple[Any, ...] = ()


# --- setting up -----------------------------------------------------------------------------------------------------------------


def _touch_all(c: Cell, region: str, page: int = 0, store: bool = False) -> Steps:
    """Main touches every page, then all others read every page."""
    yield (c.t.store if store else c.t.load)(region, page, c.pages)
    yield from c.all(c.t.load(region, page, c.pages))


def alone_untouched(c: Cell) -> Steps:
    """A mapping that begins a GiB of its own."""
    yield c.place("memory")
    yield c.t.mmap("memory", 0, c.pages)


def alone(c: Cell) -> Steps:
    """The same, written by main and read by all."""
    yield from alone_untouched(c)
    yield from _touch_all(c, "memory", store=True)


def alone_read(c: Cell) -> Steps:
    """The same, only read: the zero page."""
    yield from alone_untouched(c)
    yield from _touch_all(c, "memory")


def neighbours_untouched(c: Cell) -> Steps:
    """A part of a larger mapping whose other pages are in use."""
    yield c.place("memory")
    yield c.t.mmap("memory", 0, c.pages + 2 * MARGIN)
    for page in (0, MARGIN - 1, MARGIN + c.pages):
        yield c.t.store("memory", page, 1)


def neighbours(c: Cell) -> Steps:
    """The same, with its own pages touched by all."""
    yield from neighbours_untouched(c)
    yield from _touch_all(c, "memory", MARGIN, store=True)


def natural_untouched(c: Cell) -> Steps:
    """A mapping where the kernel finds room."""
    yield c.t.place("memory", None)
    yield c.t.mmap("memory", 0, c.pages)


def natural(c: Cell) -> Steps:
    """The same, touched by all."""
    yield from natural_untouched(c)
    yield from _touch_all(c, "memory", store=True)


def _read_only(first: Part) -> Part:
    """Write-protect what `first` has set up, and read it again everywhere."""

    def setup(c: Cell) -> Steps:
        yield from first(c)
        yield c.t.mprotect("memory", PROT_READ, 0, c.pages)
        yield from c.all(c.t.load("memory", 0, c.pages))
        yield c.t.load("memory", 0, c.pages)

    return setup


def with_target(c: Cell) -> Steps:
    """Something to move, and a place for it."""
    yield from alone(c)
    yield c.place("target")


def neighbours_with_target(c: Cell) -> Steps:
    """The same from the middle of a mapping."""
    yield from neighbours(c)
    yield c.place("target", MARGIN)


def with_child(c: Cell) -> Steps:
    """A child that shares all memory, and is asleep."""
    yield from alone(c)
    yield c.t.fork("child")
    yield c.t.wait("child is there", c.times("child is there"))
    yield c.t.store("image", IMAGE_PAGES - 1, 1)
    yield c.t.nanosleep(1_000_000)
    yield from c.all(c.t.load("memory", 0, c.pages))


def after_child(c: Cell) -> Steps:
    """The same, and the child has gone."""
    yield from with_child(c)
    yield from _end_child(c)
    yield from c.all(c.t.load("memory", 0, c.pages))


def _end_child(c: Cell) -> Steps:
    yield c.t.post("child may go")
    yield c.t.wait("child has gone", c.times("child has gone"))


def file_alone(c: Cell) -> Steps:
    """A shared read-only mapping of a file."""
    yield c.place("file")
    yield c.t.mmap("file", 0, c.pages)
    yield from _touch_all(c, "file")


def file_between(c: Cell) -> Steps:
    """The same over the middle of an anonymous mapping."""
    yield c.place("memory")
    yield c.t.mmap("memory", 0, c.pages + 2 * MARGIN)
    for page in (0, c.pages + 2 * MARGIN - 1, MARGIN - 1, MARGIN + c.pages):
        yield c.t.store("memory", page, 1)
    yield c.t.place("file", FIRST_SLOT + ((c.slot - 1) % NR_SLOTS) * SLOT_PAGES + MARGIN)
    yield c.t.mmap("file", 0, c.pages)
    yield from _touch_all(c, "file")


def file_unmapped(c: Cell) -> Steps:
    """In the page cache, but not mapped any more."""
    yield from file_alone(c)
    yield c.t.munmap("file", 0, c.pages)


def file_dirty(c: Cell) -> Steps:
    """A shared mapping that is written to."""
    yield c.place("written")
    yield c.t.mmap("written", 0, c.pages)
    yield from _touch_all(c, "written", store=True)


def new_file(c: Cell) -> Steps:
    """A file just written and synced, then mapped."""
    yield c.t.write("new", 0, c.pages)
    yield c.t.fdatasync("new", 0, c.pages)
    yield c.place("new")
    yield c.t.mmap("new", 0, c.pages)
    yield from _touch_all(c, "new")


def file_only_in_cache(c: Cell) -> Steps:
    """Of the file only these pages are cached, and mapped."""
    yield from file_alone(c)
    yield c.t.munmap("file", 0, c.pages)
    yield c.t.fadvise_dontneed("file")
    yield c.t.mmap("file", 0, c.pages)
    yield from _touch_all(c, "file")
    yield c.t.nanosleep(SETTLE_NS)  # what is read ahead has arrived by then: reclaim passes over pages that are still being read


def on_other_node(c: Cell) -> Steps:
    """Memory that was moved to node 1."""
    yield from alone(c)
    yield c.t.move_pages("memory", 1, 0, c.pages)
    yield from c.all(c.t.load("memory", 0, c.pages))
    yield c.t.load("memory", 0, c.pages)


def _by_processes(region: str, before: Part | None = None) -> Part:
    """T processes map the same file."""

    def setup(c: Cell) -> Steps:
        if before:
            yield from before(c)
        mapping = (c.place(region), c.t.mmap(region, 0, c.pages))
        yield from mapping
        yield from c.all(*mapping)
        yield from _touch_all(c, region)
        yield c.t.nanosleep(SETTLE_NS)

    return setup


def _rewritten(c: Cell) -> Steps:
    yield c.t.write("new", 0, c.pages)
    yield c.t.fdatasync("new", 0, c.pages)


def _dropped(c: Cell) -> Steps:
    yield c.t.fadvise_dontneed("file")


# --- operations and cleaning up -----------------------------------------------------------------------------------------------------


def _on(region: str, call: str, *arguments: Any, page: int = 0) -> Part:
    """One call on the P pages."""

    def operation(c: Cell) -> Steps:
        yield getattr(c.t, call)(region, *arguments, page, c.pages)

    return operation


def one_by_one(c: Cell) -> Steps:
    """P calls of munmap."""
    for page in range(c.pages):
        yield c.t.munmap("memory", MARGIN + page, 1)


def reclaim(c: Cell) -> Steps:
    """memory.reclaim of P pages."""
    yield c.t.memory_reclaim(c.pages)


def fork(c: Cell) -> Steps:
    """fork(2), and the first write of the parent to its stack."""
    yield c.t.fork("child")


def unmap_alone(c: Cell) -> Steps:
    """Take the region away."""
    yield c.t.munmap("memory", 0, c.pages)


def unmap_neighbours(c: Cell) -> Steps:
    """Take it away with its neighbours."""
    yield c.t.munmap("memory", 0, c.pages + 2 * MARGIN)


def unmap_moved(c: Cell) -> Steps:
    """Take away what was moved, and what is left at the old place."""
    yield c.t.munmap("target", 0, c.pages)
    yield from unmap_neighbours(c)


def child_and_unmap(c: Cell) -> Steps:
    """End the child, take the region away."""
    yield from _end_child(c)
    yield from unmap_alone(c)


def forked_and_unmap(c: Cell) -> Steps:
    """The same for a child that was just started."""
    yield c.t.wait("child is there", c.times("child is there"))
    yield from child_and_unmap(c)


def _unmap(region: str) -> Part:
    def clean(c: Cell) -> Steps:
        yield c.t.munmap(region, 0, c.pages)

    return clean


def forget_new(c: Cell) -> Steps:
    """Unmap and delete the new file."""
    yield c.t.munmap("new", 0, c.pages)
    yield c.t.truncate("new", 0, c.pages)


def _unmap_by_processes(region: str) -> Part:
    def clean(c: Cell) -> Steps:
        yield c.t.munmap(region, 0, c.pages)
        yield from c.all(c.t.munmap(region, 0, c.pages))

    return clean


munmap, munmap_middle = _on("memory", "munmap"), _on("memory", "munmap", page=MARGIN)
dontneed, rw = _on("memory", "madvise", MADV_DONTNEED), _on("memory", "mprotect", PROT_READ | PROT_WRITE)
write, move1 = _on("memory", "store"), _on("memory", "move_pages", 1)

# In the order of the recording: slots are used up in it.
SCENARIOS = tuple(
    Scenario(*what[:5], **(what[5] if len(what) > 5 else {}))
    for what in (
        ("nop", "one mmap and three first touches", alone, neighbours_untouched, unmap_neighbours, {"slots": 2, "pages_max": 1}),
        ("a_munmap_iso", "munmap of a mapping alone in its GiB", alone, munmap, unmap_alone),
        ("a_munmap_nbr", "munmap from the middle of a mapping", neighbours, munmap_middle, unmap_neighbours),
        ("n_munmap_natural", "munmap, ordinary placement", natural, munmap, unmap_alone, {"slots": 0}),
        ("n_munmap_untouched_natural", "munmap of untouched memory", natural_untouched, munmap, unmap_alone, {"slots": 0}),
        ("n_dontneed_natural", "MADV_DONTNEED, ordinary placement", natural, dontneed, unmap_alone, {"slots": 0}),
        ("n_dontneed_untouched_natural", "MADV_DONTNEED of untouched memory", natural_untouched, dontneed, unmap_alone, {"slots": 0}),
        ("n_mprotect_ro_rw_natural", "mprotect RO to RW, ordinary placement", _read_only(natural), rw, unmap_alone, {"slots": 0}),
        ("n_sleep_munmap_natural", "munmap, other CPUs idle", natural, munmap, unmap_alone, {"slots": 0, "others": SLEEP}),
        ("n_switch_munmap_natural", "munmap, others run another process", natural, munmap, unmap_alone, {"slots": 0, "others": SWITCH}),
        ("b_dontneed", "MADV_DONTNEED", alone, dontneed, unmap_alone),
        ("c_mprotect_rw_ro", "mprotect RW to RO", alone, _on("memory", "mprotect", PROT_READ), unmap_alone),
        ("c_mprotect_rw_none", "mprotect RW to NONE", alone, _on("memory", "mprotect", PROT_NONE), unmap_alone),
        ("d_mprotect_ro_rw", "mprotect RO to RW", _read_only(alone), rw, unmap_alone),
        ("e_mremap_aligned", "mremap, 2 MiB aligned", with_target, _on("memory", "mremap", "target"), unmap_moved, {"slots": 2}),
        ("e_mremap_nbr", "mremap from the middle of a mapping", neighbours_with_target,
         _on("memory", "mremap", "target", page=MARGIN), unmap_moved, {"slots": 2}),
        ("f_fork", "fork", alone, fork, forked_and_unmap),
        ("f_cow_write", "write to pages shared with a child", with_child, write, child_and_unmap),
        ("f_cow_reuse", "the same after the child has gone", after_child, write, unmap_alone),
        ("f_zero_write", "write to pages that show the zero page", alone_read, write, unmap_alone),
        ("g_munmap_untouched_iso", "munmap of untouched pages", alone_untouched, munmap, unmap_alone),
        ("g_munmap_untouched_nbr", "the same in a mapping", neighbours_untouched, munmap_middle, unmap_neighbours),
        ("h_munmap_1xP", "P munmap calls of one page each", neighbours, one_by_one, unmap_neighbours),
        ("l_free", "MADV_FREE", alone, _on("memory", "madvise", MADV_FREE), unmap_alone),
        ("l_cold", "MADV_COLD, anonymous", alone, _on("memory", "madvise", MADV_COLD), unmap_alone),
        ("l_pageout_anon_noswap", "MADV_PAGEOUT without swap", alone, _on("memory", "madvise", MADV_PAGEOUT), unmap_alone),
        ("k_sleep_munmap_iso", "munmap, other CPUs idle", alone, munmap, unmap_alone, {"others": SLEEP}),
        ("k_sleep_munmap_nbr", "munmap from the middle, others idle", neighbours, munmap_middle, unmap_neighbours, {"others": SLEEP}),
        ("k_sleep_dontneed", "MADV_DONTNEED, other CPUs idle", alone, dontneed, unmap_alone, {"others": SLEEP}),
        ("k_switch_munmap_iso", "munmap, others run another process", alone, munmap, unmap_alone, {"others": SWITCH}),
        ("k_switch_munmap_nbr", "munmap from the middle, others run another process", neighbours, munmap_middle, unmap_neighbours,
         {"others": SWITCH}),
        ("k_switch_dontneed", "MADV_DONTNEED, others run another process", alone, dontneed, unmap_alone, {"others": SWITCH}),
        ("i_file_munmap_iso", "munmap of a file", file_alone, _on("file", "munmap"), _unmap("file")),
        ("i_file_munmap_nbr", "munmap of a file between anonymous pages", file_between, _on("file", "munmap"), unmap_neighbours),
        ("i_file_dontneed", "MADV_DONTNEED of a file", file_alone, _on("file", "madvise", MADV_DONTNEED), _unmap("file")),
        ("i_file_cold", "MADV_COLD of a file", file_alone, _on("file", "madvise", MADV_COLD), _unmap("file")),
        ("i_file_pageout", "MADV_PAGEOUT of a file", file_alone, _on("file", "madvise", MADV_PAGEOUT), _unmap("file")),
        ("i_fadvise_after_munmap", "POSIX_FADV_DONTNEED", file_unmapped, _on("file", "fadvise_dontneed"), _unmap("file")),
        ("i_fadvise_mapped", "POSIX_FADV_DONTNEED while mapped", file_alone, _on("file", "fadvise_dontneed"), _unmap("file")),
        ("i_file_firsttouch", "read mapped pages again", file_alone, _on("file", "load"), _unmap("file")),
        ("i_fdatasync_dirty", "fdatasync of pages dirtied through a mapping", file_dirty, _on("written", "fdatasync"), _unmap("written")),
        ("i_truncate_mapped", "ftruncate(0) of a mapped file", new_file, _on("new", "truncate"), forget_new),
        ("i_punch_mapped", "punch a hole into a mapped file", new_file, _on("new", "truncate"), forget_new),
        ("i_cgroup_reclaim", "memory.reclaim of mapped file pages", file_only_in_cache, reclaim, _unmap("file")),
        ("j_move_pages_0to1", "move_pages to node 1", alone, move1, unmap_alone),
        ("j_move_pages_1to0", "move_pages to node 0", on_other_node, _on("memory", "move_pages", 0), unmap_alone),
        ("j_mbind_move", "mbind(MPOL_MF_MOVE) to node 1", alone, move1, unmap_alone),
        ("m_munmap_one", "one of T processes unmaps a file", _by_processes("file"), _on("file", "munmap"), _unmap_by_processes("file"),
         {"kind": PROCESSES}),
        ("m_pageout_one", "one of T processes does MADV_PAGEOUT", _by_processes("file"), _on("file", "madvise", MADV_PAGEOUT),
         _unmap_by_processes("file"), {"kind": PROCESSES}),
        ("m_truncate", "one of T processes truncates the file", _by_processes("new", _rewritten), _on("new", "truncate"),
         _unmap_by_processes("new"), {"kind": PROCESSES}),
        ("m_cgroup_reclaim", "memory.reclaim of pages mapped by T processes", _by_processes("file", _dropped), reclaim,
         _unmap_by_processes("file"), {"kind": PROCESSES}),
    )
)  # fmt: skip
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


# --- the workload of one scenario ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Repetitions:
    """How often a cell is done: (pages, number of its first slot, repetitions)."""

    pages: int
    first_slot: int
    times: int


def first_slots(name: str, pages: Sequence[int]) -> dict[int, int]:
    """Give P -> number of the first slot of a scenario in a recording of all scenarios over these P, in order, from slot 0 on.

    Scenarios of ordinary placement were recorded apart, those of each kind of processes by a program of their own.
    """
    slot, found = 0, {}
    group = _group(BY_NAME[name])
    for scenario in (s for s in SCENARIOS if _group(s) == group):
        for p in pages:
            if p > scenario.pages_max:
                continue
            if scenario.name == name:
                found[p] = slot
            slow = scenario.name in SLOW_SCENARIOS and p >= SLOW_PAGES
            slot += scenario.slots * (SLOW_TIMES if slow else TIMES)
    return found


def _group(scenario: Scenario) -> tuple[str, bool, bool]:
    return scenario.kind, scenario.slots == 0, scenario.name == "m_truncate"


def snapshot_name(pages: int, repetition: int, moment: str) -> str:
    """Name of a snapshot in `Script.snapshots`."""
    return f"{pages} {repetition} {moment}"


def scenario_script(scenario: Scenario, threads: int, cells: Sequence[Repetitions], leftover: bool = True) -> Script:
    """Write a scenario on `threads` CPUs as a script. `leftover`: slot 0 holds what an earlier one has left there."""
    script = Script(scenario.name, scenario.text)
    regions, cpus = _regions(max(cell.pages for cell in cells)), list(range(threads))

    def role(part: str) -> Callable[[ThreadScript], Steps]:
        return lambda t: _play(part, t, threads, _steps(scenario, t, threads, cells, leftover))

    others = [role("others")] * (threads - 1)
    if scenario.kind == PROCESSES:
        script.process("main", [role("main")], regions, [0])
        for cpu, other in enumerate(others, 1):
            script.process(f"process{cpu}", [other], regions, [cpu])
        return script
    script.process("main", [role("main"), *others], regions, cpus)
    if scenario.setup in (with_child, after_child) or scenario.operation is fork:
        script.process("child", [_child(sum(cell.times for cell in cells), threads)], regions, [0], forked=True)
    if scenario.others == SWITCH and others:
        script.process("stranger", [role("stranger")] * len(others), regions, cpus[1:])
    return script


def _regions(pages: int) -> tuple[Region, ...]:
    """What processes may map; everything but the program's own image is mapped by the scenario."""
    return (
        Region("image", IMAGE_PAGES, writable=True),
        Region("above", ABOVE_PAGES, writable=True, mapped=False),
        Region("left", 1, writable=True, mapped=False),
        Region("memory", pages + 2 * MARGIN, writable=True, mapped=False),
        Region("target", pages, writable=True, mapped=False),
        Region("file", FILE_PAGES, file="micro.dat", shared=True, mapped=False),
        Region("written", FILE_PAGES, file="micro.dat", shared=True, writable=True, mapped=False),
        Region("new", FILE_PAGES, file="new.dat", shared=True, mapped=False),
    )


def _steps(scenario: Scenario, t: ThreadScript, threads: int, cells: Sequence[Repetitions], leftover: bool) -> Steps:
    """All that happens, for all roles."""
    yield t.place("above", None)
    yield t.mmap("above")
    yield t.store("above", 0, 1)
    yield t.store("image")
    if leftover:
        yield t.place("left", FIRST_SLOT)
        yield t.mmap("left")
        yield t.store("left")
    yield Together(())
    counts: dict[str, int] = {}
    for cell in cells:
        for repetition in range(cell.times):
            c = Cell(t, threads, cell.pages, cell.first_slot + repetition * scenario.slots, counts)
            yield from _repetition(scenario, c, repetition)
    yield Together(())  # nobody leaves before all is measured


def _repetition(scenario: Scenario, c: Cell, repetition: int) -> Steps:
    """Set up, measure, clean up."""
    copied = COPIED.get(scenario.name, (0, 0, 0, 0))
    yield from scenario.setup(c)
    if scenario.others != SPIN and c.threads > 1:
        yield from _leave_cpus(scenario, c)
    yield from _noted(c, repetition, "vm0", 0, copied[0])
    yield from _noted(c, repetition, "trace0", 2, copied[1])
    yield from _noted(c, repetition, "irq0", 3, 0 if scenario.operation is fork else copied[2])
    yield from scenario.operation(c)
    if scenario.operation is fork:
        yield c.t.store("image", 3, copied[2])
    yield from _noted(c, repetition, "irq1", 5, copied[3])
    yield from _noted(c, repetition, "trace1", 0, 0)
    yield from _noted(c, repetition, "vm1", 0, 0)
    if scenario.others != SPIN and c.threads > 1:
        yield from _come_back(scenario, c)
    yield from scenario.clean(c)


def _noted(c: Cell, repetition: int, moment: str, page: int, pages: int) -> Steps:
    """Note a moment, and write what the recording program writes then."""
    yield Elsewhere((Moment(snapshot_name(c.pages, repetition, moment)),))
    if pages:
        yield c.t.store("image", page, pages)


@dataclass(frozen=True, slots=True)
class Moment:
    """A snapshot to be taken by main; its name is given when main's rows are made."""

    name: str


def _leave_cpus(scenario: Scenario, c: Cell) -> Steps:
    """The other threads fall asleep; their CPUs idle, or run the stranger."""
    t, number = c.t, c.times("asleep")
    yield Elsewhere((t.spin("asleep", number * (c.threads - 1)), t.nanosleep(SETTLE_NS)), (t.post("asleep"), t.wait("wake", number)))
    if scenario.others == SWITCH:
        running = (t.post("run"), t.spin("running", number * (c.threads - 1)))
        yield Elsewhere(running, (), (t.wait("run", number), t.post("running"), t.spin("stop", number), t.post("stopped")))


def _come_back(scenario: Scenario, c: Cell) -> Steps:
    """The stranger stops, the other threads go on."""
    t, number = c.t, c.times("back")
    if scenario.others == SWITCH:
        yield Elsewhere((t.post("stop"), t.spin("stopped", number * (c.threads - 1))))
    yield Elsewhere((t.post("wake"), t.spin("awake", number * (c.threads - 1))), (t.post("awake"),))


def _play(part: str, t: ThreadScript, threads: int, steps: Steps) -> Steps:
    """Pick what one role does."""
    number = 0
    for step in steps:
        if isinstance(step, Together):
            number += 1
            if part == "main" and threads > 1:
                yield [t.post("go"), t.spin("done", number * (threads - 1))]
            elif part == "others":
                yield [t.spin("go", number), *step.rows, t.post("done")]
        elif isinstance(step, Elsewhere):
            yield [t.snapshot(row.name) if isinstance(row, Moment) else row for row in getattr(step, part)]
        elif part == "main":
            yield step


def _child(times: int, threads: int) -> Callable[[ThreadScript], Steps]:
    """What a forked child does: write its own data, and wait for its end.

    A threaded program's child also resets what belonged to the threads that it has not got (their stacks and the allocator's arenas).
    """

    def child(t: ThreadScript) -> Steps:
        for number in range(1, times + 1):
            yield t.store("image", 16, 10)
            if threads > 1:
                yield t.store("image", 26, 5 + 2 * (threads - 1))
            yield t.post("child is there")
            yield t.wait("child may go", number)
            yield t.exit("child has gone")

    return child


def workload(name: str, threads: int, pages: int) -> Workload:
    """One cell as a workload, done once."""
    if name not in BY_NAME:
        raise ValueError(f"'scenario' must be one of {', '.join(BY_NAME)} (got {name!r})")
    return scenario_script(BY_NAME[name], threads, [Repetitions(pages, 1, 1)]).workload()
