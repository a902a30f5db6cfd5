"""The command `luf sweep`: plan, go on where the journal ends, run, put together."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from emulator.host_facts import check_host
from emulator.output_file import OutputError, check_output, output_of
from emulator.page.sweep import Swept, write_sweep_page
from emulator.run_folder import command_line, host, versions
from emulator.sentences import sentence
from emulator.streams import reader_may_leave, tell
from emulator.sweep.carry import Emulate, again, carry
from emulator.sweep.converge import converged
from emulator.sweep.journal import SCHEMA, Head, Journal, Line
from emulator.sweep.plan import Job, Plan, SweepError, plan_of
from emulator.sweep.points import Ended, points_of
from emulator.sweep.scheduler import Room, room_here, run_here
from emulator.sweep.table import draw_sweep, table_text, write_tables
from emulator.verdict import BAD_INPUT, CLEAN, DIRTY, FAILED

SHOWN = 3  # runs that are named as not clean


def sweep_command(options: Namespace, emulate: Emulate | None) -> int:
    """Run what is not yet in the journal, and show all; returns the exit code. `emulate` stands in for the
    processes in tests.
    """
    plan = plan_of(options)
    if options.html:
        check_output("html", options.html)
    run, room = _where(plan, options)
    folder = Path(options.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"'--out' must be a folder that can be made (got {sentence(error)})") from None
    with Journal(folder, Head(SCHEMA, plan.identity, versions(), command_line())) as journal:
        lost = carry(plan.jobs, journal, room, emulate or run)
        return _finish(plan, journal, options, lost)


def _where(plan: Plan, options: Namespace) -> tuple[Emulate, Room]:
    """Give what carries the runs, here or on a cluster, and what there is room for."""
    if options.dask is None:
        for machine in {id(job.experiment.machine): job.experiment.machine for job in plan.jobs}.values():
            check_host(machine)
        return run_here, room_here(options.jobs)
    try:
        from emulator.sweep.cluster import run_on
    except ImportError as error:
        rule = "needs distributed, which must be installed for this: pip install 'luf-emulator[dask]'"
        raise SweepError(f"'--dask' {rule} (got {sentence(error)})") from None
    return partial(run_on, options.dask), Room(0, 0, options.jobs or 0)


def _finish(plan: Plan, journal: Journal, options: Namespace, lost: dict[str, str]) -> int:
    """Show and write what all runs came to."""
    folder = Path(options.out)
    lines = [(job, journal.done[job.key]) for job in plan.jobs if job.key in journal.done]
    in_order = [(job, journal.done.get(job.key)) for job in by_point(plan.jobs)]
    ended = [Ended(job.point, line.result) for job, line in in_order if line and line.result]
    wrong = [f"{job.key}: stopped by {line.by}: {line.stopped}" for job, line in lines if line.stopped]
    for one in wrong:
        tell(f"luf: {one}")
    wrong += [f"{key}: no result ({why})" for key, why in lost.items()]
    code, said = judged(lines, lost)
    points = points_of(ended) if ended else []
    text = table_text(points) if points else ""
    if options.command == "converge":
        alike, text = converged(points)
        code = code if alike or code != CLEAN else DIRTY
        said = said if alike or wrong else f"hangs on the order of CPUs, exit code {code}"
    failed = _written(Swept(points, code, said, wrong, again(), host(), versions()), ended, folder, options)
    with reader_may_leave():
        sys.stdout.write(text)
        sys.stdout.write(f"\nmore: points.csv, runs.csv and picture.png in {folder}\nverdict  {said}\n")
    return BAD_INPUT if code == CLEAN and failed else code


def _written(swept: Swept, ended: Sequence[Ended], folder: Path, options: Namespace) -> bool:
    """Write the tables, the picture and the page; gives whether that failed, which is told."""
    if not ended:
        return False
    try:
        write_tables(swept.points, ended, folder)
        draw_sweep(swept.points, folder / "picture.png")
        if options.html:
            with output_of("html", options.html):
                write_sweep_page(swept, options.html)
    except Exception as error:  # noqa: BLE001 (whatever it is: what was found must be shown)
        tell(f"luf: the sweep's tables cannot be written: {sentence(error)}")
        return True
    return False


def by_point(jobs: Sequence[Job]) -> list[Job]:
    """Put jobs into the order of the points, which is that of the first seed, and there of the seeds."""
    places: dict[tuple[str, ...], int] = {}
    for job in jobs:
        places.setdefault(tuple(job.point.values()), len(places))
    return sorted(jobs, key=lambda job: (places[tuple(job.point.values())], job.experiment.seed))


def judged(lines: Sequence[tuple[Job, Line]], lost: dict[str, str]) -> tuple[int, str]:
    """Judge all runs: what a design did is a 1, what failed otherwise a 3."""
    dirty = [job.key for job, line in lines if line.by_design or (line.result and not line.result.clean)]
    broken = [job.key for job, line in lines if line.stopped and not line.by_design] + list(lost)
    if not dirty and not broken:
        return CLEAN, f"clean, exit code {CLEAN}"
    code, named = (DIRTY, dirty) if dirty else (FAILED, broken)
    more = f" and {len(named) - SHOWN:,} more" * (len(named) > SHOWN)
    what = "not clean" if dirty else "without a result"
    return code, f"not clean, exit code {code}: {len(named):,} runs {what}: {'; '.join(named[:SHOWN])}{more}"
