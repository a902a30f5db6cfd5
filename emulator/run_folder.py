"""One folder per run or comparison: `runs/0007-compare/`, complete or not there at all.

A folder is made under a name that nobody can guess, takes its number by being renamed to
`runs/.0007.partial`, and is renamed once more when it is complete. What is written later, as further designs
end, is whole or not there, file by file. `runs/latest` points to the newest. If the run is killed, its
janitor removes the hidden folder; if that is killed too, the next run does (ownership.py).
"""

from __future__ import annotations

import errno
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import psutil

from emulator.janitor import Janitor
from emulator.output_file import write_in
from emulator.ownership import FOLDER, OWNER, claim, remove_orphan
from emulator.repeats.result import Repeats
from emulator.report.formats import interrupts_text, perf_stat_text, vmstat_text
from emulator.result import Comparison, to_json, unique
from emulator.streams import tell
from inputs.text import visible_value

NUMBER = re.compile(r"^\.?(\d{4,})[-.]")
PARTIAL = re.compile(r"\.(\d{4,}|luf-[0-9a-f]{16})\.partial")
LATEST = re.compile(r"\d{4,}-[^/]+")  # where a link that is ours leads to
ATTEMPTS_MAX = 10_000
FILES = (
    "config.json",
    "config.toml",
    "environment.json",
    OWNER,
    "picture.png",
    "result.json",
    "timeline.png",
    "timeline.txt",
)
NOBODY = -1
NAME_MAX = 60


class RunFolder:
    """A run's folder; `name` is what it is called once it is complete, `path` where it is now."""

    def __init__(self, parent: Path, kind: str):
        self.parent, self.kind, self.number = parent, file_name(kind, "="), 0
        self.path = parent / f".luf-{secrets.token_hex(8)}.partial"
        self.made: os.stat_result | None = None

    @property
    def name(self) -> str:
        return f"{self.number:04d}-{self.kind}"

    @property
    def final(self) -> Path:
        return self.parent / self.name

    def rename(self, parent: int, name: str) -> None:
        """Give it another name in its parent, which is open. A folder that holds something is not replaced.
        Raises OSError.
        """
        os.rename(self.path.name, name, src_dir_fd=parent, dst_dir_fd=parent)
        self.path = self.parent / name

    def write(self, name: str, content: str | bytes) -> None:
        """Write one file, making the folder in its name. Raises OSError with the path."""
        data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
        *inner, last = name.split("/")
        try:
            with _opened(self.path, self.made) as folder:
                if not inner:
                    write_in(folder, last, data)
                    return
                with suppress(FileExistsError):
                    os.mkdir(inner[0], dir_fd=folder)
                inside = os.open(inner[0], FOLDER, dir_fd=folder)
                try:
                    write_in(inside, last, data)
                finally:
                    os.close(inside)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path / name)) from error

    def write_json(self, name: str, value: object) -> None:
        """Write one value as indented JSON."""
        text = msgspec.json.encode(visible_value(msgspec.to_builtins(value)))
        self.write(name, msgspec.json.format(text, indent=1) + b"\n")


@contextmanager
def new_run_folder(parent: str | Path, kind: str) -> Iterator[RunFolder]:
    """Give a folder to write to, and put it in its place when the block ends well; after any exception
    nothing of it is left. Raises OSError with the path of what could not be made.
    """
    place = Path(parent)
    os.makedirs(os.path.realpath(place), exist_ok=True)  # where a link leads to that has no folder yet
    with _opened(place) as opened, _a_janitor() as janitor:
        for name in filter(PARTIAL.fullmatch, os.listdir(opened)):
            remove_orphan(opened, name)
        folder = RunFolder(place, kind)
        if janitor:
            janitor.remove_if_killed(folder.path)
        owner = NOBODY
        try:
            with _named(folder):
                os.mkdir(folder.path.name, dir_fd=opened)
                folder.made = os.stat(folder.path.name, dir_fd=opened, follow_symlinks=False)
                owner = claim(opened, folder.path.name)
                _take_number(opened, folder, janitor)
            yield folder
            with _named(folder):
                folder.rename(opened, folder.name)
        except BaseException:
            shutil.rmtree(folder.path.name, ignore_errors=True, dir_fd=opened)
            raise
        finally:
            if owner != NOBODY:
                os.close(owner)
        with suppress(OSError):
            os.unlink(f"{folder.name}/{OWNER}", dir_fd=opened)  # only now: without it nobody could sweep
        _point_latest(opened, place, folder.name)


