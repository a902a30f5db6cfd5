"""The kinds of rows that a thread executes: number, what each does, what its fields are, where it may stand.

A row has six fields: `op`, one of these numbers, and five arguments; one that a kind does not name is 0. What
an argument may be workloads/rules/one_row.py checks, calls of scripts (workloads/calls.py) make rows, and
allocator/program.py executes them. `luf list rows` prints this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cpus.abi.numbered import Numbered

ROW_FIELDS = {"op": "u1", "kind": "u1", "region": "u2", "pages": "u4", "count": "u4", "page": "u4"}
NO_REGION = 0xFFFF
PLACE_SHIFT = 32  # `count` of PLACE has the bits of a page number above these
AT, ANYWHERE = 0, 1  # `kind` of PLACE
UNREGISTER, REGISTER = 0, 1  # `kind` of UPROBE


@dataclass(frozen=True, slots=True)
class Argument:
    """What a field of a row is; rows of different kinds may have the same in different fields."""

    what: str


REGION = Argument("a region")
FILE_REGION = Argument("a region that maps a file")
FIRST_PAGE = Argument("the first of its pages")
NR_PAGES = Argument("how many of them")
ACCESS = Argument("LOAD, STORE or IFETCH")
TRIED = Argument("LOAD, STORE or IFETCH, whatever the rights")
TIMES = Argument("accesses to each page")
SPUN_REGION = Argument("region of the page that it reads while it spins, or NO_REGION")
SPUN_PAGE = Argument("that page")
BARRIER_NUMBER = Argument("a barrier of the process")
PARTIES = Argument("how many threads come to it")
SECTION = Argument("a section of the process")
DRAWING = Argument("how many threads draw from it, where its counter starts")
OWN_CHUNK = Argument("the chunk that this thread does first")
WORKER = Argument("a worker")
WORKERS = Argument("how many workers main has cloned since the last JOIN")
EVALUATION = Argument("an evaluation: 0 start-up, 1 prompt, from 2 on one token each")
FLAG = Argument("a flag of the workload")
POSTS = Argument("how many posts it waits for")
BACK = Argument("how many rows it goes back")
NS = Argument("virtual ns")
SNAPSHOT_NUMBER = Argument("a snapshot of the workload")
PAGE_NUMBER = Argument("a page number of the address space, its lower 32 bits")
PAGE_NUMBER_HIGH = Argument("its upper bits")
WHERE = Argument("AT this page number, or ANYWHERE that the kernel finds room (mmap(NULL))")
TARGET = Argument("the region whose place they take, and which they become")
PROT = Argument("PROT_READ, PROT_WRITE, PROT_EXEC added up, or PROT_NONE")
MADV = Argument("MADV_*")
NODE = Argument("a memory node")
CHILD = Argument("a process that is forked")
RECLAIMED = Argument("how many pages")
MEMORY = Argument("the region of the memory that is written or read")
MEMORY_PAGE = Argument("the first page of it")
ON = Argument("REGISTER or UNREGISTER")

PAGES = {"region": REGION, "page": FIRST_PAGE, "pages": NR_PAGES}
FILE_PAGES = {"region": FILE_REGION, "page": FIRST_PAGE, "pages": NR_PAGES}
SPINNING = {"region": SPUN_REGION, "count": SPUN_PAGE}
WAITING = {"page": FLAG, "pages": POSTS}
DIRECT = FILE_PAGES | {"kind": MEMORY, "count": MEMORY_PAGE}

# where a row may stand: in main and the workers that it clones, in a chunk of a section, or, in a process
# whose threads start together, in the first one or the others
MAIN, A_WORKER, A_CHUNK, FIRST, OTHERS = range(5)
ANY_THREAD = (MAIN, A_WORKER, FIRST, OTHERS)
NO_WORKER = (MAIN, FIRST, OTHERS)
NOT_TOGETHER = (MAIN, A_WORKER)
TOGETHER = (FIRST, OTHERS)


@dataclass(frozen=True, slots=True)
class RowKind:
    """One kind of row. `fields`: field -> what it is; `calls`: the calls of scripts that make it."""

    name: str
    does: str
    fields: Mapping[str, Argument]
    calls: tuple[str, ...] = ()
    where: tuple[int, ...] = ANY_THREAD


ROW_KINDS = Numbered[RowKind]()


def _kind(
    name: str,
    does: str,
    fields: Mapping[str, Argument],
    *,
    calls: str = "",
    where: tuple[int, ...] = ANY_THREAD,
) -> int:
    """Declare a kind and give its number: never 0, which is memory that nobody has written."""
    kind = RowKind(name, does, fields, tuple(calls.split()), where)
    return ROW_KINDS.add(kind, 1 + max(ROW_KINDS, default=0))


def kinds_with(*arguments: Argument) -> tuple[int, ...]:
    """Give the numbers of the kinds that have one of these arguments, in whatever field."""
    return tuple(
        number for number, kind in ROW_KINDS.items() if not set(arguments).isdisjoint(kind.fields.values())
    )


VISIT = _kind(
    "VISIT",
    "visit these pages in order",
    PAGES | {"kind": ACCESS, "count": TIMES},
    calls="load store execute",
    where=(*ANY_THREAD, A_CHUNK),
)
BARRIER = _kind(
    "BARRIER",
    "wait, spinning, until all parties have come to this barrier; numbers grow in every thread",
    {"page": BARRIER_NUMBER, "pages": PARTIES} | SPINNING,
    where=NOT_TOGETHER,
)
DRAW = _kind(
    "DRAW",
    "do chunks of this section, each the next one of its counter, until none is left; "
    "the counter is never reset",
    {"page": SECTION, "pages": DRAWING, "count": OWN_CHUNK},
    where=NOT_TOGETHER,
)
CLONE = _kind(
    "CLONE",
    "start this worker at its next row, on a CPU that the scheduler chooses",
    {"page": WORKER},
    where=(MAIN,),
)
EXIT = _kind("EXIT", "end; the next row runs after the next CLONE", {}, where=(A_WORKER,))
JOIN = _kind("JOIN", "sleep until these workers have ended", {"pages": WORKERS}, where=(MAIN,))
MARK = _kind("MARK", "this evaluation begins", {"page": EVALUATION}, where=(MAIN, FIRST))
POPULATE = _kind("POPULATE", "read and map all of these pages (MAP_POPULATE)", PAGES, calls="populate")
DONTNEED = _kind("DONTNEED", "madvise(2) with MADV_DONTNEED", PAGES)
MUNMAP = _kind("MUNMAP", "munmap(2)", PAGES, calls="munmap", where=NO_WORKER)
MMAP = _kind(
    "MMAP",
    "mmap(2) of these pages, at the region's place, or where there is room if PLACE said so",
    PAGES,
    calls="mmap",
    where=NO_WORKER,
)
WRITE = _kind(
    "WRITE", "write(2): the page cache changes, and every process sees it", FILE_PAGES, calls="write"
)
SYNC = _kind("SYNC", "fdatasync(2)", FILE_PAGES, calls="fdatasync")
TRUNCATE = _kind("TRUNCATE", "drop these pages with their contents", FILE_PAGES, calls="truncate")
POST = _kind("POST", "add 1 to this flag, waking who waits for it", {"page": FLAG}, calls="post meet")
WAIT_FOR = _kind("WAIT_FOR", "sleep until this flag has been posted so often", WAITING, calls="wait")
SPIN = _kind("SPIN", "the same, spinning in user mode", WAITING | SPINNING, calls="spin meet")
NANOSLEEP = _kind("NANOSLEEP", "sleep", {"count": NS}, calls="nanosleep")
SNAPSHOT = _kind(
    "SNAPSHOT",
    "note all counters, as a program that reads /proc would",
    {"page": SNAPSHOT_NUMBER},
    calls="snapshot",
)
PLACE = _kind(
    "PLACE",
    "say where this region will be mapped next",
    {"region": REGION, "kind": WHERE, "page": PAGE_NUMBER, "count": PAGE_NUMBER_HIGH},
    calls="place",
)
MPROTECT = _kind("MPROTECT", "mprotect(2)", PAGES | {"kind": PROT}, calls="mprotect")
MREMAP = _kind("MREMAP", "mremap(2) with MREMAP_FIXED", PAGES | {"count": TARGET}, calls="mremap")
MADVISE = _kind("MADVISE", "madvise(2)", PAGES | {"kind": MADV}, calls="madvise")
MOVE_PAGES = _kind(
    "MOVE_PAGES", "move_pages(2), or mbind(2) with MPOL_MF_MOVE", PAGES | {"kind": NODE}, calls="move_pages"
)
FORK = _kind(
    "FORK",
    "start this process as a copy of the own one; its main thread goes on at its next row",
    {"page": CHILD},
    calls="fork",
)
EXIT_MM = _kind(
    "EXIT_MM",
    "end the process, by its only thread, and post this flag; the next row runs after the next FORK",
    {"page": FLAG},
    calls="exit",
)
FADVISE = _kind("FADVISE", "posix_fadvise(2) with POSIX_FADV_DONTNEED", FILE_PAGES, calls="fadvise_dontneed")
RECLAIM = _kind(
    "RECLAIM",
    "write to memory.reclaim of the group of all processes",
    {"pages": RECLAIMED},
    calls="memory_reclaim",
)
DIRECT_READ = _kind("DIRECT_READ", "read(2) with O_DIRECT", DIRECT, calls="direct_read")
DIRECT_WRITE = _kind("DIRECT_WRITE", "write(2) with O_DIRECT", DIRECT, calls="direct_write")
UPROBE = _kind(
    "UPROBE",
    "set a breakpoint in these pages, or take it away, in every process that maps them as private code",
    FILE_PAGES | {"kind": ON},
    calls="uprobe_register uprobe_unregister",
)
TRY = _kind(
    "TRY",
    "visit these pages in order, and pass over each that is not mapped or lacks the rights (a handler for "
    "SIGSEGV skips the access)",
    PAGES | {"kind": TRIED, "count": TIMES},
    calls="try_load try_store try_execute",
    where=TOGETHER,
)
UNTIL = _kind(
    "UNTIL",
    "do the rows before this one again, unless this flag has been posted so often",
    WAITING | {"count": BACK},
    calls="until",
    where=TOGETHER,
)
