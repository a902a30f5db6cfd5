"""Compute the figures by which generated and recorded workloads are compared, from any workload.

They are those that decide what a TLB and memory reclaim see: distinct pages by region and token, visits per
page, which thread reads which weights and in what order, read-only against written pages, and LRU reuse
distances.

A visit is one page of one VISIT row, or of two that follow each other in a thread, one with its loads and one
with its stores. In recordings a visit lasts as long as the page stays among the thread's 16 most recently
used, so compare visits within a stated tolerance; distinct pages are exact.

Example: `measure(workload("t3"))["distinct"]["weights"]` is 15541.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.interleave import Visits, interleave
from workloads import rows as p
from workloads.rows import Workload

# A recording has one region for all of the libraries; programs split off what is written.
JOINED = {"libs_data": "libs"}
REUSE_LIMITS = (64, 512, 1536)


def measure(workload: Workload, seed: int = 1, jitter: float = 0.1, process: int = 0) -> dict[str, Any]:
    """Return all figures of one process's last token: a dictionary of the results of the functions below."""
    names = [region.name for region in workload.processes[process].regions]
    visits = interleave(workload.processes[process], seed, jitter)
    last = int(visits.evaluation.max())
    token = visits.select(visits.evaluation == last)
    before = visits.select(visits.evaluation == last - 1)
    found: dict[str, Any] = {
        "pages": by_region(token, names),
        "ro_rw": read_write(token),
        "weights": weights_order(token, names),
    }
    found["distinct"] = {name: entry["distinct"] for name, entry in found["pages"].items()}
    found["working_set"] = len(np.unique(_page_ids(token)))
    found["reuse"] = reuse_by_region(before, token, names)
    if last >= 3:
        found["weights"]["same_owner"] = same_owner(before, token, names)
        found["again"] = float(np.isin(np.unique(_page_ids(token)), _page_ids(before)).mean())
    return found


def by_region(visits: Visits, names: list[str]) -> dict[str, dict[str, float]]:
    """Return for each region: distinct pages, those written, data visits, ifetch visits, accesses per data
    visit.
    """
    ids = _page_ids(visits)
    begins = _visit_begins(visits, ids)
    found = {}
    joined = _joined(visits, names)
    for name in dict.fromkeys(JOINED.get(name, name) for name in names):
        mine = joined == names.index(name)
        data = mine & (visits.kind != p.IFETCH)
        found[name] = {
            "distinct": len(np.unique(ids[mine])),
            "written": len(np.unique(ids[mine & (visits.kind == p.STORE)])),
            "visits": int((data & begins).sum()),
            "ifetch_visits": int(mine.sum() - data.sum()),
            "accesses_per_visit": float(visits.count[data].sum() / (data & begins).sum())
            if data.any()
            else 0.0,
        }
    return found


def read_write(visits: Visits) -> dict[str, float]:
    """Return read-only : written, in distinct pages and in data visits."""
    ids = _page_ids(visits)
    written = len(np.unique(ids[visits.kind == p.STORE]))
    begins = _visit_begins(visits, ids)
    data = int((begins & (visits.kind != p.IFETCH)).sum())
    stores = int((visits.kind == p.STORE).sum())  # a visit has at most one row of stores
    return {"pages": (len(np.unique(ids)) - written) / written, "visits": (data - stores) / stores}


def weights_order(visits: Visits, names: list[str]) -> dict[str, Any]:
    """Return who reads the weights, and in what order.

    `delta_one`: share of a thread's visits that go to the next page. `readers`: distinct pages by number of
    reading threads. `first_touch_near`: share of first touches, over all threads, at most 16 pages from the
    one before.
    """
    mine = visits.select(visits.region == names.index("weights"))
    page = mine.page.astype(np.int64)
    deltas = np.concatenate([np.diff(page[mine.thread == thread]) for thread in np.unique(mine.thread)])
    pairs = np.unique(page << 8 | mine.thread)
    readers = np.bincount(np.unique(pairs >> 8, return_counts=True)[1], minlength=3)
    _, first = np.unique(page, return_index=True)
    touched = np.diff(page[np.sort(first)])
    return {
        "visits_per_page": len(page) / len(first),
        "delta_one": float((deltas == 1).mean()),
        "backward": float((deltas < 0).mean()),
        "readers": {1: int(readers[1]), 2: int(readers[2]), "more": int(readers[3:].sum())},
        "shared": 1.0 - readers[1] / len(first),
        "first_touch_one": float((touched == 1).mean()),
        "first_touch_near": float((np.abs(touched) <= 16).mean()),
        "thread_share": np.bincount(mine.thread, minlength=int(visits.thread.max()) + 1) / len(page),
        "run_median": float(np.median(_runs(page, mine.thread))),
    }


