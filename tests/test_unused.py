"""Every name of the rooms is used by a room, an example, a benchmark or the documented Python interface.

What only a test uses belongs in tests/support, what nobody uses in the history. A use is a name that its own
module loads (outside its own definition), that another file imports, or that is looked up as an attribute.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("inputs", "cpus", "allocator", "designs", "workloads", "emulator")
USERS = (*ROOMS, "examples", "benchmarks")
# decorators that leave a function to be called by its name; all others (entry, hook, lower_builtin, ...)
# register it
PLAIN = {
    "kernel",
    "generator",
    "inlined",
    "apart",
    "intrinsic",
    "dataclass",
    "cache",
    "contextmanager",
    "wraps",
}
PLAIN |= {"property", "cached_property", "classmethod", "staticmethod"}
# class -> who calls its methods
INTERFACES = {
    "Calls": "steps of scripts, called by name (docs/workload.md)",
    "SmallMachine": "what a planted schedule calls (docs/planting.md)",
}
DECLARATIONS = {"FIELDS", "COUNTERS", "COSTS"}  # read by name when the memory map is assembled

Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def registered(node: Definition) -> bool:
    """Does a decorator hand the definition to somebody who calls it, or a table its number?"""
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        return ast.unparse(node.value.func).endswith((".add", "_kind"))  # cpus/abi/numbered.py
    decorators = getattr(node, "decorator_list", [])
    names = {ast.unparse(one.func if isinstance(one, ast.Call) else one).split(".")[-1] for one in decorators}
    return not names <= PLAIN


def defined(tree: ast.Module) -> Iterator[tuple[str, Definition]]:
    """Give the names that a module defines at its top, and the methods of its own classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from ((one.id, node) for one in ast.walk(target) if isinstance(one, ast.Name))
        # methods of a class with bases may override what is called elsewhere
        if isinstance(node, ast.ClassDef) and not node.bases and node.name not in INTERFACES:
            yield from ((one.name, one) for one in node.body if isinstance(one, ast.FunctionDef))


def loaded(tree: ast.AST) -> Counter[str]:
    return Counter(
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    )


def wanted(source: str) -> set[str]:
    """Give the names that a source asks other files for: imports, attributes, what `__all__` lists, functions
    that are called by name (`later`).
    """
    tree = ast.parse(source)
    names = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {
        ast.literal_eval(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "later" and len(node.args) == 2
    }
    for name, node in defined(tree):
        if name == "__all__" and isinstance(node, ast.Assign):
            names |= set(ast.literal_eval(node.value))
    return names


def unused(sources: dict[str, str], elsewhere: set[str]) -> list[str]:
    """Give `file: name` of all that a file of the rooms defines and nobody uses."""
    asked = elsewhere.union(*map(wanted, sources.values()))
    found = []
    for path, source in sources.items():
        tree = ast.parse(source)
        here = loaded(tree)
        for name, node in defined(tree):
            used = name in asked or here[name] > loaded(node)[name] or registered(node)
            used |= name in DECLARATIONS
            if not used and not name.startswith("__") and name != "_":
                found.append(f"{path}: {name}")
    return found


def sources_of(*rooms: str) -> dict[str, str]:
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for room in rooms
        for path in sorted((ROOT / room).rglob("*.py"))
    }


def documented() -> set[str]:
    """Give the names that a page imports from a room."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    lines = re.findall(
        rf"^from (?:{'|'.join(ROOMS)})[\w.]* import (.+)$",
        "\n".join(page.read_text(encoding="utf-8") for page in pages),
        re.M,
    )
    return set(re.findall(r"\w+", " ".join(lines)))


def test_every_name_is_used():
    elsewhere = documented().union(*map(wanted, sources_of(*USERS[len(ROOMS) :]).values()))
    assert unused(sources_of(*ROOMS), elsewhere) == []


def test_a_planted_name_is_found():
    """A constant in a tuple, a kernel that calls itself, a class and a method; not what is registered,
    imported, or listed.
    """
    first = """
FREE, TAKEN = 0, 1
ROW = TABLE.add("row")

@kernel
def walk(ram):
    return walk(ram) + TAKEN

@entry(HOOK_TICK)
def nothing(ram):
    return 0

class Page:
    def size(self):
        return 1

    def flags(self):
        return self.flags()

def listed():
    return 0
"""
    second = "from first import Page\nprint(Page().size())\n"
    assert unused({"first": first, "second": second}, {"listed"}) == ["first: FREE", "first: walk"]
    assert unused({"first": first}, set()) == [
        "first: FREE",
        "first: walk",
        "first: Page",
        "first: size",
        "first: listed",
    ]
