"""Audit of address spaces: VMAs, page tables, every PTE in them.

Reads the page tables of all mms as a debugger would, from the top, without the kernel's own code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from allocator.vma import VM_RIGHTS, VM_SHARED, VM_WRITE
from cpus.page_table import (
    LEVEL_BITS,
    PTE_ACCESSED,
    PTE_MIGRATION,
    PTE_PFN_SHIFT,
    PTE_PRESENT,
    PTE_PROTNONE,
    PTE_SPECIAL,
    PTE_WRITE,
)
from emulator.judge.audit_check import FAULTS_KEPT, Check


@dataclass(frozen=True, slots=True)
class Mappings:
    """All that page tables say: table frames in the order found (twice if reached twice), and every PTE that
    is not empty.
    """

    tables: np.ndarray
    mm: np.ndarray
    vpn: np.ndarray
    pte: np.ndarray
    mapped: np.ndarray  # which PTEs map a frame that is counted (present or PROT_NONE, not the zero page)
    zero: np.ndarray  # which PTEs show the zero page

    @property
    def pfn(self) -> np.ndarray:
        return self.pte >> PTE_PFN_SHIFT


def read_mappings(ram: Any, table_check: Check) -> Mappings:
    """Walk the page tables of all mms."""
    tables: list[int] = []
    mms, vpns, ptes = [], [], []
    for mm in np.flatnonzero(ram.mm_users).tolist():
        level_tables = [(int(ram.mm_pgd[mm]), 0)]
        for level in range(3, -1, -1):
            tables.extend(pfn for pfn, _ in level_tables)
            below: list[tuple[int, int]] = []
            for table, base in level_tables:
                if not 0 <= table < ram.nr_frames:
                    table_check.fault(f"mm {mm} refers to page table {table}, which is no frame")
                    continue
                entries = ram.frame_word[table]
                at = np.flatnonzero(entries)
                vpn = base + (at << (LEVEL_BITS * level))
                if level == 0:
                    mms.append(np.full(len(at), mm))
                    vpns.append(vpn)
                    ptes.append(entries[at])
                else:
                    below.extend(zip((entries[at] >> PTE_PFN_SHIFT).tolist(), vpn.tolist()))
            level_tables = below
    pte = np.concatenate(ptes) if ptes else np.zeros(0, np.int64)
    zero = (
        pte & ~(PTE_ACCESSED | PTE_PRESENT | PTE_PROTNONE) == (ram.zero_page << PTE_PFN_SHIFT) | PTE_SPECIAL
    )
    mapped = (pte & (PTE_PRESENT | PTE_PROTNONE) != 0) & (pte & PTE_MIGRATION == 0) & ~zero
    empty = np.zeros(0, np.int64)
    inside = np.array([pfn for pfn in tables if 0 <= pfn < ram.nr_frames], np.int64)
    return Mappings(
        inside,
        np.concatenate(mms) if mms else empty,
        np.concatenate(vpns) if vpns else empty,
        pte,
        mapped,
        zero,
    )


def check_vmas(ram: Any) -> Check:
    """Every VMA of an mm lies in address order, overlaps none, and is in the lists of its file and its
    anon_vma exactly once.
    """
    check = Check("VMA")
    listed: dict[tuple[int, int], int] = {}  # (VMA, object) -> times
    for object in range(ram.nr_objects):
        vma, steps = int(ram.object_vmas[object]) - 1, 0
        while vma >= 0:
            if steps > ram.nr_vmas or vma >= ram.nr_vmas:
                check.fault(f"the VMA list of object {object} does not end")
                break
            listed[vma, object] = listed.get((vma, object), 0) + 1
            if object not in (ram.vma_object[vma], ram.vma_anon[vma]):
                check.fault(
                    f"VMA {vma} of objects {int(ram.vma_object[vma])}, {int(ram.vma_anon[vma])} is in "
                    f"the list of object {object}"
                )
                break
            following = ram.vma_next if ram.vma_object[vma] == object else ram.vma_anon_next
            vma, steps = int(following[vma]) - 1, steps + 1
    for mm in np.flatnonzero(ram.mm_users).tolist():
        vmas = ram.mm_vma[mm, : int(ram.mm_nr_vmas[mm])].tolist()
        check.of(len(vmas))
        end = 0
        for vma in vmas:
            if ram.vma_mm[vma] != mm:
                check.fault(f"VMA {vma} of mm {int(ram.vma_mm[vma])} is in mm {mm}")
            elif ram.vma_start[vma] < end or ram.vma_end[vma] <= ram.vma_start[vma]:
                check.fault(
                    f"VMA {vma} of mm {mm} ({int(ram.vma_start[vma]):#x}-{int(ram.vma_end[vma]):#x}) "
                    f"begins before {end:#x}"
                )
            for object in (int(ram.vma_object[vma]), int(ram.vma_anon[vma])):
                if object >= 0 and listed.pop((vma, object), 0) != 1:
                    check.fault(f"VMA {vma} of mm {mm} is not in the list of object {object} exactly once")
            end = int(ram.vma_end[vma])
    for vma, object in listed:
        check.fault(f"VMA {vma} is in the list of object {object} but in no mm")
    return check


def check_ptes(ram: Any, found: Mappings) -> Check:
    """Every PTE maps the page that its VMA shows there, with no more rights than the VMA's; no migration
    entry is left.
    """
    check = Check("PTE")
    check.of(len(found.pte))
    problems = [(~found.mapped & ~found.zero, "is no mapping and not empty (a migration entry left behind?)")]
    pfn = np.where(found.mapped, found.pfn, 0)
    outside = pfn >= ram.nr_frames
    problems.append((outside, "maps a frame that is not there"))
    pfn = np.where(outside, 0, pfn)
    sound = found.mapped & ~outside
    vma = np.full(len(pfn), -1)
    for mm in np.unique(found.mm).tolist():
        vmas = ram.mm_vma[mm, : int(ram.mm_nr_vmas[mm])]
        mine = np.flatnonzero(found.mm == mm)
        at = np.searchsorted(ram.vma_start[vmas], found.vpn[mine], "right") - 1
        candidate = vmas[np.maximum(at, 0)] if len(vmas) else np.full(len(mine), -1)
        hit = (at >= 0) & (candidate >= 0) & (found.vpn[mine] < ram.vma_end[candidate])
        vma[mine] = np.where(hit, candidate, -1)
    problems.append((sound & (vma < 0), "lies in no VMA"))
    sound = sound & (vma >= 0)
    vma = np.where(vma < 0, 0, vma)
    index = found.vpn - ram.vma_start[vma] + ram.vma_pgoff[vma]
    shown = ram.page_object[pfn] - 1
    other = (
        (shown < 0)
        | ((shown != ram.vma_object[vma]) & (shown != ram.vma_anon[vma]))
        | (ram.page_index[pfn] != index)
    )
    problems.append((sound & other, "maps another page than its VMA shows there"))
    rights = (found.pte & PTE_WRITE != 0) & (ram.vma_flags[vma] & VM_WRITE == 0)
    problems.append((sound & ~other & rights, "allows writing, its VMA does not"))
    none = (found.pte & PTE_PRESENT != 0) & (ram.vma_flags[vma] & VM_RIGHTS == 0)
    problems.append((sound & ~other & ~rights & none, "allows access, its VMA has no rights"))
    private = ram.vma_flags[vma] & VM_SHARED == 0
    stolen = (
        (found.pte & PTE_WRITE != 0)
        & private
        & ((ram.page_mapcount[pfn] > 1) | (shown == ram.vma_object[vma]))
    )
    problems.append((sound & ~other & ~rights & stolen, "allows writing to a page that others share"))
    for bad, sentence in problems:
        where = np.flatnonzero(bad)
        for i in where[:FAULTS_KEPT].tolist():
            check.fault(
                f"vpn {int(found.vpn[i]):#x} of mm {int(found.mm[i])} (frame {int(found.pfn[i])}) {sentence}"
            )
        check.wrong += max(0, len(where) - FAULTS_KEPT)
    return check


def check_resident(ram: Any, found: Mappings) -> Check:
    """mm_rss of each mm, summed over the CPUs, is the number of its PTEs."""
    check = Check("resident page")
    counted = np.bincount(found.mm[found.mapped], minlength=ram.nr_mms)
    check.of(int(counted.sum()))
    says = ram.mm_rss.sum(axis=0)
    for mm in np.flatnonzero(counted != says).tolist():
        check.equal(f"mm_rss of mm {mm}", counted[mm], says[mm])
    return check
