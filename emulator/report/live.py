"""The view of a run that goes on, below its bar: what each CPU is at, free memory of each node, who flushes.

    cpus   uuukuuaw..uu....     u user  k kernel thread  i interrupt  a waits for acks  w waits  . idle
    free   DRAM  ####-----------------  12.3 of 168.0 MiB      CXL  ...
    flush  kswapd 72 %, munmap/madvise 20 %, fault 8 %         since the last look

Everything is read as the CPUs write it, so two neighbours need not be of the same moment. Left out: what a
trace has (docs/trace.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from allocator.flush_sites import SITE_NAMES
from allocator.sched import TASK_USER
from cpus.abi.numbers import PAGES_PER_MIB
from cpus.lease import READY, RUNNING, WAIT_ACKS, WAIT_LEASE, WAIT_NONE

LETTERS = "u user   k kernel thread   i interrupt   a waits for acks   w waits   . idle"
LABEL, GAUGE, SITES_SHOWN = 7, 24, 3
LINES_MAX = 6


@dataclass(frozen=True, slots=True)
class Seen:
    """A machine at a moment."""

    cpus: str  # a letter for each
    free: tuple[tuple[str, float, float], ...]  # of each node: name, MiB free, MiB in all
    flushes: tuple[int, ...]  # CPUs asked so far, by site


def seen(ram: Any, nodes: Sequence[str]) -> Seen:
    """Look at the RAM of a machine that runs, whose nodes have these names."""
    free = []
    for node in range(ram.nr_nodes):
        zones = ram.zone_node == node
        size = int((ram.zone_end[zones] - ram.zone_start[zones]).sum())
        free.append((nodes[node], int(ram.zone_free[zones].sum()) / PAGES_PER_MIB, size / PAGES_PER_MIB))
    return Seen(
        cpus="".join(_letter(ram, cpu) for cpu in range(ram.nr_cpus)),
        free=tuple(free),
        flushes=tuple(ram.site_ipis.sum(axis=0).tolist()),
    )


def _letter(ram: Any, cpu: int) -> str:
    task, waits = int(ram.cpu_task[cpu]), int(ram.cpu_wait_kind[cpu])
    if ram.cpu_in_irq[cpu]:
        return "i"
    if waits == WAIT_ACKS:
        return "a"
    if task < 0:
        return "."
    runs = ram.cpu_state[cpu] in (RUNNING, READY) and waits in (WAIT_NONE, WAIT_LEASE)
    if not runs:
        return "w"
    return "u" if ram.task_kind[task] == TASK_USER else "k"


def lines(now: Seen, before: Seen | None, columns: int) -> list[str]:
    """Give the view as lines of at most so many columns."""
    width = columns - LABEL
    cpus = [now.cpus[at : at + width] for at in range(0, len(now.cpus), width)]
    rows = [("cpus", cpus[0]), *(("", more) for more in cpus[1:])]
    for i, (name, mib, most) in enumerate(now.free):
        filled = round(GAUGE * mib / most) if most else 0
        gauge = "#" * filled + "-" * (GAUGE - filled)
        rows.append(("free" if i == 0 else "", f"{name:<6} {gauge} {mib:,.1f} of {most:,.1f} MiB"))
    since = before.flushes if before else (0,) * len(now.flushes)
    asked = [new - old for new, old in zip(now.flushes, since)]
    rows.append(("flush", _sites(asked)))
    rows.append(("", LETTERS))
    return [f"{label:<{LABEL}}{said}"[:columns].rstrip() for label, said in rows]


def _sites(asked: Sequence[int]) -> str:
    total = sum(asked)
    ranked = sorted(((count, i) for i, count in enumerate(asked) if count), key=lambda pair: -pair[0])
    shown = [f"{SITE_NAMES[i]} {100 * count / total:.0f} %" for count, i in ranked[:SITES_SHOWN]]
    return ", ".join(shown) if shown else "nobody"
