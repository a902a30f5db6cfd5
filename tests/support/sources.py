"""What the sources of the rooms read and declare, for tests that look for half of an extension."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from inspect import signature
from pathlib import Path

ROOT = Path(__file__).parents[2]


def sources(*rooms: str) -> dict[str, str]:
    """Give path -> text of every Python file of these rooms."""
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for room in rooms
        for path in sorted((ROOT / room).rglob("*.py"))
    }


def names_read(texts: Iterable[str]) -> set[str]:
    """Give all names and attributes that the sources read; to import or assign to a name is no use."""
    found = set()
    for text in texts:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                found.add(node.id)
            elif isinstance(node, ast.Attribute):
                found.add(node.attr)
    return found


def never_read(module: object, prefix: str, texts: Iterable[str]) -> list[str]:
    """Give the numbers that a module declares under names with this prefix, and that no source reads."""
    declared = {
        name for name, value in vars(module).items() if name.startswith(prefix) and type(value) is int
    }
    return sorted(declared - names_read(texts))


def names_of(function: Callable) -> list[str]:
    """Give the names of a function's parameters."""
    return list(signature(function).parameters)
