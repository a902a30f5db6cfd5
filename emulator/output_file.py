"""A file that an option of the command line names (`--json FILE`): refused before anything runs, or written
at the end, all or nothing.

What exists and is no regular file, a pipe or a device, is written straight into; a link stays one, and what
it points to is replaced.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory


class OutputError(ValueError):
    """A file or folder that cannot be written: one sentence that names the option."""


def check_output(option: str, file: str) -> None:
    """Refuse, before anything runs, a file that could not be written at the end. Raises OutputError."""
    path = Path(file)
    if path.is_dir() or not (
        os.access(path, os.W_OK) if _is_stream(path) else can_hold(_target(path).parent)
    ):
        raise OutputError(f"'--{option}' must be a file in a folder that can be written to (got {file!r})")


def write_output(option: str, file: str, text: str) -> None:
    """Write the file that an option names. Raises OutputError with option, path and cause."""
    try:
        write_atomically(file, text)
    except OSError as error:
        raise OutputError(
            f"'--{option}' must be a file that can be written (got {file!r}: {error.strerror})"
        ) from error


def write_atomically(path: str | Path, text: str) -> None:
    """Write a file so that it is complete or unchanged; a pipe or a device gets the text as it is."""
    if _is_stream(Path(path)):
        Path(path).write_text(text, encoding="utf-8")
        return
    target = _target(Path(path))
    hidden = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        hidden.write_text(text, encoding="utf-8")
        hidden.replace(target)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise


def can_hold(folder: Path) -> bool:
    """Can something be made in it? Found out by doing so: root may write where nothing can be made, such as
    /proc.
    """
    try:
        with TemporaryDirectory(prefix=".luf-", dir=folder):
            return True
    except OSError:
        return False


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _target(path: Path) -> Path:
    """Follow links, also one to a file that is yet to be made."""
    return Path(os.path.realpath(path))
