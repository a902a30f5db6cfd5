"""Fill a machine's text table with addresses of entries, compiled on all host cores at once where the cache
has none yet.

Helpers are forked; they and their parent take entries off one queue, a pipe of a byte each, until it is
empty. Nothing is handed back but the cache on disk, so whatever goes wrong in a helper (an error in a user's
hook, too little memory, a kill) is met again, and reported, by the parent that then compiles the entry
itself.
Two processes may compile the same small callee; files of the cache appear in one step, whole. Ctrl-C and
SIGTERM wait for the end of a compiler's pass (held_signals.py). Left out: code without a cache (notebook
cells), which only its own process can compile.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import multiprocess
import numba
from numba import types

from cpus.compiled import Entry, Text, python_text, text_at
from cpus.declare import CONFIG, Field
from cpus.ending import ENDING
from cpus.held_signals import HeldSignals, signals_held

FIELDS = (Field("text", CONFIG, "the text table: addresses of compiled functions", ("nr_text",)),)
Progress = Callable[[str, int, int], None]  # name, how many before it, how many in all
WORTHWHILE = 8  # entries: a fork and a compiler's cold start cost as much as some small ones
PROCESSES_MAX = 8  # there is not work for more, and each may take 0.3 GB
LOOK_S = 0.05  # how often a parent that waits for its helpers looks for a signal
QUEUE_MAX = 255  # what a byte can name, and far below a pipe's buffer
PR_SET_PDEATHSIG = 1


def install(ram: Any, entries: Iterable[Entry], progress: Progress | None = None) -> float:
    """Put the addresses of entries into `ram.text`; later ones win.

    `progress` hears of those that are compiled, not of those that the cache has. Returns the seconds spent
    compiling or loading.
    """
    entries = list(entries)
    began = time.perf_counter()
    with signals_held() as held:
        compile_ahead(entries, ram, progress)
        missing = [item for item in entries if not item.is_compiled_or_cached(ram._type)] if progress else []
        for item in entries:
            held.let_in()
            if progress and item in missing:
                progress(item.name, missing.index(item), len(missing))
            install_at(ram, item.text, item)
    return time.perf_counter() - began


def install_at(ram: Any, text: Text | str, item: Entry) -> None:
    """Put an entry's address at `text`, which need not be its own (one default may serve many hooks).

    Raises ValueError for a function of other arguments than its callers give.
    """
    number, place = text_at(ram, text)
    if item.arguments != place.arguments:
        code = item.function.__code__
        raise ValueError(
            f"{code.co_filename}:{code.co_firstlineno}: {item.name} must take {place.arguments} arguments "
            f"behind `ram`, as those who call {place.name!r} give them (got {item.arguments})"
        )
    if numba.config.DISABLE_JIT:
        python_text[number] = item.function
    else:
        ram.text[number] = item.compile(ram._type)


def compile_ahead(entries: Sequence[Entry], ram: Any, progress: Progress | None = None) -> int:
    """Compile those entries that the cache does not hold, all cores at once; returns how many, 0 if too few
    to be worth it.

    An entry that does not compile is left to whoever installs it. A signal's exception ends the helpers.
    """
    processes = min(len(os.sched_getaffinity(0)), PROCESSES_MAX)
    if numba.config.DISABLE_JIT or processes < 2:
        return 0
    missing = [item for item in entries if item.can_be_cached and not item.is_compiled_or_cached(ram._type)]
    del missing[:-QUEUE_MAX]
    missing.reverse()  # the engine's entries come last and take longest
    if len(missing) < WORTHWHILE:
        return 0
    get, put = os.pipe()
    os.write(put, bytes(range(len(missing))))
    os.close(put)
    with signals_held() as held:
        _compile_with_helpers(get, missing, ram, processes - 1, held, progress)
    return len(missing)


def _compile_with_helpers(
    get: int, missing: Sequence[Entry], ram: Any, count: int, held: HeldSignals, progress: Progress | None
) -> None:
    """Take entries off the queue, as `count` helpers do, and wait for these. None is left, whatever is
    raised.
    """
    context = multiprocess.get_context("fork")
    helpers = [
        context.Process(target=_help, args=(get, missing, ram._type, held), daemon=True) for _ in range(count)
    ]
    try:
        for helper in helpers:
            helper.start()
        for i, item in _taken(get, missing):
            held.let_in()
            if progress:
                progress(item.name, i, len(missing))
            with suppress(Exception):
                item.compile(ram._type)
        for helper in helpers:
            while helper.is_alive():
                helper.join(LOOK_S)
                held.let_in()
    finally:
        for helper in helpers:
            if helper.pid is not None:
                helper.kill()
                helper.join()
        os.close(get)


def _taken(get: int, missing: Sequence[Entry]) -> Iterable[tuple[int, Entry]]:
    """Take entries off the queue until it is empty."""
    while taken := os.read(get, 1):
        yield taken[0], missing[taken[0]]


def _help(get: int, missing: Sequence[Entry], segment_type: types.Type, held: HeldSignals) -> None:
    """Be a helper. Never returns."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)  # the parent ends its helpers, by a signal that nobody ignores
    held.forget()
    for _, item in _taken(get, missing):
        with suppress(Exception):
            item.compile(segment_type)
    os._exit(0)
