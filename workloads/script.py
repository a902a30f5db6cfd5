"""Write a workload as short Python generators, one per thread: a thread yields what it does, in order.

    def parent(t):
        yield from t.store("heap")              # touch each page of a region
        yield t.meet("ready", 2)                # spin until two threads are there
        yield t.munmap("heap")

    Script("example", regions=[Region("heap", 64, writable=True)]).process("main", [parent, worker], cpus=[0, 1]).workload()

Every call below makes one row (workloads/program.py says what each does); a thread may yield rows or lists of rows. What is named
(regions, flags, snapshots, processes) gets its number when it is first used. Names of snapshots are kept: `Script.snapshots`.
The same in TOML: `script_from_toml`. Left out: decisions at run time; a generator runs before the workload does.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workloads import program as p
from workloads.program import Process, Region, Workload

Row = tuple[int, int, int, int, int, int]
Thread = Callable[["ThreadScript"], Iterator[Any]]
NS_MAX = 2**32 - 1
PLACE_SHIFT = 32


class Script:
    """Collects the processes of a workload, and the numbers of all that they name."""

    def __init__(self, name: str, description: str = "") -> None:
        self.name, self.description = name, description
        self.processes: list[Process] = []
        self.snapshots: dict[str, int] = {}
        self._flags: dict[str, int] = {}
        self._met: dict[str, int] = {}  # flag -> posts that its meetings so far have taken, per party
        self._names: list[str] = []

    def process(
        self, name: str, threads: Sequence[Thread], regions: Sequence[Region], cpus: Sequence[int] = (), forked: bool = False
    ) -> Script:
        """Add a process whose threads start together (or, `forked`, when another one forks it); returns the script itself."""
        if name not in self._names:
            self._names.append(name)
        rows = tuple(_rows(thread(ThreadScript(self, tuple(regions), i))) for i, thread in enumerate(threads))
        added = Process(name, tuple(regions), rows, cpus=tuple(cpus), together=True, forked=forked)
        place = self.process_number(name)
        while len(self.processes) <= place:
            self.processes.append(added)
        self.processes[place] = added
        return self

    def workload(self) -> Workload:
        """Give the workload, checked. Raises ValueError with process, thread, row, rule and value."""
        made = Workload(self.name, tuple(self.processes), description=self.description, exact=True)
        made.validate()
        return made

    def process_number(self, name: str) -> int:
        """Number of a process; processes that are named before they are added must be added in that order."""
        if name not in self._names:
            self._names.append(name)
        return self._names.index(name)

    def flag(self, name: str) -> int:
        """Number of a flag."""
        return self._flags.setdefault(name, len(self._flags))

    def snapshot(self, name: str) -> int:
        """Number of a snapshot; a name can be used once."""
        if name in self.snapshots:
            raise ValueError(f"'snapshot' must have a name of its own (got {name!r} twice)")
        return self.snapshots.setdefault(name, len(self.snapshots))


def _rows(steps: Iterable[Any]) -> np.ndarray:
    """Flatten what a generator yields."""
    found: list[Row] = []
    for step in steps:
        if isinstance(step, tuple):
            found.append(step)
        else:
            found.extend(step)
    return np.array(found, p.ROW)


class ThreadScript:
    """What one thread can do. Ranges are `region` from `page` on, `pages` pages, the whole region if they are not given."""

    def __init__(self, script: Script, regions: tuple[Region, ...], index: int) -> None:
        self.script, self.index = script, index
        self._regions = {region.name: (number, region) for number, region in enumerate(regions)}
        self._meetings: dict[str, int] = {}

    def _range(self, region: str, page: int, pages: int | None) -> tuple[int, int, int]:
        if region not in self._regions:
            raise ValueError(f"'region' must be one of {', '.join(self._regions)} (got {region!r})")
        number, declared = self._regions[region]
        return number, page, declared.pages - page if pages is None else pages

    # -- memory

    def load(self, region: str, page: int = 0, pages: int | None = None, count: int = 1) -> Row:
        """Read each page."""
        number, page, pages = self._range(region, page, pages)
        return p.visit(p.LOAD, number, page, pages, count)

    def store(self, region: str, page: int = 0, pages: int | None = None, count: int = 1) -> Row:
        """Write to each page."""
        number, page, pages = self._range(region, page, pages)
        return p.visit(p.STORE, number, page, pages, count)

    # -- mappings

    def place(self, region: str, vpn: int | None) -> Row:
        """Say where the region will be mapped; None: where the kernel finds room."""
        number = self._range(region, 0, None)[0]
        if vpn is None:
            return (p.PLACE, 1, number, 0, 0, 0)
        return (p.PLACE, 0, number, 0, vpn >> PLACE_SHIFT, vpn & (2**PLACE_SHIFT - 1))

    def mmap(self, region: str, page: int = 0, pages: int | None = None) -> Row:
        """mmap(2)."""
        return self._call(p.MMAP, region, page, pages)

    def munmap(self, region: str, page: int = 0, pages: int | None = None) -> Row:
        """munmap(2)."""
        return self._call(p.MUNMAP, region, page, pages)

    def mprotect(self, region: str, rights: int, page: int = 0, pages: int | None = None) -> Row:
        """mprotect(2) with PROT_READ, PROT_WRITE ... of workloads.program."""
        return self._call(p.MPROTECT, region, page, pages, kind=rights)

    def mremap(self, region: str, target: str, page: int = 0, pages: int | None = None) -> Row:
        """Move pages to the place of region `target`."""
        return self._call(p.MREMAP, region, page, pages, count=self._range(target, 0, None)[0])

    def madvise(self, region: str, advice: int, page: int = 0, pages: int | None = None) -> Row:
        """madvise(2) with MADV_* of workloads.program."""
        return self._call(p.MADVISE, region, page, pages, kind=advice)

    def move_pages(self, region: str, node: int, page: int = 0, pages: int | None = None) -> Row:
        """move_pages(2), or mbind(2) with MPOL_MF_MOVE."""
        return self._call(p.MOVE_PAGES, region, page, pages, kind=node)

    # -- files, named by a region that shows them

    def write(self, region: str, page: int = 0, pages: int | None = None) -> Row:
        """write(2)."""
        return self._call(p.WRITE, region, page, pages)

    def fdatasync(self, region: str, page: int = 0, pages: int | None = None) -> Row:
        """fdatasync(2)."""
        return self._call(p.SYNC, region, page, pages)

    def truncate(self, region: str, page: int = 0, pages: int | None = None) -> Row:
        """ftruncate(2), or fallocate(2) with FALLOC_FL_PUNCH_HOLE."""
        return self._call(p.TRUNCATE, region, page, pages)

    def fadvise_dontneed(self, region: str, page: int = 0, pages: int | None = None) -> Row:
        """posix_fadvise(POSIX_FADV_DONTNEED)."""
        return self._call(p.FADVISE, region, page, pages)

    def memory_reclaim(self, pages: int) -> Row:
        """Write to memory.reclaim."""
        return (p.RECLAIM, 0, 0, pages, 0, 0)

    def _call(self, op: int, region: str, page: int, pages: int | None, kind: int = 0, count: int = 0) -> Row:
        number, page, pages = self._range(region, page, pages)
        return (op, kind, number, pages, count, page)

    # -- processes and time

    def fork(self, child: str) -> Row:
        """fork(2): process `child` of the script goes on with its next rows."""
        return p.control(p.FORK, self.script.process_number(child))

    def exit(self, flag: str) -> Row:
        """exit(2) of the process's only thread; the flag is posted when its memory is gone (what waitpid waits for)."""
        return p.control(p.EXIT_MM, self.script.flag(flag))

    def post(self, flag: str) -> Row:
        """Add 1 to a flag."""
        return p.control(p.POST, self.script.flag(flag))

    def wait(self, flag: str, count: int = 1) -> Row:
        """Sleep until the flag has been posted `count` times in all."""
        return p.control(p.WAIT_FOR, self.script.flag(flag), count)

    def spin(self, flag: str, count: int = 1) -> Row:
        """The same, spinning."""
        return p.control(p.SPIN, self.script.flag(flag), count, region=p.NO_REGION)

    def meet(self, flag: str, parties: int) -> list[Row]:
        """Spin until `parties` threads have come here as often as this one has."""
        times = self._meetings[flag] = self._meetings.get(flag, 0) + 1
        return [self.post(flag), self.spin(flag, times * parties)]

    def nanosleep(self, ns: int) -> Row:
        """Sleep."""
        if not 0 <= ns <= NS_MAX:
            raise ValueError(f"'ns' must be within 0 and {NS_MAX:,} (got {ns:,})")
        return (p.NANOSLEEP, 0, 0, 0, ns, 0)

    def snapshot(self, name: str) -> Row:
        """Note all counters under a name."""
        return p.control(p.SNAPSHOT, self.script.snapshot(name))


def script_from_toml(path: str | Path) -> Script:
    """Read a script from TOML: `[[region]]` tables, `[[process]]` tables with `threads`, lists of calls such as ["store", "heap"].

    Raises ValueError naming file, process, thread, step, rule and value.
    """
    text = tomllib.loads(Path(path).read_text())
    script = Script(text.get("name", Path(path).stem), text.get("description", ""))
    for number, process in enumerate(text.get("process", [])):
        regions = [Region(**region) for region in process.get("region", text.get("region", []))]
        where = f"{path}: process {process.get('name', number)!r}"
        threads = [_thread_of(f"{where} thread {i}", steps) for i, steps in enumerate(process["threads"])]
        script.process(process.get("name", str(number)), threads, regions, process.get("cpus", ()), process.get("forked", False))
    return script


def _thread_of(where: str, steps: list[list[Any]]) -> Thread:
    """Make a generator of a list of calls."""

    def thread(t: ThreadScript) -> Iterator[Any]:
        for number, (call, *arguments) in enumerate(steps):
            method = getattr(t, str(call), None)
            if call.startswith("_") or method is None:
                raise ValueError(f"{where} step {number}: 'call' must be one of a thread's calls (got {call!r})")
            yield method(*arguments)

    return thread
