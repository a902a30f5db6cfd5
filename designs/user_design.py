"""A design in a user's file: loading it, and one sentence, with the user's file and line, for whatever is
wrong with it.

What can go wrong: the file (not there, no such class, an exception while it is executed), its hooks (a name
that no hook has, other arguments than a hook gets, code that does not compile), its fields (no dict of
shapes, too many, more than memory holds), its statistics (no dict, values that no result can hold).
Left out: what a hook does at run time. Compiled code raises nothing; a run that it breaks is stopped by the
watchdog or the oracle.
"""

from __future__ import annotations

import importlib.util
import inspect
import linecache
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from cpus.compiled import Entry, KernelError, Text
from cpus.layout import DESIGN_SLOTS, Sizes
from cpus.segment import DesignFields
from designs.design import Design, DesignError

FIELD_WORDS_MAX = 1 << 30  # 8 GiB
TELLING = re.compile(
    r"Untyped global name|Unknown attribute|[Cc]annot|Invalid use|No implementation|not defined|"
    r"No conversion|[Uu]nsupported|"
    r"not supported|can't"
)
PLACE = re.compile(r'File "([^"]+)", line (\d+)')


def load_design(path: str, class_name: str, **given: str) -> Design:
    """Make the design `class_name` of a file, with these parameters. While it is executed its folder is on
    the import path.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise DesignError(f"'design file' must exist (got {path})")
    spec = importlib.util.spec_from_file_location(f"luf_design_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise DesignError(f"'design file' must be a Python file, *.py (got {path})")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as an import would: dataclasses and pickle look there
    sys.path.insert(0, str(file.parent))
    try:
        with blamed_on(str(file)):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
    kind = getattr(module, class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, Design)):
        there = ", ".join(name for name, value in vars(module).items() if _is_design(value)) or "none"
        raise DesignError(
            f"{path}: '{class_name}' must be a subclass of designs.Design (designs in this file: {there})"
        )
    _check_parameters(kind)
    with blamed_on(str(file)):
        return kind(**given)


def _is_design(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Design) and value is not Design


def _check_parameters(kind: type[Design]) -> None:
    """Look at a class's `parameters`, of which an object takes its defaults. Raises DesignError."""
    parameters: Any = kind.parameters
    where = f"{_where(kind, 'parameters')}.parameters"
    if not isinstance(parameters, dict):
        raise DesignError(f"{where} must be a dict, name -> value -> what it means (got {parameters!r})")
    for name, values in parameters.items():
        texts = [name, *values, *values.values()] if isinstance(values, dict) else []
        if len(texts) < 3 or not all(isinstance(text, str) for text in texts):
            raise DesignError(
                f"{where}[{name!r}] must be a dict of texts, value -> what it means, the "
                f"default first (got {values!r})"
            )


def _where(kind: type[Design], attribute: str) -> str:
    """Give file, line and class of an attribute; without the line where the class, or its file, does not have
    it.
    """
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    try:
        source, first = inspect.getsourcelines(kind)
    except (OSError, TypeError):  # a notebook's
        source, first = [], 0
    line = next(
        (f":{first + i}" for i, text in enumerate(source) if re.match(rf"\s+{attribute}\b.*=", text)), ""
    )
    return f"{file or 'notebook'}{line}: {kind.__name__}"


