"""What happened between two moments that a script noted with `t.snapshot(name)`, in the words of /proc and of
perf.

    run, noted = run_script("linux", machine, script, leases=1, seed=1)
    cost = noted.between("before", "after")
    cost.interrupts      # (0, 1, 1, 1): the TLB row of /proc/interrupts, CPU by CPU
    cost.tlb_flush       # {"remote_shootdown/33": 3, "local_mm_shootdown/33": 1}: tlb:tlb_flush events
    cost.counters["pgfault"]

A snapshot sums the counters of all CPUs up while these go on, as a program that reads /proc does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from allocator.flush_sites import REASONS, SITE_NAMES
from allocator.tlb_flush import ALL_PAGES, TRACE_PAGES, TRACE_REASONS
from designs.design import Design
from emulator.experiment import run_design
from emulator.machine import Machine
from emulator.result import Result
from workloads import Script


@dataclass(frozen=True, slots=True)
class Between:
    """What happened between two snapshots."""

    # TLB row of /proc/interrupts: flush functions executed on behalf of others, on each CPU
    interrupts: tuple[int, ...]
    counters: dict[str, int]  # by their Linux names, all CPUs together
    # "reason/pages" -> events; "reason/all0" is a full flush. Only those that happened
    tlb_flush: dict[str, int]
    # what the asking CPU was doing -> shootdowns that it began. Only those that happened
    broadcasts: dict[str, int]
    virtual_ns: int  # between the CPUs' clocks that took the snapshots


class Snapshots:
    """The snapshots of a run that is over; a copy, so that the RAM may go."""

    def __init__(self, ram: Any, script: Script) -> None:
        self.names = dict(script.snapshots)
        self._counter_names = [counter.name for counter in ram.layout.counters]
        self._counters, self._tlb_flush, self._interrupts, self._sites, self._ns = (
            np.array(table)
            for table in (
                ram.snapshot,
                ram.snapshot_tlb,
                ram.snapshot_irq,
                ram.snapshot_site,
                ram.snapshot_ns,
            )
        )

    def between(self, before: str, after: str) -> Between:
        """Give what happened between two snapshots. Raises ValueError if there is none of that name, or if it
        was not reached.
        """
        a, b = self._number("before", before), self._number("after", after)
        events = (self._tlb_flush[b] - self._tlb_flush[a]).reshape(TRACE_REASONS, TRACE_PAGES)
        sites = (self._sites[b] - self._sites[a]).tolist()
        return Between(
            interrupts=tuple((self._interrupts[b] - self._interrupts[a]).tolist()),
            counters=dict(
                zip(self._counter_names, (self._counters[b] - self._counters[a]).tolist(), strict=True)
            ),
            tlb_flush={
                f"{REASONS[reason]}/{'all0' if pages == ALL_PAGES else pages}": int(events[reason, pages])
                for reason, pages in np.argwhere(events).tolist()
            },
            broadcasts={name: sites[i] for i, name in enumerate(SITE_NAMES) if sites[i]},
            virtual_ns=int(self._ns[b] - self._ns[a]),
        )

    def _number(self, which: str, name: str) -> int:
        if name not in self.names:
            raise ValueError(
                f"{which!r} must be a snapshot of the script, one of "
                f"{', '.join(self.names) or 'none'} (got {name!r})"
            )
        number = self.names[name]
        if not self._ns[number]:
            raise ValueError(f"{which!r} must be a snapshot that was reached (got {name!r})")
        return number


def run_script(
    design: str | Design, machine: Machine, script: Script, **options: Any
) -> tuple[Result, Snapshots]:
    """Run a script's workload as `run_design` does, with its `options`; gives result and snapshots."""
    noted: list[Snapshots] = []
    result = run_design(
        design,
        machine,
        script.workload(),
        observe=lambda ram: noted.append(Snapshots(ram, script)),
        **options,
    )
    return result, noted[0]
