"""Run litmus tests: many seeds of each under each design, in controlled mode, by workers on host cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from designs.ready import ReadyDesign
from emulator.experiment import Experiment
from emulator.litmus.machine import machine_of
from emulator.litmus.verdict import Run, Tally, check_figures, judge
from emulator.order import LONG_SLICE_NS
from emulator.schedule import Schedule
from emulator.stress.arena import Arenas
from emulator.stress.outcome import FINISHED, VIOLATED, Outcome
from emulator.stress.pool import Pool
from workloads.litmus.test import Litmus

Planned = tuple[Litmus, Experiment]
BATCH = 50  # runs that a worker does before it reports
LOOK_S = 0.1


def experiment_of(
    litmus: Litmus, design: Any, *, check: str = "full", leases: int = 1, schedule: Schedule | None = None
) -> Experiment:
    """Describe its run with seed 1."""
    return Experiment(
        design,
        machine_of(litmus),
        litmus.workload,
        leases=leases,
        seed=1,
        slice_ns=LONG_SLICE_NS,
        check=check,
        schedule=schedule,
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Some runs of the planned test with this number: what a worker does."""

    number: int
    first: Experiment
    seeds: range

    def do(self, arenas: Arenas, designs: Mapping[str, ReadyDesign]) -> tuple[int, list[Run]]:
        """Do them, in a worker, with the design that is loaded there."""
        first = replace(self.first, design=designs[self.first.design.name])
        return self.number, [run_of(arenas.run(seeded(first, seed))) for seed in self.seeds]


def run_tests(
    planned: Sequence[Planned],
    runs: int,
    seed: int,
    cores: Sequence[int],
    emulate: Callable[[Experiment], Run] | None = None,
) -> Iterator[Tally]:
    """Run each test so often, with seeds from `seed` on; gives the tallies in order. Tests of one design
    should stand together, since another one has other processes. `emulate` stands in for the emulator in
    tests.
    """
    tallies = [
        Tally(test.name, first.design.name, test.about, list(test.possible)) for test, first in planned
    ]
    batches = [
        Batch(number, first, range(begin, min(begin + BATCH, seed + runs)))
        for number, (_, first) in enumerate(planned)
        for begin in range(seed, seed + runs, BATCH)
    ]
    given = 0
    designs = {first.design.name: first.design for _, first in planned}
    done = _emulated(batches, emulate) if emulate else _done(batches, cores, designs)
    for number, found in done:
        test = planned[number][0]
        for run in found:
            if not run.stopped:
                check_figures(test, run.figures)
            tallies[number].add(judge(test, run), run)
        while given < len(tallies) and tallies[given].runs == runs:
            yield tallies[given]
            given += 1


def _done(
    batches: Iterable[Batch], cores: Sequence[int], designs: Mapping[str, ReadyDesign]
) -> Iterator[tuple[int, list[Run]]]:
    """Have workers do the batches, and give what they found as it comes."""
    todo = list(batches)[::-1]
    with Pool(cores, designs) as pool:
        while todo or pool.is_busy:
            while todo and pool.idle:
                pool.put(todo.pop())
            yield from pool.take(LOOK_S)


def _emulated(
    batches: Iterable[Batch], emulate: Callable[[Experiment], Run]
) -> Iterator[tuple[int, list[Run]]]:
    for batch in batches:
        yield batch.number, [emulate(seeded(batch.first, seed)) for seed in batch.seeds]


def seeded(experiment: Experiment, seed: int) -> Experiment:
    """Give the same with another seed, which is its schedule's too."""
    schedule = experiment.schedule
    return replace(experiment, seed=seed, schedule=replace(schedule, seed=seed) if schedule else None)


def run_of(outcome: Outcome) -> Run:
    """Give what a litmus test asks of an outcome."""
    found = [str(violation["kind"]) for violation in outcome.violations]
    found += [f"audit: {sentence}" for sentence in outcome.unaccounted] + outcome.findings
    stopped = "" if outcome.ended in (FINISHED, VIOLATED) else outcome.sentence.partition("\n")[0]
    return Run(outcome.counters, tuple(found), stopped, small=outcome.is_void)
