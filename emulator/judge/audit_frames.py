"""Audit of frames: each is in exactly one place, and all that counts or links it agrees.

    free block of the buddy | a CPU's pcp list | page table | page cache | anonymous, mapped | only in an LRU
    batch | kept by a design

Lists are walked with a bound, so a ring or a stray link is a finding, not a hang.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from allocator.buddy import NR_ORDERS
from allocator.lru import LISTS, NR_LRU, lru_list
from allocator.page import (
    PG_BUDDY,
    PG_DIRTY,
    PG_EXCLUSIVE,
    PG_KEPT,
    PG_LARGE,
    PG_LRU,
    PG_PCP,
    PG_TABLE,
)
from allocator.page_cache import OBJECT_ANON
from cpus.oracle import VERSION_BITS, VERSION_MASK
from emulator.judge.audit_check import Check
from emulator.judge.audit_mappings import Mappings

NONE = -1
HOMES = (
    "a free block",
    "a pcp list",
    "a page table",
    "the page cache",
    "anonymous memory",
    "an LRU batch",
    "what the design keeps",
)


@dataclass(slots=True)
class Census:
    """Snapshots of the frames' words, and where each frame was met."""

    ram: Any
    flags: np.ndarray
    next: list[int]
    previous: list[int]
    managed: np.ndarray
    node: np.ndarray
    zone: np.ndarray
    claims: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, ram: Any) -> Census:
        managed, node = np.zeros(ram.nr_frames, bool), np.full(ram.nr_frames, -1)
        zone_of = np.full(ram.nr_frames, -1)
        for zone in range(ram.nr_zones):
            inside = slice(int(ram.zone_start[zone]), int(ram.zone_end[zone]))
            managed[inside], node[inside], zone_of[inside] = True, int(ram.zone_node[zone]), zone
        n = ram.nr_frames
        return cls(ram, ram.page_flags[:n].copy(), ram.page_next[:n].tolist(), ram.page_prev[:n].tolist(),
                   managed, node, zone_of, {home: np.zeros(n, np.int64) for home in HOMES})  # fmt: skip

    def walk(self, check: Check, name: str, first: int, last: int) -> list[int]:
        """Follow a list from its head; faults a link that is wrong, and gives the pages met before it."""
        met: list[int] = []
        before, pfn, limit, nr_frames = NONE, int(first), len(self.next), len(self.next)
        while pfn != NONE:
            if not 0 <= pfn < nr_frames or len(met) >= limit:
                check.fault(f"{name}: after frame {before} comes {pfn}, and the list does not end")
                return met
            if self.previous[pfn] != before:
                check.fault(
                    f"{name}: frame {pfn} follows {before}, but says that it follows {self.previous[pfn]}"
                )
                return met
            met.append(pfn)
            before, pfn = pfn, self.next[pfn]
        if int(last) != before:
            check.fault(f"{name}: ends at frame {before}, not at its last, {int(last)}")
        return met


def check_free_blocks(ram: Any, census: Census) -> Check:
    """Every free block is on the list of its order and state, aligned, in its zone; blocks and frames are
    counted right.
    """
    check = Check("free block")
    claimed = census.claims["a free block"]
    key, order_of = ram.page_key, ram.page_private
    for zone in range(ram.nr_zones):
        free = pending = 0
        for order in range(NR_ORDERS):
            joined = int(ram.pend_joined[zone, order])
            for what, pends in (("free", False), ("pend", True)):
                name = f"{what} list of zone {zone}, order {order}"
                first, last, count = (
                    getattr(ram, f"{what}_{part}")[zone, order] for part in ("first", "last", "count")
                )
                blocks = census.walk(check, name, first, last)
                check.of(len(blocks))
                check.equal(name, len(blocks), count)
                free += len(blocks) << order
                for pfn in blocks:
                    claimed[pfn : pfn + (1 << order)] += 1
                    if (
                        pfn & ((1 << order) - 1)
                        or pfn < ram.zone_start[zone]
                        or pfn + (1 << order) > ram.zone_end[zone]
                    ):
                        check.fault(f"{name}: block {pfn} is not aligned or not in its zone")
                    elif census.flags[pfn] != PG_BUDDY or order_of[pfn] != order:
                        check.fault(
                            f"{name}: block {pfn} has flags {int(census.flags[pfn]):#x} and "
                            f"order {int(order_of[pfn])}"
                        )
                    elif (key[pfn] > joined) != pends:
                        check.fault(
                            f"{name}: block {pfn} has key {int(key[pfn])}, the list joined at {joined}"
                        )
                    pending += int(key[pfn] > ram.zone_key_claimed[zone] and pends) << order
        check.equal(f"zone_free of zone {zone}", free, ram.zone_free[zone])
        check.equal(f"zone_pending of zone {zone}", pending, ram.zone_pending[zone])
    return check


