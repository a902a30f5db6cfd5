"""Keep compiled code on disk: once for all who have the same sources, in a bounded space, for nobody else.

A module of kernels has a folder, named by the module and by the hash of all that its code depends on
(source_hash.py). In it each version of a function, compiled for one signature, is a file of its own, whose
name says which (and where its source lies, if errors out of it say that): there is no index that processes
which compile at the same time could take from each other, and a file appears in one step, whole. A checksum
stands before the code: what was cut or damaged since, and what does not load for any other reason, is
compiled again. What cannot be kept costs the next run time, and this one a line.

Whoever compiles also prunes: folders that nobody has used for long go, and the least recently used ones as
long as there is more than the limit. A process that uses a folder holds a lock on it while it lives (one byte
of the file `in-use`, chosen by the hash, so that hundreds of folders cost one descriptor and locks end with
their process): what somebody uses or writes is never pruned. Nor is a file that does not begin as ours do.

What is kept are pickles, so who could write a file decides what we execute: the folder (cache_place.py), each
folder in it and each file must be ours, and writable by nobody else.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pickle
import re
import stat
import sys
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

from cpus.cache_place import cache_root, check_private, is_ours
from cpus.source_hash import ROOMS, source_hash

SIZE_MAX = 1 << 30  # four checkouts with everything that tests and benchmarks compile, two engines each
UNUSED_DAYS_MAX = 21
PRUNE_EVERY = 32 << 20  # bytes that a process saves
CODE, UNFINISHED = ".code", ".unfinished"
FOLDER = re.compile(r".+-([0-9a-f]{16})")
MARK = b"luf-code"  # with which each of our files begins, and a checksum behind it
HEAD_BYTES = len(MARK) + 4


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
    return _checked(*map(os.environ.get, ("LUF_CACHE_DIR", "XDG_CACHE_HOME", "HOME")))


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
        """Load a version; None if it is not there, is not what was written, or cannot be loaded."""
        target_context.refresh()
        use(self.folder)
        data = _own(self.file_of(signature, target_context.codegen()))
        code = memoryview(data)[HEAD_BYTES:]
        if data[:HEAD_BYTES] != _head(code):
            return None
        try:
            return CompileResult._rebuild(target_context, *pickle.loads(code))
        except Exception:  # noqa: BLE001 (whatever numba, LLVM or pickle say of it: it is compiled again)
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a version, unless it holds addresses of this process; and prune."""
        if result.library.has_dynamic_globals or not all(part.can_cache for part in result.lifted):
            return
        # without the source as it was typed, which is for people, long, and names the checkout
        data = dumps(result._replace(type_annotation="")._reduce())
        try:
            use(self.folder)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            _write(self.file_of(signature, result.codegen), data)
            _saved(self.folder.parent, len(data))
        except OSError as error:
            _tell_not_kept(error.filename or str(self.folder), error.strerror or str(error))

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


def _head(data: bytes | memoryview) -> bytes:
    return MARK + zlib.crc32(data).to_bytes(HEAD_BYTES - len(MARK), "little")


def _own(file: Path, size: int = -1) -> bytes:
    """Read a file, or its beginning, if nobody else can have written it; nothing if it cannot be read."""
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
            found = os.fstat(opened.fileno())
            return opened.read(size) if stat.S_ISREG(found.st_mode) and is_ours(found) else b""
    except OSError:
        return b""


def _write(file: Path, data: bytes) -> None:
    """Write a file in one step. Raises OSError, and leaves nothing then."""
    number, unfinished = tempfile.mkstemp(UNFINISHED, dir=file.parent)
    try:
        with open(number, "wb") as out:
            out.write(_head(data) + data)
        os.replace(unfinished, file)
    except BaseException:
        os.unlink(unfinished)
        raise


_not_kept: list[str] = []  # said once by a process and those that it forks; they meet what it has met
_ME = os.getpid()


def _tell_not_kept(file: str, why: str) -> None:
    if not _not_kept and os.getpid() == _ME:  # a helper's parent will compile it too, and say so
        _not_kept.append(f"luf: compiled code is not kept: {file}: {why}")
        with suppress(OSError, AttributeError):
            sys.stderr.write(_not_kept[0] + "\n")


_used: set[Path] = set()  # by this process, or by one that forked it and lives as long


def use(folder: Path) -> None:
    """Keep others from pruning a folder as long as this process lives, and say when it was last used. Raises
    CacheError if others can write to it.
    """
    if folder not in _used:
        with suppress(FileNotFoundError):
            check_private(folder)
        _used.add(folder)
        with suppress(OSError):  # without locks there (some network file systems) nobody can prune
            fcntl.lockf(_locks(folder.parent), fcntl.LOCK_SH, 1, _byte_of(folder))
        with suppress(FileNotFoundError):
            os.utime(folder)


@cache
def _locks(root: Path) -> int:
    """Open the file of locks. It must stay open: closing it once would end all locks of this process."""
    return os.open(root / "in-use", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


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
                size = sum(file.stat().st_size for file in os.scandir(entry) if _is_code(file))
            except FileNotFoundError:  # somebody else prunes
                continue
            yield entry.stat().st_mtime, size, Path(entry.path)


def _is_code(file: os.DirEntry[str]) -> bool:
    """Tell whether we have written a file, of this name or of another luf's, wholly or in part."""
    return file.name.endswith((CODE, UNFINISHED)) and _own(Path(file), len(MARK)) == MARK


def _remove(folder: Path) -> bool:
    """Delete a folder unless somebody uses it. What is not ours in it stays, and the folder with it."""
    if folder in _used:
        return False
    try:
        locks, byte = _locks(folder.parent), _byte_of(folder)
        fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except OSError:
        return False
    try:
        for file in os.scandir(folder):
            if _is_code(file):
                os.unlink(file)
        folder.rmdir()
        return True
    except OSError:
        return False
    finally:
        fcntl.lockf(locks, fcntl.LOCK_UN, 1, byte)
