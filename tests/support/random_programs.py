"""Random small programs of all calls, well-typed by construction: nothing stops them but a bug of ours.

A process knows, page by page, what is mapped where with which rights;
in each phase a thread may change the mappings of ranges that it has *claimed*, and the others keep their
accesses away from these, unless they only try (a real process would be killed). Calls that Linux allows on
holes, rights and mappings of others may be anywhere, any time: they are what meets the changes half-way.
Left out: rows that no script can make; random_rows.py has them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random
from typing import Any

from cpus.abi.numbers import ADVICE, MADV_FREE, PROT_EXEC, PROT_READ, PROT_WRITE, TASK_SIZE
from tests.support.program import Part, Phases, Program, Step
from workloads import Region

FIRST_PLACE, PLACES_APART = 1 << 21, 1 << 16  # page numbers at which regions may be put
SOME = 40  # pages at once, of what takes memory
COUNTS = (1, 2, 1000, 20_000, 100_000)  # accesses: enough of them, and others run meanwhile
CHILD = "child"
FILES = {"data": 96, "other": 40, "big": 700}  # pages

# the shapes of regions: what they map, how large they may be
SHAPES: dict[str, dict[str, Any]] = {
    "heap": {"writable": True, "most": 40},
    "wide": {"writable": True, "most": 24},  # of many pages, few of which are used
    "text": {"file": "data", "executable": True, "most": 24},
    "view": {"file": "data", "most": 64},
    "copy": {"file": "other", "writable": True, "most": 24},
    "shared": {"file": "data", "writable": True, "shared": True, "most": 48},
    "other": {"file": "other", "writable": True, "shared": True, "most": 40},
    "spare": {"writable": True, "mapped": False, "most": 40},
    "target": {"writable": True, "executable": True, "mapped": False, "most": 40},
    "big": {"file": "big", "most": 700},
}


@dataclass(slots=True)
class Pages:
    """What a region's place shows, page by page: None, or rights and where the page comes from."""

    region: Region
    at: list[tuple[int, str, int] | None] = field(default_factory=list)

    def map(self, first: int, pages: int) -> None:
        """mmap of the region's own pages."""
        rights = PROT_READ + PROT_WRITE * self.region.writable + PROT_EXEC * self.region.executable
        for page in range(first, first + pages):
            self.at[page] = (rights, self.region.name, page)

    def allow(self, access: str, page: int) -> bool:
        """May a program do this to a page: does the declaration say so, and do the rights of now?"""
        if self.at[page] is None:
            return False
        rights = self.at[page][0]
        if access == "store":
            return self.region.writable and bool(rights & PROT_WRITE)
        if access == "execute":
            return self.region.executable and bool(rights & PROT_EXEC)
        return rights != 0


@dataclass(slots=True)
class State:
    """The address space of a process."""

    pages: dict[str, Pages]
    places: int = 0  # of those that were given by number

    @classmethod
    def of(cls, regions: tuple[Region, ...]) -> State:
        """Give that of a process that begins."""
        state = cls({region.name: Pages(region, [None] * region.pages) for region in regions})
        for region in regions:
            if region.mapped:
                state.pages[region.name].map(0, region.pages)
        return state

    def copy(self) -> State:
        """Give that of a child."""
        pages = {name: Pages(one.region, list(one.at)) for name, one in self.pages.items()}
        return State(pages, self.places)


Claim = tuple[str, int, int]  # a region, its first page, behind its last one


