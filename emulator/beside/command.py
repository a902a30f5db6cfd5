"""`luf report A B ...`: stored results beside each other, as text, table, picture or page."""

from __future__ import annotations

import sys
from argparse import Namespace

from emulator.beside.sides import Beside, read_beside, worst
from emulator.output_file import output_of
from emulator.result import ResultError
from emulator.streams import reader_may_leave
from inputs.text import clipped


def beside_command(options: Namespace) -> int:
    """Show it, or write what was asked for. Returns the exit code: that of the worst of the results."""
    if options.timeline:
        raise ResultError(f"'--timeline' must be asked of one result (got {clipped(options.folders)})")
    found = read_beside(options.folders)
    if options.picture:
        from emulator.beside.page import draw_ratios

        with output_of("picture", options.picture):
            draw_ratios(found, options.picture)
    if options.html:
        from emulator.beside.page import write_beside

        with output_of("html", options.html):
            write_beside(found, options.html)
    if options.table:
        from emulator.repeats.table import write_table

        with output_of("table", options.table):
            write_table(
                [run for one in found.stored for run in one.found.runs], options.table, _places(found)
            )
    with reader_may_leave():
        if options.format == "lkp":
            from emulator.repeats.lkp import lkp_text

            names = "".join(f"{one.letter}  {one.place}\n" for one in found.stored)
            sys.stdout.write(f"{names}\n{lkp_text(found.labelled())}")
        elif not (options.picture or options.html or options.table):
            from emulator.beside.text import print_beside

            print_beside(found, sys.stdout)
    return worst(found).code


def _places(found: Beside) -> list[str]:
    """Name the result of each run, for a column of the table."""
    return [one.place for one in found.stored for _ in one.found.runs]
