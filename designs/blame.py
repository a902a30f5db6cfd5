"""Who is to blame: one sentence, with the user's file and line, for whatever goes wrong in the code of a
design.
"""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cpus.compiled import Entry, KernelError
from designs.design import DesignError

TELLING = re.compile(
    r"Untyped global name|Unknown attribute|[Cc]annot|Invalid use|No implementation|not defined|"
    r"No conversion|[Uu]nsupported|"
    r"not supported|can't"
)
PLACE = re.compile(r'File "([^"]+)", line (\d+)')


@contextmanager
def blamed_on(file: str) -> Iterator[None]:
    """Turn an exception into a DesignError that names the last line of `file` on its way."""
    try:
        yield
    except DesignError:
        raise
    except KernelError as error:  # says file and line itself
        raise DesignError(str(error)) from error
    except (Exception, SystemExit) as error:
        line = _line_in(file, error)
        raise DesignError(f"{file}{f':{line}' if line else ''}: {type(error).__name__}: {error}") from error


@contextmanager
def compiling(item: Entry) -> Iterator[None]:
    """Turn what numba says about a hook into a DesignError at the line that it is about."""
    file, first = place_of_function(item.function)
    try:
        yield
    except DesignError:
        raise
    except Exception as error:
        text = re.sub(r"\x1b\[[\d;]*m", "", str(error))
        lines = [int(line) for name, line in PLACE.findall(text) if Path(name).name == Path(file).name]
        loc = getattr(error, "loc", None)
        if not lines and loc is not None and Path(str(loc.filename)).name == Path(file).name:
            lines = [int(loc.line)]
        line = lines[-1] if lines else _line_naming(file, first, text)
        raise DesignError(f"{file}:{line}: {item.name} does not compile: {_gist(text)}") from error


def _line_naming(file: str, first: int, text: str) -> int:
    """Find the line, from a function's first on, that has the name which an error without a line quotes; else
    the first.
    """
    quoted = re.search(r"'(\w+)'", text)
    source = linecache.getlines(file)
    for line in range(first, len(source) + 1) if quoted else ():
        if quoted and re.search(rf"\b{quoted[1]}\b", source[line - 1]):
            return line
    return first


def _gist(text: str) -> str:
    """Find the sentences of a numba error that say what is wrong; without them, its first paragraph."""
    found = [line.strip(" -") for line in text.splitlines() if TELLING.search(line)]
    return " ".join((found[0] if found else text.split("\n\n")[0]).split())


def place_of_function(function: Any) -> tuple[str, int]:
    code = getattr(function, "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code else ("?", 0)


def _line_in(file: str, error: BaseException) -> int:
    """Find the innermost line of `file` in an exception's traceback; 0 if there is none."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno or 0
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] or 0 if lines else 0