@dataclass(slots=True)
class Author:
    """Writes the steps of one thread in one phase."""

    rng: Random
    state: State
    own: list[Claim]
    others: list[Claim]
    nodes: int
    label: str
    counter: list[int]
    last: Claim | None = None
    alone: bool = True

    def number(self, least: int, most: int) -> int:
        return self.rng.randint(least, most)

    def one_of(self, things: Any) -> Any:
        return self.rng.choice(list(things))

    def region(self, **wanted: Any) -> Region | None:
        """Choose a region that is so."""
        found = [
            pages.region
            for pages in self.state.pages.values()
            if all(bool(getattr(pages.region, key)) == value for key, value in wanted.items())
        ]
        return self.one_of(found) if found else None

    def range_of(self, region: Region) -> tuple[int, int]:
        """Choose any pages of a region, often at its end."""
        first = self.number(0, region.pages - 1)
        left = region.pages - first
        return first, left if self.number(0, 3) == 0 else self.number(1, min(left, SOME))

    def accessible(self, access: str) -> Claim | None:
        """Choose pages in a row that this thread may access."""
        runs = {name: found for name in self.state.pages if (found := self.runs(access, name))}
        if not runs:
            return None
        name = self.one_of(runs)
        a, b = self.one_of(runs[name])
        if self.number(0, 2):
            a = self.number(a, b - 1)
            b = self.number(a + 1, b)
        return name, a, b

    def runs(self, access: str, name: str) -> list[tuple[int, int]]:
        """Give the runs of pages of a region that this thread may access."""
        pages = self.state.pages[name]
        taken = {page for r, a, b in self.others if r == name for page in range(a, b)}
        fits = [pages.allow(access, page) and page not in taken for page in range(len(pages.at))]
        edges = [page for page, (a, b) in enumerate(pairwise([False, *fits, False])) if a != b]
        return list(zip(edges[::2], edges[1::2], strict=True))

    # -- the calls

    def steps(self, count: int) -> list[Step]:
        """Write so many steps, fewer if some find nothing to do."""
        made: list[Step] = []
        for _ in range(count):
            kinds = [self.visit] * 8 + [self.anywhere] * 5 + [self.on_file] * 3 + [self.direct]
            if self.own:
                kinds += [self.change] * 5
            made += self.one_of(kinds)()
        return made

    def visit(self) -> list[Step]:
        """Accesses, one in two to what this thread accessed last: it may have that in its TLB."""
        access = self.one_of(["load", "store", "store", "execute"])
        found = self.accessible(access)
        if self.last and self.may(access, self.last) and self.number(0, 1):
            found = self.last
        if found is None:
            return []
        name, a, b = found
        if access == "store":
            b = min(b, a + SOME)  # what nobody can take away again must not fill the memory
        self.last = (name, a, b)
        return [(access, name, a, b - a, self.one_of(COUNTS))]

    def may(self, access: str, claim: Claim) -> bool:
        """May this thread access all of these pages now?"""
        name, a, b = claim
        pages = self.state.pages[name]
        taken = any(r == name and low < b and a < high for r, low, high in self.others)
        return not taken and all(pages.allow(access, page) for page in range(a, b))

    def anywhere(self) -> list[Step]:
        """A call, or an access, that may name pages that are not mapped."""
        region = self.region()
        first, pages = self.range_of(region)
        what = self.number(0, 11)
        if what > 9:
            return [self.tried()]
        if what < 5:
            advice = self.one_of(ADVICE)
            if advice == MADV_FREE and not self.all_anonymous(region, first, pages):
                return []
            return [("madvise", region.name, ADVICE[advice], first, pages)]
        if what < 7:
            return [("populate", region.name, first, min(pages, SOME) if region.writable else pages)]
        if what < 9:
            return [("move_pages", region.name, self.number(0, self.nodes - 1), first, pages)]
        return [self.one_of([("memory_reclaim", self.number(1, 64)), ("nanosleep", self.number(0, 2_000_000)),
                             self.snapshot()])]  # fmt: skip

    def tried(self) -> Step:
        """An access to whatever may be mapped there."""
        region = self.region()
        first, pages = self.range_of(region)
        call = self.one_of(["try_load", "try_store", "try_execute"])
        return (call, region.name, first, min(pages, SOME), self.one_of(COUNTS))

    def all_anonymous(self, region: Region, first: int, pages: int) -> bool:
        """May MADV_FREE be asked for this range, whatever others have put there?"""
        if region.name in {r for r, _, _ in self.others} or region.file is not None:
            return False
        origins = {one[1] for one in self.state.pages[region.name].at[first : first + pages] if one}
        return all(self.state.pages[name].region.file is None for name in origins)

    def snapshot(self) -> Step:
        self.counter[0] += 1
        return ("snapshot", f"{self.label} {self.counter[0]}")

    def on_file(self) -> list[Step]:
        region = self.region(file=True)
        if region is None:
            return []
        first, pages = self.range_of(region)
        pages = min(pages, 40)
        calls = ["write", "fdatasync", "truncate", "fadvise_dontneed", "uprobe_register", "uprobe_unregister"]
        call = self.one_of(calls)
        return [(call, region.name, first, min(pages, 6) if call.startswith("uprobe") else pages)]

    def direct(self) -> list[Step]:
        region = self.region(file=True)
        call = self.one_of(["direct_read", "direct_write"])
        buffer = self.accessible("store" if call == "direct_read" else "load")
        if region is None or buffer is None:
            return []
        first, pages = self.range_of(region)
        name, a, b = buffer
        return [(call, region.name, name, first, min(pages, b - a), a)]

    # -- changes of what this thread has claimed

    def change(self) -> list[Step]:
        name, low, high = self.one_of(self.own)
        pages = self.state.pages[name]
        whole = low == 0 and high == len(pages.at)
        first = self.number(low, high - 1)
        last = high if self.number(0, 2) == 0 else self.number(first + 1, high)
        what = self.number(0, 9)
        if what < 3:
            pages.at[first:last] = [None] * (last - first)
            return [("munmap", name, first, last - first)]
        if what < 5:
            pages.map(first, last - first)
            return [("mmap", name, first, last - first)]
        if what < 8:
            return self.protect(pages, first, last)
        if whole and not any(pages.at):
            return self.place(pages)
        return self.move(pages, first, last)

    def protect(self, pages: Pages, first: int, last: int) -> list[Step]:
        """mprotect of pages all of which are mapped."""
        while last > first and None in pages.at[first:last]:
            last -= 1
        if last == first:
            return []
        rights = self.one_of([0, 1, 1, 3, 3, 3, 5, 7])
        for page in range(first, last):
            pages.at[page] = (rights, *pages.at[page][1:])
        return [("mprotect", pages.region.name, rights, first, last - first)]

    def place(self, pages: Pages) -> list[Step]:
        """Map a region somewhere else: it is claimed and nothing of it is mapped."""
        name, size = pages.region.name, pages.region.pages
        pages.map(0, size)
        if self.alone and self.number(0, 1):  # in between it has no place, and nobody may name it
            return [("place", name), ("mmap", name)]
        self.state.places += 1
        at = FIRST_PLACE + self.state.places * PLACES_APART + self.one_of([0, 0, 1, 511, 100])
        if self.state.places == 1 and self.number(0, 3) == 0:
            at = TASK_SIZE - 1 - size  # up to the last page of user space
        return [("place", name, at), ("mmap", name)]

    def move(self, pages: Pages, first: int, last: int) -> list[Step]:
        """mremap to a region that is claimed, too, and all of which is free."""
        targets = [
            self.state.pages[name]
            for name, low, high in self.own
            if name != pages.region.name and low == 0 and high == len(self.state.pages[name].at)
            and not any(self.state.pages[name].at)
        ]  # fmt: skip
        begin = pages.at[first]
        if not targets or begin is None:
            return []
        target = self.one_of(targets)
        last = min(last, first + len(target.at))
        same = first
        while same < last and pages.at[same] == (begin[0], begin[1], begin[2] + same - first):
            same += 1
        target.at[: same - first] = pages.at[first:same]
        pages.at[first:same] = [None] * (same - first)
        return [("mremap", pages.region.name, target.region.name, first, same - first)]


