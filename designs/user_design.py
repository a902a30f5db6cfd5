"""A design in a user's file: loading it, with one sentence that names file and line for whatever the file
does wrong.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from cpus.source_hash import own_sources
from designs.blame import blamed_on
from designs.declaration import check_parameters
from designs.design import Design, DesignError
from inputs.file import SOURCE_BYTES, read_bytes, shown
from inputs.text import clipped

_beside: set[str] = set()  # modules that were imported from the folder of some design


def load_design(path: str, class_name: str, **given: str) -> Design:
    """Make the design `class_name` of a file, with these parameters. While it is executed its folder is on
    the import path. Raises DesignError.
    """
    module = load_module(path)
    kind = getattr(module, class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, Design)):
        there = ", ".join(name for name, value in vars(module).items() if _is_design(value)) or "none"
        rule = f"{clipped(class_name)} must be a subclass of designs.Design"
        raise DesignError(f"{shown(path)}: {rule} (designs in this file: {there})")
    check_parameters(kind)
    with blamed_on(str(module.__file__)):
        return kind(**given)


def load_module(path: str) -> ModuleType:
    """Execute a design's file, and what it imports from its folder, anew. Raises DesignError."""
    file = Path(os.path.realpath(path))
    read_bytes(file, most=SOURCE_BYTES, refusal=DesignError)  # no pipe, nothing without end
    spec = importlib.util.spec_from_file_location(f"luf_design_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise DesignError(f"'design file' must be a Python file, *.py (got {shown(path)})")
    module = importlib.util.module_from_spec(spec)
    with blamed_on(str(file)):
        _forget_beside(own_sources(str(file)))
        sys.modules[spec.name] = module  # as an import would: dataclasses and pickle look there
        sys.path.insert(0, str(file.parent))
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(file.parent))
    return module


def _forget_beside(sources: dict[str, str]) -> None:
    """Have the modules beside a design imported anew: an earlier design, of another folder, may have had
    others of these names.
    """
    names = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in sources}
    for name in names & _beside:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()  # a file that is younger than the last look at its folder
    _beside.update(name for name in names if name not in sys.modules)


def _is_design(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Design) and value is not Design
