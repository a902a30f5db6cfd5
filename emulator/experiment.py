"""One run of a design on a machine and a workload: described whole, run here or elsewhere, and what it did as
a `Result`.

    machine = load_machine("xeon6430-cxl", scale=512)
    result = run_design("luf", machine, "llama3x15", tokens=2, leases=2, seed=1)

    sent = pickle.dumps(Experiment("my.py:Mine", machine, "script.toml", tokens=1, leases=1))
    result = pickle.loads(sent).run()          # in a process that has neither file

The order: build the RAM (build.py), start the CPU processes (supervisor.py), watch until the last
user thread has ended, let kernel threads finish, stop, audit, collect (counts.py). A violation ends the run
at once; its witness is in the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from numbers import Integral, Real
from typing import Any

from allocator.cpu import cpu_loop
from allocator.panic import panic_text
from cpus.abi.numbers import LEASES_MAX, PAGES_PER_MIB
from cpus.uncompiled import UNCOMPILED
from designs import shelf
from designs.design import Design, DesignError
from designs.ready import ReadyDesign
from emulator.build import RunOptions, build, file_sizes
from emulator.counts import counts, free_pages, scheduled
from emulator.exercised import exercised
from emulator.host_facts import memory_for
from emulator.judge.audit import audit
from emulator.judge.bad_access import explained
from emulator.judge.luf_findings import debug_counts, debug_findings
from emulator.judge.traces import Printer
from emulator.judge.witness import violations, windows
from emulator.machine import Machine, rescaled
from emulator.order import SLICE_NS, hangs_on
from emulator.perfetto.file import TraceFile
from emulator.perfetto.recorder import Recorder
from emulator.report.live import seen
from emulator.report.progress import shown_in_notebooks
from emulator.result import Result
from emulator.schedule import Schedule
from emulator.streams import tell
from emulator.supervisor import Panicked, RunStopped, Supervisor
from workloads import Workload, is_recorded, names
from workloads import workload as make_workload
from workloads.generated import is_generated
from workloads.parameters import Room
from workloads.rows import MARK
from workloads.rules.one_row import check_nodes

LITMUS_MACHINE = "litmus"
COMPILED_IF_LONGER_S = 5.0
CHECKS = ("full", "accesses", "states", "bounds", "off")
NUMBERS: dict[str, tuple[Any, float, float]] = {
    "memory": (Real, 0.01, 100.0),
    "tokens": (Integral, 0, 2**31 - 1),  # each workload has a limit of its own
    "leases": (Integral, 0, LEASES_MAX),
    "seed": (Integral, 0, 2**63 - 1),
    "slice_ns": (Integral, 1, 10**12),
}
MAY_BE_NONE = ("memory", "slice_ns")


class StatisticsError(DesignError):
    """A design cannot give its figures of a run that is over: one sentence. `result` has all others, and the
    sentence as a finding of the design.
    """

    def __init__(self, sentence: str, result: Result):
        super().__init__(sentence)
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle whole: an exception of another process arrives as it was."""
        return type(self), (str(self), self.result), vars(self)


def design_names() -> dict[str, str]:
    """Give name -> one line of every design on the shelf, with each value of its parameters."""
    return shelf.names()


