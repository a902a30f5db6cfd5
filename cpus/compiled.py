"""Compile kernels once, keep them on disk, and call the big ones through a table of addresses in shared
memory.

`@kernel` is numba's njit with a disk cache that notices every change: numba itself looks only at the file of
the function, not at the callees and constants imported from others (reproduced: stale code ran). So each
module gets a cache folder named by a hash of itself, of every project file it imports, directly or not, and
of the versions and the CPU. Editing one file recompiles the modules that depend on it and no other.

`@entry` names a kernel in the *text table*: it is compiled on its own and reached with `call(ram, NUMBER,
...)` through its address in `ram.text`. Entries cut the tree of inlined calls (compile time grows with
subtree size), let a design replace hooks without recompiling the engine (2 ns a call), and let compiled code
call the process shell, a ctypes callback. `@apart` is the everyday form of an entry: it is written and called
like any kernel, and its text-table number goes by its name. Entries have the signature int64 f(ram, int64
...) with at most five int64. They must not raise: `panic` stops the run instead.
"""

from __future__ import annotations

import ast
import ctypes
import fcntl
import glob
import hashlib
import importlib.util
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, wraps
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba
from llvmlite import ir
from numba import types
from numba.core.caching import IndexDataCacheFile
from numba.extending import intrinsic

from cpus.layout import TEXT
from cpus.ram import element_pointer

ROOMS = ("cpus", "allocator", "designs", "benchmarks")  # where kernels live
ARGUMENTS = 5
UNUSED_CACHE_DAYS = 21


class CacheError(ValueError):
    """There is no folder from which code may be loaded safely: one sentence."""


def cache_root() -> Path:
    """Give the folder of compiled code: $LUF_CACHE_DIR, else the user's cache, else a private temporary one.
    Raises CacheError.
    """
    wanted = os.environ.get("LUF_CACHE_DIR")
    root = (
        Path(wanted)
        if wanted
        else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "luf-emulator"
    )
    try:
        root.mkdir(parents=True, exist_ok=True)
        if os.access(root, os.W_OK):
            return root
        why = "no permission"
    except OSError as error:
        why = str(error.strerror)
    if wanted:
        raise CacheError(f"LUF_CACHE_DIR must name a folder that can be written to (got {wanted}: {why})")
    return _private(Path(tempfile.gettempdir()) / f"luf-emulator-{os.getuid()}")


