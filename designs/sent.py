"""A design as plain data, to be made again in another process, or on another host that has luf.

A class that ships with luf, or is in a package of the user's, goes by its name: it must be there, too. A
class of a file goes as text: that of the file, and of all that it imports from its own folder, as they were
when the object was made. Left out: data files that a design reads, modules that it imports by a computed
name, and the classes of a notebook, whose text nobody has.

What arrives lies in the cache of compiled code, by its content: there the same design is found compiled, and
a process that is killed leaves nothing behind that the next one would not use.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cpus.cache_place import cache_root, check_private
from cpus.code_cache import UNUSED_DAYS_MAX
from cpus.source_hash import own_sources
from designs.blame import blamed_on
from designs.design import Design, DesignError
from designs.user_design import load_module

FOLDER = "sent"  # in the cache


@dataclass(frozen=True, slots=True)
class Sent:
    """A design by value: class, parameters, and what else its object holds."""

    module: str  # of the class; or "", and it is in the first of `files`
    kind: str
    given: tuple[tuple[str, str], ...] = ()
    own: bytes = b""
    files: tuple[tuple[str, str], ...] = ()  # name, text


def code_of(kind: type[Design]) -> tuple[str, dict[str, str]] | DesignError:
    """Give the module that has a class there too, or the text of its files as it is now; or why it cannot be
    sent, which matters only to who sends it.
    """
    try:
        return _code_of(kind)
    except DesignError as error:
        return error


def what_to_send(design: Design, code: tuple[str, dict[str, str]] | DesignError) -> Sent:
    """Give a design by value: its object as it is now, its code as it was. Raises DesignError."""
    if isinstance(code, DesignError):
        raise code
    kind, (module, files) = type(design), code
    try:
        given = getattr(design, "given", {})
        own = pickle.dumps(_own(design, kind(**given)))
        return Sent(module, kind.__name__, tuple(given.items()), own, tuple(files.items()))
    except Exception as error:
        rule = f"{kind.__name__!r} must be made of its parameters and hold what pickles to be sent"
        raise DesignError(f"{rule} to another process (got {type(error).__name__}: {error})") from error


def _code_of(kind: type[Design]) -> tuple[str, dict[str, str]]:
    """Give the module that has a class there too, or the text of its files. Raises DesignError."""
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None) or ""
    if module is None or getattr(module, kind.__name__, None) is not kind or not os.path.isfile(file):
        raise DesignError(
            "'design' must be a class at the top of a file to be sent to another process "
            f"(got {kind.__qualname__} of {file or 'a notebook'})"
        )
    if module.__package__ and kind.__module__ != "__main__":
        return kind.__module__, {}
    with blamed_on(file):
        return "", own_sources(os.path.abspath(file))


def _own(design: Design, fresh: Design) -> dict[str, object]:
    """Give what an object holds that a fresh one of its class and parameters does not."""
    usual, missing = vars(fresh), object()
    return {name: value for name, value in vars(design).items() if usual.get(name, missing) != value}


def made_again(sent: Sent) -> Design:
    """Make a design that was sent. Raises DesignError."""
    module = (
        importlib.import_module(sent.module)
        if sent.module
        else load_module(str(_kept(sent.files) / sent.files[0][0]))
    )
    kind: type[Design] = getattr(module, sent.kind)
    design = kind(**dict(sent.given))
    vars(design).update(pickle.loads(sent.own))
    return design


def _kept(files: tuple[tuple[str, str], ...]) -> Path:
    """Put texts into a folder that is named by them, whole, and forget those that nobody used for long."""
    place = cache_root() / FOLDER
    place.mkdir(mode=0o700, exist_ok=True)
    check_private(place)
    folder = place / _name_of(files)
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=place) as unfinished:
            made = Path(unfinished) / folder.name
            for name, text in files:
                file = made / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8", newline="")
            try:
                made.rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
    os.utime(folder)
    for old in place.iterdir():
        if old.stat().st_mtime < time.time() - UNUSED_DAYS_MAX * 86400 and _is_ours(old):
            shutil.rmtree(old, ignore_errors=True)
    return folder


def _name_of(files: Iterable[tuple[str, str]]) -> str:
    return hashlib.sha256(repr(sorted(files)).encode()).hexdigest()[:16]


def _is_ours(folder: Path) -> bool:
    """Tell whether a folder is named by the texts in it, which proves that nobody else has made it."""
    try:
        found = [file for file in folder.rglob("*.py") if file.is_file()]
        return folder.name == _name_of(
            (str(file.relative_to(folder)), file.read_bytes().decode("utf-8")) for file in found
        )
    except (OSError, ValueError):
        return False
