"""A command of luf as a process of its own, watched from outside: what it prints, what /proc says of its
children, what lies in its folders. So a moment is reached when it is there, and not after some time.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
LUF = (sys.executable, "-m", "emulator")
LOOK_S = 0.001  # between two looks
END_S = 240.0  # a disturbed command must have ended by then, on a host that has much else to do, too
GONE_S = 5.0  # and all that it had started
MARK = re.compile(r"(\d+)/\d+ evaluations")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGXFSZ)


@dataclass(frozen=True, slots=True)
class Places:
    """Folders of one command: where it works, for its results, for temporary files, its home."""

    base: Path

    @property
    def work(self) -> Path:
        return self.base / "work"

    @property
    def out(self) -> Path:
        return self.work / "o"

    @property
    def temporary(self) -> Path:
        return self.base / "tmp"

    @property
    def home(self) -> Path:
        return self.base / "home"

    def make(self) -> None:
        for place in (self.work, self.temporary, self.home):
            place.mkdir(parents=True)


class Program:
    """The command while it runs. `prepare` is called in the child before it becomes luf."""

    def __init__(
        self,
        places: Places,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        prepare: Callable[[], None] | None = None,
        luf: Sequence[str] = (),
        stdout: str = "",
        stderr: str = "",
    ):
        self.places = places
        self.heard = b""
        self.ran = False  # have its CPUs been seen?
        self._out = places.base / "stdout"
        self._terminal, theirs = pty.openpty()
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL}
        streams["stdout"] = os.open(stdout or self._out, os.O_WRONLY | os.O_CREAT, 0o666)
        streams["stderr"] = os.open(stderr, os.O_WRONLY) if stderr else theirs

        def begin() -> None:
            for number in SIGNALS:  # a campaign in the background has some of them ignored
                signal.signal(number, signal.SIG_DFL)
            if prepare:
                prepare()

        self.process = subprocess.Popen(
            [*(luf or LUF), *arguments], cwd=places.work, env=dict(environment), start_new_session=True,
            preexec_fn=begin, **streams
        )  # fmt: skip
        for number in {streams["stdout"], streams["stderr"], theirs}:
            os.close(number)

    # -- what can be seen ------------------------------------------------------------------------------------

    def listen(self, seconds: float = 0.0) -> None:
        """Take what it has written to its terminal."""
        while select.select([self._terminal], [], [], seconds)[0]:
            try:
                part = os.read(self._terminal, 65_536)
            except OSError:  # nobody has the other end any more
                part = b""
            if not part:
                return
            self.heard += part
            seconds = 0.0

    def over(self) -> bool:
        return self.process.poll() is not None

    def family(self) -> list[int]:
        """Give the processes below it, all generations."""
        found, todo = [], [self.process.pid]
        while todo:
            for task in _listed(f"/proc/{todo.pop()}/task"):
                with suppress(OSError):
                    below = [int(pid) for pid in Path(f"{task}/children").read_text(encoding="ascii").split()]
                    found += below
                    todo += below
        return found

    def janitors(self) -> list[int]:
        """They have a session of their own."""
        return [pid for pid in self.family() if _session(pid) not in (self.process.pid, 0)]

    def cpus(self) -> list[int]:
        """The other children, while there is a janitor: before, they are compilers."""
        janitors = set(self.janitors())
        found = [pid for pid in self.family() if pid not in janitors] if janitors else []
        self.ran |= bool(found)
        return found

    def partial(self) -> bool:
        """Is there a folder, or a file, that is being written?"""
        return any(
            place.name.startswith(".")
            for folder in (self.places.work, self.places.out)
            for place in _entries(folder)
        )

    def printed(self) -> str:
        return self._out.read_text(encoding="utf-8", errors="replace") if self._out.exists() else ""

    def text(self) -> str:
        return ESCAPE.sub("", self.heard.decode("utf-8", "replace"))

    def evaluations(self) -> int:
        marks = MARK.findall(self.text())
        return int(marks[-1]) if marks else 0

    # -- what can be waited for ------------------------------------------------------------------------------

    def reaches(self, moment: Callable[[Program], bool]) -> bool:
        """Look until the moment is there; False if the command ended, or the bound passed, without it."""
        until = time.monotonic() + END_S
        while not moment(self):
            if self.over() or time.monotonic() > until:
                return False
            self.listen(LOOK_S)
        return True

    def end(self) -> int | None:
        """Wait for its end, and give its exit code as a shell does; None if it has to be killed."""
        self.reaches(Program.over)
        ended = self.over()
        if not ended:
            for pid in [*self.family(), self.process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        code = self.process.wait()
        self.listen()
        os.close(self._terminal)
        return (code if code >= 0 else 128 - code) if ended else None

    def left(self) -> list[int]:
        """Give the processes of it that are still there when a bounded time has passed, and end them. A
        killed one is a zombie as soon as its first thread is gone; the others may have its sockets a moment
        longer.
        """
        until = time.monotonic() + GONE_S
        while ((still := self._ours()) or has_sockets(self.places)) and time.monotonic() < until:
            select.select([], [], [], 0.01)
        for pid in still:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return still

    def _ours(self) -> list[int]:
        """Whoever works where it does: a child may have lost its parent."""
        here = str(self.places.work)
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [
            pid for pid in pids if _link(f"/proc/{pid}/cwd").startswith(here) and _state(pid) not in ("", "Z")
        ]


def has_sockets(places: Places) -> bool:
    """Does anybody have a Unix socket in these folders?"""
    sockets = Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace")
    return f"{places.base}/" in sockets


def _listed(folder: str) -> list[str]:
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder)]
    except OSError:
        return []


def _entries(folder: Path) -> list[Path]:
    return [Path(name) for name in _listed(str(folder))]


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return []


def _state(pid: int) -> str:
    return (_stat(pid) or [""])[0]


def _session(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[3]) if fields else 0