def same_owner(before: Visits, token: Visits, names: list[str]) -> float:
    """Return the share of weights pages that the same thread touches first in both tokens."""
    owner = []
    for visits in (before, token):
        mine = visits.select(visits.region == names.index("weights"))
        page, first = np.unique(mine.page, return_index=True)
        owner.append(dict(zip(page.tolist(), mine.thread[first].tolist())))
    both = owner[0].keys() & owner[1].keys()
    return sum(owner[0][page] == owner[1][page] for page in both) / len(both)


def reuse_by_region(before: Visits, token: Visits, names: list[str]) -> dict[str, dict[str, float]]:
    """Return, for visits of `token`, LRU reuse distances in distinct pages over all threads, `before` being
    the history.

    For each region: the median, the shares below 64, 512 and 1536 pages, and the share above 90 % of the
    working set.
    """
    both = Visits(
        *(np.concatenate([getattr(before, name), getattr(token, name)]) for name in Visits.__slots__)
    )
    distance = reuse_distances(_page_ids(both))[len(before) :]
    working_set = len(np.unique(_page_ids(token)))
    joined = _joined(token, names)
    found = {}
    for index, name in enumerate(names):
        mine = distance[(joined == index) & (distance >= 0)]
        if len(mine):
            found[name] = {
                "median": float(np.median(mine)),
                "whole": float((mine > 0.9 * working_set).mean()),
            }
            found[name] |= {f"below_{limit}": float((mine < limit).mean()) for limit in REUSE_LIMITS}
    return found


def reuse_distances(pages: np.ndarray) -> np.ndarray:
    """Return for each entry how many distinct pages came since its page came last; -1 for the first time.

    Distinct pages since then are entries since then, less those whose own last occurrence is younger still:
    pairs out of order, counted for all entries together by merging sorted halves (O(n log n) in numpy, no
    tree).
    """
    n = len(pages)
    _, page = np.unique(pages, return_inverse=True)
    order = np.argsort(page, kind="stable")
    last = np.full(n, -1, np.int64)
    again = page[order][1:] == page[order][:-1]
    last[order[1:][again]] = order[:-1][again]
    return np.where(last < 0, -1, np.arange(n) - last - 1 - _greater_before(last))


def _greater_before(values: np.ndarray) -> np.ndarray:
    """Return for each entry how many earlier ones are greater."""
    n = len(values)
    found = np.zeros(n, np.int64)
    width = 1
    while width < n:
        # Sort by (pair of blocks, value); in each pair count, for members of the right block, larger ones of
        # the left.
        block = np.arange(n) // width
        order = np.lexsort((np.arange(n), -values, block // 2))
        left = (block[order] % 2) == 0
        seen = np.cumsum(left)
        pair = block[order] // 2
        start = np.flatnonzero(np.diff(pair, prepend=-1))
        base = np.repeat(seen[start] - left[start], np.diff(start, append=n))
        # Equal values (-1: first times) sort by position, so that the left block's come first, and would
        # count as greater.
        equal_left = _equal_left(values[order], pair, left)
        right = ~left
        found[order[right]] += (seen - base - equal_left)[right]
        width *= 2
    return found


def _equal_left(values: np.ndarray, pair: np.ndarray, left: np.ndarray) -> np.ndarray:
    group = np.flatnonzero(
        (np.diff(values, prepend=np.iinfo(np.int64).max) != 0) | (np.diff(pair, prepend=-1) != 0)
    )
    seen = np.cumsum(left)
    base = np.repeat(seen[group] - left[group], np.diff(group, append=len(values)))
    return seen - base


def _joined(visits: Visits, names: list[str]) -> np.ndarray:
    return np.array([names.index(JOINED.get(name, name)) for name in names])[visits.region]


def _visit_begins(visits: Visits, ids: np.ndarray) -> np.ndarray:
    """Which entries begin a visit: all but the second of a load and a store of one page by one thread."""
    begins = np.ones(len(visits), bool)
    for thread in np.unique(visits.thread):
        mine = np.flatnonzero((visits.thread == thread) & (visits.kind != p.IFETCH))
        again = (np.diff(ids[mine]) == 0) & (visits.kind[mine][1:] != visits.kind[mine][:-1])
        begins[mine[1:][again]] = False
    return begins


def _page_ids(visits: Visits) -> np.ndarray:
    return visits.region.astype(np.int64) << 32 | visits.page


def _runs(page: np.ndarray, thread: np.ndarray) -> np.ndarray:
    """Return the lengths of runs of consecutive pages within threads, singles left out."""
    lengths = []
    for one in np.unique(thread):
        mine = page[thread == one]
        ends = np.flatnonzero(np.diff(mine) != 1)
        runs = np.diff(np.concatenate([[-1], ends, [len(mine) - 1]]))
        lengths.append(runs[runs > 1])
    return np.concatenate(lengths)
