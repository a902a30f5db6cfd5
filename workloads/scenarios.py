"""Small, well defined operations on memory, as scripts: those whose TLB shootdowns were recorded on a real
kernel.

A scenario is measured on T CPUs. Thread 0, on CPU 0, does the operation on P pages; the others spin in the
same address space (or sleep, or leave their CPUs to another process), each after touching every page; in
some, T processes of one thread map the same file. A *cell* is (scenario, T, P), done some times over; each
time four moments are noted: `vm0`, `vm1` around all (page faults are counted there), `trace0`, `trace1`
inside (tlb_flush events), `irq0`, `irq1` at the operation (interrupts).

What is set up and done is made of the parts in workloads/scenario_parts.py.
Left out: the recording program itself, but for the pages that it writes while it measures: after fork they
are copied on write, and these copies are in the record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workloads.calls import Calls
from workloads.rows import Region, Workload
from workloads.scenario_parts import (
    FIRST_SLOT,
    IMAGE_PAGES,
    MARGIN,
    SETTLE_NS,
    Cell,
    Elsewhere,
    Part,
    Steps,
    Together,
    after_child,
    alone,
    alone_read,
    alone_untouched,
    by_processes,
    child_and_unmap,
    dontneed,
    dropped,
    file_alone,
    file_between,
    file_dirty,
    file_only_in_cache,
    file_unmapped,
    forget_new,
    fork,
    forked_and_unmap,
    move1,
    munmap,
    munmap_middle,
    natural,
    natural_untouched,
    neighbours,
    neighbours_untouched,
    neighbours_with_target,
    new_file,
    on,
    on_other_node,
    one_by_one,
    read_only,
    reclaim,
    rewritten,
    rw,
    unmap,
    unmap_alone,
    unmap_by_processes,
    unmap_moved,
    unmap_neighbours,
    with_child,
    with_target,
    write,
)
from workloads.scenario_parts import (
    NR_SLOTS as NR_SLOTS,
)
from workloads.script import Script

SPIN, SLEEP, SWITCH = "spin", "sleep", "switch"  # what the other CPUs do meanwhile
THREADS, PROCESSES = "threads", "processes"
FILE_PAGES = 5120
TIMES, SLOW_TIMES, SLOW_PAGES = 20, 3, 4096  # repetitions of a cell in the recording
SLOW_SCENARIOS = ("h_munmap_1xP", "f_cow_write", "f_zero_write", "i_fdatasync_dirty")
# What the recording program has mapped at the top before, so that mmap(NULL) finds room below it. Linux
# places a program at random when it starts; by the record, 34 pages below this one still lie in its page
# table and 64 do not, so 34 to 63 pages are left: we leave 50.
ABOVE_PAGES = 461
# Pages that the recording program writes: between `vm0` and `trace0`, `trace0` and `irq0`, behind `irq0`,
# behind `irq1`. (fork: its own stack comes first; the rest is what it reads /proc into.)
COPIED = {"f_cow_write": (2, 1, 2, 0), "f_cow_reuse": (2, 1, 2, 0), "f_fork": (0, 0, 1, 3)}


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is done before, what is measured, what is done after; what the other CPUs do; slots that are used
    up each time.
    """

    name: str
    text: str
    setup: Part
    operation: Part
    clean: Part
    others: str = SPIN
    kind: str = THREADS
    slots: int = 1
    pages_max: int = 1 << 20


