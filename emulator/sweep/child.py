"""One run in a process of its own: what goes in is an experiment by value, what comes out is how it ended.

Who starts it, here or on a worker of a cluster, loses a process at most, whatever the run does. The process
ends with the one that started it, and takes its CPUs along.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from emulator.ending import endings_raised
from emulator.result import Result
from emulator.stopped import CpuDied, HostFault, RunStopped
from inputs.text import on_a_line

PR_SET_PDEATHSIG = 1
LEAVE_S = 10.0  # that a run has to put its machine away
WHY = 600  # characters
COMMAND = (sys.executable, "-m", "emulator.sweep.child")


class Answer(Struct, frozen=True):
    """How a run ended: with a result, stopped for good, refused (bad input), failed (a mistake of ours), or
    lost: its process is gone, and another one may do better.
    """

    result: Result | None = None
    stopped: str = ""
    by: str = ""
    by_design: bool = False
    refused: str = ""
    failed: str = ""
    lost: str = ""


Run = Callable[[bytes], bytes]


class Children:
    """Runs experiments in processes of their own; any thread may ask for one. A name that was ended is not
    begun any more.
    """

    def __init__(self, command: Sequence[str] = COMMAND):
        self.command = list(command)
        self._running: dict[Any, str] = {}
        self._unwanted: set[str] = set()
        self._ended = False
        self._lock = threading.Lock()

    def __call__(self, sent: bytes, name: str = "") -> bytes:
        """Run a pickled experiment; gives an Answer as JSON."""
        with self._lock:
            if self._ended or name in self._unwanted:
                return msgspec.json.encode(Answer(lost="the sweep has ended"))
            child = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
            self._running[child] = name
        try:
            answer, _ = child.communicate(sent)
        finally:
            with self._lock:
                del self._running[child]
        if child.returncode == 0:
            return answer
        return msgspec.json.encode(Answer(lost=_ending(child.returncode)))

    def end(self) -> None:
        """End all of them, start no more, and wait until they are gone."""
        for child in self.tell_to_end():
            child.wait()

    def tell_to_end(self, name: str | None = None) -> list[Any]:
        """End the one of a name, or all, and start it no more. Waits for none: gives those that still ran,
        and kills what has not put its machine away after LEAVE_S.
        """
        with self._lock:
            if name is None:
                self._ended = True
            else:
                self._unwanted.add(name)
            left = [child for child, its in self._running.items() if name in (None, its)]
        for child in left:
            child.terminate()
            timer = threading.Timer(LEAVE_S, child.kill)
            timer.daemon = True
            timer.start()
        return left


def _ending(code: int) -> str:
    if code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process left with exit code {code}"


def answer_of(run: Callable[[], Result]) -> Answer:
    """Run, and say how it ended."""
    from emulator.host_facts import HostError

    try:
        return Answer(result=run())
    except (CpuDied, HostFault, HostError) as error:
        return Answer(lost=on_a_line(str(error), WHY))
    except RunStopped as error:
        return Answer(stopped=on_a_line(str(error), WHY), by=error.by, by_design=error.by_design)
    except (ValueError, MemoryError) as error:
        from emulator.experiment import StatisticsError  # it brings the engine

        if isinstance(error, StatisticsError):
            return Answer(result=error.result)  # where it is a finding
        return Answer(refused=on_a_line(str(error), WHY) or type(error).__name__)
    except Exception as error:  # noqa: BLE001 (the process ends here; who asked for the run tells it)
        return Answer(failed=on_a_line(f"{type(error).__name__}: {error}", WHY))


def _checked(experiment: Any) -> Any:
    """Give it back if this host can carry it, which may be another than the one that sent it."""
    from emulator.host_facts import check_host

    check_host(experiment.machine)
    return experiment


def main() -> int:
    """Be the process: an experiment on stdin, the answer on stdout, and nothing else there."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    out = os.dup(1)
    os.dup2(2, 1)
    with suppress(KeyboardInterrupt), endings_raised():
        experiment = pickle.loads(sys.stdin.buffer.read())
        answer = msgspec.json.encode(answer_of(lambda: _checked(experiment).run()))
        with open(out, "wb") as stream:
            stream.write(answer)
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
