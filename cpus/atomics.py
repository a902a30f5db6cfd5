"""Atomic operations on fields of shared memory, and the one module that touches LLVM for them.

`op(field, index, ...)`: `index` is an int, or (row, column) for a table. All values are int64. They are real
hardware atomics across processes. Orders: loads acquire, stores release, read-modify-writes acquire-release,
`fence` is sequentially consistent; each caller says why it needs what it uses.

With NUMBA_DISABLE_JIT=1 they fall back to plain Python on numpy views, which nobody may interrupt: right for
one CPU, and for many under one lease, of which one executes at a time (the controlled mode). Values stay
numpy's int64, which wrap around as compiled ones do.
"""

from __future__ import annotations

import ctypes
import os
import platform
import time

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cpus.ram import ADDRESS, FieldType, element_pointer

I64 = ir.IntType(64)


def _is_word_field(field) -> bool:
    return isinstance(field, FieldType) and field.dtype == "int64"


def _operands(context, builder, sig, args, operation):
    """Give the pointer to the word, for an operation, and the values behind field and index as int64."""
    pointer = element_pointer(context, builder, sig.args[0], args[0], sig.args[1], args[1], operation)
    values = (context.cast(builder, arg, kind, types.int64) for arg, kind in zip(args[2:], sig.args[2:]))
    return pointer, *values


def _read_modify_write(name: str, doc: str):
    def operation(typingctx, field, index, value):
        if not _is_word_field(field):
            return None

        def build(context, builder, sig, args):
            return builder.atomic_rmw(name, *_operands(context, builder, sig, args, name), "acq_rel")

        return types.int64(field, index, value), build

    operation.__doc__ = doc
    return intrinsic(operation)


if numba.config.DISABLE_JIT:

    def load_acquire(field, index):
        return field[index]

    def store_release(field, index, value):
        field[index] = value

    def exchange(field, index, value):
        old = field[index]
        field[index] = value
        return old

    def fetch_add(field, index, value):
        old = field[index]
        field[index] = old + value
        return old

    def fetch_or(field, index, value):
        old = field[index]
        field[index] = old | value
        return old

    def fetch_and(field, index, value):
        old = field[index]
        field[index] = old & value
        return old

    def fetch_max(field, index, value):
        old = field[index]
        field[index] = max(old, value)
        return old

    def compare_exchange(field, index, expected, new):
        old = field[index]
        if old == expected:
            field[index] = new
        return old

    def fence():
        return None

    def fence_after_atomic():
        return None

    def address(field, index):
        steps = zip(index if isinstance(index, tuple) else (index,), field.strides, strict=True)
        return field.ctypes.data + sum(int(i) * stride for i, stride in steps)

    def word_at(where):
        return np.ctypeslib.as_array((ctypes.c_int64 * 1).from_address(int(where)))

    def pause():
        os.sched_yield()

    def host_ticks():
        return time.perf_counter_ns()

    def unlikely(condition):
        return condition

else:
    exchange = _read_modify_write("xchg", "Store `value` and return what was there.")
    fetch_add = _read_modify_write("add", "Add `value` and return what was there before.")
    fetch_or = _read_modify_write("or", "Set the bits of `value` and return what was there before.")
    fetch_and = _read_modify_write("and", "Keep the bits of `value` and return what was there before.")
    fetch_max = _read_modify_write("max", "Raise to `value` if that is more; return what was there before.")

    @intrinsic
    def load_acquire(typingctx, field, index):
        """Load so that nothing after it is done before it."""
        if not _is_word_field(field):
            return None

        def build(context, builder, sig, args):
            pointer = _operands(context, builder, sig, args, "load_acquire")
            return builder.load_atomic(*pointer, "acquire", 8)

        return types.int64(field, index), build

    @intrinsic
    def store_release(typingctx, field, index, value):
        """Store so that nothing before it is done after it."""
        if not _is_word_field(field):
            return None

        def build(context, builder, sig, args):
            pointer, value = _operands(context, builder, sig, args, "store_release")
            builder.store_atomic(value, pointer, "release", 8)
            return context.get_dummy_value()

        return types.none(field, index, value), build

    @intrinsic
    def compare_exchange(typingctx, field, index, expected, new):
        """Store `new` if `expected` is there; return what was there (== expected: it succeeded)."""
        if not _is_word_field(field):
            return None

        def build(context, builder, sig, args):
            pointer, compare, value = _operands(context, builder, sig, args, "compare_exchange")
            return builder.extract_value(builder.cmpxchg(pointer, compare, value, "acq_rel", "acquire"), 0)

        return types.int64(field, index, expected, new), build

    @intrinsic
    def address(typingctx, field, index):
        """Give the address of an element, for the host's system calls and for `word_at`."""
        if not isinstance(field, FieldType):
            return None

        def build(context, builder, sig, args):
            return builder.ptrtoint(*_operands(context, builder, sig, args, ADDRESS), I64)

        return types.int64(field, index), build

    @intrinsic
    def word_at(typingctx, where):
        """Give the int64 word at an address as a field of one element: one compiled function then serves
        every kind of field.
        """
        field_type = FieldType("int64", 1, 8)

        def build(context, builder, sig, args):
            field = cgutils.create_struct_proxy(field_type)(context, builder)
            field.base = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
            return field._getvalue()

        return field_type(types.int64), build

    @intrinsic
    def fence(typingctx):
        """Order everything before against everything after, stores against later loads too."""

        def build(context, builder, sig, args):
            builder.fence("seq_cst")
            return context.get_dummy_value()

        return types.none(), build

    @intrinsic
    def fence_after_atomic(typingctx):
        """`fence` right behind a read-modify-write of this module, which on x86 orders everything by itself
        (smp_mb__after_atomic).
        """
        # there it binds the compiler alone
        scope = "singlethread" if platform.machine() in ("x86_64", "AMD64") else None

        def build(context, builder, sig, args):
            builder.fence("seq_cst", targetscope=scope)
            return context.get_dummy_value()

        return types.none(), build

    @intrinsic
    def pause(typingctx):
        """Tell the host core that this is a spin loop (x86 PAUSE; elsewhere nothing)."""

        def build(context, builder, sig, args):
            if platform.machine() in ("x86_64", "AMD64"):
                name = "llvm.x86.sse2.pause"
                function = builder.module.globals.get(name) or ir.Function(
                    builder.module, ir.FunctionType(ir.VoidType(), ()), name
                )
                builder.call(function, ())
            return context.get_dummy_value()

        return types.none(), build

    @intrinsic
    def host_ticks(typingctx):
        """Read the host's cycle counter: for the emulator's own cost only, never for virtual time."""

        def build(context, builder, sig, args):
            name = "llvm.readcyclecounter"
            function = builder.module.globals.get(name) or ir.Function(
                builder.module, ir.FunctionType(I64, ()), name
            )
            return builder.call(function, ())

        return types.int64(), build

    @intrinsic
    def unlikely(typingctx, condition):
        """Pass a condition on and tell the compiler that it is hardly ever true: keeps what follows out of
        the hot code.
        """
        if not isinstance(condition, types.Boolean):
            return None

        def build(context, builder, sig, args):
            bit = ir.IntType(1)
            kind = ir.FunctionType(bit, (bit, bit))
            expect = builder.module.globals.get("llvm.expect.i1") or ir.Function(
                builder.module, kind, "llvm.expect.i1"
            )
            return builder.call(expect, (args[0], bit(0)))

        return types.boolean(condition), build