# In the order of the recording: slots are used up in it.
SCENARIOS = tuple(
    Scenario(*what[:5], **(what[5] if len(what) > 5 else {}))
    for what in (
        ("nop", "one mmap and three first touches", alone, neighbours_untouched, unmap_neighbours,
         {"slots": 2, "pages_max": 1}),
        ("a_munmap_iso", "munmap of a mapping alone in its GiB", alone, munmap, unmap_alone),
        ("a_munmap_nbr", "munmap from the middle of a mapping", neighbours, munmap_middle, unmap_neighbours),
        ("n_munmap_natural", "munmap, ordinary placement", natural, munmap, unmap_alone, {"slots": 0}),
        ("n_munmap_untouched_natural", "munmap of untouched memory", natural_untouched, munmap, unmap_alone,
         {"slots": 0}),
        ("n_dontneed_natural", "MADV_DONTNEED, ordinary placement", natural, dontneed, unmap_alone,
         {"slots": 0}),
        ("n_dontneed_untouched_natural", "MADV_DONTNEED of untouched memory", natural_untouched, dontneed,
         unmap_alone, {"slots": 0}),
        ("n_mprotect_ro_rw_natural", "mprotect RO to RW, ordinary placement", read_only(natural), rw,
         unmap_alone, {"slots": 0}),
        ("n_sleep_munmap_natural", "munmap, other CPUs idle", natural, munmap, unmap_alone,
         {"slots": 0, "others": SLEEP}),
        ("n_switch_munmap_natural", "munmap, others run another process", natural, munmap, unmap_alone,
         {"slots": 0, "others": SWITCH}),
        ("b_dontneed", "MADV_DONTNEED", alone, dontneed, unmap_alone),
        ("c_mprotect_rw_ro", "mprotect RW to RO", alone, on("memory", "mprotect", "PROT_READ"), unmap_alone),
        ("c_mprotect_rw_none", "mprotect RW to NONE", alone, on("memory", "mprotect", "PROT_NONE"),
         unmap_alone),
        ("d_mprotect_ro_rw", "mprotect RO to RW", read_only(alone), rw, unmap_alone),
        ("e_mremap_aligned", "mremap, 2 MiB aligned", with_target, on("memory", "mremap", "target"),
         unmap_moved, {"slots": 2}),
        ("e_mremap_nbr", "mremap from the middle of a mapping", neighbours_with_target,
         on("memory", "mremap", "target", page=MARGIN), unmap_moved, {"slots": 2}),
        ("f_fork", "fork", alone, fork, forked_and_unmap),
        ("f_cow_write", "write to pages shared with a child", with_child, write, child_and_unmap),
        ("f_cow_reuse", "the same after the child has gone", after_child, write, unmap_alone),
        ("f_zero_write", "write to pages that show the zero page", alone_read, write, unmap_alone),
        ("g_munmap_untouched_iso", "munmap of untouched pages", alone_untouched, munmap, unmap_alone),
        ("g_munmap_untouched_nbr", "the same in a mapping", neighbours_untouched, munmap_middle,
         unmap_neighbours),
        ("h_munmap_1xP", "P munmap calls of one page each", neighbours, one_by_one, unmap_neighbours),
        ("l_free", "MADV_FREE", alone, on("memory", "madvise", "MADV_FREE"), unmap_alone),
        ("l_cold", "MADV_COLD, anonymous", alone, on("memory", "madvise", "MADV_COLD"), unmap_alone),
        ("l_pageout_anon_noswap", "MADV_PAGEOUT without swap", alone, on("memory", "madvise", "MADV_PAGEOUT"),
         unmap_alone),
        ("k_sleep_munmap_iso", "munmap, other CPUs idle", alone, munmap, unmap_alone, {"others": SLEEP}),
        ("k_sleep_munmap_nbr", "munmap from the middle, others idle", neighbours, munmap_middle,
         unmap_neighbours, {"others": SLEEP}),
        ("k_sleep_dontneed", "MADV_DONTNEED, other CPUs idle", alone, dontneed, unmap_alone,
         {"others": SLEEP}),
        ("k_switch_munmap_iso", "munmap, others run another process", alone, munmap, unmap_alone,
         {"others": SWITCH}),
        ("k_switch_munmap_nbr", "munmap from the middle, others run another process", neighbours,
         munmap_middle, unmap_neighbours, {"others": SWITCH}),
        ("k_switch_dontneed", "MADV_DONTNEED, others run another process", alone, dontneed, unmap_alone,
         {"others": SWITCH}),
        ("i_file_munmap_iso", "munmap of a file", file_alone, on("file", "munmap"), unmap("file")),
        ("i_file_munmap_nbr", "munmap of a file between anonymous pages", file_between, on("file", "munmap"),
         unmap_neighbours),
        ("i_file_dontneed", "MADV_DONTNEED of a file", file_alone, on("file", "madvise", "MADV_DONTNEED"),
         unmap("file")),
        ("i_file_cold", "MADV_COLD of a file", file_alone, on("file", "madvise", "MADV_COLD"), unmap("file")),
        ("i_file_pageout", "MADV_PAGEOUT of a file", file_alone, on("file", "madvise", "MADV_PAGEOUT"),
         unmap("file")),
        ("i_fadvise_after_munmap", "POSIX_FADV_DONTNEED", file_unmapped, on("file", "fadvise_dontneed"),
         unmap("file")),
        ("i_fadvise_mapped", "POSIX_FADV_DONTNEED while mapped", file_alone, on("file", "fadvise_dontneed"),
         unmap("file")),
        ("i_file_firsttouch", "read mapped pages again", file_alone, on("file", "load"), unmap("file")),
        ("i_fdatasync_dirty", "fdatasync of pages dirtied through a mapping", file_dirty,
         on("written", "fdatasync"), unmap("written")),
        ("i_truncate_mapped", "ftruncate(0) of a mapped file", new_file, on("new", "truncate"), forget_new),
        ("i_punch_mapped", "punch a hole into a mapped file", new_file, on("new", "truncate"), forget_new),
        ("i_cgroup_reclaim", "memory.reclaim of mapped file pages", file_only_in_cache, reclaim,
         unmap("file")),
        ("j_move_pages_0to1", "move_pages to node 1", alone, move1, unmap_alone),
        ("j_move_pages_1to0", "move_pages to node 0", on_other_node, on("memory", "move_pages", 0),
         unmap_alone),
        ("j_mbind_move", "mbind(MPOL_MF_MOVE) to node 1", alone, move1, unmap_alone),
        ("m_munmap_one", "one of T processes unmaps a file", by_processes("file"), on("file", "munmap"),
         unmap_by_processes("file"), {"kind": PROCESSES}),
        ("m_pageout_one", "one of T processes does MADV_PAGEOUT", by_processes("file"),
         on("file", "madvise", "MADV_PAGEOUT"), unmap_by_processes("file"), {"kind": PROCESSES}),
        ("m_truncate", "one of T processes truncates the file", by_processes("new", rewritten),
         on("new", "truncate"), unmap_by_processes("new"), {"kind": PROCESSES}),
        ("m_cgroup_reclaim", "memory.reclaim of pages mapped by T processes", by_processes("file", dropped),
         reclaim, unmap_by_processes("file"), {"kind": PROCESSES}),
    )
)  # fmt: skip
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


