"""What a row may say, whatever stands around it: a known operation, pages inside its region, rights that the
region has.
"""

from __future__ import annotations

import numpy as np

from workloads import rows as p
from workloads.rules.place import Place


def check_ops(place: Place, rows: np.ndarray, thread: int) -> None:
    op = rows["op"]
    place.refuse(~np.isin(op, list(p.OP_NAMES)), "'op' must be a known operation", op)
    if thread < 0:
        # Inside a chunk only visits: a chunk's thread is not known beforehand, so it can't meet or start
        # anybody.
        place.refuse(op != p.VISIT, "'op' must be VISIT inside a chunk", op)
    elif thread == 0:
        place.refuse(op == p.EXIT, "'op' must not be EXIT in main", op)
    else:
        place.refuse(
            np.isin(op, (p.CLONE, p.JOIN, p.MARK)), "'op' must not be CLONE, JOIN or MARK in a worker", op
        )


def check_ranges(place: Place, rows: np.ndarray, regions: tuple[p.Region, ...]) -> None:
    at = np.flatnonzero(np.isin(rows["op"], p.RANGE_OPS))
    ranged = rows[at]
    place.refuse(
        ranged["region"] >= len(regions), f"'region' must be below {len(regions)}", ranged["region"], at
    )
    place.refuse(ranged["pages"] < 1, "'pages' must be at least 1", ranged["pages"], at)
    size = np.array([region.pages for region in regions], np.int64)[ranged["region"]]
    files = np.array([region.file is not None for region in regions], bool)[ranged["region"]]
    names = np.array([region.name for region in regions])[ranged["region"]]
    place.refuse(
        np.isin(ranged["op"], p.FILE_OPS) & ~files, "'region' of a call on a file must map one", names, at
    )
    end = ranged["page"].astype(np.int64) + ranged["pages"]
    if (end > size).any():
        first = int(np.flatnonzero(end > size)[0])
        name = regions[ranged["region"][first]].name
        place.refuse(
            end > size, f"'page' + 'pages' must be inside region {name!r} of {size[first]} pages", end, at
        )


def check_visits(place: Place, rows: np.ndarray, regions: tuple[p.Region, ...]) -> None:
    at = np.flatnonzero(rows["op"] == p.VISIT)
    visits = rows[at]
    place.refuse(
        ~np.isin(visits["kind"], list(p.KIND_NAMES)),
        "'kind' must be LOAD, STORE or IFETCH",
        visits["kind"],
        at,
    )
    place.refuse(visits["count"] < 1, "'count' must be at least 1", visits["count"], at)
    names = np.array([region.name for region in regions])[visits["region"]]
    writable = np.array([region.writable for region in regions], bool)[visits["region"]]
    executable = np.array([region.executable for region in regions], bool)[visits["region"]]
    place.refuse((visits["kind"] == p.STORE) & ~writable, "'region' of a STORE must be writable", names, at)
    place.refuse(
        (visits["kind"] == p.IFETCH) & ~executable, "'region' of an IFETCH must be executable", names, at
    )


def check_direct(place: Place, rows: np.ndarray, regions: tuple[p.Region, ...]) -> None:
    """The memory of a direct read or write is in the process, and a read can be written there."""
    at = np.flatnonzero(np.isin(rows["op"], p.DIRECT_OPS))
    calls = rows[at]
    place.refuse(
        calls["kind"] >= len(regions),
        f"'kind' of a direct call must be a region, below {len(regions)}",
        calls["kind"],
        at,
    )
    size = np.array([region.pages for region in regions], np.int64)[calls["kind"]]
    writable = np.array([region.writable for region in regions], bool)[calls["kind"]]
    names = np.array([region.name for region in regions])[calls["kind"]]
    end = calls["count"].astype(np.int64) + calls["pages"]
    place.refuse(end > size, "'count' + 'pages' of a direct call must be inside its memory's region", end, at)
    place.refuse(
        (calls["op"] == p.DIRECT_READ) & ~writable,
        "'kind' of DIRECT_READ must be a writable region",
        names,
        at,
    )


def check_nodes(workload: p.Workload, nodes: int) -> None:
    """Raise ValueError at a row that moves pages to a node which a machine of so many nodes has not."""
    for process in workload.processes:
        for index, rows in enumerate(process.threads):
            bad = (rows["op"] == p.MOVE_PAGES) & (rows["kind"] >= nodes)
            Place(process.name, index).refuse(
                bad, f"'kind' of MOVE_PAGES must be a node of the machine, 0 to {nodes - 1}", rows["kind"]
            )
