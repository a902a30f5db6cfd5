"""Say what every thread of every process executes, as rows of page visits and of synchronisation.

A *program* is an array of 16-byte rows that one thread executes in order. Most rows visit pages: "load 340
times on each of the pages 7..15 of region weights". The rest is what user space does around that: spin
barriers, dynamic work sharing, worker threads that come and go, and the system calls that change mappings.

A row has the fields `op, kind, region, pages, count, page`. What it does, and what its fields are, is
declared in cpus/abi/row_kinds.py; `luf list rows` prints it. Everything that rows name is known here, too.

Regions are mapped when the process starts, unless they say otherwise. A section's counter is never reset: a
piece of work that is repeated gets a section for each time, and these may share their chunks.

Leaves out: time, addresses, contents. Whoever executes the rows decides on these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cpus.abi.numbers import *  # noqa: F403 - whoever writes rows finds all numbers here
from cpus.abi.row_kinds import *  # noqa: F403
from cpus.abi.row_kinds import ROW_FIELDS, ROW_KINDS, TRY, VISIT, Argument

ROW = np.dtype(list(ROW_FIELDS.items()))
FOLIO_ORDER_MAX = 6  # 256 KiB
PAGES_MAX = 1 << 27  # of a region, 512 GiB: its state takes a few bytes of the host's memory for each
REGIONS_MAX = 64  # of a process
THREADS_MAX = 256  # of a process, of which each is a task
PROCESSES_MAX = 1024  # each is an address space, with room for its mappings
EVALUATIONS_MAX = 4096  # whose times are kept


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
        """Return, for each region, which of its pages any VISIT or TRY touches (bool arrays)."""
        edges = [np.zeros(region.pages + 1, np.int64) for region in self.regions]
        for rows in (*self.threads, self.chunk_rows):
            visits = rows[np.isin(rows["op"], (VISIT, TRY))]
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

    def count_of(self, what: Argument) -> int:
        """Return one more than the largest number by which a row names such an object; 0 if none does."""
        largest = -1
        for number, kind in ROW_KINDS.items():
            for name in (name for name, argument in kind.fields.items() if argument == what):
                for rows in (rows for process in self.processes for rows in process.threads):
                    numbers = rows[name][rows["op"] == number].astype(np.int64)
                    largest = max(largest, int(numbers.max(initial=-1)))
        return largest + 1


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