def check_pcp(ram: Any, census: Census) -> Check:
    """Every page of a CPU's list has PG_PCP, belongs to the list's zone, and is counted."""
    check = Check("pcp page")
    for cpu, zone in np.argwhere((ram.pcp_first >= 0) | (ram.pcp_count != 0)).tolist():
        name = f"pcp list of cpu{cpu}, zone {zone}"
        pages = census.walk(check, name, ram.pcp_first[cpu, zone], ram.pcp_last[cpu, zone])
        check.of(len(pages))
        check.equal(name, len(pages), ram.pcp_count[cpu, zone])
        np.add.at(census.claims["a pcp list"], pages, 1)
        for pfn in pages:
            if census.flags[pfn] != PG_PCP or census.zone[pfn] != zone:
                check.fault(
                    f"{name}: frame {pfn} has flags {int(census.flags[pfn]):#x} and lies in "
                    f"zone {int(census.zone[pfn])}"
                )
    return check


def check_tables(ram: Any, census: Census, found: Mappings, check: Check) -> Check:
    """Every page table is a frame with PG_TABLE, and every frame with PG_TABLE is reached by exactly one mm,
    once.
    """
    claimed = census.claims["a page table"]
    np.add.at(claimed, found.tables, 1)
    check.of(len(found.tables))
    says = census.managed & (census.flags & PG_TABLE != 0)
    check.frames(
        ram,
        (claimed > 0) & ~says,
        "frame {} is used as a page table, its flags ({:#x}) do not say so",
        census.flags,
    )
    check.frames(ram, (claimed != 1) & says, "page-table frame {} is reached {} times from the tops", claimed)
    return check


def check_cache(ram: Any, census: Census, dirty: np.ndarray) -> Check:
    """Every slot of the page cache holds a page that points back to it; object_nrpages counts them. A page
    that was stored to since it was written to disk is dirty, itself or in a PTE: `dirty` are frames with such
    a PTE.
    """
    check = Check("cached page")
    slots = np.flatnonzero(ram.cache_slot[: ram.nr_cache_slots] > 0)
    pfn = ram.cache_slot[slots] - 1
    check.of(len(slots))
    owner = np.full(ram.nr_cache_slots, -1)
    for file in range(ram.nr_objects):
        if ram.object_kind[file] != OBJECT_ANON:
            owner[int(ram.object_cache[file]) :][: int(ram.object_pages[file])] = file
    inside = pfn < ram.nr_frames
    object, at = owner[slots], np.where(inside, pfn, 0)
    right = (
        inside
        & (ram.page_object[at] == object + 1)
        & (ram.page_index[at] == slots - ram.object_cache[object])
    )
    for i in np.flatnonzero(~right).tolist():
        check.fault(f"slot {int(slots[i] - ram.object_cache[object[i]])} of object {int(object[i])} holds "
                    f"frame {int(pfn[i])}, which says page {int(ram.page_index[at[i]])} of object "
                    f"{int(ram.page_object[at[i]]) - 1}")  # fmt: skip
    np.add.at(census.claims["the page cache"], at[inside], 1)
    _check_clean(ram, check, at[right], dirty)
    counted = np.bincount(object, minlength=ram.nr_objects)
    for i in np.flatnonzero(counted != ram.object_nrpages[: ram.nr_objects]).tolist():
        check.equal(f"object_nrpages of object {i}", counted[i], ram.object_nrpages[i])
    return check


def _check_clean(ram: Any, check: Check, pfn: np.ndarray, dirty: np.ndarray) -> None:
    """Fault each cached page that nobody would write, though the disk has an older version."""
    word = ram.content[pfn]
    logical = np.minimum(word >> VERSION_BITS, len(ram.disk_version) - 1)
    newer = (word & VERSION_MASK) > ram.disk_version[logical]
    marked = (ram.page_flags[pfn] & PG_DIRTY != 0) | np.isin(pfn, dirty)
    for frame in pfn[newer & ~marked].tolist():
        check.fault(f"frame {frame} is newer than what the disk has, and neither it nor a PTE is dirty")


def batch_references(ram: Any) -> np.ndarray:
    """Count the references that LRU batches hold, per frame."""
    held = np.zeros(ram.nr_frames, np.int64)
    for cpu in np.flatnonzero(ram.lru_batch_count).tolist():
        np.add.at(held, ram.lru_batch[cpu, : int(ram.lru_batch_count[cpu])], 1)
    return held


