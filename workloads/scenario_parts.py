"""The parts that scenarios are made of: what is set up, what is measured, what is cleaned up.

Each part is a generator of steps of main, thread 0 of the first process; what the others do meanwhile is a
step `Together` or `Elsewhere`. Mappings lie as in the recording: *alone* ones begin a GiB each, one after the
other ("slots"), so that page tables go with them;
*neighbour* ones lie between touched pages that keep the tables; *natural* ones where mmap(NULL) puts them,
  below what the program
has mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from workloads.calls import Calls

FIRST_SLOT, SLOT_PAGES, NR_SLOTS = 0x100000000, 1 << 18, 4096  # 1 GiB each, from 16 TiB on
MARGIN = 256  # pages between the ends of a neighbour mapping and what is measured
IMAGE_PAGES = 64
SETTLE_NS = 3_000_000

Steps = Iterator[Any]
Part = Callable[["Cell"], Steps]


@dataclass(slots=True)
class Cell:
    """One repetition of one cell, as main sees it."""

    t: Calls
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


# --- setting up ---------------------------------------------------------------------------------------------


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


def read_only(first: Part) -> Part:
    """Write-protect what `first` has set up, and read it again everywhere."""

    def setup(c: Cell) -> Steps:
        yield from first(c)
        yield c.t.mprotect("memory", "PROT_READ", 0, c.pages)
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
    # what is read ahead has arrived by then: reclaim passes over pages that are still being read
    yield c.t.nanosleep(SETTLE_NS)


def on_other_node(c: Cell) -> Steps:
    """Memory that was moved to node 1."""
    yield from alone(c)
    yield c.t.move_pages("memory", 1, 0, c.pages)
    yield from c.all(c.t.load("memory", 0, c.pages))
    yield c.t.load("memory", 0, c.pages)


def by_processes(region: str, before: Part | None = None) -> Part:
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


def rewritten(c: Cell) -> Steps:
    """Write the new file, and sync it."""
    yield c.t.write("new", 0, c.pages)
    yield c.t.fdatasync("new", 0, c.pages)


def dropped(c: Cell) -> Steps:
    """Nothing of the file is cached."""
    yield c.t.fadvise_dontneed("file")


# --- operations and cleaning up -----------------------------------------------------------------------------


def on(region: str, call: str, *arguments: Any, page: int = 0) -> Part:
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


def unmap(region: str) -> Part:
    """Main unmaps the P pages."""

    def clean(c: Cell) -> Steps:
        yield c.t.munmap(region, 0, c.pages)

    return clean


def forget_new(c: Cell) -> Steps:
    """Unmap and delete the new file."""
    yield c.t.munmap("new", 0, c.pages)
    yield c.t.truncate("new", 0, c.pages)


def unmap_by_processes(region: str) -> Part:
    """Every process does."""

    def clean(c: Cell) -> Steps:
        yield c.t.munmap(region, 0, c.pages)
        yield from c.all(c.t.munmap(region, 0, c.pages))

    return clean


munmap, munmap_middle = on("memory", "munmap"), on("memory", "munmap", page=MARGIN)
dontneed, rw = on("memory", "madvise", "MADV_DONTNEED"), on("memory", "mprotect", "PROT_READ|PROT_WRITE")
write, move1 = on("memory", "store"), on("memory", "move_pages", 1)
