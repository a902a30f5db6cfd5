"""Read a file that a user names: a regular one of bounded size, or one sentence.

A pipe or a device is refused, as it may never end or never begin. Opening does not wait for a writer, and
reading stops behind the bound, whatever size the file system says (files of /proc have none).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from inputs.text import on_a_line

MIB = 1 << 20
SOURCE_BYTES = 16 * MIB  # of a user's Python file
NAME_SHOWN = 240
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class InputError(ValueError):
    """A file that cannot be used: one sentence."""


def shown(path: str | Path) -> str:
    """Return a path as sentences name it: on one line, clipped."""
    return on_a_line(str(path), NAME_SHOWN)


def read_bytes(path: str | Path, *, most: int, refusal: type[ValueError] = InputError) -> bytes:
    """Return what is in a regular file of at most `most` bytes; raises `refusal` with path and cause."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise refusal(f"{shown(path)}: cannot be read ({_cause(error)})") from None
    try:
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
                raise refusal(f"{shown(path)}: must be a regular file (got {kind})")
            data = b"" if status.st_size > most else file.read(most + 1)
    except OSError as error:
        raise refusal(f"{shown(path)}: cannot be read ({_cause(error)})") from None
    except MemoryError:
        raise refusal(f"{shown(path)}: cannot be read (there is no memory for it)") from None
    if status.st_size > most or len(data) > most:
        got = f"{status.st_size:,} bytes" if status.st_size > most else "more"
        raise refusal(f"{shown(path)}: must be of at most {most // MIB:,} MiB (got {got})")
    return data


def _cause(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