@dataclass(frozen=True, slots=True)
class Experiment:
    """One run, by value: it pickles, and runs the same in another process, or on another host that has luf.

    `design` is a name, FILE.py:CLASS or an object; the text of a user's file travels with it
    (designs/sent.py). `machine` is scaled already, and its scale is that of a workload which is made by its
    name. `workload` is a name, a path, or a Workload; a path is read at once, and travels as rows. `memory`
    is a share of the workload's working set: the machine is scaled anew, to have so much. `leases` 1 is the
    controlled mode: the same seed repeats the run exactly. `slice_ns`: how far a CPU runs in virtual time
    before others that are behind it go first; a schedule has one of its own. `check` is full (the oracle
    judges every access, and frames before they change hands), accesses or states (only one of these), bounds
    (full, and the design's own code is compiled with indexes, owners and divisions checked) or off.
    `debug_luf` adds LUF's debug feature (docs/debug-luf.md), for luf, luf_v12 and what is made of them; what
    it found is in `debug_luf` and `debug_findings` of the result. With a `schedule` CPUs hand over anywhere
    in the kernel, as it says (schedule.py), and with several leases they are held up there. Raises ValueError
    for bad input.
    """

    design: Any
    machine: Machine
    workload: str | Workload = "llama3x15"
    _: KW_ONLY
    memory: float | None = None
    tokens: int = 2
    leases: int = 2
    seed: int = 1
    slice_ns: int | None = None
    check: str = "full"
    strict_ipi: bool = False
    debug_luf: bool = False
    schedule: Schedule | None = None
    memory_text: str = ""  # once `memory` has been given: of what

    def __post_init__(self) -> None:
        _check_kinds(self)
        _check_numbers(**{name: getattr(self, name) for name in NUMBERS})
        if not isinstance(self.design, ReadyDesign):
            object.__setattr__(self, "design", shelf.ready(self.design))
        if self.schedule is not None:
            _check_schedule(self)
        if self.debug_luf:
            self.design.check_debug_luf()
        if isinstance(self.workload, str) and self.workload.partition(":")[0] not in names():
            object.__setattr__(self, "workload", self.made())
        if isinstance(self.workload, Workload):
            check_nodes(self.workload, len(self.machine.nodes))

    def sized(self) -> Experiment:
        """Give the same with the machine scaled to the memory that was asked for, and the workload that it
        was measured by.

        That workload is what runs: made anew, one that goes by the machine's room would go by the new room,
        and the share mean nothing.
        """
        if self.memory is None:
            return self
        workload = self.made()
        scale = f" at scale 1/{self.machine.scale:.4g}"
        size = ", which is not scaled" if is_recorded(workload.name) else scale
        text = f"memory {self.memory * 100:.4g} %: of the working set of the workload{size}"
        machine = rescaled(self.machine, squeezed(self.machine, workload, self.memory))
        return replace(self, machine=machine, workload=workload, memory=None, memory_text=text)

    def made(self) -> Workload:
        """Give its workload, made now if it is a name."""
        if isinstance(self.workload, Workload):
            return self.workload
        return workload_of(self.workload, self.machine.scale, self.tokens, self.seed, self.machine)

    def options(self) -> RunOptions:
        """Give what of it the build of its RAM goes by."""
        return RunOptions(
            leases=self.leases,
            seed=self.seed,
            check=self.check in ("full", "accesses", "bounds"),
            states=self.check not in ("off", "accesses"),
            bounds=self.check == "bounds",
            strict_ipi=self.strict_ipi,
            controlled=self.leases == 1,
            debug_luf=self.debug_luf,
            schedule=self.schedule,
            slice_ns=self.longest_slice_ns,
        )

    @property
    def longest_slice_ns(self) -> int:
        """Give how far a CPU runs in virtual time before it lets those that are behind go first."""
        if self.schedule is not None:
            return self.schedule.longest_slice_ns
        return self.slice_ns or SLICE_NS

    @property
    def order_text(self) -> str:
        """Say why figures hang on how it is emulated; nothing of a run that looks for failures."""
        if self.schedule is not None or self.machine.name == LITMUS_MACHINE:
            return ""
        return hangs_on(self.leases, self.longest_slice_ns)

    def run(
        self,
        *,
        progress: Any = None,
        observe: Callable[[Any], None] | None = None,
        trace: TraceFile | None = None,
    ) -> Result:
        """Run it, and give what it did. `observe` is called with the RAM when the run is over and audited
        (for the workload's snapshots, say); `trace` gets the run, however it ends (docs/trace.md). Raises
        RunStopped when the run cannot be finished (DesignFault if a hook is to blame), StatisticsError, which
        has the result, if the design cannot give its figures, Interrupted on Ctrl-C or SIGTERM.
        """
        one = self.sized()
        workload = one.made()
        needed = memory_for(workload.name, sum(file_sizes(workload).values()))
        with needed, shown_in_notebooks(progress, one.design.name) as shown:
            return _run_made(replace(one, workload=workload), shown, observe, trace)


def run_design(
    design: str | Design,
    machine: Machine,
    workload: str | Workload = "llama3x15",
    *,
    progress: Any = None,
    observe: Callable[[Any], None] | None = None,
    **options: Any,
) -> Result:
    """Run a design on a machine that is already scaled; returns what it did. What it takes, and what it
    raises, is said at `Experiment`, and at its `run`.
    """
    return Experiment(design, machine, workload, **options).run(progress=progress, observe=observe)