# --- processes ----------------------------------------------------------------------------------------------


def _regions(rng: Random, large: bool) -> tuple[Region, ...]:
    """Choose regions of different shapes."""
    names = rng.sample(sorted(set(SHAPES) - {"big"}), rng.randint(2, 5))
    made = []
    for name in names + ["big"] * large:
        shape = dict(SHAPES[name])
        most = shape.pop("most")
        file = shape.get("file")
        pages = most if name == "big" else rng.randint(1, most)
        if name == "wide" and rng.random() < 0.5:
            pages = 512 + pages  # more than one page table
        offset = rng.randint(0, FILES[file] - pages) if file and name != "big" else 0
        made.append(Region(name, pages, file_offset=offset, **shape))
    return tuple(made)


def _claims(rng: Random, state: State, threads: int) -> list[list[Claim]]:
    """Give each thread ranges that nobody else claims."""
    claims: list[list[Claim]] = [[] for _ in range(threads)]
    for name, pages in state.pages.items():
        how = rng.randint(0, 4)
        size = len(pages.at)
        thread = rng.randint(0, threads - 1)
        if how <= 1:
            claims[thread].append((name, 0, size))
        elif how == 2 and size > 3:
            low = rng.randint(0, size - 2)
            claims[thread].append((name, low, rng.randint(low + 1, size)))
        elif how == 3 and size > 3 and threads > 1:
            middle = rng.randint(1, size - 1)
            claims[thread].append((name, 0, middle))
            claims[(thread + 1) % threads].append((name, middle, size))
    return claims


