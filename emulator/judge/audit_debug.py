"""Audit of LUF's debug records (designs/luf/debug.py) at the end of a run: none is lost, none lies where it
should have been looked at.

    made = found done + found not done + still there
    still there: on a free frame; if a CPU has not done it, the frame's block bears a key that is not done

Left out: what is noted of mm and file during a fault; it lives no longer than that.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from allocator.buddy import NR_ORDERS
from cpus.cpumask import cpus_of
from emulator.judge.audit_check import Check
from emulator.judge.audit_frames import Census

NONE = -1


def check_debug_records(ram: Any, census: Census) -> list[Check]:
    """Account for every record that the debug feature made; no check at all in a run without it."""
    if not ram.lufd:
        return []
    check = Check("debug record", int(ram.lufd_marked.sum()))
    left = ram.lufd_ugen[: ram.nr_frames] != 0
    gone = int(ram.lufd_cleared.sum() + ram.lufd_wrong.sum())
    check.equal("records that were made", check.expected, gone + int(left.sum()))
    claims = census.claims
    free = (claims["a free block"] + claims["a pcp list"]) > 0
    check.frames(
        ram, left & ~free, "frame {} is in use, and its record (key {}) was never looked at", ram.lufd_key
    )
    waits = left & free & ~_flush_awaited(ram, census)
    for pfn in np.flatnonzero(waits).tolist():
        late = lagging(ram, pfn)
        if late:
            cpus = ", ".join(f"cpu{cpu}" for cpu in late)
            check.fault(
                f"free frame {pfn} may be taken as it is, and {cpus} has not done its record (key "
                f"{int(ram.lufd_key[pfn])})"
            )
    return [check]


def lagging(ram: Any, pfn: int) -> list[int]:
    """CPUs of a frame's record whose done-number is older than its request."""
    ugen, done = int(ram.lufd_ugen[pfn]), ram.design["ugen_done"]
    # older, across the wrap too
    return [cpu for cpu in cpus_of(ram.lufd_mask[pfn]) if (int(done[cpu]) - ugen) % (1 << 64) >= 1 << 63]


def _flush_awaited(ram: Any, census: Census) -> np.ndarray:
    """True for free frames whose taker would have to see to a flush: with a key in a pcp list, or in a block
    whose key is not done.
    """
    found = census.claims["a pcp list"] > 0
    found &= ram.page_key[: ram.nr_frames] != 0
    for zone in range(ram.nr_zones):
        for order in range(NR_ORDERS):
            pfn = int(ram.pend_first[zone, order])
            for _ in range(int(ram.pend_count[zone, order])):
                if pfn == NONE:
                    break
                if ram.page_key[pfn] > ram.zone_key_done[zone]:
                    found[pfn : pfn + (1 << order)] = True
                pfn = census.next[pfn]
    return found
