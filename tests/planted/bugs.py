"""The planted bugs: read from the tables beside this file, and planted into a copy of the sources.

A change is exact text that occurs once in its file. If an edit of the sources has touched it, it is there no
more, and whoever reads the table is told which bug and which file: then the bug is planted anew by hand.
"""

from __future__ import annotations

import ast
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TABLES = Path(__file__).parent
ROOMS = ("inputs", "workloads", "cpus", "allocator", "designs", "emulator")
ENGINE = ("cpus", "allocator")
DESIGN = "linux"  # on which a bug of the engine is looked for, if it names no other
PROMISES = {
    "I1": "nobody reads or writes a frame that was handed out since",
    "I2": "only read-only translations outlive the flush of their batch",
    "I3": "once a store through a new mapping is seen, nobody reads the older value at that address",
    "I4": "once a file's new content is published, nobody reads the older one at that offset",
    "I5": "when a call that took a mapping or a right away has returned, nobody uses it",
    "I7": "a CPU counts as having flushed only if nothing older than the request is in its TLB",
    "I8": "a generation counts as done only when its whole flush is over",
    "A": "references, mappings and page tables are accounted for",
    "D": "what was stored is not lost, and is where it belongs",
    "L": "everybody goes on some time",
}


@dataclass(frozen=True, slots=True)
class Change:
    """Text of a file that another text takes the place of."""

    file: str
    old: str
    new: str

    def apply(self, text: str) -> str:
        """Make the change. Raises ValueError unless the old text is there once."""
        if (found := text.count(self.old)) != 1:
            raise ValueError(f"the old text must be in {self.file} once (it is there {found} times)")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Bug:
    """One bug: `wrong` says what, `breaks` is a key of PROMISES, `design` is what stress is asked to look
    at, `note` why it is not found.
    """

    name: str
    wrong: str
    breaks: str
    design: str
    changes: tuple[Change, ...]
    note: str = ""

    @property
    def kind(self) -> str:
        """Tell where it is planted: in a design, in the engine, or is it one that Linux has had?"""
        if self.name.startswith("historic"):
            return "historic"
        return "engine" if any(change.file.startswith(ENGINE) for change in self.changes) else "design"

    @property
    def files(self) -> tuple[str, ...]:
        """Name the files that it changes."""
        return tuple(dict.fromkeys(change.file for change in self.changes))

    def sources(self, root: Path = ROOT) -> dict[str, str]:
        """Give the changed files' new texts. Raises ValueError naming the bug if one does not apply."""
        texts = {file: (root / file).read_text(encoding="utf-8") for file in self.files}
        for change in self.changes:
            try:
                texts[change.file] = change.apply(texts[change.file])
                ast.parse(texts[change.file], change.file)
            except (ValueError, SyntaxError) as error:
                raise ValueError(f"{self.name}: {error}") from error
        return texts


def all_bugs() -> dict[str, Bug]:
    """Read all tables, in the order of their names."""
    found: dict[str, Bug] = {}
    for table in sorted(TABLES.glob("*.toml")):
        for name, entry in tomllib.loads(table.read_text(encoding="utf-8")).items():
            if name in found:
                raise ValueError(f"{table.name}: a bug's name must be given once (got {name!r} twice)")
            found[name] = bug_of(name, entry)
    return found


def bug_of(name: str, entry: dict[str, Any]) -> Bug:
    """Make a bug of its entry in a table."""
    parts = [entry, *entry.get("also", ())]
    changes = tuple(Change(part["file"], part["old"], part["new"]) for part in parts)
    design = entry.get("design", DESIGN)
    return Bug(name, entry["wrong"], entry["breaks"], design, changes, entry.get("note", ""))


def plant(bug: Bug, folder: Path, root: Path = ROOT) -> Path:
    """Copy the sources to a new folder, with the bug in them; give the folder, for PYTHONPATH."""
    texts = bug.sources(root)
    for room in ROOMS:
        # compiled Python goes along: it is valid as long as time and size of its source are
        shutil.copytree(root / room, folder / room)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    return folder
