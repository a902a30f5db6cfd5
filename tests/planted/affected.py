"""Which modules must be compiled anew when some functions have changed.

The cache of compiled code goes by files: who touches a file that all others import compiles everything. That
is right for people, and too slow for two hundred planted bugs. Here the calls are followed by name instead:
what uses a changed name has changed itself, up to the functions that are called through their address
(@apart, hooks), since their callers hold nothing of them. A module with nothing changed in it has the same
code as before, so it may be loaded as what it was.
Names are followed wherever they stand, so rather too much is compiled than too little. Left out: changes of
fields (the layout of RAM is part of a function's type, and compiles everything by itself) and of signatures
of apart functions.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

KERNELS = ("cpus", "allocator", "designs")
BY_ADDRESS = {"apart", "entry", "hook", "hooks"}


def affected_modules(root: Path, texts: dict[str, str]) -> set[str]:
    """Give the files (named from `root`) whose compiled code may differ when these files have these texts."""
    trees = {
        str(path.relative_to(root)): _Module(path.read_text(encoding="utf-8"))
        for room in KERNELS
        for path in (root / room).rglob("*.py")
    }
    changed: set[tuple[str, str]] = set()  # file, name that means something else for those who use it
    files: set[str] = set()
    for file, text in texts.items():
        before, trees[file] = trees[file], _Module(text)
        differing = before.differs_from(trees[file])
        files |= {file} if differing else set()
        changed |= {(file, name) for name in differing if not trees[file].is_by_address(name)}
    todo = list(changed)
    while todo:
        file, name = todo.pop()
        for user, module in trees.items():
            for local in module.names_for(file, name, user):
                for using in module.using(local):
                    files.add(user)
                    if not module.is_by_address(using) and (user, using) not in changed:
                        changed.add((user, using))
                        todo.append((user, using))
    return files


class _Module:
    """A source's top-level definitions: what each is, and which names each uses."""

    def __init__(self, text: str):
        self.imports: dict[tuple[str, str], str] = {}  # (file, name there) -> name here
        self.dumps: dict[str, str] = {}
        self.uses: dict[str, set[str]] = {}
        self.by_address: set[str] = set()
        for node in ast.parse(text).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                place = node.module.replace(".", "/")
                for alias in node.names:
                    for file in (f"{place}.py", f"{place}/__init__.py"):
                        self.imports[file, alias.name] = alias.asname or alias.name
                    self.dumps[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                continue
            for name in _defined(node):
                # two statements may define one name, as a branch does
                self.dumps[name] = self.dumps.get(name, "") + ast.dump(_without_docstring(node))
                self.uses.setdefault(name, set()).update(_used(node))
                if isinstance(node, ast.FunctionDef) and _decorators(node) & BY_ADDRESS:
                    self.by_address.add(name)

    def differs_from(self, other: _Module) -> set[str]:
        """Name what is defined in one of two versions alone, or otherwise."""
        names = self.dumps.keys() | other.dumps.keys()
        return {name for name in names if self.dumps.get(name) != other.dumps.get(name)}

    def is_by_address(self, name: str) -> bool:
        """Do callers of this reach it through the text table?"""
        return name in self.by_address

    def names_for(self, file: str, name: str, here: str) -> list[str]:
        """Give the name by which a definition of a file is known in this one."""
        if file == here:
            return [name]
        return [self.imports[file, name]] if (file, name) in self.imports else []

    def using(self, name: str) -> list[str]:
        """Give the definitions that use a name."""
        return [user for user, used in self.uses.items() if name in used and user != name]


def _defined(node: ast.stmt) -> Iterator[str]:
    """Give the names that a top-level statement defines; a class is not compiled."""
    if isinstance(node, ast.FunctionDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.If):
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                yield inner.id
            elif isinstance(inner, ast.FunctionDef):
                yield inner.name


def _used(node: ast.stmt) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _decorators(node: ast.FunctionDef) -> set[str]:
    called = (one.func if isinstance(one, ast.Call) else one for one in node.decorator_list)
    return {one.id for one in called if isinstance(one, ast.Name)}


def _without_docstring(node: ast.stmt) -> ast.stmt:
    if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
        node.body = node.body[1:]
    return node
