"""The designs on the shelf, by name, and how to load one from a user's file."""

from __future__ import annotations

from designs.abis import Abis
from designs.design import Design
from designs.eager import Eager
from designs.early_ack import EarlyAck
from designs.epoch import Epoch
from designs.fpr import Fpr
from designs.invlpgb import Invlpgb
from designs.latr import Latr
from designs.linux import Linux
from designs.luf import Luf
from designs.none import NoFlush
from designs.user_file import load_design

SHELF: tuple[type[Design], ...] = (Linux, Luf, NoFlush, Eager, Latr, Abis, Fpr, EarlyAck, Invlpgb, Epoch)


def names() -> dict[str, str]:
    """Give name -> first line of the docstring of every design on the shelf."""
    return {kind.name: (kind.__doc__ or "").strip().splitlines()[0] for kind in SHELF}


def design(name: str) -> Design:
    """Make a design by its name, or from `FILE.py:CLASS`. Raises ValueError naming what is wrong."""
    for kind in SHELF:
        if kind.name == name:
            return kind()
    if ":" in name:
        return load_design(*name.rsplit(":", 1))
    raise ValueError(f"'design' must be one of {', '.join(names())}, or FILE.py:CLASS (got {name!r})")