def _process(rng: Random, name: str, nodes: int, large: bool, counter: list[int]) -> list[Part]:
    """Make a process, and the child that it forks if it does."""
    regions = _regions(rng, large)
    state = State.of(regions)
    threads, phases = rng.randint(1, 3), rng.randint(1, 3)
    made: list[list[list[Step]]] = [[[] for _ in range(phases)] for _ in range(threads)]
    child: list[Step] = []
    last: list[Claim | None] = [None] * threads
    forks = 0
    for phase in range(phases):
        forking = rng.randint(0, 2) == 0 and forks < 2
        parent = rng.randint(0, threads - 1)
        claims = _claims(rng, state, threads)
        if forking:
            claims = [claims[i] if i == parent else [] for i in range(threads)]
        for thread in range(threads):
            others = [claim for i, one in enumerate(claims) if i != thread for claim in one]
            author = Author(
                rng,
                state,
                claims[thread],
                others,
                nodes,
                f"{name} {thread}",
                counter,
                last[thread],
                threads == 1,
            )
            steps = made[thread][phase]
            steps += author.steps(rng.randint(1, 8))
            if forking and thread == parent:
                forks += 1
                inner = Author(
                    rng, state.copy(), [(n, 0, len(p.at)) for n, p in state.pages.items()], [], nodes,
                    f"{name} {CHILD}", counter,
                )  # fmt: skip
                child += [*inner.steps(rng.randint(1, 5)), ("exit", f"{name} gone")]
                steps.append(("fork", f"{name} {CHILD}"))
                steps += author.steps(rng.randint(0, 3))
                steps.append(("wait", f"{name} gone", forks))
            if thread == 0:  # the others may go on with something until it is through
                steps.append(("post", f"{name} through {phase}"))
            elif rng.randint(0, 2) == 0:
                steps.append(("until", f"{name} through {phase}", [author.tried(), author.tried()]))
            last[thread] = author.last
    parts = [Part(name, regions, _frozen(made))]
    if forks:
        parts.append(Part(f"{name} {CHILD}", regions, ((tuple(child),),), forked=True))
    return parts


def _frozen(made: list[list[list[Step]]]) -> tuple[Phases, ...]:
    return tuple(tuple(tuple(phase) for phase in thread) for thread in made)


# --- machines -----------------------------------------------------------------------------------------------


def _node(name: str, usable: int, cpus: bool, latency_ns: int) -> dict[str, Any]:
    """A small node, half of which is the kernel's, so that little is left."""
    zone = {"name": "Normal", "managed_pages": 2 * usable, "kernel_pages": usable}
    return {
        "name": name, "memory_mib": 8, "cpus": cpus, "read_latency_ns": latency_ns, "zones": [zone]
    }  # fmt: skip


def machine(rng: Random) -> tuple[str, int, dict[str, Any], int]:
    """Small machines, of one node, or of DRAM and CXL with an eager scanner: which one, CPUs, what is changed
    of it, nodes.
    """
    nodes, cpus = rng.randint(1, 2), rng.choice([1, 2, 3, 3, 4, 4])
    like = rng.choice(["guest-8cpu", "xeon6430-cxl"])  # without and with PCID
    sizes = [rng.choice([512, 768, 1024]) for _ in range(nodes)]
    changes: dict[str, Any] = {"nodes": [_node("DRAM", sizes[0], True, 80)], "distances": [[10]]}
    if nodes > 1:
        changes["nodes"].append(_node("CXL", sizes[1], False, 250))
        changes["distances"] = [[10, 20], [20, 10]]
        changes["sysctl.numa_balancing_scan_delay_ms"] = 0
        changes["sysctl.numa_balancing_scan_period_min_ms"] = 1
        changes["sysctl.demotion_enabled"] = rng.random() < 0.5
    return like, cpus, changes, nodes


def _sweeper(rng: Random, changes: dict[str, Any]) -> Part:
    """A process that goes round in a file for which there is no room, so that pages are always reclaimed."""
    memory = sum(
        zone["managed_pages"] - zone["kernel_pages"] for node in changes["nodes"] for zone in node["zones"]
    )
    load = ("load", "swept", 0, memory + 200, rng.choice(COUNTS[:3]))
    steps = [step for _ in range(rng.randint(1, 3)) for step in (load, ("nanosleep", rng.randint(0, 10**6)))]
    return Part("sweeper", (Region("swept", memory + 200, file="swept"),), ((tuple(steps),),))


def random_program(rng: Random) -> Program:
    """Programs of one or two processes with their children."""
    like, cpus, changes, nodes = machine(rng)
    large = rng.random() < 0.5
    counter = [0]
    parts: list[Part] = []
    for name in ("a", "b")[: rng.randint(1, 2)]:
        parts += _process(rng, name, nodes, large, counter)
    if rng.random() < 0.5:
        parts.append(_sweeper(rng, changes))
    if rng.randint(0, 3) == 0:
        parts = [replace(part, cpus=tuple(rng.randint(0, cpus - 1) for _ in part.threads)) for part in parts]
    leases = 1 if rng.randint(0, 3) else 2
    return Program(tuple(parts), like, cpus, changes, leases, rng.randint(1, 1000))
