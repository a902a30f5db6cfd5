"""`luf litmus --exhaustive`: all schedules of each test under each design, a line for each, and a replay file
for what was forbidden.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from textwrap import indent

from emulator.litmus.exhaustive import Exhausted, exhaust
from emulator.litmus.run import Planned
from emulator.report.progress import Progress
from emulator.run_folder import file_name, new_run_folder
from emulator.streams import reader_may_leave
from emulator.verdict import CLEAN, DIRTY


def exhaustive_command(planned: Sequence[Planned], options: Namespace) -> int:
    """Go through them; returns the exit code."""
    found: list[Exhausted] = []
    references = [name for name in options.designs for _ in range(len(planned) // len(options.designs))]
    for (test, first), reference in zip(planned, references, strict=True):
        with Progress(f"{test.name} {first.design.name}", unit="s") as progress:

            def tell(so_far: Exhausted) -> None:
                progress.update(min(so_far.seconds, options.seconds), int(options.seconds))
                progress.phase(so_far.line())

            cores = sorted(os.sched_getaffinity(0))
            found.append(
                exhaust(
                    test,
                    first,
                    reference,
                    cores,
                    preemptions=options.preemptions,
                    seconds=options.seconds,
                    tell=tell,
                )
            )
        with reader_may_leave():
            sys.stdout.write(f"{test.name}  {first.design.name}  {found[-1].line()}\n")
            sys.stdout.flush()
    bad = [one for one in found if one.forbidden]
    if bad:
        _write(bad, options)
    over = sum(one.is_whole for one in found)
    void = sum(one.is_void for one in found)
    said = (
        f"{len(found):,} pairs of test and design: {len(bad)} with a forbidden outcome, {over:,} gone through"
    )
    with reader_may_leave():
        sys.stdout.write(f"\n{said}{f', {void:,} void' if void else ''}\n")
    return DIRTY if bad else CLEAN


def _write(bad: Sequence[Exhausted], options: Namespace) -> None:
    """Leave replay files in a folder of their own, and show them."""
    names = [f"{file_name(f'{one.test}-{one.design}')}.toml" for one in bad]
    with new_run_folder(options.out, "litmus") as folder:
        for one, name in zip(bad, names, strict=True):
            folder.write(name, one.replay)
    with reader_may_leave():
        for one, name in zip(bad, names, strict=True):
            sys.stdout.write(f"\nluf replay {folder.final}/{name}:\n\n{indent(one.replay, '    ')}")
