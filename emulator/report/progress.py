"""Show how a run gets on: a bar with evaluations, free memory, IPIs per second and time, on a terminal or in
a notebook; not one byte elsewhere. On a terminal that has room, a run's machine is shown below it (live.py).

An evaluation is a process's start-up, its prompt, or a token.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

if TYPE_CHECKING:
    from emulator.report.live import Seen

REFRESH_S = 0.1
BAR, BAR_LEAST, BESIDE = 40, 8, 15  # columns of the bar, and of spaces and the time beside it
COLUMNS_LEAST, ROWS_LEAST = 60, 16  # of a terminal that has room for more than the bar
NOTEBOOK = "ipykernel"  # the module that runs notebooks


class Progress:
    """A run's progress bar, as a context manager.

    Feed it with `update(done, total, free_mib=[1.9, 2.4], ipis=17_200)`, where `ipis` counts since the start,
    and with `phase("compiling the engine")` before there is anything to count. `unit` is what is counted.
    `view`: what `look` of update gives is shown, too.
    """

    def __init__(
        self,
        design: str,
        *,
        width: int = 6,
        unit: str = "evaluations",
        stream: TextIO | None = None,
        view: bool = False,
    ):
        self._stream = sys.stderr if stream is None else stream
        self._label = f"{design:<{width}}"
        self._unit = unit
        self._terminal = self._stream.isatty()
        self._shown = self._terminal or NOTEBOOK in sys.modules
        self._view, self._columns = view, 0
        self._before: Seen | None = None
        self._bar: Any = None
        self._last = time.monotonic()
        self._first: float | None = None  # when there was something to count
        self._last_ipis = 0
        self._rate = 0.0

    def __enter__(self) -> Self:
        if self._shown:
            from tqdm import tqdm  # 50 ms that silent runs and --help need not spend

            # tqdm draws nothing on a terminal that says it has 0 columns or rows
            columns, rows = shutil.get_terminal_size((120, 24))
            self._columns = columns
            with self._terminal_may_leave():
                if self._view and self._terminal and columns >= COLUMNS_LEAST and rows >= ROWS_LEAST:
                    from emulator.report.live_bar import LiveBar

                    self._bar = LiveBar(self._label, self._stream, columns)
                    return self
                self._bar = tqdm(
                    total=1,
                    desc=self._label,
                    bar_format=self._layout(""),
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

    def _layout(self, state: str) -> str:
        """Give tqdm's layout: the bar gets what columns the state leaves."""
        bar = min(BAR, max(BAR_LEAST, self._columns - len(self._label) - len(state) - BESIDE))
        # the state goes into the layout, as tqdm would put a comma before a postfix
        state = state.replace("{", "{{").replace("}", "}}")
        return f"{{desc}}  {{bar:{bar}}}  {state}   {{elapsed}}"

    def _draw(self, state: str) -> None:
        with self._terminal_may_leave():
            if self._bar is not None:
                self._bar.bar_format = self._layout(state)
                self._bar.refresh()

    @contextmanager
    def _terminal_may_leave(self) -> Iterator[None]:
        """Go on without a bar if nothing can be written any more: the terminal is gone, or a disk full."""
        try:
            yield
        except OSError:
            self._bar = None

    def update(
        self,
        evaluated: float,
        total: int,
        free_mib: Sequence[float] = (),
        ipis: int = 0,
        look: Callable[[], Seen] | None = None,
    ) -> None:
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
        if look and hasattr(self._bar, "show"):
            now_seen = look()
            self._bar.show(now_seen, self._before)
            self._before = now_seen
        # `luf golden` counts cells, and nothing else
        state = f"{free}   {speed} IPI/s" if free or ipis else ""
        self._draw(f"{int(evaluated)}/{total} {self._unit}{state}")


@contextmanager
def shown_in_notebooks(progress: Any, design: str) -> Iterator[Any]:
    """Give what shows how a run gets on: in a notebook a bar, if nothing was asked for, since the first run
    there compiles for a minute.
    """
    if progress is not None or NOTEBOOK not in sys.modules:
        yield progress
        return
    with Progress(design) as bar:
        yield bar
