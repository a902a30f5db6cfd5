"""The moments of a run at which it is disturbed, each told by what the program itself shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.campaigns.disturbing.program import Program

Moment = Callable[[Program], bool]


def start(program: Program) -> bool:
    """It has begun, and imports the first of its libraries."""
    try:
        maps = Path(f"/proc/{program.process.pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "msgspec" in maps


def compiling(program: Program) -> bool:
    return "compiling " in program.text()


def running(program: Program) -> bool:
    """Its CPUs are there, and have begun with the workload where the screen says how far they are."""
    return bool(program.cpus()) and ("evaluations" not in program.text() or program.evaluations() > 0)


def running_golden(program: Program) -> bool:
    return bool(program.cpus())


def second(program: Program) -> bool:
    """The second design runs: its own bar counts."""
    _, found, rest = program.text().rpartition("luf ")
    return bool(found) and bool(re.search(r"[1-9]\d*/\d+ evaluations", rest)) and bool(program.cpus())


def auditing(program: Program) -> bool:
    """CPUs were there, and are gone; nothing is written yet."""
    return not program.cpus() and program.ran and not program.partial()


def reporting(program: Program) -> bool:
    """Something is being written, or printed."""
    return program.partial() or bool(program.printed())


MOMENTS: dict[str, Moment] = {
    "start": start,
    "compile": compiling,
    "run": running,
    "second": second,
    "audit": auditing,
    "report": reporting,
}
