"""Collect counters, times and samples from the RAM of a run that is over, as fields of a `Result`."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np

from allocator.flush_sites import SITE_NAMES
from cpus.abi.numbers import PAGES_PER_MIB
from cpus.declare import VMSTAT
from cpus.events import EVENT_RING, EVENT_WORDS
from cpus.lease import RUNNING
from cpus.ram import LEFT
from cpus.strategies import ARMED, HELD, SWITCH_WORDS
from emulator.judge.rule_findings import rule_findings, switch_places
from emulator.machine import Machine
from emulator.report.timeline import timeline
from emulator.result import Ipi, Series, Unmapped

SERIES_POINTS = 400


def free_pages(ram: Any) -> list[int]:
    """Free pages of each node."""
    return [int(ram.zone_free[ram.zone_node == node].sum()) for node in range(ram.nr_nodes)]


def counts(ram: Any, machine: Machine) -> dict[str, Any]:
    """Collect counters, times and samples from the RAM of a run that is over."""
    per_cpu = {counter.name: getattr(ram, counter.name).tolist() for counter in ram.layout.counters}
    total = {name: sum(values) for name, values in per_cpu.items()}
    sites = ram.site_ipis.sum(axis=0).tolist()
    processes = range(ram.nr_processes)
    return {
        "tlb_shootdowns": total["irq_tlb"],
        "tlb_shootdowns_per_cpu": per_cpu["irq_tlb"],
        "dtlb_load_misses": total["dtlb_load_misses"],
        "dtlb_store_misses": total["dtlb_store_misses"],
        "itlb_load_misses": total["itlb_load_misses"],
        "runtime_ns": [int(ram.proc_end_ns[p] - ram.proc_start_ns[p]) for p in processes],
        "ipi": Ipi(
            requests=total["ipi_requests"],
            messages=total["ipi_messages"],
            executed=total["ipi_executed"],
            acked=total["ipi_acked"],
        ),
        "unmap": Unmapped(ro=total["unmap_ro"], rw=total["unmap_rw"]),
        "flush_sites": {name: sites[i] for i, name in enumerate(SITE_NAMES) if sites[i]},
        "vmstat": {one.name: total[one.name] for one in ram.layout.counters if one.group == VMSTAT}
        | gauges(ram),
        "counters": per_cpu,
        "token_ns": [_token_times(ram, p) for p in processes],
        "series": _series(ram),
        "timeline": timeline(ram),
        "fingerprint": fingerprint(ram),
        "node_names": [node.name for node in machine.nodes],
    }


def scheduled(ram: Any, *, brief: bool = False) -> dict[str, Any]:
    """Give what the schedule of a run with scheduling points came to: the decisions that repeat it, which are
    left out of what is `brief`.
    """
    kept = min(int(ram.run_switches[0]), ram.nr_switches)
    # a run that was ended while a CPU ran: what it had passed since the last decision
    running = (ram.cpu_state == RUNNING) * bool(ram.controlled and not ram.point[HELD])
    since = running * int(ram.point[ARMED] - ram.point[LEFT])
    listed = {} if brief else {
        "switches": [tuple(one) for one in ram.switch[:kept, :SWITCH_WORDS].tolist()],
        "switch_places": switch_places(ram),
    }  # fmt: skip
    return listed | {
        "rule_findings": rule_findings(ram),
        "switches_lost": int(ram.run_switches[0]) - kept,
        "points": int(ram.run_points[0] + since.sum()),
        "cpu_points": (ram.cpu_points + since).tolist(),
    }


def fingerprint(ram: Any) -> str:
    """Hash what happened: the event sequence as far as the rings hold it, all counters, clocks, and the order
    of hand-overs.
    """
    digest = hashlib.sha256()
    for cpu, count in enumerate(ram.cpu_event_head.tolist()):
        digest.update(ram.event[cpu, : min(count, EVENT_RING) * EVENT_WORDS].tobytes())
    for words in (ram.counter, ram.cpu_clock, ram.site_ipis, ram.run_schedule_hash):
        digest.update(np.ascontiguousarray(words).tobytes())
    return digest.hexdigest()


def gauges(ram: Any) -> dict[str, int]:
    """What /proc/vmstat shows of the present state."""
    lists = ram.lru_size.sum(axis=0).tolist()
    names = ("nr_inactive_anon", "nr_active_anon", "nr_inactive_file", "nr_active_file", "nr_unevictable")
    return {"nr_free_pages": int(ram.zone_free.sum())} | dict(zip(names, lists, strict=True))


def _token_times(ram: Any, process: int) -> list[int]:
    """Virtual ns of each evaluation of a process that has ended: between its MARKs, the last to its end."""
    marks, end = int(ram.proc_tokens[process]) + 1, int(ram.proc_end_ns[process])
    times = ram.proc_token_ns[process, :marks].tolist() + [end] * (end > 0)
    return [after - before for before, after in itertools.pairwise(times)]


def _series(ram: Any) -> Series:
    """Free memory over virtual time, thinned to what a picture can show."""
    count = min(int(ram.run_series_count[0]), ram.series_length)
    rows = ram.series[:count]
    rows = rows[rows[:, 0].argsort()][:: max(1, count // SERIES_POINTS)]
    return Series(
        t_ns=rows[:, 0].tolist(),
        free_mib=[(rows[:, 1 + node] / PAGES_PER_MIB).round(3).tolist() for node in range(ram.nr_nodes)],
    )
