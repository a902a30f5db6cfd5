"""Do the recorded micro scenarios on emulated CPUs: one machine per scenario and number of threads, all its cells one after the other.

Each machine runs in controlled mode (one lease), so that the same seed gives the same figures to the last event; several machines run at a
time. The memory management knows nothing of scenarios: they are scripts (workloads/scenarios.py) like any other workload.
Left out: the recorded machine's idle CPUs, its other processes, its clock.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import numpy as np

from allocator.tlb_flush import ALL_PAGES, ON_TASK_SWITCH, REASON_NAMES
from cpus.layout import COUNTER, TRACE_PAGES, TRACE_REASONS
from emulator.experiment import run_design
from emulator.golden_data import Key, MicroCell
from emulator.machine import load_machine
from workloads.scenarios import BY_NAME, NR_SLOTS, SCENARIOS, Repetitions, first_slots, scenario_script, snapshot_name
from workloads.script import Script

MACHINE = "guest-8cpu"
SETTINGS = {  # of the micro runs, as recorded
    "nodes.0.memory_mib": 384, "nodes.1.memory_mib": 960, "sysctl.numa_balancing": 0, "sysctl.demotion_enabled": False,
}  # fmt: skip
TIMES = 3  # as many as were traced
COUNTERS = ("pgfault", "pgmajfault", "pgmigrate_success", "pgsteal_file")
Group = tuple[str, int, tuple[int, ...]]  # scenario, threads, pages


def scenario_names() -> tuple[str, ...]:
    """Return the names of the scenarios that can be emulated."""
    return tuple(scenario.name for scenario in SCENARIOS)


def emulate_micro(cells: Sequence[Key], *, seed: int = 1, jobs: int = 2, progress: Any = None) -> dict[Key, MicroCell]:
    """Emulate cells (scenario, T, P), `jobs` machines at a time; gives what each did in TIMES repetitions.

    A machine that cannot finish, or does not account for everything, says so in `problem` and `clean` of its cells.
    """
    groups = list(_groups(cells))
    every = {threads: tuple(sorted({p for _, t, p in cells if t == threads})) for threads in {t for _, t, _ in cells}}
    found: dict[Key, MicroCell] = {}
    if progress is not None:
        progress.phase("loading the engine")
    found |= _emulate(groups[0], every[groups[0][1]], seed)  # here, so that what it compiles is there for all
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork")) as pool:
        running = [pool.submit(_emulate, group, every[group[1]], seed) for group in groups[1:]]
        for done in as_completed(running):
            found |= done.result()
            if progress is not None:
                progress.update(len(found), len(cells))
    return found


def _groups(cells: Sequence[Key]) -> Iterator[Group]:
    """Collect the cells that one machine does; those with most interrupts first."""
    pages: dict[tuple[str, int], list[int]] = {}
    for scenario, threads, p in cells:
        pages.setdefault((scenario, threads), []).append(p)
    for (scenario, threads), of in sorted(pages.items(), key=lambda item: -item[0][1]):
        yield scenario, threads, tuple(sorted(of))


def _emulate(group: Group, every: tuple[int, ...], seed: int) -> dict[Key, MicroCell]:
    """Run one machine."""
    name, threads, pages = group
    first = first_slots(name, every)
    cells = [Repetitions(p, first[p], TIMES) for p in pages]
    script = scenario_script(BY_NAME[name], threads, cells, leftover=first[pages[0]] < NR_SLOTS)
    found: dict[Key, MicroCell] = {}

    def observe(ram: Any) -> None:
        found.update({(name, threads, cell.pages): _cell(ram, script, cell) for cell in cells})

    try:
        machine = load_machine(MACHINE, scale=1, cpus=threads, overrides=SETTINGS)
        result = run_design("linux", machine, script.workload(), leases=1, seed=seed, observe=observe)
    except Exception as error:  # noqa: BLE001 (whatever it was, it is told beside the cells that are missing for it)
        return {(name, threads, p): MicroCell({}, {}, False, " ".join(str(error).split()) or type(error).__name__) for p in pages}
    if result.clean:
        return found
    return {key: MicroCell(cell.counters, cell.traced, False, cell.problem) for key, cell in found.items()}


def _cell(ram: Any, script: Script, cell: Repetitions) -> MicroCell:
    """Read the differences between the snapshots of a cell."""
    counters: dict[str, list[int]] = {}
    traced: dict[str, list[int]] = {}
    for repetition in range(cell.times):
        at = {moment: script.snapshots[snapshot_name(cell.pages, repetition, moment)] for moment in ("vm0", "vm1", "trace0", "trace1")}
        irq = (script.snapshots[snapshot_name(cell.pages, repetition, moment)] for moment in ("irq1", "irq0"))
        after, before = (ram.snapshot_irq[number] for number in irq)
        counters.setdefault("tlb_ipi", []).append(int((after - before).sum()))
        moved = ram.snapshot[at["vm1"]] - ram.snapshot[at["vm0"]]
        for name in COUNTERS:
            counters.setdefault(name, []).append(int(moved[COUNTER[name]]))
        events = (ram.snapshot_tlb[at["trace1"]] - ram.snapshot_tlb[at["trace0"]]).reshape(TRACE_REASONS, TRACE_PAGES)
        for reason, pages in np.argwhere(events).tolist():
            if reason != ON_TASK_SWITCH:  # not recorded
                key = f"{REASON_NAMES[reason]}/{'all0' if pages == ALL_PAGES else pages}"
                traced.setdefault(key, [0] * cell.times)[repetition] = int(events[reason, pages])
    return MicroCell(counters, traced)
