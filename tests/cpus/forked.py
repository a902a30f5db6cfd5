"""Run a compiled function in several processes at once: for tests of atomics, where only a real overlap
proves anything.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

BOUND_S = 30.0


def run_forked(functions: list[Callable[[], object]]) -> list[int]:
    """Fork one process per function, each on a host core of its own if there are enough; returns the exit
    codes.
    """
    cores = sorted(os.sched_getaffinity(0))
    pids = [_fork(function, cores[i % len(cores)]) for i, function in enumerate(functions)]
    bound, codes = time.monotonic() + BOUND_S, []
    try:
        for pid in pids:
            fd = os.pidfd_open(pid)
            try:
                codes.append(_code(pid, fd, bound))
            finally:
                os.close(fd)
    finally:
        for pid in pids[len(codes) :]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    return codes


def _fork(function: Callable[[], object], core: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            os.sched_setaffinity(0, {core})
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def _code(pid: int, fd: int, bound: float) -> int:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(max(0.0, bound - time.monotonic()) * 1000), (
        f"process {pid} did not end within {BOUND_S} s"
    )
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
