"""Run a litmus test: an experiment for each seed, in controlled mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from emulator.experiment import Experiment
from emulator.judge.bad_access import OutOfMemory
from emulator.litmus.machine import machine_of
from emulator.litmus.verdict import Run, Tally, check_figures, judge
from emulator.result import Result
from emulator.stopped import RunStopped
from workloads.litmus.test import Litmus


def experiment_of(litmus: Litmus, design: Any, *, check: str = "full", leases: int = 1) -> Experiment:
    """Describe its run with seed 1."""
    return Experiment(design, machine_of(litmus), litmus.workload, leases=leases, seed=1, check=check)


def run_test(
    litmus: Litmus,
    first: Experiment,
    runs: int,
    seed: int,
    emulate: Callable[[Experiment], Run] | None = None,
) -> Tally:
    """Run a test under a design, with so many seeds from `seed` on."""
    tally = Tally(litmus.name, first.design.name, litmus.about, list(litmus.possible))
    for number in range(seed, seed + runs):
        run = (emulate or once)(replace(first, seed=number))
        if number == seed and not run.stopped:
            check_figures(litmus, run.figures)
        tally.add(judge(litmus, run), run)
    return tally


def once(experiment: Experiment) -> Run:
    """Run it once, with processes of its own."""
    try:
        return run_of(experiment.run())
    except OutOfMemory as error:
        return Run({}, stopped=str(error), small=True)
    except RunStopped as error:
        if isinstance(error, ValueError):
            raise
        return Run({}, stopped=str(error).partition("\n")[0])


def run_of(result: Result) -> Run:
    """Give what a litmus test asks of a result."""
    figures = {name: sum(values) for name, values in result.counters.items()} | dict(result.vmstat)
    own = result.design.partition(":")[0]
    figures |= {f"{own}.{key}": value for key, value in result.design_stats.items() if type(value) is int}
    found = [str(violation["kind"]) for violation in result.violations]
    found += [f"audit: {name}" for name in result.unaccounted]
    found += [str(finding) for finding in result.design_stats.get("findings", ())]
    return Run(figures, tuple(found))
