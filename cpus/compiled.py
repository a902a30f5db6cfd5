"""Compile kernels once, keep them on disk, and call the big ones through a table of addresses in shared
memory.

`@kernel` is numba's njit with a disk cache that notices every change: numba itself looks only at the file of
the function, not at the callees and constants imported from others (reproduced: stale code ran). So each
module gets a cache folder named by a hash of itself, of every project file it imports, directly or not, and
of the versions and the CPU. Editing one file recompiles the modules that depend on it and no other.

`@apart` puts a kernel into the *text table*: it is compiled on its own and reached through its address in
`ram.text`, though it is written and called like any other. That cuts the tree of inlined calls (compile time
grows with subtree size), lets a design replace hooks without recompiling the engine (2 ns a call), and lets
compiled code call the process shell, a ctypes callback. A place in the table has a name, never a number:
- `@apart def page_fault(ram, cpu, vpn, kind)` defines it, and is what callers import;
- `page_fault = later("page_fault", 3)` is for callers whom the definition itself imports;
- `HOOK_TAKE = Text("hook_take")` is called with `call(ram, HOOK_TAKE, cpu, a, b, c, d)`, and filled by
  whoever decorates a function with `@entry(HOOK_TAKE)`.
The numbers are looked up when a caller is compiled, in the layout of its `ram` (layout.py collects the names
of all modules that it assembles). All of these have the signature int64 f(ram, int64 ...) with at most five
int64, and must not raise: `panic` stops the run instead.
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
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.caching import IndexDataCacheFile
from numba.core.errors import TypingError
from numba.core.imputils import lower_constant
from numba.extending import intrinsic, models, register_model, typeof_impl

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


def generator(function: Callable) -> Any:
    """Compile a function that yields, for the `for` loops of kernels. Only those are kept on disk: numba
    cannot use a generator that another process has compiled.
    """
    return function if numba.config.DISABLE_JIT else numba.njit(error_model="numpy")(function)


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


@dataclass(frozen=True, slots=True)
class Text:
    """The name of a place in the text table, for kernels a constant; `arguments` are those behind `ram`."""

    name: str
    arguments: int = ARGUMENTS


class TextType(types.Dummy):
    """Compiled type of a `Text`: nothing but the name, which becomes a number where the type of `ram` is
    known.
    """

    def __init__(self, text_name: str):
        self.text_name = text_name
        super().__init__(name=f"Text({text_name})")


@typeof_impl.register(Text)
def _typeof_text(text, context):
    return TextType(text.name)


register_model(TextType)(models.OpaqueModel)


@lower_constant(TextType)
def _lower_text(context, builder, text_type, value):
    return context.get_dummy_value()


class Entry:
    """A kernel with a place in the text table."""

    def __init__(self, text: Text, function: Callable):
        self.text, self.function, self.name = text, function, function.__name__
        self.compiled: Any = None

    @property
    def arguments(self) -> int:
        """How many it takes behind `ram`."""
        return self.function.__code__.co_argcount - 1

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
            sig = types.int64(segment_type, *[types.int64] * self.arguments)
            self.compiled = _with_cache(
                lambda on: numba.cfunc(sig, cache=on, error_model="numpy")(self.function), self.function
            )
        return self.compiled.address


python_text: dict[int, Callable] = {}  # by number: what `call` reaches when the JIT is off


def entry(text: Text) -> Callable[[Callable], Entry]:
    """Have the decorated function fill this place of the text table, once it is installed."""
    return lambda function: Entry(text, function)


def apart(function: Callable) -> Any:
    """Compile `function` on its own, as the text-table entry of its name, and call it from kernels like any
    other.

    For what is large or called from many places: it is compiled once instead of into every caller. Costs 2 ns
    a call.
    """
    item = Entry(Text(function.__name__, function.__code__.co_argcount - 1), function)
    callers_see: Any = function if numba.config.DISABLE_JIT else _stub(item.text)
    callers_see.entry = item
    return callers_see


def later(name: str, arguments: int) -> Any:
    """Give what calls the apart function of this name, which is defined in a module that comes later, with as
    many arguments behind `ram`.
    """
    return _stub(Text(name, arguments))


def _stub(text: Text) -> Any:
    """Make the kernel that callers of an apart function really call."""

    def stub_1(ram, a):
        return call(ram, text, a)

    def stub_2(ram, a, b):
        return call(ram, text, a, b)

    def stub_3(ram, a, b, c):
        return call(ram, text, a, b, c)

    def stub_4(ram, a, b, c, d):
        return call(ram, text, a, b, c, d)

    def stub_5(ram, a, b, c, d, e):
        return call(ram, text, a, b, c, d, e)

    stub = kernel((stub_1, stub_2, stub_3, stub_4, stub_5)[text.arguments - 1])
    stub.text = text
    return stub


def texts_of(module: Any) -> list[Text]:
    """Give the places of the text table that a module names: to be called, or to be filled."""
    found: dict[Text, None] = {}
    for value in vars(module).values():
        entry_ = value if isinstance(value, Entry) else getattr(value, "entry", None)
        text = entry_.text if isinstance(entry_, Entry) else getattr(value, "text", value)
        if isinstance(text, Text):
            found[text] = None
    return list(found)


def apart_entries(modules: Iterable[Any]) -> list[Entry]:
    """Give the apart functions that these modules define, in their order."""
    found = []
    for module in modules:
        for value in vars(module).values():
            item = getattr(value, "entry", None)
            if isinstance(item, Entry) and item.function.__module__ == module.__name__:
                found.append(item)
    return found


def text_at(ram: Any, text: Text | str) -> tuple[int, Text]:
    """Find a name in the text table of this RAM: its number, and how it is called. Raises LookupError."""
    name = text.name if isinstance(text, Text) else text
    if name not in ram.layout.text:
        raise LookupError(f"'text' must be named by a module of the memory map (got {name!r})")
    return ram.layout.text[name], ram.layout.texts[name]


def install_python(ram: Any, text: Text | str, function: Callable[..., int]) -> Any:
    """Put a Python function into the text table, to be called with the ints behind `ram`; keep the returned
    object alive as long as it may be called.

    Done before the CPUs are forked, so that one address serves all of them. The function must not raise.
    """

    def guarded(_base, *args):
        return function(*args)

    number, place = text_at(ram, text)
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, *[ctypes.c_int64] * place.arguments)
    callback = kind(guarded)
    python_text[number] = lambda _ram, *args: function(*args)
    ram.text[number] = ctypes.cast(callback, ctypes.c_void_p).value
    return callback


if numba.config.DISABLE_JIT:

    def call(ram, text, *args):
        return python_text[text_at(ram, text)[0] if isinstance(text, Text) else text](ram, *args)

else:

    @intrinsic
    def call(typingctx, ram, text, *args):
        """Call what lies in the text table at a name, or at a number, with up to five int64; returns int64."""
        number = ram.text.get(text.text_name) if isinstance(text, TextType) else None
        if isinstance(text, TextType) and number is None:
            raise TypingError(f"no text {text.text_name!r} in the layout of {ram}")

        def build(context, builder, sig, args):
            i64 = ir.IntType(64)
            index = args[1] if number is None else ir.Constant(i64, number)
            text_type = context.typing_context.resolve_getattr(sig.args[0], "text")
            table = context.get_getattr(sig.args[0], "text")(context, builder, sig.args[0], args[0], "text")
            where = builder.load(element_pointer(context, builder, text_type, table, types.int64, index))
            given = cgutils.unpack_tuple(builder, args[2])
            words = [context.cast(builder, *pair, types.int64) for pair in zip(given, sig.args[2])]
            kind = ir.FunctionType(i64, [ir.IntType(8).as_pointer(), *[i64] * len(words)])
            return builder.call(builder.inttoptr(where, kind.as_pointer()), [args[0], *words])

        return types.int64(
            ram, types.int64 if number is None else text, types.BaseTuple.from_types(args)
        ), build


def prune_cache(days: float = UNUSED_CACHE_DAYS) -> int:
    """Delete compiled code that nobody has loaded for `days`; returns how many folders went."""
    removed = 0
    for folder in cache_root().iterdir():
        if folder.is_dir() and time.time() - folder.stat().st_atime > days * 86400:
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed
