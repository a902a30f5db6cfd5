"""Keep compiled code on disk: once for all who have the same sources, in a bounded space, for nobody else.

A module of kernels has a folder, named by the module and by the hash of all that its code depends on
(source_hash.py). In it each version of a function, compiled for one signature, is a file of its own, whose
name says which (and where its source lies, if errors out of it say that): there is no index that processes
which compile at the same time could take from each other, and a file appears in one step, whole. A checksum
stands before the code: a file that was cut or damaged since is compiled again.

Whoever compiles also prunes: folders that nobody has used for long go, and the least recently used ones as
long as there is more than the limit. A process that uses a folder holds a lock on it while it lives (one byte
of the file `in-use`, chosen by the hash, so that hundreds of folders cost one descriptor and locks end with
their process): what somebody uses or writes is never pruned.

What is kept are pickles, so who can write to the folder decides what we execute: it must be ours, and
writable by nobody else.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import pickle
import re
import stat
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from cpus.source_hash import ROOMS, source_hash

SIZE_MAX = 512 << 20  # four checkouts with everything that tests and benchmarks compile
UNUSED_DAYS_MAX = 21
PRUNE_EVERY = 32 << 20  # bytes that a process saves
CODE, UNFINISHED = ".code", ".unfinished"
FOLDER = re.compile(r".+-([0-9a-f]{16})")
CHECKSUM_BYTES = 4


class CacheError(ValueError):
    """There is no folder from which code may be loaded safely: one sentence."""


def cache_root() -> Path:
    """Give the folder of compiled code: $LUF_CACHE_DIR, else one in the user's cache, else in the temporary
    folder. Raises CacheError.
    """
    if wanted := os.environ.get("LUF_CACHE_DIR"):
        try:
            return _private(Path(wanted))
        except OSError as error:
            got = f"got {wanted}: {error.strerror}"
            raise CacheError(f"LUF_CACHE_DIR must name a folder that can be written to ({got})") from error
    home = os.environ.get("XDG_CACHE_HOME", "")
    user = Path(home) if os.path.isabs(home) else Path.home() / ".cache"  # as the XDG rules have it
    try:
        return _private(user / "luf-emulator")
    except OSError:
        return _private(Path(tempfile.gettempdir()) / f"luf-emulator-{os.getuid()}")


def _private(folder: Path) -> Path:
    """Make a folder that only we can write to. Raises CacheError if it is another's, OSError if it cannot be
    made or written to.
    """
    if not folder.is_absolute():
        raise CacheError(f"LUF_CACHE_DIR must name an absolute path (got {folder})")
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        with suppress(FileExistsError):
            place.mkdir(mode=0o700)
    found = folder.lstat()
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or others_write:
        got = f"{stat.filemode(found.st_mode)} of user {found.st_uid}"
        rule = "the cache of compiled code must be a folder that only you can write to"
        raise CacheError(f"{folder}: {rule} (got {got}); set LUF_CACHE_DIR")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no permission")
    return folder


def code_folder(function: Callable) -> Path | None:
    """Choose the folder for the code of a function's module; None (no cache) for a function that has no file,
    as in a notebook.

    The module's name belongs to it, since compiled code names its module, and a user's file is another one
    when it is run as a script.
    """
    path = function.__code__.co_filename
    if not os.path.isfile(path):
        return None
    return _root() / f"{function.__module__}-{source_hash(os.path.abspath(path))}"


def _root() -> Path:
    return _checked(os.environ.get("LUF_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME"))


@cache
def _checked(*_places: str | None) -> Path:
    """Judge the folder once for each place that it may be at."""
    return cache_root()


class CodeCache(_Cache):
    """The versions of one function, as numba asks for them. `options` are those of the compiler."""

    def __init__(self, function: Callable, folder: Path, options: dict[str, Any]):
        self.function, self.folder, self.options = function, folder, options

    @property
    def cache_path(self) -> str:
        return str(self.folder)

    def file_of(self, signature: Any, codegen: Any) -> Path:
        """Name the file of a version: by signature, target, options and what the function itself is made of
        (one source line may make several functions, with other values in their closures).
        """
        code = self.function.__code__
        cells = tuple(cell.cell_contents for cell in self.function.__closure__ or ())
        made_of = hashlib.sha256(code.co_code + (dumps(cells) if cells else b"")).hexdigest()
        where = code.co_filename if _names_its_file(self.function, str(signature)) else ""
        which = (str(signature), codegen.magic_tuple(), sorted(self.options.items()), made_of, where)
        name = f"{self.function.__qualname__[-100:]}-{code.co_firstlineno}"
        return self.folder / f"{name}-{hashlib.sha256(repr(which).encode()).hexdigest()[:16]}{CODE}"

    def has(self, signature: Any, target_context: Any) -> bool:
        """Tell whether a version is there."""
        use(self.folder)
        return self.file_of(signature, target_context.codegen()).is_file()

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Load a version; None if it is not there, or is not what was written."""
        target_context.refresh()
        use(self.folder)
        try:
            data = self.file_of(signature, target_context.codegen()).read_bytes()
        except FileNotFoundError:
            return None
        code = memoryview(data)[CHECKSUM_BYTES:]
        if data[:CHECKSUM_BYTES] != _checksum(code):
            return None
        return CompileResult._rebuild(target_context, *pickle.loads(code))

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a version, unless it holds addresses of this process; and prune."""
        if result.library.has_dynamic_globals or not all(part.can_cache for part in result.lifted):
            return
        use(self.folder)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        # without the source as it was typed, which is for people, long, and names the checkout
        data = dumps(result._replace(type_annotation="")._reduce())
        file, unfinished = tempfile.mkstemp(UNFINISHED, dir=self.folder)
        try:
            with open(file, "wb") as out:
                out.write(_checksum(data) + data)
            os.replace(unfinished, self.file_of(signature, result.codegen))
        except BaseException:
            os.unlink(unfinished)
            raise
        _saved(self.folder.parent, len(data))

    def enable(self) -> None:
        """Numba's word for what is always so here."""

    def disable(self) -> None:
        """Numba's word for what never is so here."""

    def flush(self) -> None:
        """Numba's word before it compiles again: a version that is saved again replaces the old one."""