def check_frames(ram: Any, census: Census, ptes: np.ndarray, batch: np.ndarray) -> Check:
    """Every managed frame has exactly one home; frames outside of the zones have none."""
    check = Check("frame")
    check.of(census.managed.sum())
    claims = census.claims
    cached = claims["the page cache"] > 0
    object = np.clip(ram.page_object[: ram.nr_frames] - 1, 0, max(ram.nr_objects - 1, 0))
    anonymous = (ram.page_object[: ram.nr_frames] > 0) & (ram.object_kind[object] == OBJECT_ANON)
    free = claims["a free block"] + claims["a pcp list"] + claims["a page table"] > 0
    claims["anonymous memory"] += (ptes > 0) & ~cached & (anonymous | free)
    claims["an LRU batch"] += (batch > 0) & ~cached & (claims["anonymous memory"] == 0)
    claims["what the design keeps"] += census.flags & PG_KEPT != 0
    total = sum(claims.values())
    refs = ram.page_refcount[: ram.nr_frames]
    lost = census.managed & (total == 0)
    check.frames(
        ram,
        lost,
        "frame {} is nowhere (leaked): flags {:#x}, {} references, {} PTEs",
        census.flags,
        refs,
        ptes,
    )
    for pfn in np.flatnonzero((total > 1) | (~census.managed & (total > 0))).tolist():
        homes = [
            f"{home}{f' {count[pfn]} times' if count[pfn] > 1 else ''}"
            for home, count in claims.items()
            if count[pfn]
        ]
        where = "" if census.managed[pfn] else " and lies outside of all zones"
        check.fault(f"frame {pfn} is in {' and in '.join(homes)}{where}")
    return check


def check_counts(ram: Any, census: Census, ptes: np.ndarray, batch: np.ndarray) -> tuple[Check, Check]:
    """Every mapcount is the number of PTEs, one if the page is exclusive; every reference is somebody's.

    A PTE's, the cache's, a batch's, a page table's own.
    """
    mapcounts, references = Check("mapcount"), Check("reference")
    n = ram.nr_frames
    mapcounts.of(ptes.sum())
    mapcounts.frames(
        ram, ptes != ram.page_mapcount[:n], "frame {} has {} PTEs and mapcount {}", ptes, ram.page_mapcount
    )
    shared = (census.flags & PG_EXCLUSIVE != 0) & (ptes > 1)
    mapcounts.frames(ram, shared, "frame {} is exclusive and has {} PTEs", ptes)
    claims = census.claims
    holders = ptes + batch + (claims["the page cache"] > 0) + (claims["a page table"] > 0)
    references.of(holders.sum())
    wrong = holders != ram.page_refcount[:n]
    references.frames(
        ram, wrong, "frame {} has {} holders and reference count {}", holders, ram.page_refcount
    )
    return mapcounts, references


def check_lru(ram: Any, census: Census) -> Check:
    """Every page with PG_LRU is on the list of its node that its flags ask for, once; lists are as long as
    they say; none is isolated.
    """
    check = Check("LRU page")
    met = np.zeros(ram.nr_frames, np.int64)
    for node in range(ram.nr_nodes):
        for which in range(NR_LRU):
            name = f"{LISTS[which]} list of node {node}"
            pages = census.walk(check, name, ram.lru_first[node, which], ram.lru_last[node, which])
            sizes = np.where(census.flags[pages] & PG_LARGE, 1 << ram.page_private[pages], 1)
            check.equal(name, sizes.sum(), ram.lru_size[node, which])
            np.add.at(met, pages, 1)
            for pfn, flags, on in zip(pages, census.flags[pages].tolist(), census.node[pages].tolist()):
                if on != node or not flags & PG_LRU or _list_of(flags) != which:
                    check.fault(
                        f"{name}: frame {pfn} of node {on} with flags {flags:#x} does not belong there"
                    )
        check.equal(
            f"isolated pages of node {node}",
            0,
            ram.isolated_anon[:, node].sum() + ram.isolated_file[:, node].sum(),
        )
    says = census.flags & PG_LRU != 0
    check.of(says.sum())
    check.frames(ram, says & (met != 1), "frame {} has PG_lru and is on {} lists", met)
    return check


_list_of = getattr(lru_list, "py_func", lru_list)


def check_keys(ram: Any, census: Census) -> Check:
    """Every key lies on a free frame, and every generation that somebody promised to flush is flushed."""
    check = Check("key")
    keys = ram.page_key[: ram.nr_frames]
    claims = census.claims
    free = (claims["a free block"] + claims["a pcp list"]) > 0
    check.of((keys != 0).sum())
    check.frames(ram, (keys != 0) & ~free & census.managed, "frame {} is in use and still has key {}", keys)
    for zone in np.flatnonzero(ram.zone_key_claimed != ram.zone_key_done).tolist():
        check.fault(
            f"zone {zone}: generation {int(ram.zone_key_claimed[zone])} was claimed, flushed is "
            f"{int(ram.zone_key_done[zone])}"
        )
    return check