def check_design(design: Design) -> None:
    """Look at what a design declares, before anything is built. Raises DesignError."""
    if not isinstance(design, Design):
        raise DesignError(f"'design' must be an object of a subclass of designs.Design (got {design!r})")
    if (
        not isinstance(design.name, str)
        or not design.name.strip()
        or not design.name.isprintable()
        or "/" in design.name
    ):
        rule = "must be a word that reports can use, on one line and without '/'"
        raise DesignError(f"{_where(type(design), 'name')}.name {rule} (got {design.name!r})")
    where = _where(type(design), "hooks")
    if not isinstance(design.hooks, tuple):
        hint = (
            f"; did you forget a comma, hooks = ({design.hooks.name},)?"
            if isinstance(design.hooks, Entry)
            else ""
        )
        got = "one function" if hint else type(design.hooks).__name__
        raise DesignError(
            f"{where}.hooks must be a tuple of functions decorated with @hook(...) (got {got}){hint}"
        )
    taken: dict[Text, str] = {}
    for item in design.hooks:
        if not isinstance(item, Entry):
            raise DesignError(
                f"{where}.hooks must hold functions decorated with @hook(...) "
                f"(got {getattr(item, '__name__', item)!r})"
            )
        if item.text in taken:
            of = item.text.name.removeprefix("hook_")
            got = f"{taken[item.text]} and {item.name} for {of}"
            hint = "replaced(hooks, ...) of designs.design puts one in the other's place"
            raise DesignError(f"{where}.hooks must hold one function for each hook (got {got}); {hint}")
        taken[item.text] = item.name


def fields_of(design: Design, sizes: Sizes) -> DesignFields:
    """Ask a design for its fields and judge them. Raises DesignError."""
    check_design(design)
    place = _place_of_function(type(design).fields)
    with blamed_on(place[0]):
        fields = design.fields(sizes)
    at = f"{place[0]}:{place[1]}"
    if not isinstance(fields, dict):
        raise DesignError(f"{at}: fields must return a dict, name -> shape (got {type(fields).__name__})")
    if len(fields) > DESIGN_SLOTS:
        raise DesignError(f"{at}: a design must have at most {DESIGN_SLOTS} fields (got {len(fields)})")
    words = 0
    for name, shape in fields.items():
        fits = (
            isinstance(shape, tuple)
            and 1 <= len(shape) <= 2
            and all(isinstance(n, int) and n > 0 for n in shape)
        )
        if not (isinstance(name, str) and name.isidentifier() and fits):
            raise DesignError(
                f"{at}: field {name!r} must be a name with one or two sizes above 0, as "
                f"(sizes.nr_cpus,) (got {shape!r})"
            )
        words += shape[0] * (shape[1] if len(shape) == 2 else 1)
    if words > FIELD_WORDS_MAX:
        raise DesignError(
            f"{at}: all fields together must be at most {FIELD_WORDS_MAX >> 17:,} MiB "
            f"(got {words >> 17:,} MiB)"
        )
    return fields


def prepare(design: Design, ram: Any) -> None:
    """Let a design set its initial values. Raises DesignError for what it raises."""
    with blamed_on(_place_of_function(type(design).prepare)[0]):
        design.prepare(ram)


def statistics_of(design: Design, ram: Any) -> dict[str, Any]:
    """Ask a design for its figures of a run that is over, and judge them. Raises DesignError."""
    file, line = _place_of_function(type(design).statistics)
    with blamed_on(file):
        found = design.statistics(ram)
    at = f"{file}:{line}: statistics must return a dict, name -> what JSON has types for"
    if not isinstance(found, dict):
        raise DesignError(f"{at} (got {type(found).__name__})")
    findings = found.get("findings", [])
    if not isinstance(findings, list) or not all(isinstance(one, str) for one in findings):
        raise DesignError(
            f"{file}:{line}: statistics must have a list of sentences as 'findings' (got {findings!r})"
        )
    for name, value in found.items():
        if not isinstance(name, str):
            raise DesignError(f"{at} (got {name!r} for a name)")
        try:
            msgspec.json.encode(value)  # as the result will be written
        except Exception as error:
            hint = "; int(...), float(...) and .tolist() make them of what numpy gives" * (
                "numpy." in str(error)
            )
            raise DesignError(f"{at} (got {type(value).__name__} for {name!r}: {error}){hint}") from error
    return found


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
    file, first = _place_of_function(item.function)
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


def _place_of_function(function: Any) -> tuple[str, int]:
    code = getattr(function, "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code else ("?", 0)


def _line_in(file: str, error: BaseException) -> int:
    """Find the innermost line of `file` in an exception's traceback; 0 if there is none."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno or 0
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] or 0 if lines else 0
