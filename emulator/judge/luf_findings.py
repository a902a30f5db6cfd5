"""Tell what LUF's debug feature found (designs/luf/debug.py), as data for the result; debug_text.py makes a
warning of it.

Reads the RAM after the run has stopped. Left out: deciding anything; the hooks did that, under the lock of
the done-numbers.
"""

from __future__ import annotations

from typing import Any

from allocator.kmap import ADDRESS, FILE_PAGE, PLACES
from allocator.page_cache import OBJECT_FILE
from allocator.sched import TASK_KSWAPD
from cpus.abi.numbers import PAGE_BYTES
from cpus.cpumask import cpus_of
from designs.luf.debug import LUFD_KEPT, OF_MM, OF_PAGE, RECORDS
from emulator.findings import DebugCounts, DebugFinding
from emulator.judge.witness import Names
from workloads.rows import Workload


def debug_counts(ram: Any) -> DebugCounts:
    """Give how many records were made, how many frames were looked at, and how many findings there were, kept
    or not.
    """
    return {
        "records": int(ram.lufd_marked.sum()),
        "checks": int(ram.lufd_checks.sum()),
        "findings": int(ram.lufd_findings[0]),
    }


def debug_findings(ram: Any, workload: Workload) -> list[DebugFinding]:
    """Give the findings that were kept, in the order in which they happened, as plain data."""
    names = Names(ram, workload)
    return [_one(ram, workload, names, n) for n in range(min(int(ram.lufd_findings[0]), LUFD_KEPT))]


def _one(ram: Any, workload: Workload, names: Names, n: int) -> DebugFinding:
    whose, site, cpu, pfn, a, b, ugen, number, key, object, index, freed_by, freed_ns, now_ns, task = (
        ram.lufd_finding[n, :15].tolist()
    )
    place = PLACES[site]
    found: DebugFinding = {
        "site": place.name, "function": place.function, "cpu": cpu, "task": _task(ram, workload, task),
        "t_ns": now_ns, "frame": pfn, "record": RECORDS[whose], "request": ugen,
        "lagging": cpus_of(ram.lufd_lag[n]), "done": ram.lufd_done[n].tolist(),
    }  # fmt: skip
    if place.about == ADDRESS:
        found |= {"mm": a, "address": b * PAGE_BYTES}
    elif place.about == FILE_PAGE:
        found["page"] = _page_of(ram, names, a, b)
    if whose == OF_PAGE:
        found |= {
            "key": key,
            "held": _page_of(ram, names, object - 1, index),
            "freed_by": freed_by,
            "freed_ns": freed_ns,
        }
    elif whose == OF_MM:
        found["record_of"] = f"mm {number}"
    else:
        found["record_of"] = _page_of(ram, names, number, -1)
    return found


def _task(ram: Any, workload: Workload, task: int) -> str:
    """`llama1, thread 3`; kswapd by its node."""
    if task < 0:
        return "idle"
    if ram.task_kind[task] == TASK_KSWAPD:
        return f"kswapd{int(ram.task_index[task])}"
    return f"{workload.processes[int(ram.task_process[task])].name}, thread {int(ram.task_index[task])}"


def _page_of(ram: Any, names: Names, object: int, index: int) -> str:
    """`file model1, page 66`; with a negative index the object alone."""
    if ram.object_kind[object] == OBJECT_FILE:
        text = names.logical(int(ram.object_logical[object]) + max(index, 0)).rpartition(", page ")[0]
    else:
        text = names.anonymous.get(object, f"anonymous memory {object}")
    return text if index < 0 else f"{text}, page {index}"
