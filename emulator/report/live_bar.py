"""The bar with the view of the machine below it, drawn by rich; what is left at the end is the bar.

It has what `Progress` uses of tqdm's. The cursor stays visible: a run that is killed leaves the terminal as
it was. Left out: a thread that refreshes, since forked CPUs would inherit its locks.
"""

from __future__ import annotations

import time
from typing import Any, TextIO

from rich.live import Live
from rich.text import Text
from tqdm import tqdm

from emulator.report.console import QUIET, ReportConsole
from emulator.report.live import Seen, lines


class _Console(ReportConsole):
    def show_cursor(self, show: bool = True) -> bool:
        return False


class LiveBar:
    """A bar of so many columns, and lines below it."""

    def __init__(self, label: str, stream: TextIO, columns: int):
        self.label, self.columns = label, columns
        self.total, self.n, self.bar_format = 1, 0.0, ""
        self._began = time.monotonic()
        self._below: list[str] = []
        console = _Console(file=stream, width=columns, highlight=False)
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._live.start()

    def show(self, now: Seen, before: Seen | None) -> None:
        """Have the machine shown as it is now; who flushes is counted from `before` on."""
        self._below = lines(now, before, self.columns - 1)

    def refresh(self) -> None:
        """Draw all anew."""
        bar: Any = tqdm.format_meter(
            self.n,
            self.total,
            time.monotonic() - self._began,
            ncols=self.columns - 1,
            ascii=" #",
            prefix=self.label,
            bar_format=self.bar_format,
        )
        text = Text(bar.rstrip(), no_wrap=True, overflow="crop")
        for line in self._below:
            text.append(f"\n{line}", QUIET)
        self._live.update(text, refresh=True)

    def write(self, text: str, file: TextIO) -> None:
        """Print a line above the bar."""
        self._live.console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """Leave the bar alone behind."""
        self._below = []
        if self.bar_format:
            self.refresh()
        self._live.stop()
