"""Say what every thread of every process executes, as rows of page visits and of synchronisation.

A *program* is an array of 16-byte rows that one thread executes in order. Most rows visit pages: "load 340
times on each of the pages 7..15 of region weights". The rest is what user space does around that: spin
barriers, dynamic work sharing, worker threads that come and go, and the system calls that change mappings.

Row by row (fields `op, kind, region, pages, count, page`; a field that is not named is 0):

========  =========================================================================================================
VISIT     visit pages `page .. page+pages-1` of `region` in order, `count` accesses of `kind` on each
BARRIER   wait, spinning on page `count` of `region`, until `pages` parties have come to barrier `page` of the
          process
DRAW      execute chunk `count` of section `page`, then draw the next chunk from the section's counter, which
          starts at `pages` (= parties), until none is left
CLONE     main starts worker thread `page`, at its next row, on a CPU that the scheduler chooses
EXIT      the worker ends; its next row runs after its next CLONE
JOIN      main sleeps until the `pages` workers cloned since the last JOIN have executed EXIT
MARK      evaluation `page` begins (main thread; 0 start-up, 1 prompt, 2.. one token each)
POPULATE  mmap(MAP_POPULATE): read and map all of `page .. page+pages-1` of `region`
DONTNEED  madvise(MADV_DONTNEED) of these pages
MUNMAP    unmap these pages
MMAP      map them, at the region's place (or where the kernel finds room, if PLACE said so)
WRITE     write(2) these pages of the file that `region` maps: the page cache changes, and every process sees
          it
SYNC      fdatasync() of these pages
TRUNCATE  drop these pages with their contents (punch a hole)
POST      add 1 to flag `page` of the workload, waking who waits for it
WAIT_FOR  sleep until flag `page` has been posted `pages` times
SPIN      the same, spinning in user mode on page `count` of `region` (NO_REGION: on none that is named)
NANOSLEEP sleep for `count` ns
PLACE     say where `region` will be mapped next: at the page with the number `page` + `count` * 2**32; or,
          with `kind` 1, wherever the kernel finds room (mmap(NULL))
MPROTECT  give these pages the rights `kind` (PROT_READ, PROT_WRITE, PROT_EXEC; 0 none)
MREMAP    move these pages to the place of region `count`, which they become
MADVISE   madvise(2) with advice `kind` (MADV_*)
MOVE_PAGES  move these pages to node `kind` (move_pages(2), or mbind(2) with MPOL_MF_MOVE)
FORK      start process `page` of the workload as a copy of this one; its main thread goes on at its next row
EXIT_MM   the process ends, by its only thread, and flag `page` is posted; its next row runs after its next
          FORK
FADVISE   posix_fadvise(POSIX_FADV_DONTNEED) of these pages of the file
DIRECT_READ, DIRECT_WRITE  read(2), write(2) with O_DIRECT: these pages of the file to, or from, page `count`
                           and following of region `kind`
UPROBE    set (`kind` 1) or take away (0) a breakpoint in these pages of the file, in every process that maps
          them as private code
RECLAIM   write `pages` pages to memory.reclaim of the group of all processes
SNAPSHOT  note all counters, as a program that reads /proc would, in snapshot `page` of the workload
========  =========================================================================================================

Regions are mapped when the process starts, unless they say otherwise. A section's counter is never reset: a
piece of work that is repeated gets a section for each time, and these may share their chunks.

Leaves out: time, addresses, contents. Whoever executes the rows decides on these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

ROW = np.dtype(
    [("op", "u1"), ("kind", "u1"), ("region", "u2"), ("pages", "u4"), ("count", "u4"), ("page", "u4")]
)

VISIT, BARRIER, DRAW, CLONE, EXIT, JOIN, MARK, POPULATE, DONTNEED, MUNMAP, MMAP, WRITE, SYNC, TRUNCATE = (
    range(1, 15)
)
POST, WAIT_FOR, SPIN, NANOSLEEP, SNAPSHOT = range(15, 20)
(
    PLACE,
    MPROTECT,
    MREMAP,
    MADVISE,
    MOVE_PAGES,
    FORK,
    EXIT_MM,
    FADVISE,
    RECLAIM,
    DIRECT_READ,
    DIRECT_WRITE,
    UPROBE,
) = range(20, 32)
PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC = 0, 1, 2, 4
MADV_DONTNEED, MADV_FREE, MADV_COLD, MADV_PAGEOUT = 4, 8, 20, 21
NO_REGION = 0xFFFF
OP_NAMES = {
    VISIT: "VISIT",
    BARRIER: "BARRIER",
    DRAW: "DRAW",
    CLONE: "CLONE",
    EXIT: "EXIT",
    JOIN: "JOIN",
    MARK: "MARK",
    POPULATE: "POPULATE",
    DONTNEED: "DONTNEED",
    MUNMAP: "MUNMAP",
    MMAP: "MMAP",
    WRITE: "WRITE",
    SYNC: "SYNC",
    TRUNCATE: "TRUNCATE",
    POST: "POST",
    WAIT_FOR: "WAIT_FOR",
    SPIN: "SPIN",
    NANOSLEEP: "NANOSLEEP",
    SNAPSHOT: "SNAPSHOT",
    PLACE: "PLACE",
    MPROTECT: "MPROTECT",
    MREMAP: "MREMAP",
    MADVISE: "MADVISE",
    MOVE_PAGES: "MOVE_PAGES",
    FORK: "FORK",
    EXIT_MM: "EXIT_MM",
    FADVISE: "FADVISE",
    RECLAIM: "RECLAIM",
    DIRECT_READ: "DIRECT_READ",
    DIRECT_WRITE: "DIRECT_WRITE",
    UPROBE: "UPROBE",
}
DIRECT_OPS = (DIRECT_READ, DIRECT_WRITE)
# rows that name pages of a region that maps a file
FILE_OPS = (WRITE, SYNC, TRUNCATE, FADVISE, *DIRECT_OPS, UPROBE)
# rows that name pages of a region
RANGE_OPS = (VISIT, POPULATE, DONTNEED, MUNMAP, MMAP, MPROTECT, MREMAP, MADVISE, MOVE_PAGES, *FILE_OPS)

LOAD, STORE, IFETCH = range(3)
KIND_NAMES = {LOAD: "LOAD", STORE: "STORE", IFETCH: "IFETCH"}

PAGE_BYTES = 4096
FOLIO_ORDER_MAX = 6  # 256 KiB


@dataclass(frozen=True, slots=True)
class Region:
    """A mapping: `pages` pages, of a file from page `file_offset` on, or anonymous (`file` is None).

    Regions of different processes that name the same file share its page cache; `shared` is MAP_SHARED. A
    writable region of a file that is not shared is copied on write, as the kernel does it. A region that is
    not `mapped` is mapped by a row. The file is cached in folios of 2**`folio_order` pages (the largest that
    any region says).
    """

    name: str
    pages: int
    file: str | None = None
    file_offset: int = 0
    writable: bool = False
    shared: bool = False
    executable: bool = False
    mapped: bool = True
    folio_order: int = 0


@dataclass(frozen=True, slots=True)
class Section:
    """Chunks of one dynamically shared piece of work: `chunks[i] = (first, end)`, rows first..end-1 of
    `Process.chunk_rows`.
    """

    chunks: np.ndarray


@dataclass(frozen=True, slots=True)
class Process:
    """One address space and the programs of its threads; thread 0 is main, thread k its worker k.

    `cpus` pins thread k to CPU `cpus[k]` (empty: the scheduler places them). With `together` all threads
    start when the process does, and end with their last row; without, main CLONEs and JOINs them. A `forked`
    process does not exist until another one FORKs it; it has one thread, and the regions of that other one.
    `steps`, for each thread, tell which step of a script each row comes from.
    """

    name: str
    regions: tuple[Region, ...]
    threads: tuple[np.ndarray, ...]
    chunk_rows: np.ndarray = field(default_factory=lambda: np.zeros(0, ROW))
    sections: tuple[Section, ...] = ()
    cpus: tuple[int, ...] = ()
    together: bool = False
    forked: bool = False
    steps: tuple[np.ndarray, ...] = ()

    def visited_pages(self) -> list[np.ndarray]:
        """Return, for each region, which of its pages any VISIT touches (bool arrays)."""
        edges = [np.zeros(region.pages + 1, np.int64) for region in self.regions]
        for rows in (*self.threads, self.chunk_rows):
            visits = rows[rows["op"] == VISIT]
            for index in np.unique(visits["region"]):
                mine = visits[visits["region"] == index]
                first = mine["page"].astype(np.int64)
                np.add.at(edges[index], first, 1)
                np.add.at(edges[index], first + mine["pages"], -1)
        return [np.cumsum(edge)[:-1] > 0 for edge in edges]


@dataclass(frozen=True, slots=True)
class Workload:
    """Processes that run side by side. `tokens` is the number of evaluations after the prompt.

    `exact`: the rows are all accesses there are (of a program written as rows); else pages in use are touched
    between rows, too, as in recordings (cpus/live.py).
    """

    name: str
    processes: tuple[Process, ...]
    description: str = ""
    tokens: int = 0
    exact: bool = False
    parameters: Mapping[str, int] = field(default_factory=dict)  # as given with the name of a generated one

    def working_set_pages(self) -> int:
        """Count the distinct pages that are ever visited; a file page that several processes visit counts
        once.
        """
        anonymous = 0
        files: dict[str, set[int]] = {}
        for process in self.processes:
            for region, visited in zip(process.regions, process.visited_pages(), strict=True):
                if region.file is None:
                    anonymous += int(visited.sum())
                else:
                    files.setdefault(region.file, set()).update(
                        (np.flatnonzero(visited) + region.file_offset).tolist()
                    )
        return anonymous + sum(len(pages) for pages in files.values())

    def stored_rows(self) -> int:
        """Count the rows in memory: those of chunks that sections share once."""
        return sum(len(p.chunk_rows) + sum(len(rows) for rows in p.threads) for p in self.processes)

    def count_of(self, *ops: int) -> int:
        """Return one more than the largest `page` of all rows with these operations (0 if there is none): how
        many things they name.
        """
        every = [
            rows["page"][np.isin(rows["op"], ops)].astype(np.int64)
            for process in self.processes
            for rows in process.threads
        ]
        return int(max((pages.max() for pages in every if len(pages)), default=-1)) + 1


def visit(
    kind: int, region: int, page: int, pages: int = 1, count: int = 1
) -> tuple[int, int, int, int, int, int]:
    """Return a VISIT row."""
    return (VISIT, kind, region, pages, count, page)


def control(
    op: int, page: int = 0, pages: int = 0, count: int = 0, region: int = 0
) -> tuple[int, int, int, int, int, int]:
    """Return a row of any other operation."""
    return (op, 0, region, pages, count, page)
