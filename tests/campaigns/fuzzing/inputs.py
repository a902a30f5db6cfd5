"""One input of the fuzzing campaign: a command line and the files that it names, in a folder of their own.

So every reader is reached the way a user reaches it, whatever its functions are called, and a finding is
something that anybody can repeat: lay the files, type the command.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.campaigns.fuzzing.documents import Document


@dataclass(frozen=True, slots=True)
class Input:
    """What is handed to a reader. `touched` is the file that was made odd: what is wrong is wrong there."""

    reader: str
    arguments: tuple[str, ...]
    files: Mapping[str, Document | bytes] = field(default_factory=dict)
    touched: str = ""

    def lay(self, folder: Path) -> None:
        """Write the files."""
        for name, content in self.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encoded())

    def command(self) -> str:
        """Show the command line as a user would type it."""
        return shlex.join(["luf", *(word.encode("unicode_escape").decode() for word in self.arguments)])

    def with_file(self, name: str, content: Document | bytes) -> Input:
        return replace(self, files={**self.files, name: content})

    def size(self) -> int:
        """Count the bytes of files and command line: the smaller of two inputs is the better example."""
        laid = sum(len(one if isinstance(one, bytes) else one.encoded()) for one in self.files.values())
        return laid + sum(map(len, self.arguments))


def saved(one: Input, found: str) -> str:
    """Return an input as JSON: text where a file is text, else base64."""
    files: dict[str, Any] = {}
    for name, content in one.files.items():
        data = content if isinstance(content, bytes) else content.encoded()
        try:
            files[name] = {"text": data.decode("utf-8")}
        except UnicodeDecodeError:
            files[name] = {"base64": base64.b64encode(data).decode("ascii")}
    table = {
        "found": found,
        "reader": one.reader,
        "arguments": list(one.arguments),
        "touched": one.touched,
        "files": files,
    }
    return json.dumps(table, indent=1) + "\n"


def loaded(text: str) -> Input:
    """Return what `saved` wrote."""
    table = json.loads(text)
    files = {
        name: content["text"].encode("utf-8") if "text" in content else base64.b64decode(content["base64"])
        for name, content in table["files"].items()
    }
    return Input(table["reader"], tuple(table["arguments"]), files, table["touched"])