def _private(folder: Path) -> Path:
    """Make a folder that only we can write to. What numba keeps there are pickles: who can write to it
    decides what we execute.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or others_write:
        got = f"{stat.filemode(found.st_mode)} of user {found.st_uid}"
        raise CacheError(
            f"{folder}: the cache of compiled code must be a folder that only you can write to (got {got}); set LUF_CACHE_DIR"
        )
    folder.chmod(0o700)
    return folder


@cache
def _platform_key() -> str:
    host = llvmlite.binding.get_host_cpu_name() + llvmlite.binding.get_host_cpu_features().flatten()
    return "|".join((numba.__version__, llvmlite.__version__, sys.version, host))


@cache
def _direct_imports(path: str) -> tuple[str, ...]:
    """Find the project files, and the files beside it, that a source file imports, by parsing it."""
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    found = set()
    for name in names:
        # a user's design may be made of several files
        beside = Path(path).parent / f"{name.split('.')[0]}.py"
        if beside.is_file():
            found.add(str(beside))
        elif name.split(".")[0] in ROOMS:
            try:
                spec = importlib.util.find_spec(name)
            except ModuleNotFoundError:  # `from room.module import name`: the name is no module
                continue
            if spec and spec.origin:
                found.add(spec.origin)
    return tuple(sorted(found))


@cache
def closure_hash(path: str) -> str:
    """Hash a source file with all project files that it imports, directly or not, the versions and the host
    CPU.
    """
    seen, todo = set(), [path]
    while todo:
        here = todo.pop()
        if here not in seen:
            seen.add(here)
            todo.extend(_direct_imports(here))
    digest = hashlib.sha256(_platform_key().encode())
    for name in sorted(seen):
        digest.update(Path(name).read_bytes())
    return digest.hexdigest()[:16]


def _cache_folder(function: Callable) -> str | None:
    """Choose the cache folder of a function's module; None (no cache) for code that has no file, as in a
    notebook.
    """
    path = function.__code__.co_filename
    if not os.path.isfile(path):
        return None
    name = f"{Path(path).stem}-{closure_hash(os.path.abspath(path))}"
    if function.__module__.rpartition(".")[2] != Path(path).stem:
        # compiled code names its module, and a user's file is another one when it is run as a script
        name += f".{function.__module__}"
    return str(cache_root() / name)


def _with_cache(decorate: Callable[[bool], Any], function: Callable) -> Any:
    folder = _cache_folder(function)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = folder or ""  # read by numba when the decorator runs, not later
    try:
        return decorate(folder is not None)
    finally:
        numba.config.CACHE_DIR = before


def _save_one_at_a_time(save: Callable[[Any, Any, Any], None]) -> Callable[[Any, Any, Any], None]:
    """Have processes that compile at the same time save one after the other.

    numba's own save reads the index of a function, picks a file name that is free for its new version, and
    writes both. Two that do so at once pick the same name: the index says what one has compiled for, the file
    holds what the other has, and it stays so (met once: a TypingError at every start, until the folder was
    deleted).
    """

    @wraps(save)
    def locked(self: Any, key: Any, data: Any) -> None:
        with open(Path(self._cache_path) / "lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            save(self, key, data)

    return locked


IndexDataCacheFile.save = _save_one_at_a_time(IndexDataCacheFile.save)


def kernel(function: Callable) -> Any:
    """Compile `function` to native code at its first call, with the disk cache described above."""
    if numba.config.DISABLE_JIT:
        return function
    return _with_cache(
        lambda on: numba.njit(cache=on, error_model="numpy", no_cfunc_wrapper=True)(function), function
    )


def inlined(function: Callable) -> Any:
    """Compile `function` into every kernel that calls it, whatever the compiler thinks of its size."""
    if numba.config.DISABLE_JIT:
        return function
    return _with_cache(
        lambda on: numba.njit(cache=on, error_model="numpy", no_cfunc_wrapper=True, forceinline=True)(
            function
        ),
        function,
    )


class Entry:
    """A kernel with a number in the text table. Callable from Python and from kernels like the function
    itself.
    """

    def __init__(self, number: int, function: Callable):
        self.number, self.function, self.name = number, function, function.__name__
        self.compiled: Any = None

    @property
    def can_be_cached(self) -> bool:
        """Tell whether other processes can load what one has compiled: not for code that has no file, as in a
        notebook.
        """
        return _cache_folder(self.function) is not None

    @property
    def is_compiled_or_cached(self) -> bool:
        """Tell whether compiling it will be quick: numba's index of it is there (whether it fits is seen when
        it is loaded).
        """
        folder, code = _cache_folder(self.function), self.function.__code__
        if self.compiled is not None or folder is None:
            return self.compiled is not None
        # as numba names a file after a function within another
        name = re.sub("[<>]", "", self.function.__qualname__)
        index = f"*.{glob.escape(name)}-{code.co_firstlineno}.*.nbi"
        source_ns = os.stat(code.co_filename).st_mtime_ns  # of an older index numba takes nothing
        return any(path.stat().st_mtime_ns >= source_ns for path in Path(folder).glob(f"*/{index}"))

    def compile(self, segment_type: types.Type) -> int:
        """Compile (or load from the cache) and return the address."""
        if self.compiled is None:
            sig = types.int64(segment_type, *[types.int64] * (self.function.__code__.co_argcount - 1))
            self.compiled = _with_cache(
                lambda on: numba.cfunc(sig, cache=on, error_model="numpy")(self.function), self.function
            )
        return self.compiled.address


python_text: dict[int, Callable] = {}  # what `call` reaches when the JIT is off


def entry(number: int) -> Callable[[Callable], Entry]:
    """Name the decorated function text-table entry `number` (constants in layout.py)."""
    return lambda function: Entry(number, function)


apart_entries: list[Entry] = []  # in the order of definition: every machine needs all that are imported


def apart(function: Callable) -> Any:
    """Compile `function` on its own, as the text-table entry of its name, and call it from kernels like any
    other.

    For what is large or called from many places: it is compiled once instead of into every caller. Costs 2 ns
    a call.
    """
    if numba.config.DISABLE_JIT:
        return function
    item = Entry(TEXT[function.__name__], function)
    apart_entries.append(item)
    return _stub(item.number, function.__code__.co_argcount - 1)


def _stub(number: int, arguments: int) -> Any:
    """Make the kernel that callers of an apart function really call."""

    def stub_1(ram, a):
        return call_1(ram, number, a)

    def stub_2(ram, a, b):
        return call_2(ram, number, a, b)

    def stub_3(ram, a, b, c):
        return call_3(ram, number, a, b, c)

    def stub_4(ram, a, b, c, d):
        return call_4(ram, number, a, b, c, d)

    def stub_5(ram, a, b, c, d, e):
        return call(ram, number, a, b, c, d, e)

    return kernel((stub_1, stub_2, stub_3, stub_4, stub_5)[arguments - 1])


SHELL_TYPE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, *[ctypes.c_int64] * ARGUMENTS)


def install_python(ram: Any, number: int, function: Callable[..., int]) -> Any:
    """Put a Python function of 5 ints into the text table; keep the returned object alive as long as it may
    be called.

    Done before the CPUs are forked, so that one address serves all of them. The function must not raise.
    """

    def guarded(_base, *args):
        return function(*args)

    callback = SHELL_TYPE(guarded)
    python_text[number] = lambda _ram, *args: function(*args)
    ram.text[number] = ctypes.cast(callback, ctypes.c_void_p).value
    return callback


if numba.config.DISABLE_JIT:

    def call(ram, number, a, b, c, d, e):
        return python_text[number](ram, a, b, c, d, e)

else:

    def _build_call(context, builder, sig, args):
        """Build the indirect call through the text table."""
        text_type = context.typing_context.resolve_getattr(sig.args[0], "text")
        text = context.get_getattr(sig.args[0], "text")(context, builder, sig.args[0], args[0], "text")
        where = builder.load(element_pointer(context, builder, text_type, text, types.int64, args[1]))
        i64 = ir.IntType(64)
        kind = ir.FunctionType(i64, [ir.IntType(8).as_pointer(), *[i64] * (len(args) - 2)])
        return builder.call(builder.inttoptr(where, kind.as_pointer()), [args[0], *args[2:]])

    @intrinsic
    def call_1(typingctx, ram, number, a):
        """Call text-table entry `number` with one int64; returns int64."""
        return types.int64(ram, *[types.int64] * 2), _build_call

    @intrinsic
    def call_2(typingctx, ram, number, a, b):
        """The same with two."""
        return types.int64(ram, *[types.int64] * 3), _build_call

    @intrinsic
    def call_3(typingctx, ram, number, a, b, c):
        """The same with three."""
        return types.int64(ram, *[types.int64] * 4), _build_call

    @intrinsic
    def call_4(typingctx, ram, number, a, b, c, d):
        """The same with four."""
        return types.int64(ram, *[types.int64] * 5), _build_call

    @intrinsic
    def call(typingctx, ram, number, a, b, c, d, e):
        """The same with five."""
        return types.int64(ram, *[types.int64] * 6), _build_call


def prune_cache(days: float = UNUSED_CACHE_DAYS) -> int:
    """Delete compiled code that nobody has loaded for `days`; returns how many folders went."""
    removed = 0
    for folder in cache_root().iterdir():
        if folder.is_dir() and time.time() - folder.stat().st_atime > days * 86400:
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed
