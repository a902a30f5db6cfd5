"""How reports are printed: their width, their colours, and a console that survives its reader."""

from __future__ import annotations

import os
from typing import TextIO

from rich.console import Console
from rich.text import Text

COLUMNS = 120
GOOD, BAD, QUIET = "green", "bold red", "dim"


class ReportConsole(Console):
    """rich's console without its way of dealing with a reader that has left: to end the process with code 1,
    a violation's.
    """

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def print_styled(text: Text, stream: TextIO) -> None:
    """Print a screen: in colours on a terminal, else plain; without any escape where NO_COLOR is set."""
    if os.environ.get("NO_COLOR"):  # rich leaves out colours alone: bold and dim are escapes too
        stream.write(text.plain)
    else:
        ReportConsole(file=stream, highlight=False, soft_wrap=True).print(text, end="")
