"""Show how a run gets on: a bar with evaluations, free memory, IPIs per second and time, on a terminal; not
one byte elsewhere.

An evaluation is a process's start-up, its prompt, or a token.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TextIO

REFRESH_S = 0.1
BAR = 40


class Progress:
    """A run's progress bar, as a context manager.

    Feed it with `update(done, total, free_mib=[1.9, 2.4], ipis=17_200)`, where `ipis` counts since the start,
    and with `phase("compiling the engine")` before there is anything to count. `unit` is what is counted.
    """

    def __init__(
        self, design: str, *, width: int = 6, unit: str = "evaluations", stream: TextIO | None = None
    ):
        self._stream = sys.stderr if stream is None else stream
        self._label = f"{design:<{width}}"
        self._unit = unit
        self._shown = self._stream.isatty()
        self._bar: Any = None
        self._last = time.monotonic()
        self._first: float | None = None  # when there was something to count
        self._last_ipis = 0
        self._rate = 0.0

    def __enter__(self) -> Self:
        if self._shown:
            from tqdm import tqdm  # 50 ms that silent runs and --help need not spend

            # tqdm draws nothing on a terminal that says it has 0 columns or rows
            columns = shutil.get_terminal_size((120, 24)).columns
            with self._terminal_may_leave():
                self._bar = tqdm(
                    total=1,
                    desc=self._label,
                    bar_format=_layout(""),
                    ascii=" #",
                    file=self._stream,
                    ncols=columns,
                    nrows=20,
                )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._terminal_may_leave():
            if self._bar is not None:
                self._bar.close()
        self._bar = None

    def phase(self, text: str) -> None:
        """Say what goes on before there are evaluations to count."""
        self._draw(text)

    def line(self, text: str) -> None:
        """Print a line of text; it stands above the bar."""
        with self._terminal_may_leave():
            if self._bar is not None:
                self._bar.write(text, file=self._stream)
            else:
                self._stream.write(f"{text}\n")
                self._stream.flush()

    def _draw(self, state: str) -> None:
        with self._terminal_may_leave():
            if self._bar is not None:
                self._bar.bar_format = _layout(state)
                self._bar.refresh()

    @contextmanager
    def _terminal_may_leave(self) -> Iterator[None]:
        """Go on without a bar if nothing can be written any more: the terminal is gone, or a disk full."""
        try:
            yield
        except OSError:
            self._bar = None

    def update(self, evaluated: float, total: int, free_mib: Sequence[float] = (), ipis: int = 0) -> None:
        """Show the state of the run; cheap to call often, drawn at most ten times a second."""
        if self._bar is None:
            return
        now = time.monotonic()
        if now - self._last < REFRESH_S and evaluated < total:
            return
        self._first = self._first or now
        elapsed = now - self._last
        if elapsed > 0:
            latest = (ipis - self._last_ipis) / elapsed
            self._rate = latest if self._rate == 0.0 else 0.7 * self._rate + 0.3 * latest
        self._last, self._last_ipis = now, ipis
        done = evaluated >= total
        # in the end, that of the whole run
        rate = ipis / max(now - self._first, REFRESH_S) if done else self._rate
        self._bar.total = total
        self._bar.n = evaluated
        free = "   free " + " + ".join(f"{mib:.1f}" for mib in free_mib) + " MiB" if free_mib else ""
        speed = f"{rate / 1000:.1f}k" if rate >= 1000 else f"{rate:.0f}"
        # `luf golden` counts cells, and nothing else
        state = f"{free}   {speed} IPI/s" if free or ipis else ""
        self._draw(f"{int(evaluated)}/{total} {self._unit}{state}")


def _layout(state: str) -> str:
    # The state goes into the layout, as tqdm would put a comma before a postfix.
    state = state.replace("{", "{{").replace("}", "}}")
    return f"{{desc}}  {{bar:{BAR}}}  {state}   {{elapsed}}"
