"""What a design declares, looked at before anything is built: name, parameters, hooks, fields, and later its
figures. Whatever is wrong is one sentence with the user's file and line.

Left out: what a hook does at run time. Compiled code raises nothing; a run that it breaks is stopped by the
watchdog or the oracle.
"""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

import msgspec

from cpus.compiled import Entry, Text
from cpus.layout import DESIGN_SLOTS
from cpus.segment import DesignFields
from designs.design import Design, DesignError
from inputs.text import clipped

FIELD_WORDS_MAX = 1 << 30  # 8 GiB
NAME_MAX = 60  # characters: it heads a column, and stands beside a bar


def check_parameters(kind: type[Design]) -> None:
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


def check_declared(design: Design) -> None:
    """Look at what a design declares, before anything is built. Raises DesignError."""
    if not isinstance(design, Design):
        raise DesignError(f"'design' must be an object of a subclass of designs.Design (got {design!r})")
    if (
        not isinstance(design.name, str)
        or not design.name.strip()
        or not design.name.isprintable()
        or "/" in design.name
        or len(design.name) > NAME_MAX
    ):
        rule = f"must be a word that reports can use, on one line, without '/', at most {NAME_MAX} characters"
        raise DesignError(f"{_where(type(design), 'name')}.name {rule} (got {clipped(design.name)})")
    relies: object = design.relies_on
    if not isinstance(relies, tuple) or not all(isinstance(one, str) for one in relies):
        hint = "; did you forget a comma?" if isinstance(relies, str) else ""
        raise DesignError(
            f"{_where(type(design), 'relies_on')}.relies_on must be a tuple of names "
            f"(got {clipped(relies)}){hint}"
        )
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


def check_fields(fields: DesignFields, at: str) -> None:
    """Look at the fields that a design's function at that place returned. Raises DesignError."""
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


def check_statistics(found: dict[str, Any], at: str) -> None:
    """Look at the figures that a design's function at that place returned. Raises DesignError."""
    rule = f"{at}: statistics must return a dict, name -> what JSON has types for"
    if not isinstance(found, dict):
        raise DesignError(f"{rule} (got {type(found).__name__})")
    findings = found.get("findings", [])
    if not isinstance(findings, list) or not all(isinstance(one, str) for one in findings):
        raise DesignError(f"{at}: statistics must have a list of sentences as 'findings' (got {findings!r})")
    for name, value in found.items():
        if not isinstance(name, str):
            raise DesignError(f"{rule} (got {name!r} for a name)")
        try:
            msgspec.json.encode(value)  # as the result will be written
        except Exception as error:
            hint = "; int(...), float(...) and .tolist() make them of what numpy gives" * (
                "numpy." in str(error)
            )
            raise DesignError(f"{rule} (got {type(value).__name__} for {name!r}: {error}){hint}") from error
