"""A tiny process that outlives a killed supervisor by some milliseconds: it ends the CPUs and removes what
lies on disk.

    supervisor ── pipe ──> janitor    "cpu PID", "none", "remove PATH", "orphan PATH"; at an orderly end it
                                      is killed

It holds one pidfd per CPU, opened while the CPU is surely alive, so that it can never kill a process that was
given the same number later. It has a session of its own and ignores the signals that end a run: a Ctrl-C on
the terminal does not reach it. Left out: a janitor that is killed together with its supervisor (the CPUs then
still die by PR_SET_PDEATHSIG; the folder stays).
"""

from __future__ import annotations

import os
import select
import shutil
import signal
from contextlib import suppress

from cpus.ending import ENDING
from emulator.ownership import remove_orphan

END = b"\0"
FIRST_FREE_FD = 3


class Janitor:
    """The supervisor's end. Fork it first, before there is anything to clean."""

    def __init__(self) -> None:
        reader, self._writer = os.pipe()
        ready, tell_ready = os.pipe()
        supervisor = os.pidfd_open(os.getpid())
        theirs = (reader, tell_ready, supervisor)
        try:
            self.pid = os.fork()
        except OSError:
            for fd in (*theirs, ready, self._writer):
                os.close(fd)
            raise
        if self.pid == 0:
            status = 1
            try:
                os.close(self._writer)
                _serve(*theirs)
                status = 0
            finally:
                os._exit(status)
        for fd in theirs:
            os.close(fd)
        os.read(ready, 1)  # from now on a signal to our group does not reach it
        os.close(ready)

    def leave_to_parent(self) -> None:
        """Drop this end in a process that was forked later: only the supervisor may hold it."""
        os.close(self._writer)

    def watch_cpu(self, pid: int) -> None:
        """Kill this child should the supervisor die. It must not have been waited for yet."""
        self._tell(b"cpu %d" % pid)

    def forget_cpus(self) -> None:
        """All CPU processes so far have been waited for."""
        self._tell(b"none")

    def remove_if_killed(self, path: str | os.PathLike[str]) -> None:
        """Remove this file or folder should the supervisor die: it has a name that nobody else can know."""
        self._tell(b"remove " + os.fsencode(os.path.abspath(path)))

    def remove_orphan_if_killed(self, path: str | os.PathLike[str]) -> None:
        """Remove this folder should the supervisor die, if it is proved to be its own (ownership.py)."""
        self._tell(b"orphan " + os.fsencode(os.path.abspath(path)))

    def _tell(self, line: bytes) -> None:
        with suppress(BrokenPipeError):  # it was killed: the run goes on without its second line of defence
            os.write(self._writer, line + END)

    def dismiss(self) -> None:
        """End it: everything has been cleaned. Even one that the host has stopped (SIGSTOP) goes at once."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self._writer)  # last: its end would tell the janitor that we were killed


def _serve(reader: int, tell_ready: int, supervisor: int) -> None:
    os.setsid()
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    os.write(tell_ready, END)
    reader, supervisor = _keep_only(reader, supervisor)
    os.set_blocking(reader, False)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    # other children of the supervisor may hold the pipe open: its death counts too
    poll.register(supervisor, select.POLLIN)
    text, cpus, paths, orphans, gone = b"", [], [], [], False
    while not gone:
        # asked first: whatever it wrote before is in the pipe then
        gone = any(fd == supervisor for fd, _ in poll.poll())
        with suppress(BlockingIOError):
            while chunk := os.read(reader, 4096):
                text += chunk
            gone = True
        *lines, text = text.split(END)
        for line in lines:
            word, _, rest = line.partition(b" ")
            if word == b"cpu":
                with suppress(ProcessLookupError):
                    cpus.append(os.pidfd_open(int(rest)))
            elif word == b"none":
                while cpus:
                    os.close(cpus.pop())
            elif word == b"orphan":
                orphans.append(os.fsdecode(rest))
            else:
                paths.append(os.fsdecode(rest))
    for cpu in cpus:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(cpu, signal.SIGKILL)
    for path in paths:
        remove(path)
    for path in orphans:
        with suppress(OSError):
            remove_orphan(
                os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY), os.path.basename(path)
            )


def _keep_only(*wanted: int) -> list[int]:
    """Close every other file descriptor: who reads our output must see it end when the supervisor ends."""
    high = [os.dup(fd) for fd in wanted]
    limit = max(high) + 1
    spare = [os.dup2(fd, limit + i) for i, fd in enumerate(high)]
    os.closerange(0, limit)
    null = os.open(os.devnull, os.O_RDWR)
    while null < FIRST_FREE_FD - 1:
        null = os.dup(null)
    return [os.dup2(fd, FIRST_FREE_FD + i) for i, fd in enumerate(spare)]


def remove(path: str) -> None:
    """Remove a file or a folder with all it holds; not being there is fine."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)
