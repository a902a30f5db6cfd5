"""How reports are printed: their width, their colours, and a console that survives its reader."""

from __future__ import annotations

import os
import re
import shutil
from typing import TextIO

from rich.console import Console
from rich.text import Text

COLUMNS, COLUMNS_LEAST = 120, 80  # of a report; a terminal has as many as it has, and at least these
GAP = re.compile(r"\S( {2,})(?=\S)")  # between two columns of a line
GOOD, BAD, QUIET = "green", "bold red", "dim"


class ReportConsole(Console):
    """rich's console without its way of dealing with a reader that has left: to end the process with code 1,
    a violation's.
    """

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def columns_of(stream: TextIO) -> int:
    """Give how wide a report may be there: on a terminal as wide as that is, within bounds."""
    if not stream.isatty():
        return COLUMNS
    return min(COLUMNS, max(COLUMNS_LEAST, shutil.get_terminal_size((COLUMNS, 24)).columns))


def folded(text: Text, columns: int) -> Text:
    """Fold what is longer than so many columns, between words, under the column of its line that it is in."""
    found = Text()
    for line in text.split("\n", allow_blank=True):
        under = max((gap.end() for gap in GAP.finditer(line.plain) if gap.end() <= columns // 2), default=0)
        under = under or len(line.plain) - len(line.plain.lstrip())
        while len(line) > columns:
            at = line.plain.rfind(" ", under + 1, columns + 1)
            if at < 0:
                break
            head, rest = line.divide([at])
            head.rstrip()
            found.append_text(head).append("\n")
            line = Text(" " * under).append_text(rest[len(rest) - len(rest.plain.lstrip()) :])
        found.append_text(line).append("\n")
    found.right_crop(1)
    return found


def print_styled(text: Text, stream: TextIO) -> None:
    """Print a screen: in colours on a terminal, else plain; without any escape where NO_COLOR is set."""
    if os.environ.get("NO_COLOR"):  # rich leaves out colours alone: bold and dim are escapes too
        stream.write(text.plain)
    else:
        ReportConsole(file=stream, highlight=False, soft_wrap=True).print(text, end="")