def _names_its_file(function: Callable, signature: str) -> bool:
    """Tell whether errors out of this code, compiled for this signature, say in which file it stands.

    The code of a user's file may raise, and code of a checked segment (ram.py) reports what it finds. Two
    copies of such a file must not share it: one would be blamed for the other.
    """
    return function.__module__.partition(".")[0] not in ROOMS or "CheckedSegment" in signature


def _checksum(data: bytes | memoryview) -> bytes:
    return zlib.crc32(data).to_bytes(CHECKSUM_BYTES, "little")


_used: set[Path] = set()  # by this process, or by one that forked it and lives as long


def use(folder: Path) -> None:
    """Keep others from pruning a folder as long as this process lives, and say when it was last used."""
    if folder not in _used:
        _used.add(folder)
        with suppress(OSError):  # without locks there (some network file systems) nobody can prune
            fcntl.lockf(_locks(folder.parent), fcntl.LOCK_SH, 1, _byte_of(folder))
        with suppress(FileNotFoundError):
            os.utime(folder)


@cache
def _locks(root: Path) -> int:
    """Open the file of locks. It must stay open: closing it once would end all locks of this process."""
    return os.open(root / "in-use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _byte_of(folder: Path) -> int:
    return int(folder.name[-15:], 16)


_unpruned = {"bytes": PRUNE_EVERY}  # saved by this process: the first that it saves makes it look


def _saved(root: Path, size: int) -> None:
    _unpruned["bytes"] += size
    if _unpruned["bytes"] >= PRUNE_EVERY:
        _unpruned["bytes"] = 0
        prune(root)


def prune(root: Path, size_max: int = SIZE_MAX, unused_days_max: float = UNUSED_DAYS_MAX) -> list[str]:
    """Delete folders of code that nobody uses: those unused for so long, and the least recently used as long
    as all are larger than the limit. Returns their names.
    """
    found = sorted(_folders(root))
    size, latest, gone = sum(folder[1] for folder in found), time.time() - unused_days_max * 86400, []
    for used, its_size, folder in found:
        if (used < latest or size > size_max) and _remove(folder):
            size -= its_size
            gone.append(folder.name)
    return gone


def _folders(root: Path) -> Iterator[tuple[float, int, Path]]:
    """Give last use, bytes and place of each folder of code."""
    for entry in os.scandir(root):
        if FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            try:
                size = sum(file.stat().st_size for file in os.scandir(entry))
            except FileNotFoundError:  # somebody else prunes
                continue
            yield entry.stat().st_mtime, size, Path(entry.path)


def _remove(folder: Path) -> bool:
    """Delete a folder unless somebody uses it. What is not ours in it stays, and the folder with it."""
    if folder in _used:
        return False
    locks, byte = _locks(folder.parent), _byte_of(folder)
    try:
        fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except OSError:
        return False
    try:
        for file in os.scandir(folder):
            if file.name.endswith((CODE, UNFINISHED)):
                os.unlink(file)
        folder.rmdir()
        return True
    except OSError:
        return False
    finally:
        fcntl.lockf(locks, fcntl.LOCK_UN, 1, byte)
