"""Standard streams that a command can rely on: there, able to print any text, and free to be left by their
reader, or to be full.

A reader that leaves (`luf report | head`) costs the rest of the text and nothing else: the exit code stays
the command's. A stream that cannot take what was asked for (a full disk under stdout) is told on stderr, and
makes of exit code 0 a 2; every other code stays what it is. What happens to stderr changes none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, TextIO

from emulator.output_file import OutputError
from emulator.verdict import BAD_INPUT, CLEAN
from inputs.text import visible

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def ready_streams() -> None:
    """Give a stream that the shell has closed (`2>&-`) to /dev/null, and let stdout replace what its encoding
    has not.

    In order of their numbers, as `open` takes the lowest that is free: else a file of the run would become
    stderr.
    """
    for name, mode in STREAMS:
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (it stays open as long as the process lives)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:  # a notebook's or a test's stream may be of another kind
        reconfigure(errors="replace")


def can_print(text: str) -> bool:
    """Has stdout's encoding all of these letters? What it has not is replaced by `?`."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Print in this block, down to the last byte; if the reader has left, the rest goes nowhere and the block
    ends well.

    Raises OutputError that names standard output if it cannot take the text for another reason, such as a
    full disk.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        _to_nowhere(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"standard output: {error.strerror or error}") from error


def settled(code: int) -> int:
    """Print what is still buffered, so that nothing is left to fail when the process ends; return the exit
    code.
    """
    try:
        with reader_may_leave():
            pass
    except OutputError as error:
        tell(f"luf: {error}")
        code = BAD_INPUT if code == CLEAN else code
    tell("", end="")
    return code


def leave_at_once(code: int) -> NoReturn:
    """End the process now, with what it has printed: two thirds of the time in which an interrupted run ends
    would be Python's tidying up.

    Nothing may be left that only an exit handler would remove: the supervisor has removed what is a run's.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def tell(text: str, end: str = "\n") -> None:
    """Write a line to stderr, if anybody listens there and it can be written."""
    try:
        sys.stderr.write(visible(text) + end)
        sys.stderr.flush()
    except (OSError, ValueError):  # ValueError: it was closed
        _to_nowhere(sys.stderr)


def _to_nowhere(stream: TextIO) -> None:
    """Have what is still buffered, and what will be written, go to /dev/null."""
    with suppress(OSError, ValueError):  # a stream that is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
