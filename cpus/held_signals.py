"""Hold the signals that end a run back while numba compiles, and let them in where what their handlers raise
is not lost.

LLVM calls Python while it works (ctypes callbacks), and an exception that is raised there is printed and
forgotten: Ctrl-C had no effect, and the compiler went on for a minute. So a signal is noted first; its
handler is called between two entries or two of numba's passes, within a second. Left out: signals that no
Python function handles (they act at once, as ever), and other threads than main, which get none.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import event

from cpus.ending import ENDING

PASS = "numba:run_pass"


class HeldSignals(event.Listener):
    """The first signal that arrived and was not let in yet, and the handlers that it will be given to."""

    def __init__(self) -> None:
        self.number = 0
        self.handlers: dict[int, Callable[[int, Any], Any]] = {}

    def note(self, number: int, _frame: Any) -> None:
        """Be the handler of a signal."""
        self.number = self.number or number

    def let_in(self) -> None:
        """Call the handler of a signal that has arrived; raises what it raises."""
        if self.number and threading.current_thread() is threading.main_thread():
            number, self.number = self.number, 0
            self.handlers[number](number, None)

    def forget(self) -> None:
        """Drop what has arrived: a forked helper leaves it to its parent."""
        self.number = 0

    def on_start(self, _event: Any) -> None:
        """A pass begins: numba's own code runs, not LLVM's."""
        self.let_in()

    def on_end(self, _event: Any) -> None:
        """A pass has ended, maybe by an exception: the next one begins soon enough."""


_holding: list[HeldSignals] = []  # at most one: that of the outermost block


@contextmanager
def signals_held() -> Iterator[HeldSignals]:
    """Hold signals back within the block, at whose end they are let in. In a block of the same kind it
    changes nothing.
    """
    held = HeldSignals()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    if _holding:
        yield _holding[0]
        return
    _holding.append(held)
    try:
        with event.install_listener(PASS, held):
            for number in ENDING:
                handler = signal.getsignal(number)
                if callable(handler):
                    held.handlers[number] = handler
                    signal.signal(number, held.note)
            yield held
    finally:
        for caught, handled in held.handlers.items():
            signal.signal(caught, handled)
        _holding.clear()
        held.let_in()