# --- the workload of one scenario ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Repetitions:
    """How often a cell is done: (pages, number of its first slot, repetitions)."""

    pages: int
    first_slot: int
    times: int


def first_slots(name: str, pages: Sequence[int]) -> dict[int, int]:
    """Give P -> number of the first slot of a scenario in a recording of all scenarios over these P, in
    order, from slot 0 on.

    Scenarios of ordinary placement were recorded apart, those of each kind of processes by a program of their
    own.
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


def scenario_script(
    scenario: Scenario, threads: int, cells: Sequence[Repetitions], leftover: bool = True
) -> Script:
    """Write a scenario on `threads` CPUs as a script. `leftover`: slot 0 holds what an earlier one has left
    there.
    """
    script = Script(scenario.name, scenario.text)
    regions, cpus = _regions(max(cell.pages for cell in cells)), list(range(threads))

    def role(part: str) -> Callable[[Calls], Steps]:
        return lambda t: _play(part, t, threads, _steps(scenario, t, threads, cells, leftover))

    others = [role("others")] * (threads - 1)
    if scenario.kind == PROCESSES:
        script.process("main", [role("main")], regions, [0])
        for cpu, other in enumerate(others, 1):
            script.process(f"process{cpu}", [other], regions, [cpu])
        return script
    script.process("main", [role("main"), *others], regions, cpus)
    if scenario.setup in (with_child, after_child) or scenario.operation is fork:
        script.process(
            "child", [_child(sum(cell.times for cell in cells), threads)], regions, [0], forked=True
        )
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


def _steps(scenario: Scenario, t: Calls, threads: int, cells: Sequence[Repetitions], leftover: bool) -> Steps:
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
    yield Elsewhere(
        (t.spin("asleep", number * (c.threads - 1)), t.nanosleep(SETTLE_NS)),
        (t.post("asleep"), t.wait("wake", number)),
    )
    if scenario.others == SWITCH:
        running = (t.post("run"), t.spin("running", number * (c.threads - 1)))
        yield Elsewhere(
            running, (), (t.wait("run", number), t.post("running"), t.spin("stop", number), t.post("stopped"))
        )


def _come_back(scenario: Scenario, c: Cell) -> Steps:
    """The stranger stops, the other threads go on."""
    t, number = c.t, c.times("back")
    if scenario.others == SWITCH:
        yield Elsewhere((t.post("stop"), t.spin("stopped", number * (c.threads - 1))))
    yield Elsewhere((t.post("wake"), t.spin("awake", number * (c.threads - 1))), (t.post("awake"),))


def _play(part: str, t: Calls, threads: int, steps: Steps) -> Steps:
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


def _child(times: int, threads: int) -> Callable[[Calls], Steps]:
    """What a forked child does: write its own data, and wait for its end.

    A threaded program's child also resets what belonged to the threads that it has not got (their stacks and
    the allocator's arenas).
    """

    def child(t: Calls) -> Steps:
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
