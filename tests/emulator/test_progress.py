"""A bar on a terminal; not one byte anywhere else."""

from __future__ import annotations

import io
import os
import pty
import select
from collections.abc import Callable

from emulator.report.progress import Progress

TIMEOUT_S = 10.0


def feed(stream) -> None:
    with Progress("linux", stream=stream) as progress:
        progress.phase("compiling the {engine}")
        for done in range(5):
            progress.update(done, 4, free_mib=[1.9, 2.4], ipis=done * 5000)


def count_cells(stream) -> None:
    with Progress("micro", unit="cells", stream=stream) as progress:
        progress.update(949, 949)


def terminal(show: Callable[..., None]) -> str:
    """Return all that appears on a terminal, up to the end of the bar's line: the kernel may hand it over in
    pieces.
    """
    master, slave = pty.openpty()
    shown = ""
    try:
        with os.fdopen(slave, "w") as stream:
            show(stream)
            while not shown.endswith("\n") and select.select([master], [], [], TIMEOUT_S)[0]:
                shown += os.read(master, 65536).decode()
    finally:
        os.close(master)
    return shown


def test_silent_when_it_is_no_terminal():
    """A log file or a pipe gets nothing."""
    stream = io.StringIO()
    feed(stream)
    assert stream.getvalue() == ""


def test_on_a_terminal_it_shows_evaluations_memory_rate_and_time(monkeypatch):
    """What design.md's screen shows; also on a terminal that does not know its size."""
    monkeypatch.delenv("COLUMNS", raising=False)
    shown = terminal(feed)
    assert "compiling the {engine}" in shown
    last = shown.rstrip().splitlines()[-1].split("\r")[-1]
    assert last.startswith("linux   " + "#" * 40 + "  4/4 evaluations   free 1.9 + 2.4 MiB   ")
    assert last.split("IPI/s")[1].strip() == "00:00"


def test_other_things_are_counted_under_their_name():
    """`luf golden` counts cells, which have neither free memory nor a rate."""
    last = terminal(count_cells).rstrip().splitlines()[-1].split("\r")[-1]
    assert last.startswith("micro   " + "#" * 40 + "  949/949 cells   00:00")
