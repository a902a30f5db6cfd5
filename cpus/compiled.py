"""Compile kernels once, keep them on disk, and call the big ones through a table of addresses in shared
memory.

`@kernel` is numba's njit with a cache of our own (code_cache.py), which notices every change: editing a file
compiles the modules that depend on it and no other. A kernel without a file, as in a notebook, is not kept,
and notices when a cell that it depends on is run again (notebook.py).

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

import ctypes
import dis
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.imputils import lower_constant
from numba.core.registry import CPUDispatcher, cpu_target
from numba.core.sigutils import normalize_signature
from numba.extending import intrinsic, models, register_model, typeof_impl

from cpus.callback import Callback
from cpus.code_cache import CodeCache, code_folder
from cpus.notebook import CellKernel, Meanings, meanings, same
from cpus.ram import POINTS, element_pointer, scheduling_point

ARGUMENTS = 5
# a division by zero gives 0 instead of an exception, which nobody could catch
ERRORS = {"error_model": "numpy"}
HOOK = "hook_"  # how the names of hooks begin in the text table


class KernelError(ValueError):
    """Compiled code cannot be made of a function: one sentence that names its file and line."""


def _refuse_print(function: Callable) -> None:
    """Raise KernelError for a function that prints: a CPU process has no screen, its lines would be lost."""
    if "print" in function.__code__.co_names and function.__globals__.get("print", print) is print:
        for step in dis.get_instructions(function):
            if step.opname == "LOAD_GLOBAL" and step.argval == "print":
                place = f"{function.__code__.co_filename}:{step.positions.lineno if step.positions else '?'}"
                hint = 'trace(ram, cpu, "text {}", value) of cpus.trace does'
                raise KernelError(f"{place}: print in {function.__name__} would reach nobody; {hint}")


def kernel(function: Callable) -> Any:
    """Compile `function` to native code at its first call, with the disk cache described above."""
    return dispatcher(function)


def generator(function: Callable) -> Any:
    """Compile a function that yields, for the `for` loops of kernels. Only those are kept on disk: numba
    cannot use a generator that another process has compiled.
    """
    return function if numba.config.DISABLE_JIT else numba.njit(error_model="numpy")(function)


def inlined(function: Callable) -> Any:
    """Compile `function` into every kernel that calls it, whatever the compiler thinks of its size."""
    return dispatcher(function, forceinline=True)


def dispatcher(function: Callable, **more: Any) -> Any:
    """Compile `function` with more options of numba than those of every kernel, or other ones."""
    _refuse_print(function)
    if numba.config.DISABLE_JIT:
        return function
    options: dict[str, Any] = {"nopython": True, "no_cfunc_wrapper": True, **ERRORS, **more}
    folder = code_folder(function)
    if folder is None:
        return CellKernel(function, targetoptions=options)
    made = CPUDispatcher(function, targetoptions=options)
    made._cache = CodeCache(function, folder, options)
    return made


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

    errors = ERRORS

    def __init__(self, text: Text, function: Callable):
        _refuse_print(function)
        self.text, self.function, self.name = text, function, function.__name__
        self.compiled: dict[types.Type, Any] = {}  # by the type of `ram`
        self._meant: Meanings = []  # what the names of a function without a file meant when it was compiled

    @property
    def arguments(self) -> int:
        """How many it takes behind `ram`."""
        return self.function.__code__.co_argcount - 1

    @property
    def can_be_cached(self) -> bool:
        """Tell whether other processes can load what one has compiled: not for code that has no file, as in a
        notebook.
        """
        return code_folder(self.function) is not None

    def is_compiled_or_cached(self, segment_type: types.Type) -> bool:
        """Tell whether compiling it will be quick."""
        if segment_type in self.compiled:
            return self.can_be_cached or same(meanings(self.function), self._meant)
        code = self._cache()
        return code is not None and code.has(self._signature(segment_type), cpu_target.target_context)

    def compile(self, segment_type: types.Type) -> int:
        """Compile (or load from the cache) and return the address."""
        code = self._cache()
        meant = meanings(self.function) if code is None else []
        if not same(meant, self._meant):
            self.compiled.clear()
        if segment_type not in self.compiled:
            signature = normalize_signature(self._signature(segment_type))
            made: Any = Callback(self.function, signature, {}, self.errors)
            if code is not None:
                made._cache = code
            made.compile()
            self.compiled[segment_type], self._meant = made, meant
        return self.compiled[segment_type].address

    def _cache(self) -> CodeCache | None:
        folder = code_folder(self.function)
        return None if folder is None else CodeCache(self.function, folder, self.errors)

    def _signature(self, segment_type: types.Type) -> Any:
        return types.int64(segment_type, *[types.int64] * self.arguments)


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
        number = text_at(ram, text)[0] if isinstance(text, Text) else text
        if not (isinstance(text, Text) and text.name.startswith(HOOK)):
            return python_text[number](ram, *args)
        cpu = args[0]
        before, ram.cpu_hook[cpu] = ram.cpu_hook[cpu], number + 1
        result = python_text[number](ram, *args)
        ram.cpu_hook[cpu] = before
        return result

else:

    @intrinsic
    def call(typingctx, ram, text, *args):
        """Call what lies in the text table at a name, or at a number, with up to five int64; returns int64.

        The first argument of a hook is the CPU: while it is in it, `ram.cpu_hook` holds the hook's number +
        1. Where it begins and ends are scheduling points.
        """
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
            code = builder.inttoptr(where, kind.as_pointer())
            if number is None or not text.text_name.startswith(HOOK):
                return builder.call(code, [args[0], *words])
            noted_type = context.typing_context.resolve_getattr(sig.args[0], "cpu_hook")
            noted = context.get_getattr(sig.args[0], "cpu_hook")(context, builder, ram, args[0], "cpu_hook")
            place = element_pointer(context, builder, noted_type, noted, types.int64, words[0])
            before = builder.load(place)
            builder.store(ir.Constant(i64, number + 1), place)
            if ram.kind == POINTS:
                scheduling_point(builder, args[0])
            result = builder.call(code, [args[0], *words])
            if ram.kind == POINTS:
                scheduling_point(builder, args[0])
            builder.store(before, place)
            return result

        return types.int64(
            ram, types.int64 if number is None else text, types.BaseTuple.from_types(args)
        ), build
