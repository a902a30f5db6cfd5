"""Write a file: whole or not at all, in one way for all that luf leaves.

What is being written has no name yet (O_TMPFILE), so that nothing of it stays whenever the process is killed,
or, where a file system has no such files, a random one that nobody can have put a link at. It gets its place
in one step. What exists and is no regular file, a pipe or a device, is written straight into; a link stays
one, and what it points to is replaced. Every failure is an OSError that names the path as it was given.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from inputs.text import named

NEW = os.O_WRONLY | os.O_CLOEXEC
MASK = "Umask:"


class OutputError(ValueError):
    """A file or folder that cannot be written: one sentence that names the option."""


def check_output(option: str, file: str) -> None:
    """Refuse, before anything runs, a file that could not be written at the end. Raises OutputError."""
    path = Path(file)
    try:
        fits = os.access(path, os.W_OK) if _is_stream(path) else can_hold(_target(path).parent)
        wrong = path.is_dir() or not fits
    except OSError:  # a name that no file can have
        wrong = True
    if wrong:
        rule = "must be a file in a folder that can be written to"
        raise OutputError(f"'--{option}' {rule} (got {named(file)})")


def write_output(option: str, file: str, content: str | bytes) -> None:
    """Write the file that an option names. Raises OutputError with option, path and cause."""
    with output_of(option, file):
        write_atomically(file, content)


@contextmanager
def output_of(option: str, file: str) -> Iterator[None]:
    """Write the file that an option names in this block. Raises OutputError with option, path and cause."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"'--{option}' must be a file that can be written (got {file!r}: {error.strerror})"
        ) from error


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a file so that it is complete or unchanged; a pipe or a device gets the content as it is. What
    UTF-8 has no letters for is written with backslashes. Raises OSError with the path.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    try:
        if _is_stream(Path(path)):
            Path(path).write_bytes(data)
            return
        target = _target(Path(path))
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            write_in(folder, target.name, data)
        finally:
            os.close(folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_in(folder: int, name: str, data: bytes) -> None:
    """Write a file of an open folder. Raises OSError."""
    unfinished = _Unfinished(folder)
    try:
        unfinished.fill(data, _mode(folder, name))
        unfinished.move_to(name)
    finally:
        unfinished.close()


def can_hold(folder: Path) -> bool:
    """Can something be made in it? Found out by doing so: root may write where nothing can be made, such as
    /proc.
    """
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _Unfinished(opened).close()
        finally:
            os.close(opened)
    except OSError:
        return False
    return True


class _Unfinished:
    """A file that is not yet where it belongs, for nobody else to read."""

    def __init__(self, folder: int):
        self.folder, self.name = folder, f".luf-{secrets.token_hex(8)}.partial"
        self.named = False
        try:
            self.file = os.open(".", os.O_TMPFILE | NEW, 0o600, dir_fd=folder)
        except OSError:  # a file system that has no such files; or, once more, one that cannot be written to
            self.file = os.open(self.name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | NEW, 0o600, dir_fd=folder)
            self.named = True

    def fill(self, data: bytes, mode: int) -> None:
        with open(self.file, "wb", closefd=False) as out:
            out.write(data)
        os.fchmod(self.file, mode)

    def move_to(self, name: str) -> None:
        if not self.named:
            os.link(f"/proc/self/fd/{self.file}", self.name, dst_dir_fd=self.folder, follow_symlinks=True)
            self.named = True
        os.rename(self.name, name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        self.named = False

    def close(self) -> None:
        os.close(self.file)
        if self.named:
            with suppress(OSError):
                os.unlink(self.name, dir_fd=self.folder)


def _mode(folder: int, name: str) -> int:
    """Give the rights of a file: those that it has, or what the umask leaves of 0666."""
    try:
        return stat.S_IMODE(os.stat(name, dir_fd=folder).st_mode) & 0o777
    except FileNotFoundError:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        mask = next((line for line in lines if line.startswith(MASK)), f"{MASK} 077")
        return 0o666 & ~int(mask.removeprefix(MASK), 8)  # not by os.umask, which threads share


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _target(path: Path) -> Path:
    """Follow links, also one to a file that is yet to be made."""
    return Path(os.path.realpath(path))
