"""A workload in a user's Python file: loading it, and one sentence, with the file and the line, for whatever
is wrong with it.
"""

from __future__ import annotations

import os
import runpy
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from inputs.file import SOURCE_BYTES, read_bytes, shown


class WorkloadError(ValueError):
    """Something is wrong with a user's workload file: one sentence that names file and line."""


def name_in_python(path: str, name: str) -> Any:
    """Give what a Python file calls `name`. Raises WorkloadError for whatever the file raises."""
    if not os.path.lexists(path):
        raise WorkloadError(f"'workload file' must exist (got {shown(path)})")
    read_bytes(path, most=SOURCE_BYTES, refusal=WorkloadError)
    with blamed_on(path):
        module = runpy.run_path(path, run_name="workload")
    if name not in module:
        raise WorkloadError(f"{path}: {name!r} must be defined there, but it is not")
    return module[name]


@contextmanager
def blamed_on(file: str) -> Iterator[None]:
    """Turn an exception into a WorkloadError that names the last line of `file` on its way; one of ours says
    already what is wrong.
    """
    try:
        yield
    except WorkloadError:
        raise
    except (Exception, SystemExit) as error:
        line = _line_in(file, error)
        said = str(error) if isinstance(error, ValueError) and line == 0 else _said(error)
        raise WorkloadError(f"{file}{f':{line}' if line else ''}: {said}") from error


def _said(error: BaseException) -> str:
    """Give the sentence of a script's error, and what else Python would print of any other."""
    from workloads.rules.place import RowError
    from workloads.script import ScriptError

    return str(error) if isinstance(error, ScriptError | RowError) else f"{type(error).__name__}: {error}"


def _line_in(file: str, error: BaseException | None) -> int:
    """Find the innermost line of `file` in the traceback of an exception, or of what caused it; 0 if there is
    none.
    """
    found = 0
    while error is not None:
        if isinstance(error, SyntaxError) and error.filename == file:
            return error.lineno or 0
        lines = [
            frame.lineno or 0 for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file
        ]
        found, error = lines[-1] if lines else found, error.__cause__
    return found
