"""What decides what a run does, besides what it was asked: told apart by whoever must not mix two of them."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("inputs", "cpus", "allocator", "designs", "workloads", "emulator")


def facts() -> dict[str, str]:
    """Give what must be the same wherever runs of one sweep are made: luf, by its sources, and Python."""
    digest = hashlib.sha256()
    for file in sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py")):
        digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    version = metadata.version("luf-emulator")
    python = ".".join(platform.python_version_tuple()[:2])
    return {"luf": f"{version} of sources {digest.hexdigest()[:12]}", "Python": python}
