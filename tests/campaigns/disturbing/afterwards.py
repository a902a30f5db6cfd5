"""What a disturbed command has left, looked at from outside, and what of it is a fault."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns.disturbing.program import Places, Program, has_sockets

TRACEBACK = "Traceback (most recent call last)"
SENTENCE = re.compile(r"(?m)^luf: .*$")
RESULT = "result.json"
BALLAST = "ballast"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a command may end: its exit codes, whether it says a sentence (None: it may), whether what had been
    finished when it was disturbed must be there afterwards, whether its report must have been printed, and
    whether it may leave a half-written folder to the next run, which has to remove it.
    """

    codes: frozenset[int]
    says: bool | None = None
    keeps: bool = False
    prints: bool = False
    swept: bool = False


def faults(program: Program, code: int | None, ending: Ending) -> Iterator[str]:
    """Give what is wrong with a command that has ended with this code (None: it did not end)."""
    said = program.text()
    sentences = SENTENCE.findall(said.replace("\r", "\n"))
    if code is None:
        yield "did not end"
    elif code not in ending.codes | {0}:
        yield f"exit code {code}"
    if TRACEBACK in said or TRACEBACK in program.printed():
        yield "a traceback"
    if code not in (0, 1, None) and ending.says is not None and len(sentences) != int(ending.says):
        yield f"{len(sentences)} sentences"
    if left := program.left():
        yield f"processes {left}"
    yield from _left_behind(program.places)
    results = list(finished(program.places.out))
    if code == 0 and ending.prints is False and not results and program.places.out.exists():
        yield "exit code 0 without a result"
    if ending.keeps and not results:
        yield "a finished result is lost"
    if ending.prints and "TLB shootdowns" not in program.printed():
        yield "the report of a finished run is not printed"


def _left_behind(places: Places) -> Iterator[str]:
    """Give sockets, temporary files, shared memory and half-written folders that are still there."""
    if has_sockets(places):
        yield "sockets"
    for name in sorted(_names(places.temporary) - {BALLAST}):
        yield f"temporary {name}"
    for name in half_written(places):
        yield f"half-written {name}"


def half_written(places: Places) -> list[str]:
    """Give what is hidden in the folders of the command: what is being written, or was."""
    return sorted(
        name for place in (places.work, places.out) for name in _names(place) if name.startswith(".")
    )


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()


def finished(out: Path) -> Iterator[dict[str, object]]:
    """Give the results that can be read in the folders of runs."""
    for folder in sorted(out.glob("[0-9]*")) if out.is_dir() else ():
        try:
            result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if result.get("runs"):
            yield result
