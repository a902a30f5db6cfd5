"""What a row may say, whatever stands around it: a kind that may stand there, with arguments that are what
the table of row kinds (cpus/abi/row_kinds.py) calls them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cpus.abi import row_kinds as k
from cpus.abi.numbers import ACCESSES, ADVICE, IFETCH, RIGHTS, STORE, TASK_SIZE
from workloads.rows import Process, Region, Workload
from workloads.rules.place import Place

WHERE_NAMES = {
    k.MAIN: "in main",
    k.A_WORKER: "in a worker",
    k.A_CHUNK: "inside a chunk",
    k.FIRST: "in threads that start together",
    k.OTHERS: "in threads that start together",
}


def check_ops(place: Place, rows: np.ndarray, where: int) -> None:
    """Every row is of a known kind that may stand in such a thread."""
    place.refuse(~np.isin(rows["op"], list(k.ROW_KINDS)), "'op' must be a known operation", rows["op"])
    may = [number for number, kind in k.ROW_KINDS.items() if where in kind.where]
    bad = np.flatnonzero(~np.isin(rows["op"], may))
    if len(bad):
        names = np.array([k.ROW_KINDS[op].name for op in rows["op"][bad].tolist()])
        others = [kind.name for number, kind in k.ROW_KINDS.items() if number not in may]
        listed = _or([k.ROW_KINDS[number].name for number in may]) if len(may) < len(others) else ""
        rule = f"'op' must {f'be {listed}' if listed else f'not be {_or(others)}'} {WHERE_NAMES[where]}"
        place.refuse(np.ones(len(bad), bool), rule, names, bad)


def _or(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of one thread that have some argument in `field`, and the regions of their process."""

    place: Place
    rows: np.ndarray
    at: np.ndarray
    field: str
    regions: tuple[Region, ...]

    @property
    def values(self) -> np.ndarray:
        return self.rows[self.field].astype(np.int64)

    def of_region(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """Give an attribute of the regions with these numbers."""
        return np.array([getattr(region, name) for region in self.regions])[numbers]

    def refuse(self, bad: np.ndarray, rule: str, values: np.ndarray | None = None) -> None:
        self.place.refuse(bad, rule, self.values if values is None else values, self.at)


def _is_region(these: _Rows) -> None:
    count = len(these.regions)
    these.refuse(these.values >= count, f"{these.field!r} must be below {count}")


def _maps_a_file(these: _Rows) -> None:
    _is_region(these)
    bad = np.array([region.file is None for region in these.regions], bool)[these.values]
    rule = f"{these.field!r} of a call on a file must map one"
    these.refuse(bad, rule, these.of_region("name", these.values))


def _is_positive(these: _Rows) -> None:
    these.refuse(these.values < 1, f"{these.field!r} must be at least 1")


def _are_inside(these: _Rows) -> None:
    """`pages` of a region from `page` on."""
    _is_positive(these)
    size = these.of_region("pages", these.rows["region"])
    end = these.rows["page"].astype(np.int64) + these.values
    if (end > size).any():
        first = int(np.flatnonzero(end > size)[0])
        name = these.regions[these.rows["region"][first]].name
        these.refuse(
            end > size, f"'page' + 'pages' must be inside region {name!r} of {size[first]} pages", end
        )


def _is_access(these: _Rows) -> None:
    """An access that the region's rights allow."""
    _is_tried(these)
    kind, region = these.values, these.rows["region"]
    names = these.of_region("name", region)
    writable, executable = these.of_region("writable", region), these.of_region("executable", region)
    these.refuse((kind == STORE) & ~writable, "'region' of a STORE must be writable", names)
    these.refuse((kind == IFETCH) & ~executable, "'region' of an IFETCH must be executable", names)


def _is_tried(these: _Rows) -> None:
    these.refuse(~np.isin(these.values, list(ACCESSES)), f"'kind' must be {_or(list(ACCESSES.values()))}")


def _goes_back(these: _Rows) -> None:
    rule = "'count' of UNTIL must be from 1 to the number of rows before it"
    these.refuse((these.values < 1) | (these.values > these.at), rule)


def _is_spun_page(these: _Rows) -> None:
    """A page of the region that it names, unless that is NO_REGION."""
    named = these.rows["region"] != k.NO_REGION
    bad = named & (these.rows["region"] >= len(these.regions))
    these.refuse(bad, f"'region' must be below {len(these.regions)}, or NO_REGION", these.rows["region"])
    size = np.full(len(these.rows), np.iinfo(np.int64).max)
    size[named] = these.of_region("pages", these.rows["region"][named])
    these.refuse(these.values >= size, "'count' must be a page of the region that it spins on")


def _is_memory(these: _Rows) -> None:
    """A region of this process, which a read can write."""
    count = len(these.regions)
    these.refuse(these.values >= count, f"'kind' of a direct call must be a region, below {count}")
    writable = these.of_region("writable", these.values)
    bad = (these.rows["op"] == k.DIRECT_READ) & ~writable
    names = these.of_region("name", these.values)
    these.refuse(bad, "'kind' of DIRECT_READ must be a writable region", names)


def _are_memory_pages(these: _Rows) -> None:
    end = these.values + these.rows["pages"]
    bad = end > these.of_region("pages", these.rows["kind"])
    these.refuse(bad, "'count' + 'pages' of a direct call must be inside its memory's region", end)


def _is_one_of(*numbers: int) -> Callable[[_Rows], None]:
    def check(these: _Rows) -> None:
        allowed = _or([str(number) for number in numbers])
        these.refuse(~np.isin(these.values, numbers), f"{these.field!r} must be {allowed}")

    return check


def _are_rights(these: _Rows) -> None:
    these.refuse(these.values > sum(RIGHTS), f"{these.field!r} must be a sum of {_or(list(RIGHTS.values()))}")


def _is_a_place(these: _Rows) -> None:
    """A page number from which on the region lies in user space."""
    vpn = these.rows["count"].astype(np.uint64) << np.uint64(k.PLACE_SHIFT) | these.rows["page"]
    size = these.of_region("pages", these.rows["region"])
    bad = (vpn >= TASK_SIZE) | (vpn.astype(np.int64) + size > TASK_SIZE)
    rule = f"'page' and 'count' of PLACE must be a page number with room for the region below {TASK_SIZE}"
    these.refuse(bad & (these.rows["kind"] == k.AT), rule, vpn)


# what an argument is -> how that is checked, where a later check may rely on those before it. None: another
# field's check, other rows (rounds.py, flags.py), or the machine (check_nodes) decide, or any number will do.
CHECKS: dict[k.Argument, Callable[[_Rows], None] | None] = {
    k.REGION: _is_region,
    k.FILE_REGION: _maps_a_file,
    k.NR_PAGES: _are_inside,
    k.ACCESS: _is_access,
    k.TRIED: _is_tried,
    k.TIMES: _is_positive,
    k.BACK: _goes_back,
    k.SPUN_PAGE: _is_spun_page,
    k.WHERE: _is_one_of(k.AT, k.ANYWHERE),
    k.TARGET: _is_region,
    k.PROT: _are_rights,
    k.MADV: _is_one_of(*ADVICE),
    k.RECLAIMED: _is_positive,
    k.MEMORY: _is_memory,
    k.MEMORY_PAGE: _are_memory_pages,
    k.ON: _is_one_of(k.UNREGISTER, k.REGISTER),
    k.FIRST_PAGE: None,
    k.SPUN_REGION: None,
    k.BARRIER_NUMBER: None,
    k.PARTIES: None,
    k.SECTION: None,
    k.DRAWING: None,
    k.OWN_CHUNK: None,
    k.WORKER: None,
    k.WORKERS: None,
    k.EVALUATION: None,
    k.FLAG: None,
    k.POSTS: None,
    k.CHILD: None,
    k.NODE: None,
    k.NS: None,
    k.SNAPSHOT_NUMBER: None,
    k.PAGE_NUMBER: _is_a_place,
    k.PAGE_NUMBER_HIGH: None,
}


def _fields_with(argument: k.Argument) -> dict[str, list[int]]:
    """Give the fields that are this, with the numbers of the kinds in which they are."""
    found: dict[str, list[int]] = {}
    for number, kind in k.ROW_KINDS.items():
        for name, what in kind.fields.items():
            if what == argument:
                found.setdefault(name, []).append(number)
    return found


def check_arguments(place: Place, rows: np.ndarray, process: Process) -> None:
    """Every argument is what its kind of row says."""
    for argument, check in CHECKS.items():
        for name, kinds in _fields_with(argument).items() if check else ():
            at = np.flatnonzero(np.isin(rows["op"], kinds))
            if check and len(at):
                check(_Rows(place, rows[at], at, name, process.regions))


def check_nodes(workload: Workload, nodes: int) -> None:
    """Raise ValueError at a row that names a node which a machine of so many nodes has not."""
    for process in workload.processes:
        for index, rows in enumerate(process.threads):
            for name, kinds in _fields_with(k.NODE).items():
                at = np.flatnonzero(np.isin(rows["op"], kinds))
                named, wanted = rows[at], rows[name][at]
                if (bad := wanted >= nodes).any():
                    first = k.ROW_KINDS[int(named["op"][np.flatnonzero(bad)[0]])].name
                    rule = f"{name!r} of {first} must be a node of the machine, 0 to {nodes - 1}"
                    Place(process.name, index).refuse(bad, rule, wanted, at)