@contextmanager
def _named(folder: RunFolder) -> Iterator[None]:
    """Have an OSError name the path of the folder, and not only what it is called in another."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder.path)) from error


@contextmanager
def _a_janitor() -> Iterator[Janitor | None]:
    """Have somebody who removes the hidden folder if we are killed; a host that has no process for it costs
    nothing else, as the next run sweeps.
    """
    try:
        janitor = Janitor()
    except OSError:
        yield None
        return
    try:
        yield janitor
    finally:
        janitor.dismiss()


@contextmanager
def _opened(path: Path, made: os.stat_result | None = None) -> Iterator[int]:
    """Open a folder; if it was made by us, that one and not another in its place."""
    folder = os.open(path, FOLDER if made else FOLDER & ~os.O_NOFOLLOW)
    try:
        if made and not os.path.samestat(made, os.fstat(folder)):
            raise FileNotFoundError(2, "is not the folder any more that was made there", str(path))
        yield folder
    finally:
        os.close(folder)


def file_name(text: str, also: str = "") -> str:
    """Make a name of text that every file system and locale takes; `also` may stand in it, too."""
    word = re.sub(rf"[^\w.{also}-]+", "_", text)[:NAME_MAX].lstrip(".") or "_"
    try:
        os.fsencode(word)
    except UnicodeEncodeError:
        return word.encode("ascii", "replace").decode().replace("?", "_")
    return word


def _partial(number: int) -> str:
    return f".{number:04d}.partial"


def _taken(parent: int) -> set[int]:
    return {int(match[1]) for entry in os.listdir(parent) if (match := NUMBER.match(entry))}


def _take_number(parent: int, folder: RunFolder, janitor: Janitor | None) -> None:
    """Take a number that nobody has, by a name that only one folder can have."""
    first = max(_taken(parent), default=0) + 1
    for number in range(first, first + ATTEMPTS_MAX):
        if janitor:
            janitor.remove_orphan_if_killed(folder.parent / _partial(number))
        try:
            folder.rename(parent, _partial(number))
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            continue
        # else another run has taken this number, and finished, between our look and our step
        if not any(entry.startswith(f"{number:04d}-") for entry in os.listdir(parent)):
            folder.number = number
            return
    raise OSError(errno.EEXIST, f"no free run number after {ATTEMPTS_MAX:,} tries")


def _point_latest(parent: int, place: Path, name: str) -> None:
    """Let `latest` point there; if it cannot (somebody has a file, a folder or another link of that name) the
    run is none the worse, and a line says so.
    """
    hidden = f".luf-{secrets.token_hex(8)}.latest"
    try:
        found = place / "latest"
        if found.is_symlink() and not LATEST.fullmatch(os.readlink("latest", dir_fd=parent)):
            raise FileExistsError(17, "it is a link that leads elsewhere")
        if not found.is_symlink() and os.path.lexists(found):
            raise FileExistsError(17, "Is a directory" if found.is_dir() else "it is a file")
        os.symlink(name, hidden, dir_fd=parent)
        try:
            os.rename(hidden, "latest", src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            os.unlink(hidden, dir_fd=parent)
            raise
    except OSError as error:
        tell(f"luf: {place / 'latest'} does not point to {name}: {error.strerror}")


# -- what a folder holds -------------------------------------------------------------------------------------


def write_comparison(folder: RunFolder, comparison: Comparison, config: dict[str, Any]) -> None:
    """Write resolved config, versions, host, command, each design's counters and text files, and the result;
    this last, as it says which designs there are.
    """
    _write_setup(folder, comparison, config)
    words = [file_name(run.design) for run in comparison.runs]
    for run, place in zip(comparison.runs, unique(words, FILES)):
        folder.write(f"{place}/interrupts", interrupts_text(run))
        folder.write(f"{place}/vmstat", vmstat_text(run))
        folder.write(f"{place}/perf-stat", perf_stat_text(run))
        folder.write_json(
            f"{place}/counters.json", {"tlb_shootdowns": run.tlb_shootdowns_per_cpu, **run.counters}
        )
    folder.write("result.json", to_json(comparison))


def write_repeats(folder: RunFolder, repeats: Repeats, config: dict[str, Any]) -> None:
    """Write the same of repeated runs, but for text files of each."""
    _write_setup(folder, repeats, config)
    folder.write("result.json", to_json(repeats))


def _write_setup(folder: RunFolder, found: Comparison | Repeats, config: dict[str, Any]) -> None:
    folder.write_json("config.json", config)
    folder.write("config.toml", toml_text(config))
    folder.write_json(
        "environment.json", {"versions": found.versions, "host": found.host, "command": found.command}
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
