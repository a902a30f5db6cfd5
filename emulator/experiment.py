"""Run one design on a machine and a workload, and give what it did as a `Result`.

    machine = load_machine("xeon6430-cxl", scale=512)
    result = run_design("luf", machine, "llama3x15", tokens=2, leases=2, seed=1)

The order: build the RAM (build.py), start the CPU processes (supervisor.py), watch until the last
user thread has ended, let kernel threads finish, stop, audit, collect. A violation ends the run at once; its
witness is in the result.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np

from allocator.cpu import cpu_loop
from allocator.flush_sites import SITE_NAMES
from allocator.panic import panic_text
from cpus.abi.numbers import LEASES_MAX, PAGES_PER_MIB
from cpus.declare import VMSTAT
from cpus.events import EVENT_RING, EVENT_WORDS
from designs import shelf
from designs.design import Design, hook_places
from designs.user_design import statistics_of
from emulator.build import RunOptions, build
from emulator.judge.audit import audit
from emulator.judge.bad_access import explained
from emulator.judge.luf_findings import debug_counts, debug_findings
from emulator.judge.traces import Printer
from emulator.judge.witness import violations
from emulator.machine import Machine
from emulator.report.timeline import timeline
from emulator.result import Ipi, Result, Series, Unmapped
from emulator.streams import tell
from emulator.supervisor import Panicked, RunStopped, Supervisor
from workloads import Workload, is_recorded
from workloads import workload as make_workload
from workloads.generated import is_generated
from workloads.parameters import Room
from workloads.rules.one_row import check_nodes

VIOLATIONS_TO_STOP = 1
COMPILED_IF_LONGER_S = 5.0
SERIES_POINTS = 400
CHECKS = ("full", "bounds", "off")
NUMBERS: dict[str, tuple[Any, int, int]] = {
    "scale": (Real, 1, 2**20),
    "tokens": (Integral, 0, 2**31 - 1),  # each workload has a limit of its own
    "leases": (Integral, 0, LEASES_MAX),
    "seed": (Integral, 0, 2**63 - 1),
}


def design_names() -> dict[str, str]:
    """Give name -> one line of every design on the shelf, with each value of its parameters."""
    return shelf.names()


def run_design(
    design: str | Design,
    machine: Machine,
    workload: str | Workload = "llama3x15",
    *,
    scale: float | None = None,
    tokens: int = 2,
    leases: int = 2,
    seed: int = 1,
    check: str = "full",
    strict_ipi: bool = False,
    debug_luf: bool = False,
    progress: Any = None,
    observe: Callable[[Any], None] | None = None,
) -> Result:
    """Run a design (by name, as FILE.py:CLASS, or an object) on a machine that is already scaled; returns
    what it did.

    `leases` 1 is the controlled mode: the same seed repeats the run exactly. `debug_luf` adds LUF's debug
    feature (docs/debug-luf.md), for luf, luf_v12 and what is made of them; what it found is in `debug_luf`
    and `debug_findings`. `observe` is called with the RAM when the run is over and audited (for the
    workload's snapshots, say). `check` is full (the oracle judges every access), bounds (that, and the
    design's own code is compiled with indexes, owners and divisions checked) or off. Raises ValueError for
    bad input, RunStopped when the run cannot be finished (DesignFault if a hook is to blame), Interrupted on
    Ctrl-C or SIGTERM.
    """
    _check_arguments(design, machine, workload, check)
    _check_numbers(scale=scale, tokens=tokens, leases=leases, seed=seed)
    chosen = shelf.design(design) if isinstance(design, str) else design
    size = machine.scale if scale is None else scale
    what = workload_of(workload, size, tokens, seed, machine) if isinstance(workload, str) else workload
    check_nodes(what, len(machine.nodes))
    options = RunOptions(
        leases=leases,
        seed=seed,
        check=check != "off",
        bounds=check == "bounds",
        strict_ipi=strict_ipi,
        controlled=leases == 1,
        debug_luf=debug_luf,
    )
    began = time.monotonic()
    _phase(progress, "loading the engine")
    ram = build(
        machine, what, chosen, options, lambda name, i, n: _phase(progress, f"compiling {i + 1}/{n} {name}")
    )
    try:
        result = _run(ram, machine, what, chosen, options, check, began, time.monotonic() - began, progress)
        if observe is not None:
            observe(ram)
        return result
    except RunStopped as stopped:
        stopped.design = chosen.name
        raise (explained(stopped, ram, what) if isinstance(stopped, Panicked) else stopped) from None
    finally:
        ram.close()


def _check_arguments(design: object, machine: object, workload: object, check: object) -> None:
    """Raise ValueError for the first argument of run_design that is not what it must be."""
    if not isinstance(design, str | Design):
        raise ValueError(
            "'design' must be a name, FILE.py:CLASS or an object of a subclass of "
            f"designs.Design (got {design!r})"
        )
    if not isinstance(machine, Machine):
        raise ValueError(f"'machine' must be a Machine, as load_machine returns it (got {machine!r})")
    if not isinstance(workload, str | Workload):
        raise ValueError(f"'workload' must be a name, a path or a Workload (got {workload!r})")
    if check not in CHECKS:
        raise ValueError(f"'check' must be one of {', '.join(CHECKS)} (got {check!r})")


def _check_numbers(**given: object) -> None:
    """Raise ValueError for a number of run_design that is none, or beyond its bounds. NUMBERS holds them."""
    for name, value in given.items():
        kind, least, most = NUMBERS[name]
        if value is None and name == "scale":
            continue
        if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
            noun = "a whole number" if kind is Integral else "a number"
            raise ValueError(f"'{name}' must be {noun} from {least:,} to {most:,} (got {value!r})")


def workload_of(name: str, scale: float, tokens: int, seed: int, machine: Machine | None = None) -> Workload:
    """Make a workload by name or path; a recorded trace is taken as it is, a generated one at `scale`, or for
    the machine's room.
    """
    room = Room(machine.cpus, sum(machine.pages)) if machine is not None else None
    return make_workload(name, scale=1.0 if is_recorded(name) else scale, tokens=tokens, seed=seed, room=room)


def squeezed(machine: Machine, workload: Workload, share: float) -> float:
    """Give the scale at which the machine's memory is `share` of the workload's working set."""
    full_pages = sum(node.memory_mib for node in machine.nodes) * PAGES_PER_MIB
    return max(1.0, full_pages / (share * workload.working_set_pages()))


def _run(ram: Any, machine: Machine, workload: Workload, design: Design, options: RunOptions, check: str,
         began: float, build_s: float, progress: Any) -> Result:  # fmt: skip
    _phase(progress, f"starting {machine.cpus} CPUs")
    evaluations = _evaluations(workload)
    machinery = Supervisor(
        ram,
        cpu_loop,
        label=design.name,
        panic_text=panic_text,
        hook_places=hook_places((*design.hooks, *design.debug_hooks)),
    )

    def look(ram: Any) -> None:
        _tell_progress(ram, progress, evaluations)
        traces.look()

    with Printer(ram, tell if progress is None else progress.line) as traces, machinery as processes:
        started = time.monotonic()
        processes.start()
        outcome = processes.watch(
            lambda ram: int(ram.run_tasks_left[0]) == 0,
            look,
            violations_limit=VIOLATIONS_TO_STOP,
        )
        if outcome == "finished":
            processes.quiesce()
            _tell_progress(ram, progress, evaluations, over=True)
        ended = time.monotonic()
        processes.finish()
        startup_s = processes.ready_s
    return Result(
        design=design.name,
        **_counts(ram, machine),
        accounted={name: list(pair) for name, pair in audit(ram).items()} if outcome == "finished" else {},
        violations=violations(ram, workload, design.name),
        debug_luf=debug_counts(ram) if options.debug_luf else {},
        debug_findings=debug_findings(ram, workload) if options.debug_luf else [],
        design_stats=statistics_of(design, ram),
        host_seconds=round(ended - started, 3),
        startup_seconds=round(startup_s, 3),
        machine=machine.name,
        machine_text=machine.summary(),
        scale_text=machine.scaled_summary(),
        overrides=machine.overrides,
        design_parameters=dict(getattr(design, "chosen", {})),
        workload_parameters=dict(workload.parameters),
        strict_ipi=options.strict_ipi,
        workload=workload.name,
        tokens=workload.tokens,
        unit="round" if is_generated(workload.name) else "token",
        scale=machine.scale,
        seed=options.seed,
        leases=options.leases,
        check=check,
        workload_text=workload.description,
        engine_text=f"engine compiled in {build_s:.0f} s"
        if build_s > COMPILED_IF_LONGER_S
        else "engine from cache",
    )


def _phase(progress: Any, text: str) -> None:
    if progress is not None:
        progress.phase(text)


def _evaluations(workload: Workload) -> int:
    """Count the MARK rows of all processes: the steps of the progress bar."""
    from workloads.rows import MARK

    return max(
        1, sum(int((rows["op"] == MARK).sum()) for process in workload.processes for rows in process.threads)
    )


def _tell_progress(ram: Any, progress: Any, evaluations: int, over: bool = False) -> None:
    if progress is None:
        return
    free = [round(pages / PAGES_PER_MIB, 1) for pages in _free_pages(ram)]
    begun = max(0, int(ram.run_tokens[0]) - int(ram.nr_processes))  # a mark says that an evaluation begins
    done = evaluations if over else begun
    progress.update(done, evaluations, free_mib=free, ipis=int(ram.ipi_requests.sum()))


def _free_pages(ram: Any) -> list[int]:
    """Free pages of each node."""
    return [int(ram.zone_free[ram.zone_node == node].sum()) for node in range(ram.nr_nodes)]


def _counts(ram: Any, machine: Machine) -> dict[str, Any]:
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
        | _gauges(ram),
        "counters": per_cpu,
        "token_ns": [_token_times(ram, p) for p in processes],
        "series": _series(ram),
        "timeline": timeline(ram),
        "fingerprint": _fingerprint(ram),
        "node_names": [node.name for node in machine.nodes],
    }


def _fingerprint(ram: Any) -> str:
    """Hash what happened: the event sequence as far as the rings hold it, all counters, clocks, and the order
    of hand-overs.
    """
    digest = hashlib.sha256()
    for cpu, count in enumerate(ram.cpu_event_head.tolist()):
        digest.update(ram.event[cpu, : min(count, EVENT_RING) * EVENT_WORDS].tobytes())
    for words in (ram.counter, ram.cpu_clock, ram.site_ipis, ram.run_schedule_hash):
        digest.update(np.ascontiguousarray(words).tobytes())
    return digest.hexdigest()


def _gauges(ram: Any) -> dict[str, int]:
    """What /proc/vmstat shows of the present state."""
    lists = ram.lru_size.sum(axis=0).tolist()
    names = ("nr_inactive_anon", "nr_active_anon", "nr_inactive_file", "nr_active_file", "nr_unevictable")
    return {"nr_free_pages": int(ram.zone_free.sum())} | dict(zip(names, lists, strict=True))


def _token_times(ram: Any, process: int) -> list[int]:
    """Virtual ns of each evaluation of a process: between its MARKs, the last to its end."""
    marks = int(ram.proc_tokens[process]) + 1
    times = [*ram.proc_token_ns[process, :marks].tolist(), int(ram.proc_end_ns[process])]
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