def _check_kinds(given: Experiment) -> None:
    """Raise ValueError for the first part of an experiment that is not what it must be."""
    if not isinstance(given.design, str | Design | ReadyDesign):
        raise ValueError(
            "'design' must be a name, FILE.py:CLASS or an object of a subclass of "
            f"designs.Design (got {given.design!r})"
        )
    if not isinstance(given.machine, Machine):
        raise ValueError(f"'machine' must be a Machine, as load_machine returns it (got {given.machine!r})")
    if not isinstance(given.workload, str | Workload):
        raise ValueError(f"'workload' must be a name, a path or a Workload (got {given.workload!r})")
    if given.check not in CHECKS:
        raise ValueError(f"'check' must be one of {', '.join(CHECKS)} (got {given.check!r})")


def _check_schedule(given: Experiment) -> None:
    """Raise ValueError for a schedule that is none, or that this experiment cannot have."""
    if not isinstance(given.schedule, Schedule):
        raise ValueError(f"'schedule' must be a Schedule (got {given.schedule!r})")
    if given.check == "bounds":
        raise ValueError("'check' must be full or off in a run with a schedule (got 'bounds')")
    if UNCOMPILED:
        raise ValueError(
            "'schedule' must not be given while NUMBA_DISABLE_JIT=1 is set: only compiled code has points"
        )
    for name, does in (("rules", "checks rules"), ("points_max", "has a bound"), ("records", "is recorded")):
        if getattr(given.schedule, name) and given.leases != 1:
            raise ValueError(f"'leases' must be 1 where the schedule {does} (got {given.leases})")
    for name, cpus in (("cpu", [given.schedule.cpu]), ("switches", [s[2] for s in given.schedule.switches])):
        if max(cpus, default=0) >= given.machine.cpus:
            raise ValueError(
                f"'schedule.{name}' must name CPUs below the machine's {given.machine.cpus} (got {max(cpus)})"
            )


def _check_numbers(**given: object) -> None:
    """Raise ValueError for a number that is none, or beyond its bounds. NUMBERS holds them."""
    for name, value in given.items():
        kind, least, most = NUMBERS[name]
        if value is None and name in MAY_BE_NONE:
            continue
        if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
            noun = "a whole number" if kind is Integral else "a number"
            raise ValueError(f"'{name}' must be {noun} from {least:,} to {most:,} (got {value!r})")


def workload_of(name: str, scale: float, tokens: int, seed: int, machine: Machine | None = None) -> Workload:
    """Make a workload by name or path; a recorded trace is taken as it is, a generated one at `scale`, or for
    the machine's room.
    """
    room = Room(machine.cpus, sum(machine.pages)) if machine is not None else None
    scale = 1.0 if is_recorded(name) else scale
    with memory_for(name):
        return make_workload(name, scale=scale, tokens=tokens, seed=seed, room=room)


def squeezed(machine: Machine, workload: Workload, share: float) -> float:
    """Give the scale at which the machine's memory is `share` of the workload's working set."""
    full_pages = sum(node.memory_mib for node in machine.nodes) * PAGES_PER_MIB
    return max(1.0, full_pages / (share * workload.working_set_pages()))


def _run_made(
    one: Experiment, progress: Any, observe: Callable[[Any], None] | None, trace: TraceFile | None
) -> Result:
    assert isinstance(one.workload, Workload)
    began = time.monotonic()
    _phase(progress, "loading the engine")
    ram = build(
        one.machine,
        one.workload,
        one.design,
        replace(one.options(), spans=trace is not None),
        lambda name, i, n: _phase(progress, f"compiling {i + 1}/{n} {name}"),
    )
    try:
        spans = trace.recorder(ram) if trace else None
        try:
            result = _run(ram, one, began, time.monotonic() - began, progress, spans)
        finally:
            if trace and spans:
                _phase(progress, "writing the trace")
                label = f"virtual time; {one.machine.name}, leases {one.leases}"
                trace.add(spans, one.made(), f"{one.design.name}, seed {one.seed}", label)
        if observe is not None:
            observe(ram)
        return result
    except RunStopped as stopped:
        stopped.design = one.design.name
        if one.schedule:
            stopped.schedule, stopped.scheduled = one.schedule, scheduled(ram)
        raise (explained(stopped, ram, one.workload) if isinstance(stopped, Panicked) else stopped) from None
    finally:
        ram.close()


