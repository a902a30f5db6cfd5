"""How reports are printed: their width, their colours, and a console that survives its reader."""

from __future__ import annotations

from rich.console import Console

COLUMNS = 120
GOOD, BAD, QUIET = "green", "bold red", "dim"


class ReportConsole(Console):
    """rich's console without its way of dealing with a reader that has left: to end the process with code 1,
    a violation's.
    """

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError
