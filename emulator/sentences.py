"""The one place that turns an exception into what the user is told, and into an exit code.

    what was asked for cannot be done (ValueError, MemoryError)       2   the sentence
    the design has stopped the run (RunStopped)                       1   the sentence, and a verdict
    something else has stopped it                                     3   the same
    the host has refused something (OSError)                          3   its file, and why
    anything else: a mistake of ours                                  3   and how to see where
    a signal (KeyboardInterrupt)                       128 + its number   what it did

What was kept all the same is a note of the exception (`add_note`), and told too. LUF_DEBUG=1 shows a
traceback with any of them.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from typing import Any

from emulator.ending import SIGNALLED, WORDS, signal_of
from emulator.stopped import RunStopped
from emulator.streams import tell
from emulator.verdict import BAD_INPUT, FAILED, of_stopped
from inputs.file import shown
from inputs.text import visible

LONGEST = 600  # characters of a sentence: a few lines of a terminal


def answer(error: BaseException) -> int:
    """Tell the user what has ended the command, and return the exit code."""
    if os.environ.get("LUF_DEBUG") == "1":
        tell("".join(traceback.format_exception(error)).rstrip())
    code, notes = code_of(error), _notes(error)
    if isinstance(error, KeyboardInterrupt):
        notes = notes or ["nothing was written"]
    tell(f"luf: {'; '.join((_said(error), *notes))}")
    if isinstance(error, RunStopped) and not isinstance(error, ValueError):
        tell(of_stopped(error).line().rstrip())
        if error.schedule:
            tell(
                f"schedule            {error.schedule}: {_counted(error.scheduled)}; it repeats this exactly"
            )
    return code


def _counted(scheduled: Mapping[str, Any]) -> str:
    """Say how far a schedule came."""
    return f"{scheduled['points']:,} scheduling points, {len(scheduled['switches']):,} hand-overs"


def code_of(error: BaseException) -> int:
    """Return the exit code for an exception."""
    if isinstance(error, KeyboardInterrupt):
        return SIGNALLED + signal_of(error)
    if isinstance(error, ValueError | MemoryError):
        return BAD_INPUT
    return of_stopped(error).code if isinstance(error, RunStopped) else FAILED


def _said(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return WORDS[signal_of(error)]
    if isinstance(error, ValueError | MemoryError):
        return sentence(error)
    if isinstance(error, RunStopped):
        return f"the run was stopped: {error}"
    if isinstance(error, OSError):
        return f"the host failed: {sentence(error)}"
    return f"the emulator failed: {type(error).__name__}: {sentence(error)} (LUF_DEBUG=1 shows where)"


def _notes(error: BaseException | None) -> list[str]:
    """Return the notes of an exception, or of that which it came upon: Ctrl-C while another was answered."""
    while error is not None:
        if notes := getattr(error, "__notes__", None):
            return list(notes)
        error = error.__context__
    return []


def sentence(error: BaseException) -> str:
    """Return what an exception says, in one line; an error of the host with its file."""
    if isinstance(error, OSError) and error.strerror:
        file = error.filename
        name = os.fsdecode(file) if isinstance(file, bytes) else str(file)
        return f"{shown(name)}: {error.strerror}" if file else error.strerror
    return visible(" ".join(str(error).split()), LONGEST) or type(error).__name__
