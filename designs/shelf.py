"""The designs on the shelf, by name and parameters, and how to load one from a user's file.

luf    luf:sync=help    FILE.py:CLASS    FILE.py:CLASS:key=value
"""

from __future__ import annotations

import difflib
import os

from designs.abis import Abis
from designs.design import Design
from designs.eager import Eager
from designs.early_ack import EarlyAck
from designs.epoch import Epoch
from designs.fpr import Fpr
from designs.invlpgb import Invlpgb
from designs.latr import Latr
from designs.linux import Linux
from designs.luf.luf import Luf
from designs.luf_hold import LufHold
from designs.luf_v12.luf_v12 import LufV12
from designs.none import NoFlush
from designs.ready import ReadyDesign
from designs.user_design import load_design
from inputs.text import clipped, named

SHELF: tuple[type[Design], ...] = (
    Linux, Luf, LufV12, LufHold, NoFlush, Eager, Latr, Abis, Fpr, EarlyAck, Invlpgb, Epoch,
)  # fmt: skip


def names() -> dict[str, str]:
    """Give name -> one line of every design on the shelf, and of each value of its parameters."""
    found = {}
    for kind in SHELF:
        found[kind.name] = (kind.__doc__ or "").strip().splitlines()[0]
        for parameter, values in kind.parameters.items():
            for i, (value, meaning) in enumerate(values.items()):
                found[f"{kind.name}:{parameter}={value}"] = meaning + (" (the default)" if i == 0 else "")
    return found


def ready(design_or_name: str | Design) -> ReadyDesign:
    """Give a design as a run uses it, by name or FILE.py:CLASS, or this object. Raises ValueError."""
    return ReadyDesign(design(design_or_name) if isinstance(design_or_name, str) else design_or_name)


def design(name: str) -> Design:
    """Make a design by its name, or from `FILE.py:CLASS`, with parameters behind it. Raises ValueError naming
    what is wrong.
    """
    base, *parts = name.split(":")
    for kind in SHELF:
        if kind.name == base:
            return kind(**_given(name, parts))
    at = len(parts)
    while at > 0 and "=" in parts[at - 1]:
        at -= 1
    if at == 0:
        known = [kind.name for kind in SHELF]
        close = difflib.get_close_matches(base, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        rule = f"'design' must be one of {', '.join(known)}, or FILE.py:CLASS"
        raise ValueError(f"{rule} (got {clipped(name)}){hint}")
    file = ":".join([base, *parts[: at - 1]])
    if not os.path.lexists(file):
        rule = "'design' must be a name or FILE.py:CLASS"
        raise ValueError(f"{rule} (got {clipped(name)}, and there is no file {named(file)})")
    return load_design(file, parts[at - 1], **_given(name, parts[at:]))


def _given(name: str, parts: list[str]) -> dict[str, str]:
    """Read `key=value` parts; each key once."""
    given: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            rule = "'parameter of a design' must be written key=value"
            raise ValueError(f"{rule} (got {clipped(part)} in {clipped(name)})")
        if key in given:
            raise ValueError(f"{clipped(key)} must be given once (got it twice in {clipped(name)})")
        given[key] = value
    return given