def _watched(ram: Any, one: Experiment, progress: Any, spans: Recorder | None) -> tuple[str, float, float]:
    """Have the CPUs run to the end; gives how that came, and the host's seconds for the run and before it."""
    assert isinstance(one.workload, Workload)
    _phase(progress, f"starting {one.machine.cpus} CPUs")
    evaluations, nodes = _evaluations(one.workload), [node.name for node in one.machine.nodes]
    say = tell if progress is None else progress.line
    machinery = Supervisor(
        ram,
        cpu_loop,
        label=one.design.name,
        panic_text=panic_text,
        hook_places=one.design.places,
        say=say,
    )

    def look(ram: Any) -> None:
        _tell_progress(ram, progress, nodes, evaluations)
        traces.look()
        if spans:
            spans.look()

    with Printer(ram, say) as traces, machinery as processes:
        started = time.monotonic()
        processes.start()
        outcome = processes.watch(lambda ram: int(ram.run_tasks_left[0]) == 0, look)
        if outcome == "finished":
            outcome = processes.quiesce(look)
            _tell_progress(ram, progress, nodes, evaluations, over=True)
        ended = time.monotonic()
        processes.finish()
        return outcome, ended - started, processes.ready_s


def _run(
    ram: Any, one: Experiment, began: float, build_s: float, progress: Any, spans: Recorder | None
) -> Result:
    machine, workload, design = one.machine, one.workload, one.design
    assert isinstance(workload, Workload)
    outcome, host_s, startup_s = _watched(ram, one, progress, spans)
    lost = None
    counted = counts(ram, machine)
    total = {name: sum(per_cpu) for name, per_cpu in counted["counters"].items()}
    relies_on: tuple[str, ...] = design.relies_on
    try:
        figures = design.statistics(ram)
        taken = exercised(ram.layout.counters, total, relies_on, figures)
    except DesignError as error:  # the run is over: what it found must not be lost
        lost, figures = error, {"findings": [f"its statistics cannot be had: {error}"]}
        relies_on, taken = (), exercised(ram.layout.counters, total, (), figures)
    result = Result(
        design=design.name,
        **counted,
        **(scheduled(ram) | {"schedule": one.schedule.about()} if one.schedule else {}),
        exercised=taken,
        relies_on=list(relies_on),
        accounted={name: list(pair) for name, pair in audit(ram).items()} if outcome == "finished" else {},
        violations=violations(ram, workload, design.name),
        exposures=int(ram.run_exposures[0]),
        windows=int(ram.run_windows[0]),
        window_proofs=windows(ram, workload),
        debug_luf=debug_counts(ram) if one.debug_luf else {},
        debug_findings=debug_findings(ram, workload) if one.debug_luf else [],
        design_stats=figures,
        host_seconds=round(host_s, 3),
        startup_seconds=round(startup_s, 3),
        machine=machine.name,
        machine_text=machine.summary(),
        scale_text=machine.scaled_summary(),
        overrides=machine.overrides,
        design_parameters=design.parameters,
        workload_parameters=dict(workload.parameters),
        strict_ipi=one.strict_ipi,
        workload=workload.name,
        tokens=workload.tokens,
        unit="round" if is_generated(workload.name) else "token",
        scale=machine.scale,
        seed=one.seed,
        leases=one.leases,
        slice_ns=one.longest_slice_ns,
        check=one.check,
        memory_text=one.memory_text,
        order_text=one.order_text,
        workload_text=workload.description,
        engine_text=f"engine compiled in {build_s:.0f} s"
        if build_s > COMPILED_IF_LONGER_S
        else "engine from cache",
    )
    if lost:
        raise StatisticsError(str(lost), result) from lost
    return result


def _phase(progress: Any, text: str) -> None:
    if progress is not None:
        progress.phase(text)


def _evaluations(workload: Workload) -> int:
    """Count the MARK rows of all processes: the steps of the progress bar."""
    return max(
        1, sum(int((rows["op"] == MARK).sum()) for process in workload.processes for rows in process.threads)
    )


def _tell_progress(ram: Any, progress: Any, nodes: list[str], evaluations: int, over: bool = False) -> None:
    if progress is None:
        return
    free = [round(pages / PAGES_PER_MIB, 1) for pages in free_pages(ram)]
    begun = max(0, int(ram.run_tokens[0]) - int(ram.nr_processes))  # a mark says that an evaluation begins
    done = evaluations if over else begun
    look = partial(seen, ram, nodes)
    progress.update(done, evaluations, free_mib=free, ipis=int(ram.ipi_requests.sum()), look=look)
