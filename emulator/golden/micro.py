"""Do the recorded micro scenarios on emulated CPUs: one machine per scenario and number of threads, all its
cells one after the other.

Each machine runs in controlled mode (one lease), so that the same seed gives the same figures to the last
event; several machines run at a time. The memory management knows nothing of scenarios: they are scripts
(workloads/scenarios.py) like any other workload. Left out: the recorded machine's idle CPUs, its other
processes, its clock.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from emulator.experiment import run_design
from emulator.golden.data import Key, MicroCell
from emulator.host_facts import HostError
from emulator.machine import load_machine
from emulator.order import LONG_SLICE_NS
from emulator.snapshots import Snapshots
from emulator.stopped import CpuDied, HostFault
from workloads.scenarios import (
    BY_NAME,
    NR_SLOTS,
    SCENARIOS,
    Repetitions,
    first_slots,
    scenario_script,
    snapshot_name,
)

MACHINE = "guest-8cpu"
SETTINGS = {  # of the micro runs, as recorded
    "nodes.0.memory_mib": 384, "nodes.1.memory_mib": 960, "sysctl.numa_balancing": 0,
    "sysctl.demotion_enabled": False,
}  # fmt: skip
TIMES = 3  # as many as were traced
COUNTERS = ("pgfault", "pgmajfault", "pgmigrate_success", "pgsteal_file")
NOT_RECORDED = "task_switch/"  # these tlb_flush events
Group = tuple[str, int, tuple[int, ...]]  # scenario, threads, pages


def scenario_names() -> tuple[str, ...]:
    """Return the names of the scenarios that can be emulated."""
    return tuple(scenario.name for scenario in SCENARIOS)


def emulate_micro(
    cells: Sequence[Key], *, seed: int = 1, jobs: int = 2, progress: Any = None
) -> dict[Key, MicroCell]:
    """Emulate cells (scenario, T, P), `jobs` machines at a time; gives what each did in TIMES repetitions.

    A machine that cannot finish, or does not account for everything, says so in `problem` and `clean` of its
    cells. Raises what the host is to blame for: CpuDied, HostFault, HostError, OSError,
    MemoryError.
    """
    groups = list(_groups(cells))
    every = {
        threads: tuple(sorted({p for _, t, p in cells if t == threads}))
        for threads in {t for _, t, _ in cells}
    }
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
        noted = Snapshots(ram, script)
        found.update({(name, threads, cell.pages): _cell(noted, cell) for cell in cells})

    try:
        machine = load_machine(MACHINE, scale=1, cpus=threads, overrides=SETTINGS)
        result = run_design(
            "linux",
            machine,
            script.workload(),
            leases=1,
            seed=seed,
            slice_ns=LONG_SLICE_NS,  # small operations one after the other
            observe=observe,
        )
    except (CpuDied, HostFault, HostError, OSError, MemoryError):
        raise  # what the host does is no difference from a real kernel
    except Exception as error:  # noqa: BLE001 (whatever it was, it is reported beside the cells that are missing for it)
        return {
            (name, threads, p): MicroCell({}, {}, False, " ".join(str(error).split()) or type(error).__name__)
            for p in pages
        }
    if result.clean:
        return found
    return {key: MicroCell(cell.counters, cell.traced, False, cell.problem) for key, cell in found.items()}


def _cell(noted: Snapshots, cell: Repetitions) -> MicroCell:
    """Read what happened between the snapshots of a cell."""
    counters: dict[str, list[int]] = {}
    traced: dict[str, list[int]] = {}
    for repetition in range(cell.times):
        around, traced_part, measured = (
            noted.between(
                snapshot_name(cell.pages, repetition, f"{moment}0"),
                snapshot_name(cell.pages, repetition, f"{moment}1"),
            )
            for moment in ("vm", "trace", "irq")
        )
        counters.setdefault("tlb_ipi", []).append(sum(measured.interrupts))
        for name in COUNTERS:
            counters.setdefault(name, []).append(around.counters[name])
        for event, count in traced_part.tlb_flush.items():
            if not event.startswith(NOT_RECORDED):
                traced.setdefault(event, [0] * cell.times)[repetition] = count
    return MicroCell(counters, traced)
