"""Runs that use their processes again: an emulation of a few milliseconds is not worth a start of a hundred.

    with Arena() as arena:
        for seed in range(1000):
            outcome = arena.run(Experiment("luf", machine, workload, leases=1, seed=seed))

One segment of memory holds one machine after the other: each run lays RAM out anew, with other offsets if its
sizes are others, and boots it. CPU processes are parked beside it meanwhile (cpus/process.py); a machine with
fewer CPUs than there are leaves the others there. What a RAM says of its processes (sockets, poll sets,
pids) is carried over; so are the addresses of compiled code, of each design and engine that has run here.
Code is compiled or loaded before processes are forked, so another design's first run has new ones.
Under one lease a violation or a panic leaves all CPUs asleep in the midst of something, which they drop.
Another run that did not end in peace leaves its processes anywhere: they are killed, and forked again for the
next.
Left out: what a whole report has of a run (experiment.py). A run here and there does the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import numpy as np

from allocator.cpu import cpu_loop
from allocator.panic import panic_text
from cpus.held_signals import signals_held
from cpus.process import ProcessWords
from cpus.ram import Segment
from cpus.uncompiled import UNCOMPILED
from cpus.zeromq import set_functions
from designs.memory_map import MACHINE
from emulator.build import RunOptions, boot, install_text, lay_out
from emulator.experiment import Experiment
from emulator.stopped import CpuDied, HostFault, Panicked, RunStopped
from emulator.streams import tell
from emulator.stress.outcome import FINISHED, VIOLATED, Endless, Outcome, judged
from emulator.supervisor import Supervisor
from workloads.rows import Workload

CAPACITY = 1 << 30  # bytes of address space: the host gives memory as far as it is written to
RUN_BOUND_S = 20.0  # of host time
WAIT_BOUND_MS = 3000  # nothing moves for so long: short runs, few CPUs, on one core


class Arena:
    """Processes and memory for one run after the other, as a context manager. Ctrl-C and SIGTERM in it raise
    Interrupted. `progress` hears what is compiled, `say` what the host does.
    """

    def __init__(
        self,
        *,
        capacity: int = CAPACITY,
        run_bound_s: float = RUN_BOUND_S,
        say: Any = tell,
        progress: Any = None,
    ):
        self.run_bound_s, self.progress = run_bound_s, progress
        self.ram: Any = Segment(MACHINE.type, capacity)
        self.processes = Supervisor(
            self.ram, cpu_loop, label="arena", panic_text=panic_text, say=say, parks=True
        )
        self._words = ProcessWords()
        self._texts: dict[tuple, np.ndarray] = {}  # addresses of compiled code, by design and kind of engine
        self._loaded: tuple | None = None  # what ran last
        self._engine: tuple | None = None  # and on which engine

    def __enter__(self) -> Self:
        self.processes.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.processes.__exit__(*error)
        finally:
            self.ram.close()

    def run(self, experiment: Experiment, *, brief: bool = False) -> Outcome:
        """Run it, and give what it came to, without the list of its hand-overs if that is to be `brief`.
        Raises what says nothing about the design: Interrupted, CpuDied, HostFault, and ValueError for what
        cannot be run.
        """
        one = experiment.sized()
        workload = one.made()
        times, well = [time.perf_counter()], False
        try:
            self._lay_out(one, workload)
            times.append(time.perf_counter())
            self.processes.gather()
            times.append(time.perf_counter())
            ended = self._carried()
            times.append(time.perf_counter())
            found = judged(self.ram, workload, one.design, ended, brief=brief)
            if ended == FINISHED or (one.leases == 1 and _came_to_rest(ended)):
                self._words.save(self.ram)
                self.processes.park()
                well = True
        finally:
            if not well:
                self._drop()
        times.append(time.perf_counter())
        names = ("lay out", "fork", "run", "judge")
        return Outcome(**found, seconds=dict(zip(names, np.diff(times).tolist(), strict=True)))

    def _lay_out(self, one: Experiment, workload: Workload) -> None:
        """Put the machine into the RAM, with compiled code and what its processes had written there."""
        options, design = one.options(), one.design
        ram = lay_out(one.machine, workload, design, options, self.ram)
        ram.set_constant("wait_bound_ms", WAIT_BOUND_MS)
        with signals_held():
            if len(self.processes.processes) < ram.nr_cpus:
                self._drop()  # each CPU must have inherited the eventfds of all
            self._load(design, options)
            self._words.restore(ram)
            boot(ram, one.machine, workload, design, options)
        self.processes.hook_places = design.places

    def _load(self, design: Any, options: RunOptions) -> None:
        """Fill the text table; processes that were forked before this code was there cannot run it."""
        key = (design, options.debug_luf, options.bounds, options.kind)
        engine = (options.kind, options.kind and options.controlled)  # of which the processes are
        if key not in self._texts or (UNCOMPILED and key != self._loaded) or engine != self._engine:
            self._drop()
            install_text(self.ram, design, options, self.progress)
            self.processes.load_shell()
            self._texts[key] = self.ram.text.copy()
        self._loaded, self._engine = key, engine
        self.ram.text[:] = self._texts[key]
        set_functions(self.ram)

    def _carried(self) -> str | RunStopped:
        """Let the CPUs run; returns how it ended. Raises what is not the design's doing."""
        bound = time.monotonic() + self.run_bound_s

        def look(_: Any) -> None:
            if time.monotonic() > bound:
                raise Endless(f"it had not ended after {self.run_bound_s:g} s of host time")

        try:
            self.processes.start()
            ended = self.processes.watch(lambda ram: int(ram.run_tasks_left[0]) == 0, look)
            return self.processes.quiesce() if ended == "finished" else ended
        except (CpuDied, HostFault):
            raise
        except RunStopped as stopped:
            return stopped

    def _drop(self) -> None:
        self.processes.drop()
        self._words = ProcessWords()


def _came_to_rest(ended: str | RunStopped) -> bool:
    """Has the one CPU that executed ended the run by itself, while all others sleep?"""
    return ended == VIOLATED or isinstance(ended, Panicked)


class Arenas:
    """An arena for each engine, the plain one and the one with scheduling points, as processes are of one of
    them.
    """

    def __init__(self, **given: Any):
        self.plain, self.points = Arena(**given), Arena(**given)
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            entered.enter_context(self.plain)
            entered.enter_context(self.points)
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._entered.__exit__(*error)

    def run(self, experiment: Experiment, *, brief: bool = False) -> Outcome:
        """Run it in the one that it is for."""
        return (self.points if experiment.schedule else self.plain).run(experiment, brief=brief)

    @contextmanager
    def bounded(self, seconds: float) -> Iterator[None]:
        """Give runs in this block so much host time, where that is less."""
        before = self.plain.run_bound_s, self.points.run_bound_s
        self.plain.run_bound_s, self.points.run_bound_s = (min(seconds, bound) for bound in before)
        try:
            yield
        finally:
            self.plain.run_bound_s, self.points.run_bound_s = before
