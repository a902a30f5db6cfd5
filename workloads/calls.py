"""What one thread of a script can do: each call makes one row (cpus/abi/row_kinds.py says what
each does).

Ranges are pages of 4 KiB: of `region` from `page` on, `pages` pages, to the region's end if they are not
given. Flags, meetings and snapshots are names, known from their first use on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from typing import Any

from cpus.abi.numbers import ADVICE, RIGHTS, TASK_SIZE
from inputs.text import clipped, visible
from workloads import rows as p
from workloads.rows import Region
from workloads.rules.sizes import NAME_MAX, is_name

ROW_FIELDS = 6
Row = tuple[int, int, int, int, int, int]

NS_MAX = COUNT_MAX = 2**32 - 1
NODE_MAX = 255
# how Python says that a method is called wrongly
MISUSED = re.compile(r"Calls\.(?P<call>\w+)\(\) (?P<got>.*)", re.S)
GIVEN = re.compile(r"(\d+) w(?:as|ere) given")


@dataclass(slots=True)
class Meeting:
    """Who comes to a meeting, how often; and how many must come."""

    parties: int
    times: dict[tuple[str, int], int] = field(default_factory=dict)


class Names:
    """The numbers of all that a script names. Processes have theirs already: `forked` says which of them are
    forked.
    """

    def __init__(self, forked: dict[str, bool]) -> None:
        self.forked = forked
        self.snapshots: dict[str, int] = {}
        self.meetings: dict[str, Meeting] = {}
        self._flags: dict[str, int] = {}

    def child(self, name: str) -> int:
        """Give the number of a process that can be forked."""
        if not isinstance(name, str) or not self.forked.get(name, False):
            children = ", ".join(repr(process) for process, forked in self.forked.items() if forked)
            raise ValueError(
                "'child' must be a forked process of the script, "
                f"{children or 'but there is none'} (got {clipped(name)})"
            )
        return list(self.forked).index(name)

    def flag(self, name: str) -> int:
        """Give the number of a flag."""
        return self._flags.setdefault(_text("flag", name), len(self._flags))

    def flag_name(self, number: int) -> str:
        """Give the name of a flag."""
        return list(self._flags)[number]

    def snapshot(self, name: str) -> int:
        """Number a snapshot; a name can be used once."""
        if _text("name", name) in self.snapshots:
            raise ValueError(f"'name' of a snapshot must be used once (got {clipped(name)} again)")
        return self.snapshots.setdefault(name, len(self.snapshots))

    def meeting(self, name: str, parties: int) -> Meeting:
        """Give a meeting, the same for all who name it."""
        meeting = self.meetings.setdefault(
            _text("name", name), Meeting(_whole("parties", parties, 1, COUNT_MAX))
        )
        if meeting.parties != parties:
            raise ValueError(
                f"'parties' of meeting {name!r} must be the same for all, {meeting.parties} "
                f"(got {clipped(parties)})"
            )
        return meeting


class Calls:
    """What one thread can do."""

    def __init__(self, names: Names, process: str, index: int, regions: tuple[Region, ...]) -> None:
        self.process_name, self.index = process, index
        self._names = names
        self._regions = {region.name: (number, region) for number, region in enumerate(regions)}
        self._waits: dict[str, int] = {}

    @classmethod
    @cache
    def names(cls) -> tuple[str, ...]:
        """Give the names of all calls."""
        return tuple(
            name for name, value in vars(cls).items() if callable(value) and not name.startswith("_")
        )

    @classmethod
    def unknown(cls, name: object) -> str:
        """Say that there is no such call."""
        return f"'call' must be one of {', '.join(cls.names())} (got {clipped(name)})"

    # -- memory

    def load(self, region: str, page: int = 0, pages: int | None = None, count: int = 1) -> Row:
        """Read each page, `count` times."""
        return self._visit(p.LOAD, region, page, pages, count)

    def store(self, region: str, page: int = 0, pages: int | None = None, count: int = 1) -> Row:
        """Write to each page, `count` times."""
        return self._visit(p.STORE, region, page, pages, count)

    def execute(self, region: str, page: int = 0, pages: int | None = None, count: int = 1) -> Row:
        """Fetch instructions from each page, `count` times."""
        return self._visit(p.IFETCH, region, page, pages, count)

    def try_load(self, region: str, page: int = 0, pages: int | None = None, count: int = 1) -> Row:
        """Read each page; one that is not mapped is passed over, as by a handler for SIGSEGV."""
        return self._visit(p.LOAD, region, page, pages, count, p.TRY)

    def try_store(self, region: str, page: int = 0, pages: int | None = None, count: int = 1) -> Row:
        """Write to each page; one that may not be written to is passed over."""
        return self._visit(p.STORE, region, page, pages, count, p.TRY)

    def try_execute(self, region: str, page: int = 0, pages: int | None = None, count: int = 1) -> Row:
        """Fetch instructions from each page; one that may not be executed is passed over."""
        return self._visit(p.IFETCH, region, page, pages, count, p.TRY)

    # -- mappings

    def place(self, region: str, vpn: int | None = None) -> Row:
        """Say where the region will be mapped: at page number `vpn` of the address space; None: where the
        kernel finds room.
        """
        number, _, pages = self._range(region, 0, None)
        if vpn is None:
            return (p.PLACE, p.ANYWHERE, number, 0, 0, 0)
        _whole("vpn", vpn, 1, TASK_SIZE - pages)
        return (p.PLACE, p.AT, number, 0, vpn >> p.PLACE_SHIFT, vpn & (2**p.PLACE_SHIFT - 1))

    def mmap(self, region: str, page: int = 0, pages: int | None = None) -> Row:
        """mmap(2)."""
        return self._call(p.MMAP, region, page, pages)

    def populate(self, region: str, page: int = 0, pages: int | None = None) -> Row:
        """MAP_POPULATE of what is mapped: read and map all pages."""
        return self._call(p.POPULATE, region, page, pages)

    def munmap(self, region: str, page: int = 0, pages: int | None = None) -> Row:
        """munmap(2)."""
        return self._call(p.MUNMAP, region, page, pages)

    def mprotect(self, region: str, rights: int | str, page: int = 0, pages: int | None = None) -> Row:
        """mprotect(2) with rights such as "PROT_READ|PROT_WRITE", or their number."""
        return self._call(p.MPROTECT, region, page, pages, kind=_constant("rights", rights, RIGHTS))

    def mremap(self, region: str, target: str, page: int = 0, pages: int | None = None) -> Row:
        """Move pages to the place of region `target`, mremap(2) with MREMAP_FIXED."""
        return self._call(p.MREMAP, region, page, pages, count=self._range(target, 0, None)[0])

    def madvise(self, region: str, advice: int | str, page: int = 0, pages: int | None = None) -> Row:
        """madvise(2) with advice such as "MADV_DONTNEED", or its number."""
        chosen = _constant("advice", advice, ADVICE, several=False)
        return self._call(p.MADVISE, region, page, pages, kind=chosen)

    def move_pages(self, region: str, node: int, page: int = 0, pages: int | None = None) -> Row:
        """move_pages(2), or mbind(2) with MPOL_MF_MOVE."""
        return self._call(p.MOVE_PAGES, region, page, pages, kind=_whole("node", node, 0, NODE_MAX))

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
        """posix_fadvise(2) with POSIX_FADV_DONTNEED."""
        return self._call(p.FADVISE, region, page, pages)

    def direct_read(
        self, region: str, buffer: str, page: int = 0, pages: int | None = None, at: int = 0
    ) -> Row:
        """read(2) with O_DIRECT: from the file to page `at` and following of region `buffer`."""
        return self._direct(p.DIRECT_READ, region, buffer, page, pages, at)

    def direct_write(
        self, region: str, buffer: str, page: int = 0, pages: int | None = None, at: int = 0
    ) -> Row:
        """write(2) with O_DIRECT: to the file, from page `at` and following of region `buffer`."""
        return self._direct(p.DIRECT_WRITE, region, buffer, page, pages, at)

    def uprobe_register(self, region: str, page: int = 0, pages: int | None = None) -> Row:
        """Set a breakpoint in each page of the file, for all who map it as code (perf probe -x;
        uprobe_register).
        """
        return self._call(p.UPROBE, region, page, pages, kind=p.REGISTER)

    def uprobe_unregister(self, region: str, page: int = 0, pages: int | None = None) -> Row:
        """Take it away again."""
        return self._call(p.UPROBE, region, page, pages, kind=p.UNREGISTER)

    def memory_reclaim(self, pages: int) -> Row:
        """Write `pages` pages to memory.reclaim."""
        return (p.RECLAIM, 0, 0, _whole("pages", pages, 1, COUNT_MAX), 0, 0)

    # -- processes and time

    def fork(self, child: str) -> Row:
        """fork(2): process `child` of the script goes on with its next steps. Wait for its end before it is
        forked again.
        """
        return p.control(p.FORK, self._names.child(child))

    def exit(self, flag: str) -> Row:
        """exit(2) of a forked process; the flag is posted once its memory is gone (what waitpid awaits)."""
        return p.control(p.EXIT_MM, self._names.flag(flag))

    def post(self, flag: str) -> Row:
        """Add 1 to a flag, waking who waits for it."""
        return p.control(p.POST, self._names.flag(flag))

    def wait(self, flag: str, count: int | None = None) -> Row:
        """Sleep until the flag has been posted `count` times in all; None: once more than for this thread's
        last wait or spin.
        """
        return p.control(p.WAIT_FOR, self._names.flag(flag), self._posts(flag, count))

    def spin(self, flag: str, count: int | None = None) -> Row:
        """The same, spinning in user mode."""
        return p.control(p.SPIN, self._names.flag(flag), self._posts(flag, count), region=p.NO_REGION)

    def until(self, flag: str, steps: Any, count: int | None = None) -> list[Row]:
        """Do `steps`, other calls, again and again until the flag has been posted (as for `wait`)."""
        rows = list(flat(steps))
        if not rows:
            raise ValueError("'steps' must be at least one call (got none)")
        return [*rows, p.control(p.UNTIL, self._names.flag(flag), self._posts(flag, count), len(rows))]

    def meet(self, name: str, parties: int) -> list[Row]:
        """Spin until all `parties` threads have come here as often as this one has."""
        meeting = self._names.meeting(name, parties)
        me = self.process_name, self.index
        meeting.times[me] = meeting.times.get(me, 0) + 1
        flag = self._names.flag(f"meeting {name}")
        return [
            p.control(p.POST, flag),
            p.control(p.SPIN, flag, meeting.times[me] * parties, region=p.NO_REGION),
        ]

    def nanosleep(self, ns: int) -> Row:
        """Sleep for so many ns of virtual time."""
        return (p.NANOSLEEP, 0, 0, 0, _whole("ns", ns, 0, NS_MAX), 0)

    def snapshot(self, name: str) -> Row:
        """Note all counters under a name (emulator/snapshots.py reads them)."""
        return p.control(p.SNAPSHOT, self._names.snapshot(name))

    # -- how rows are made

    def _range(self, region: str, page: int, pages: int | None) -> tuple[int, int, int]:
        if not isinstance(region, str) or region not in self._regions:
            known = visible(", ".join(self._regions), 200)
            raise ValueError(f"'region' must be one of {known} (got {clipped(region)})")
        number, declared = self._regions[region]
        first = _whole(
            "page", page, 0, declared.pages - 1, f" in region {region!r} of {declared.pages} pages"
        )
        left = declared.pages - first
        size = (
            left
            if pages is None
            else _whole("pages", pages, 1, left, f" from page {first} of region {region!r} on")
        )
        return number, first, size

    def _visit(
        self, kind: int, region: str, page: int, pages: int | None, count: int, op: int = p.VISIT
    ) -> Row:
        number, page, pages = self._range(region, page, pages)
        return (op, kind, number, pages, _whole("count", count, 1, COUNT_MAX), page)

    def _call(self, op: int, region: str, page: int, pages: int | None, kind: int = 0, count: int = 0) -> Row:
        number, page, pages = self._range(region, page, pages)
        return (op, kind, number, pages, count, page)

    def _direct(self, op: int, region: str, buffer: str, page: int, pages: int | None, at: int) -> Row:
        number, page, size = self._range(region, page, pages)
        memory, at, _ = self._range(buffer, at, size)
        return (op, memory, number, size, at, page)

    def _posts(self, flag: str, count: int | None) -> int:
        last = self._waits.get(flag, 0)
        self._waits[flag] = last + 1 if count is None else _whole("count", count, 0, COUNT_MAX)
        return self._waits[flag]


def flat(step: Any) -> Iterator[Row]:
    """Give the rows of one step: a row, or a list of steps."""
    if isinstance(step, list):
        for inner in step:
            yield from flat(inner)
    elif (
        isinstance(step, tuple)
        and len(step) == ROW_FIELDS
        and all(isinstance(number, int) for number in step)
    ):
        yield step
    else:
        raise ValueError(f"a thread must yield what its calls return (got {clipped(step)})")


def reported(calls: Calls, error: Exception) -> str:
    """Say what went wrong in a step; what a call was given wrongly in terms of the call, not of the method
    behind it.
    """
    if isinstance(error, AttributeError) and error.obj is calls:
        return calls.unknown(error.name)
    misused = MISUSED.match(str(error)) if isinstance(error, TypeError) else None
    if misused and misused["call"] in calls.names():
        given = GIVEN.search(misused["got"])
        got = f"got {int(given[1]) - 1} arguments" if given else misused["got"]  # Python counts self
        rules = signature(getattr(calls, misused["call"])).parameters.items()
        shape = ", ".join(
            name if rule.default is rule.empty else f"{name}={rule.default}" for name, rule in rules
        )
        return f"{misused['call']!r} must be called as {misused['call']}({shape}) ({got})"
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _whole(name: str, value: Any, least: int, most: int, where: str = "") -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(
            f"{name!r} must be a whole number from {least} to {most}{where} (got {clipped(value)})"
        )
    return value


def _text(name: str, value: Any) -> str:
    if not is_name(value):
        rule = f"must be a name of at most {NAME_MAX} characters on one line"
        raise ValueError(f"{name!r} {rule} (got {clipped(value)})")
    return value


def _constant(name: str, value: Any, table: dict[int, str], several: bool = True) -> int:
    """Give the number of "A|B", or of a number that these names can make."""
    known = {text: number for number, text in table.items()}
    parts = value.split("|") if isinstance(value, str) and several else [value]
    if all(isinstance(part, str) and part.strip() in known for part in parts):
        return sum({known[part.strip()] for part in parts})
    allowed = range(sum(known.values()) + 1) if several else known.values()
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        rule = f"one of {', '.join(known)}" + (", or several with |" if several else "")
        raise ValueError(f"{name!r} must be {rule} (got {clipped(value)})")
    return value
