"""What a CPU process does with an exception out of a design's hook: it says where, and ends the run.

Nothing can be raised through the text table. Where an exception reaches the end of compiled code (`assert`,
`raise` and what `--check bounds` looks for, bounds.py), numba hands it to sys.unraisablehook; without the JIT
it comes all the way up. The sentence is left in a file for the supervisor, who learns of it by the exit code.
Left out: crashes, after which nothing runs here any more; `ram.cpu_hook` says where the CPU was.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from cpus.bounds import BoundsError, OwnerError
from cpus.compiled import HOOK
from cpus.declare import ANY, OWNER, Field, Struct

FIELDS = (
    Struct("nr_cpus", "clock", (
        Field("cpu_hook", OWNER, "text-table number + 1 of the hook it is in, 0 none", reads=ANY),
    )),
)  # fmt: skip

EXIT_FAULT = 18  # status of a CPU process whose design raised


def fault_file(folder: str, cpu: int) -> Path:
    """Name the file that holds the sentence of a CPU."""
    return Path(folder, f"fault{cpu}")


def hook_of(ram: Any, cpu: int) -> str:
    """Name the hook that a CPU is in; empty if it is in none."""
    return hook_name(ram, int(ram.cpu_hook[cpu]))


def hook_name(ram: Any, noted: int) -> str:
    """Name the hook that a word noted; empty if it noted none."""
    return list(ram.layout.texts)[noted - 1].removeprefix(HOOK) if noted else ""


def sentence(cpu: int, hook: str, error: BaseException, trace: TracebackType | None) -> str:
    """Word an exception: CPU, hook, file, line and function of the innermost frame, and what is wrong."""
    kind = "" if isinstance(error, BoundsError | OwnerError) else f"{type(error).__name__}: "
    frames = traceback.extract_tb(trace)
    place = f" at {frames[-1].filename}:{frames[-1].lineno} ({frames[-1].name})" if frames else ""
    return f"cpu{cpu} in hook {hook}{place}: {kind}{error}".removesuffix(": ")


def leave_with(ram: Any, cpu: int, folder: str, error: BaseException) -> bool:
    """Leave the sentence of an exception if a hook is at fault; False: it comes from elsewhere."""
    if not (hook := hook_of(ram, cpu)):
        return False
    fault_file(folder, cpu).write_text(sentence(cpu, hook, error, error.__traceback__), encoding="utf-8")
    return True


def listen(ram: Any, cpu: int, folder: str) -> None:
    """From now on an exception out of compiled code ends this process."""

    def end(raised: sys.UnraisableHookArgs) -> None:
        error = raised.exc_value or raised.exc_type()
        error = error.with_traceback(raised.exc_traceback)
        if leave_with(ram, cpu, folder, error):
            os._exit(EXIT_FAULT)
        traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(1)

    sys.unraisablehook = end
