"""A bar on a terminal; not one byte anywhere else."""

from __future__ import annotations

import io
import os
import pty
import select
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from cpus.lease import BLOCKED, READY, RUNNING, WAIT_ACKS, WAIT_BARRIER, WAIT_LEASE, WAIT_NONE
from emulator.report.live import LETTERS, Seen, lines, seen
from emulator.report.progress import Progress, shown_in_notebooks

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


BEFORE = Seen("u.", (("DRAM", 3.0, 4.0),), (0, 10, 0))
NOW = Seen("ua", (("DRAM", 1.0, 4.0),), (0, 40, 10))


def watch_run(stream) -> None:
    """A run whose machine is looked at twice; the bar draws at most ten times a second, and the end."""
    with Progress("linux", stream=stream, view=True) as progress:
        progress.phase("compiling 1/2 page_fault")
        for done, now in ((1, BEFORE), (1, NOW)):
            progress.update(done, 1, free_mib=[1.9], ipis=50, look=lambda now=now: now)


def test_the_machine_is_shown_below_the_bar_where_there_is_room(monkeypatch):
    """States of CPUs, free memory, and who flushes; in the end the bar alone is left."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("TERM", "xterm")
    shown = terminal(watch_run)
    assert "compiling 1/2 page_fault" in shown
    assert "cpus   ua" in shown
    assert "DRAM   ######------------------ 1.0 of 4.0 MiB" in shown
    assert "kswapd 75 %, direct reclaim 25 %" in shown
    assert "# 1/1 evaluations free 1.9 MiB" in " ".join(shown.split())
    assert "00:00" in shown.rstrip().splitlines()[-1]
    assert "\x1b[?25l" not in shown  # the cursor is not hidden


@pytest.mark.parametrize("size", [("50", "24"), ("80", "10")])
def test_a_small_terminal_gets_the_bar_alone(monkeypatch, size):
    """Too few columns, or too few rows."""
    monkeypatch.setenv("COLUMNS", size[0])
    monkeypatch.setenv("LINES", size[1])
    shown = terminal(watch_run)
    assert "# 1/1 evaluations" in shown.replace("  ", " ")
    assert "DRAM" not in shown
    assert LETTERS not in shown


@pytest.mark.parametrize("cpus", [1, 64, 256])
def test_the_view_fits_the_terminal(cpus):
    """However many CPUs there are, no line is too long and none of them is missing."""
    shown = lines(Seen("w" * cpus, NOW.free, NOW.flushes), None, 60)
    assert max(map(len, shown)) <= 60
    assert sum(line[7:].count("w") for line in shown[: -(-cpus // 53)]) == cpus


def test_each_state_of_a_cpu_has_its_letter():
    """User, kernel thread, interrupt, acks, barrier, idle."""
    ram = SimpleNamespace(
        nr_cpus=6, nr_nodes=1, cpu_in_irq=[0, 0, 1, 0, 0, 0], cpu_task=[0, 1, 0, 0, 0, -1], task_kind=[0, 1],
        cpu_state=[RUNNING, READY, RUNNING, BLOCKED, BLOCKED, BLOCKED], zone_node=np.zeros(1),
        cpu_wait_kind=[WAIT_NONE, WAIT_LEASE, WAIT_NONE, WAIT_ACKS, WAIT_BARRIER, WAIT_NONE],
        zone_start=np.array([0]), zone_end=np.array([512]), zone_free=np.array([256]),
        site_ipis=np.array([[1, 2], [3, 4]]),
    )  # fmt: skip
    assert seen(ram, ["DRAM"]) == Seen("ukiaw.", (("DRAM", 1.0, 2.0),), (4, 6))


def test_in_a_notebook_a_run_without_a_bar_gets_one(monkeypatch, capsys):
    """It shows the first compile; elsewhere there is none, and one that was asked for stays."""
    with shown_in_notebooks(None, "linux") as progress:
        assert progress is None
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    with shown_in_notebooks("mine", "linux") as progress:
        assert progress == "mine"
    with shown_in_notebooks(None, "linux") as progress:
        progress.phase("compiling 3/90 page_fault")
    assert "compiling 3/90 page_fault" in capsys.readouterr().err
