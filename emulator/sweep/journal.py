"""What a sweep has done so far: a file of lines, one for each run that has ended, on disk before the next one
counts.

The first line says which sweep it is. A last line that was cut off, since the process or the host went down
while it was written, is no line, and is overwritten. Whoever has the journal open has it alone.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec
from msgspec import Struct

from emulator.result import Result
from emulator.sweep.plan import SweepError
from inputs.checked import converted
from inputs.decode import json_value
from inputs.file import shown

SCHEMA = "luf-sweep/1"
NAME = "journal.jsonl"
T = TypeVar("T")


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """The first line."""

    schema: str
    identity: str
    versions: dict[str, str] = {}
    command: list[str] = []


class Line(Struct, frozen=True, forbid_unknown_fields=True):
    """A run that has ended, with its result or the sentence that says what stopped it."""

    key: str
    result: Result | None = None
    stopped: str = ""
    by: str = ""
    by_design: bool = False


class Journal:
    """The journal of a folder, as a context manager. `done` has a line for each run that has ended."""

    def __init__(self, folder: Path, head: Head):
        self.path, self.head = folder / NAME, head
        self.done: dict[str, Line] = {}
        self._file = -1

    def __enter__(self) -> Self:
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            self._open()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def add(self, line: Line) -> None:
        """Keep a run that has ended. Raises OSError."""
        if line.key in self.done:
            raise AssertionError(f"a run must be counted once (got {line.key} twice)")
        self._write(msgspec.json.encode(line))
        self.done[line.key] = line

    def _open(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SweepError(f"{shown(self.path)}: must not be in use by another sweep (got one)") from None
        whole, newline, _ = self._content().rpartition(b"\n")
        os.ftruncate(self._file, len(whole) + len(newline))
        lines = whole.split(b"\n") if newline else []
        if not lines:
            self._write(msgspec.json.encode(self.head))
            self._keep_name()
            return
        head = self._read(lines[0], 1, Head)
        if head.schema != SCHEMA or head.identity != self.head.identity:
            rule = "must be of the same sweep, with the same options, varied keys and files"
            raise SweepError(
                f"{shown(self.path)}: 'identity' {rule} (got {head.identity!r}, and this is "
                f"{self.head.identity!r}): choose another --out"
            )
        for number, text in enumerate(lines[1:], 2):
            line = self._read(text, number, Line)
            self.done[line.key] = line

    def _content(self) -> bytes:
        with open(self._file, "rb", closefd=False) as file:
            file.seek(0)
            return file.read()

    def _read(self, text: bytes, number: int, kind: type[T]) -> T:
        name = f"{shown(self.path)}, line {number}"
        return converted(json_value(text, name, SweepError), kind, name, SweepError)

    def _write(self, text: bytes) -> None:
        data = text + b"\n"
        while data:
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)

    def _keep_name(self) -> None:
        """Have the folder know the new file, whatever happens to the host."""
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
