"""`luf compare A B --sensitivity`: plan, go on where the journal ends, run, show."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from emulator.host_facts import check_host
from emulator.output_file import OutputError, write_atomically
from emulator.run_folder import command_line, versions
from emulator.sensitivity.plan import sensitivity_plan
from emulator.sensitivity.tornado import draw_tornado, page_of_tornado, tornado_text, tornados
from emulator.sentences import sentence
from emulator.streams import reader_may_leave, tell
from emulator.sweep.carry import Emulate, again, carry
from emulator.sweep.command import by_point, judged
from emulator.sweep.journal import SCHEMA, Head, Journal
from emulator.sweep.points import Ended, points_of
from emulator.sweep.scheduler import room_here, run_here
from emulator.sweep.table import write_tables
from inputs.text import visible


def sensitivity_command(options: Namespace, emulate: Emulate | None) -> int:
    """Run what is not yet in the journal, and show all; returns the exit code. `emulate` stands in for the
    processes in tests.
    """
    plan, costs = sensitivity_plan(options)
    check_host(plan.jobs[0].experiment.machine)
    folder = (
        Path(options.out) / f"sensitivity-{plan.identity}"
    )  # the same for the same command, which goes on
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"'--out' must be a folder that can be made (got {sentence(error)})") from None
    tell(f"luf: {len(costs)} costs halved and doubled, {len(plan.jobs):,} runs; kept in {folder}")
    with Journal(folder, Head(SCHEMA, plan.identity, versions(), command_line())) as journal:
        lost = carry(plan.jobs, journal, room_here(None), emulate or run_here)
    lines = [(job, journal.done[job.key]) for job in by_point(plan.jobs) if job.key in journal.done]
    ended = [Ended(job.point, line.result) for job, line in lines if line.result]
    code, said = judged(lines, lost)
    points = points_of(ended) if ended else []
    found = tornados(points, costs) if points else []
    if found:
        write_tables(points, ended, folder)
        draw_tornado(found, folder / "picture.png")
        page = page_of_tornado(found, points, (code, said), options.seeds, again())
        write_atomically(folder / "page.html", page)
    with reader_may_leave():
        if found:
            sys.stdout.write(tornado_text(found, options.designs, options.seeds))
            sys.stdout.write(f"\nmore: page.html, picture.png and tables in {visible(str(folder))}\n")
        sys.stdout.write(f"verdict  {said}\n")
    return code
