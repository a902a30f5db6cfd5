"""One folder per run or comparison: `runs/0007-compare/`, complete or not there at all.

A folder is written as `runs/.0007.partial` and renamed when it is complete, so that a killed run leaves no
half-written result. Its number is taken by making that hidden folder (mkdir is atomic), and a hidden folder
whose process has died is swept away by the next run. `runs/latest` points to the newest.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import psutil

from emulator.report.formats import interrupts_text, perf_stat_text, vmstat_text
from emulator.result import Comparison, to_json, unique
from emulator.streams import tell
from inputs.text import visible_value

NUMBER = re.compile(r"^\.?(\d{4,})[-.]")
ATTEMPTS_MAX = 10_000
FILES = (
    "config.json",
    "config.toml",
    "environment.json",
    "owner",
    "picture.png",
    "result.json",
    "timeline.png",
    "timeline.txt",
)
ORPHAN_AGE_S = 60.0


class RunFolder:
    """A run's folder while it is being written; `name` is what it will be called, `path` where it is now."""

    def __init__(self, parent: Path, number: int, kind: str):
        self.parent = parent
        self.name = f"{number:04d}-{kind}"
        self.path = _partial(parent, number)

    @property
    def final(self) -> Path:
        return self.parent / self.name

    def write(self, name: str, text: str) -> None:
        """Write one file, making the folders in its name."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def write_json(self, name: str, value: object) -> None:
        """Write one value as indented JSON."""
        text = msgspec.json.encode(visible_value(msgspec.to_builtins(value)))
        self.write(name, msgspec.json.format(text, indent=1).decode() + "\n")


@contextmanager
def new_run_folder(parent: str | Path, kind: str) -> Iterator[RunFolder]:
    """Give a folder to write to, and put it in its place when the block ends well; after any exception
    nothing of it is left.
    """
    place = Path(parent)
    place.mkdir(parents=True, exist_ok=True)
    _sweep(place)
    folder = RunFolder(place, _take_number(place), kind)
    try:
        yield folder
        (folder.path / "owner").unlink()
        folder.path.rename(folder.final)
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    _point_latest(place, folder.name)


def _partial(parent: Path, number: int) -> Path:
    return parent / f".{number:04d}.partial"


def _taken(parent: Path) -> set[int]:
    return {int(match[1]) for entry in os.listdir(parent) if (match := NUMBER.match(entry))}


def _take_number(parent: Path) -> int:
    first = max(_taken(parent), default=0) + 1
    for number in range(first, first + ATTEMPTS_MAX):
        hidden = _partial(parent, number)
        try:
            hidden.mkdir()
        except FileExistsError:
            continue
        if any(entry.startswith(f"{number:04d}-") for entry in os.listdir(parent)):
            hidden.rmdir()  # another run took this number and finished between our look and our mkdir
            continue
        me = psutil.Process()
        (hidden / "owner").write_text(f"{me.pid} {me.create_time():.2f}\n", encoding="ascii")
        return number
    raise OSError(f"{parent}: no free run number after {ATTEMPTS_MAX:,} tries")


def _sweep(parent: Path) -> None:
    for hidden in parent.glob(".*.partial"):
        try:
            pid, created = (hidden / "owner").read_text(encoding="ascii").split()
            alive = abs(psutil.Process(int(pid)).create_time() - float(created)) < 1.0
        except psutil.NoSuchProcess:
            alive = False
        except (OSError, ValueError):
            alive = not _older_than(hidden, ORPHAN_AGE_S)  # made, but its owner not yet written
        if not alive:
            shutil.rmtree(hidden, ignore_errors=True)


def _older_than(path: Path, seconds: float) -> bool:
    try:
        return time.time() - path.stat().st_mtime > seconds
    except OSError:
        return False


def _point_latest(parent: Path, name: str) -> None:
    """Let `latest` point there; if it cannot (somebody has a folder of that name) the run is none the worse,
    and a line says so.
    """
    link = parent / f".latest.{os.getpid()}"
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        link.replace(parent / "latest")
    except OSError as error:
        link.unlink(missing_ok=True)
        tell(f"luf: {parent / 'latest'} does not point to {name}: {error.strerror}")


# -- what a folder holds -------------------------------------------------------------------------------------


def write_comparison(folder: RunFolder, comparison: Comparison, config: dict[str, Any]) -> None:
    """Write result, resolved config, versions, host, command, and each design's counters and text files."""
    folder.write("result.json", to_json(comparison))
    folder.write_json("config.json", config)
    folder.write("config.toml", toml_text(config))
    folder.write_json(
        "environment.json",
        {"versions": comparison.versions, "host": comparison.host, "command": comparison.command},
    )
    words = [re.sub(r"[^\w.-]+", "_", run.design).lstrip(".") or "_" for run in comparison.runs]
    for run, place in zip(comparison.runs, unique(words, FILES)):
        folder.write(f"{place}/interrupts", interrupts_text(run))
        folder.write(f"{place}/vmstat", vmstat_text(run))
        folder.write(f"{place}/perf-stat", perf_stat_text(run))
        folder.write_json(
            f"{place}/counters.json", {"tlb_shootdowns": run.tlb_shootdowns_per_cpu, **run.counters}
        )


def toml_text(table: dict[str, Any], where: str = "") -> str:
    """Return nested tables as TOML, plain values first."""
    plain = [
        f"{_toml_key(key)} = {_toml_value(value)}"
        for key, value in table.items()
        if not _is_table(value) and value is not None
    ]
    text = "\n".join(plain) + "\n" if plain else ""
    for key, value in table.items():
        name = f"{where}{_toml_key(key)}"
        if isinstance(value, dict):
            text += f"\n[{name}]\n" + toml_text(value, name + ".")
        elif _is_table(value):
            text += "".join(f"\n[[{name}]]\n" + toml_text(one, name + ".") for one in value)
    return text


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)
    )


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)


def _toml_value(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml_key(key)} = {_toml_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(one) for one in value) + "]"
    # JSON's numbers, strings and booleans are TOML's, where no character is one that TOML refuses
    return msgspec.json.encode(visible_value(value)).decode()


def versions() -> dict[str, str]:
    """Return the versions that decide what a run does: Python, the libraries, libzmq, ours, and the git
    commit if there is one.
    """
    found = {"python": platform.python_version()}
    for name in ("luf-emulator", "numpy", "numba", "llvmlite", "pyzmq", "multiprocess", "msgspec"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if "pyzmq" in found:
        import zmq

        found["libzmq"] = zmq.zmq_version()
    if commit := _git_commit():
        found["git"] = commit
    return found


def _git_commit() -> str:
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def host() -> dict[str, Any]:
    """Return the host that carried the run."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": psutil.virtual_memory().total >> 20,
    }


def command_line() -> list[str]:
    """Return the command that was given."""
    return ["luf", *sys.argv[1:]]
