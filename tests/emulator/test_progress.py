"""A bar on a terminal; not one byte anywhere else."""

from __future__ import annotations

import io
import os
import pty

from emulator.progress import Progress


def feed(stream) -> None:
    with Progress("linux", stream=stream) as progress:
        progress.phase("compiling the {engine}")
        for done in range(5):
            progress.update(done, 4, free_mib=[1.9, 2.4], ipis=done * 5000)


def test_silent_when_it_is_no_terminal():
    """A log file or a pipe gets nothing."""
    stream = io.StringIO()
    feed(stream)
    assert stream.getvalue() == ""


def test_on_a_terminal_it_shows_evaluations_memory_rate_and_time():
    """What design.md's screen shows; also on a terminal that does not know its size."""
    master, slave = pty.openpty()
    try:
        with os.fdopen(slave, "w") as stream:
            feed(stream)
            shown = os.read(master, 65536).decode()
    finally:
        os.close(master)
    assert "compiling the {engine}" in shown
    last = shown.rstrip().splitlines()[-1].split("\r")[-1]
    assert last.startswith("linux   " + "#" * 40 + "  4/4 evaluations   free 1.9 + 2.4 MiB   ")
    assert last.split("IPI/s")[1].strip() == "00:00"


def test_other_things_are_counted_under_their_name():
    """`luf golden` counts cells, which have neither free memory nor a rate."""
    master, slave = pty.openpty()
    try:
        with os.fdopen(slave, "w") as stream:
            with Progress("micro", unit="cells", stream=stream) as progress:
                progress.update(949, 949)
            shown = os.read(master, 65536).decode()
    finally:
        os.close(master)
    last = shown.rstrip().splitlines()[-1].split("\r")[-1]
    assert last.startswith("micro   " + "#" * 40 + "  949/949 cells   00:00")
