"""Imports between rooms run one way, no room is a drawer for the rest, and no file outgrows its idea."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "inputs": {"inputs"},
    "workloads": {"workloads", "inputs", "cpus.abi"},
    "cpus": {"cpus"},
    "allocator": {"allocator", "cpus"},
    "designs": {"designs", "allocator", "cpus", "inputs"},
    "emulator": {"emulator", "designs", "allocator", "cpus", "workloads", "inputs"},
}
OUTSIDE = {"tests", "benchmarks", "examples"}
DRAWERS = {
    "util",
    "utils",
    "helper",
    "helpers",
    "common",
    "manager",
    "managers",
    "misc",
    "handler",
    "handlers",
}
LINES_MAX = 500


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imported(source: str) -> Iterator[tuple[str, int]]:
    """Give every module that a source imports anywhere, for type checkers too, with its line; relative
    imports as `.`.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), node.lineno


def foreign(source: str, room: str) -> list[str]:
    """Give the imports of a source that its room may not make."""
    ours = set(MAY_IMPORT) | OUTSIDE
    return [
        f"line {line}: {name}"
        for name, line in imported(source)
        if name.startswith(".") or (name.split(".")[0] in ours and not may_import(name, MAY_IMPORT[room]))
    ]


def may_import(name: str, allowed: set[str]) -> bool:
    """Is a module one of those, or inside one of them?"""
    return any(f"{name}.".startswith(f"{one}.") for one in allowed)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_run_one_way(room):
    """cpus -> allocator -> designs -> emulator; workloads is imported by emulator alone, and knows of cpus
    what a program may ask for (cpus/abi); nobody imports tests.
    """
    found = {str(path.relative_to(ROOT)): foreign(path.read_text(), room) for path in files(room)}
    assert len(found) > 3
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("cpus", "from allocator.page import PG_LRU"),
        ("allocator", "import designs.luf.luf"),
        ("workloads", "from cpus import tlb"),
        ("workloads", "from cpus.tlb import first_level"),
        ("workloads", "from cpus.abi_more import LOAD"),
        ("workloads", "from allocator.vma import VM_READ"),
        ("designs", "def f():\n    from emulator.machine import Machine"),
        ("emulator", "from tests.emulator.fixed import run"),
        ("cpus", "from .tlb import LOAD"),
    ],
)
def test_a_planted_import_is_found(room, line):
    """Also inside a function, and relative ones, which would hide the room."""
    assert len(foreign(line, room)) == 1


def sources(room: str) -> dict[str, str]:
    """Give the source of each module of a room."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path.read_text()
        for path in files(room)
    }


def graph(modules: dict[str, str]) -> dict[str, set[str]]:
    """Give module -> modules among these that it imports anywhere: at its top, inside functions, for type
    checkers. A room itself, whose `__init__` offers names of its modules, is nobody's import.
    """
    edges: dict[str, set[str]] = {}
    for name, source in modules.items():
        nodes = list(ast.walk(ast.parse(source)))
        listed = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module:
                listed |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        edges[name] = {module for module in listed if module in modules and "." in module} - {name}
    return edges


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Give one circle of the graph, as a path that ends where it began; empty if there is none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for following in sorted(edges[name]):
            if found := walk(following, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(edges) if (found := walk(name, []))), [])


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_modules_of_a_room_import_each_other_without_circles(room):
    """So each can be read, and loaded, after those that it names."""
    assert circle(graph(sources(room))) == []


@pytest.mark.parametrize(
    "back",
    [
        "from room.first import THING",
        "def late():\n    from room.first import THING",
        "class Late:\n    def late(self):\n        import room.first",
        "def late():\n    from room import first",
        "if TYPE_CHECKING:\n    from room.first import Thing",
    ],
)
def test_a_planted_circle_is_found(back):
    """first -> second -> third -> first, the last of them at the top or where nobody looks."""
    modules = {
        "room": "from room.first import THING",
        "room.first": "import room.second\nTHING = 1",
        "room.second": "from room import third",
        "room.third": "",
        "room.apart": "from room.first import THING",
    }
    assert circle(graph(modules)) == []
    modules["room.third"] = back
    assert circle(graph(modules)) == ["room.first", "room.second", "room.third", "room.first"]


def test_files_are_named_for_an_idea_and_end_before_they_grow_a_second_one():
    """No utils, helpers, common, manager; at most 500 lines."""
    for room in (*MAY_IMPORT, *OUTSIDE):
        for path in files(room):
            assert not set(path.stem.split("_")) & DRAWERS, path
            assert len(path.read_text().splitlines()) <= LINES_MAX, path


TEXT_IO = re.compile(r"(?<!\bos\.)\b(open|read_text|write_text)$")
BYTES = re.compile(r"'(b[rwax]|[rwax]+[+]?b[+]?)'")  # a mode


def by_locale(source: str) -> list[str]:
    """Give the calls of a source that read or write text in whatever encoding the host's locale has."""
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and TEXT_IO.search(ast.unparse(node.func))
    ]
    said = [call for call in calls if any(word.arg == "encoding" for word in call.keywords)]
    return [
        ast.unparse(call)
        for call in calls
        if call not in said and not any(BYTES.fullmatch(ast.unparse(word)) for word in call.args)
    ]


@pytest.mark.parametrize("room", [*MAY_IMPORT, "benchmarks", "examples"])
def test_text_is_read_and_written_in_an_encoding_that_is_named(room):
    """Else a name with an accent in a file of ours, or of a user's, stops a run under LC_ALL=POSIX."""
    found = {str(path.relative_to(ROOT)): by_locale(path.read_text(encoding="utf-8")) for path in files(room)}
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    "line",
    ["open(path)", "open(path, 'w')", "Path(path).read_text()", "file.write_text('b')", "file.open('a')"],
)
def test_planted_text_of_any_encoding_is_found(line):
    """Bytes, file descriptors and text with its encoding are not."""
    assert len(by_locale(line)) == 1
    assert (
        by_locale(
            "open(path, 'wb'); os.open(path, 0); path.read_text(encoding='utf-8'); "
            "open(path, encoding='utf-8')"
        )
        == []
    )


def test_every_room_says_what_lives_there():
    """In its __init__, in at most ten lines."""
    for room in MAY_IMPORT:
        text = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text()))
        assert text, room
        assert len(text.splitlines()) <= 10, room
