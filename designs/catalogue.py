"""The designs on the shelf, by name, and how to load one from a user's file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from designs.abis import Abis
from designs.design import Design
from designs.eager import Eager
from designs.early_ack import EarlyAck
from designs.epoch import Epoch
from designs.invlpgb import Invlpgb
from designs.latr import Latr
from designs.linux import Linux
from designs.luf import Luf
from designs.none import NoFlush

SHELF: tuple[type[Design], ...] = (Linux, Luf, NoFlush, Eager, Latr, Abis, EarlyAck, Invlpgb, Epoch)


def names() -> dict[str, str]:
    """Give name -> first line of the docstring of every design on the shelf."""
    return {kind.name: (kind.__doc__ or "").strip().splitlines()[0] for kind in SHELF}


def design(name: str) -> Design:
    """Make a design by its name, or from `FILE.py:CLASS`. Raises ValueError naming what is wrong."""
    for kind in SHELF:
        if kind.name == name:
            return kind()
    if ":" in name:
        return _from_file(*name.rsplit(":", 1))
    raise ValueError(f"'design' must be one of {', '.join(names())}, or FILE.py:CLASS (got {name!r})")


def _from_file(path: str, class_name: str) -> Design:
    file = Path(path).resolve()
    if not file.is_file():
        raise ValueError(f"'design file' must exist (got {path})")
    spec = importlib.util.spec_from_file_location(f"luf_design_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kind = getattr(module, class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, Design)):
        raise ValueError(f"'{class_name}' must be a subclass of designs.Design in {path} (got {kind!r})")
    return kind()
