"""Hash what compiled code depends on: a source file, every project file that it imports, directly or not, the
versions, and the host CPU.

numba's own cache looks at the file of the function alone, not at the callees and constants that it has from
others (reproduced: stale code ran). The hash is of contents, and of the names that they are imported by, not
of paths and times: two checkouts of the same sources have the same hashes.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import llvmlite
import llvmlite.binding
import numba

ROOMS = ("cpus", "allocator", "designs", "benchmarks")  # where kernels live
IMPORT = re.compile(  # a statement on lines of its own, as nearly all are; in brackets, perhaps
    r"^[ \t]*(from[ \t]+[\w.]+[ \t]+import[ \t]+(?:\([^()]*\)|[\w., \t]+)|import[ \t]+[\w., \t]+)(?:#.*)?$",
    re.M,
)
WORD = re.compile(r"\bimport\b")


@dataclass(frozen=True, slots=True)
class _Source:
    """A file as it was when it was read: `stamp` tells whether it still is so."""

    stamp: tuple[int, int]
    digest: bytes
    imports: tuple[tuple[str, str], ...]  # the name that each is imported by, its path


_sources: dict[str, _Source] = {}
_hashes: dict[str, str] = {}


def source_hash(path: str) -> str:
    """Hash a source file with all that it depends on. What has been read is read again once this file has
    changed, as it may in a process that lives on and loads a module anew.
    """
    if path in _sources and _sources[path].stamp != _stamp(path):
        _sources.clear()
        _hashes.clear()
    if path not in _hashes:
        digest, folder = hashlib.sha256(_platform().encode()), os.path.dirname(path)
        named = ((name, _source(found, folder).digest) for found, name in _closure(path).items())
        for name, found in sorted(named):
            digest.update(f"{name}\0".encode() + found)
        _hashes[path] = digest.hexdigest()[:16]
    return _hashes[path]


def own_sources(path: str) -> dict[str, str]:
    """Give the text of a user's file, and of all that it imports from its folder: name, from there, -> text.
    Raises SyntaxError, OSError and UnicodeDecodeError for what cannot be read.
    """
    folder = os.path.dirname(path)
    found = [path, *(file for file in _closure(path) if file != path and not _is_ours(file))]
    return {os.path.relpath(file, folder): Path(file).read_text(encoding="utf-8") for file in found}


def _is_ours(path: str) -> bool:
    return any(path.startswith(_folder_of(room) + os.sep) for room in ROOMS)


def _closure(path: str) -> dict[str, str]:
    """Give all files that a file depends on, itself included, with the names that they are imported by."""
    names, todo, folder = {path: ""}, [path], os.path.dirname(path)
    while todo:
        for name, found in _source(todo.pop(), folder).imports:
            if found not in names:
                names[found] = name
                todo.append(found)
    return names


def _source(path: str, folder: str) -> _Source:
    """Read a file; what is beside the first one, which is in `folder`, can be imported."""
    if path not in _sources:
        stamp, text = _stamp(path), Path(path).read_bytes()
        imports = _imports(path, os.path.dirname(path) if _is_ours(path) else folder, text)
        _sources[path] = _Source(stamp, hashlib.sha256(text).digest(), imports)
    return _sources[path]


def _stamp(path: str) -> tuple[int, int]:
    now = os.stat(path)
    return now.st_mtime_ns, now.st_size


def _imports(path: str, folder: str, text: bytes) -> tuple[tuple[str, str], ...]:
    """Find the project files, and the files of the user's folder, that a source imports."""
    found = set()
    for name in _imported(
        path, folder, _imports_of_ours(text, path) if _is_ours(path) else ast.parse(text, path)
    ):
        # a user's design may be made of several files
        if beside := _files_of(name, folder):
            found.update(beside)
        elif name.split(".")[0] in ROOMS and (file := _module_file(name)):
            found.add((name, file))
    return tuple(sorted(found))


def _imports_of_ours(text: bytes, path: str) -> ast.AST:
    """Parse the imports of a source alone, which is quicker, if each `import` in it is seen to be one."""
    source = text.decode()
    found = IMPORT.findall(source)
    if len(found) == len(WORD.findall(source)) and "\\\n" not in source:
        with suppress(SyntaxError):
            return ast.parse("\n".join(found))
    return ast.parse(text, path)


def _imported(path: str, folder: str, tree: ast.AST) -> set[str]:
    """Give the dotted names of what a source imports; those after `from` may be modules, too."""
    names: set[str] = set()
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = Path(path).parents[node.level - 1] if node.level else Path(folder)
            inside = package.relative_to(folder).parts if package.is_relative_to(folder) else ()
            base = ".".join((*inside, node.module) if node.module else inside)
            names.update(f"{base}.{alias.name}".lstrip(".") for alias in node.names)
            names.update({base} - {""})
    return names


def _files_of(name: str, folder: str) -> list[tuple[str, str]]:
    """Find the file of a module below a folder, and those of the packages that it is in."""
    parts, found = name.split("."), []
    for count in range(1, len(parts) + 1):
        place = os.path.join(folder, *parts[:count])
        for file in (f"{place}.py", f"{place}/__init__.py"):
            if os.path.isfile(file):
                found.append((".".join(parts[:count]), file))
    return found


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Give all statements of a source, those inside others too, but no expressions: they are the most."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        for inner in getattr(node, field, ()):
            yield inner
            yield from _statements(inner)


def _module_file(name: str) -> str | None:
    """Find the file of a module of ours; None for a name inside a module (`from room.module import name`)."""
    room, *rest = name.split(".")
    place = os.path.join(_folder_of(room), *rest)
    return next((file for file in (f"{place}.py", f"{place}/__init__.py") if os.path.isfile(file)), None)


@cache
def _folder_of(room: str) -> str:
    """Find a room; a place without files if it is not installed, as benchmarks may not be."""
    spec = importlib.util.find_spec(room)
    folders = spec.submodule_search_locations if spec else None
    return os.path.abspath(folders[0]) if folders else os.devnull


@cache
def _platform() -> str:
    host = llvmlite.binding.get_host_cpu_name() + llvmlite.binding.get_host_cpu_features().flatten()
    return "|".join((numba.__version__, llvmlite.__version__, sys.version, host))
