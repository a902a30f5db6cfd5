"""Workers, one on each host core, each with arenas of its own, that do tasks for their parent.

    with Pool(cores, designs) as pool:
        pool.put(task)                 # to a worker that is idle
        for result in pool.take(0.1):  # of those that are done by then
            ...

A worker is forked when everything that is compiled has been loaded, so it finds that in its memory. It
takes a task off its pipe, does it, and puts the result there. What it cannot do it says, and the parent
raises it; a worker that dies is a sentence. When the block is left, whichever way, workers are asked to
end, and killed if they do not; should the parent be killed, they die with it, and their CPUs with them.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Self

import multiprocess
from multiprocess.connection import wait

from designs.ready import ReadyDesign
from emulator.ending import endings_held
from emulator.stopped import CpuDied, RunStopped
from emulator.stress.arena import Arenas

PR_SET_PDEATHSIG = 1
LEAVE_S = 5.0

Designs = Mapping[str, ReadyDesign]  # by what names them to a command


class WorkerFailed(RunStopped):
    """A worker could not do its task, for a reason that says nothing about the design."""

    by = "the emulator, which failed in a worker"


class Pool:
    """`cores`: the host core of each worker. Tasks are done by `task.do(arenas, designs)`: they name a
    design, and what is loaded already is its object.
    """

    def __init__(self, cores: Sequence[int], designs: Designs = MappingProxyType({})):
        self.cores, self.designs = list(cores), designs
        self.workers: list[Any] = []
        self.pipes: list[Any] = []
        self._idle: list[int] = []

    def __enter__(self) -> Self:
        try:
            for core in self.cores:
                self._start(core)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    @property
    def idle(self) -> int:
        """How many workers have nothing to do."""
        return len(self._idle)

    @property
    def is_busy(self) -> bool:
        """Is any result due?"""
        return len(self._idle) < len(self.workers)

    def put(self, task: Any) -> None:
        """Give a task to an idle worker."""
        self.pipes[self._idle.pop()].send(task)

    def take(self, seconds: float) -> list[Any]:
        """Give results as they come, waiting at most so long for the first. Raises WorkerFailed, and
        ValueError for a task that is wrong.
        """
        sentinels = [worker.sentinel for worker in self.workers]
        ready = wait([*self.pipes, *sentinels], seconds)
        found = []
        for number, pipe in enumerate(self.pipes):
            if pipe in ready or sentinels[number] in ready:
                found.append(self._result(number))
                self._idle.append(number)
        return found

    def _result(self, number: int) -> Any:
        try:
            kind, value = self.pipes[number].recv()
        except (EOFError, OSError):
            worker = self.workers[number]
            worker.join()
            raise CpuDied(f"worker {number} (pid {worker.pid}) {_ending(worker.exitcode)}") from None
        if kind == "refused":
            raise ValueError(value)
        if kind == "failed":
            raise WorkerFailed(value)
        return value

    def _start(self, core: int) -> None:
        ours, theirs = multiprocess.Pipe()
        worker = multiprocess.get_context("fork").Process(
            target=_work,
            args=(theirs, core, [*self.pipes, ours], self.designs),
            name=f"worker{len(self.workers)}",
        )
        with warnings.catch_warnings(), endings_held():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: there are none
            worker.start()
            self.workers.append(worker)
            self.pipes.append(ours)
        self._idle.append(len(self.workers) - 1)
        theirs.close()

    def _end(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.join(LEAVE_S)
            if worker.is_alive():
                worker.kill()
                worker.join()
            worker.close()
        self.workers.clear()
        self.pipes.clear()
        self._idle.clear()


def _work(pipe: Any, core: int, others: Sequence[Any], designs: Designs) -> None:
    """Be a worker. Never returns."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for other in others:
            other.close()
        os.sched_setaffinity(0, {core})
        gc.freeze()  # what was loaded before is here to stay: a collection need not look at it
        with Arenas(say=lambda _: None) as arenas:
            while True:
                pipe.send(_done(pipe.recv(), arenas, designs))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        status = 0
    except BaseException:  # noqa: BLE001 (the process ends here)
        with suppress(OSError):
            pipe.send(("failed", traceback.format_exc()))
    finally:
        sys.stderr.flush()
        os._exit(status)


def _done(task: Any, arenas: Arenas, designs: Designs) -> tuple[str, Any]:
    try:
        return "done", task.do(arenas, designs)
    except ValueError as error:
        return "refused", str(error)
    except RunStopped as error:
        return "failed", str(error)


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"
