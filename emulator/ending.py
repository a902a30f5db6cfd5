"""How a signal ends a command: as an exception in the main thread, so that every `finally` on the way out
does its work, and with the exit code that a shell gives a program which such a signal ends.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cpus.ending import ENDING, go_on

WORDS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "ended, as its terminal was closed",
    signal.SIGQUIT: "quit",
}
SIGNALLED = 128  # and its number


class Interrupted(KeyboardInterrupt):
    """A signal ended the command; `exit_code` is the shell's (130, 143, 129, 131)."""

    def __init__(self, number: int):
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = signal.Signals(number)
        self.exit_code = SIGNALLED + number


def signal_of(error: KeyboardInterrupt) -> signal.Signals:
    """Return the signal behind an exception: Python's own is SIGINT's."""
    return getattr(error, "number", signal.SIGINT)


@contextmanager
def endings_raised() -> Iterator[None]:
    """Raise Interrupted in this block for a signal that ends a command, unless the user has it ignored
    (nohup). SIGINT is left to Python, which raises KeyboardInterrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = [number for number in ENDING if number != signal.SIGINT]
    previous = {number: signal.getsignal(number) for number in wanted}
    try:
        for number, handler in previous.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, _raise)
        previous[signal.SIGCONT] = signal.signal(signal.SIGCONT, go_on)  # compilers are forked, too
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def endings_held() -> Iterator[None]:
    """Let the signals that end a command wait until this block has ended."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _raise(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(number)
