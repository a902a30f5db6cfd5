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
import signal
import traceback

from emulator.ending import SIGNALLED, WORDS
from emulator.stopped import RunStopped
from emulator.streams import tell
from emulator.verdict import BAD_INPUT, FAILED, of_stopped


def answer(error: BaseException) -> int:
    """Tell the user what has ended the command, and return the exit code."""
    if os.environ.get("LUF_DEBUG") == "1":
        tell("".join(traceback.format_exception(error)).rstrip())
    notes = getattr(error, "__notes__", [])
    if isinstance(error, KeyboardInterrupt):
        number = getattr(error, "number", signal.SIGINT)
        tell(f"luf: {WORDS[number]}; {'; '.join(notes) or 'nothing was written'}")
        return SIGNALLED + number
    said, code, verdict = _judged(error)
    for line in (said, *notes):
        tell(f"luf: {line}")
    if verdict:
        tell(verdict)
    return code


def _judged(error: BaseException) -> tuple[str, int, str]:
    """Give the sentence of an error, its exit code, and the verdict's line if there is one."""
    if isinstance(error, ValueError | MemoryError):
        return sentence(error), BAD_INPUT, ""
    if isinstance(error, RunStopped):
        verdict = of_stopped(error)
        return f"the run was stopped: {error}", verdict.code, verdict.line().rstrip()
    if isinstance(error, OSError):
        return f"the host failed: {sentence(error)}", FAILED, ""
    what = f"{type(error).__name__}: {sentence(error)}"
    return f"the emulator failed: {what} (LUF_DEBUG=1 shows where)", FAILED, ""


def sentence(error: BaseException) -> str:
    """Return what an exception says, in one line; an error of the host with its file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
