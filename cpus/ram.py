"""One shared segment, one value: `ram.page_flags[pfn]` reads the same in compiled kernels and in plain
Python.

A machine's RAM is one anonymous memfd, mapped at one address by every CPU process (they are forked after it
exists). In compiled code it is passed as a single pointer, the cheapest argument there is: a field's address
is the pointer plus an offset read from the segment's own header, so no machine size ever compiles anything
again.

Three kinds of field:
- constant: one int64 in the header, written before the CPUs start (`ram.nr_cpus`);
- member of an array of structs (`ram.page_flags[pfn]`: the fields of one page share a cache line);
- table of one or two dimensions (`ram.page_key[pfn]`, `ram.tlb_tag[cpu, i]`).
Integers narrower than 64 bits are widened on load and cut on store; everything computes in int64.

The same memory is seen in three ways, by types of which each compiles the same source to code of its own:
- plain: an access is a load or a store;
- checked: every access is checked; `--check bounds` compiles a design's hooks so (bounds.py);
- with points: before each access to a field that other CPUs may look at, a countdown in the segment is
  lowered, and at its end `at_point` called (points.py); runs with a schedule compile everything so.
Left out: checks and points in plain code (with NUMBA_DISABLE_JIT=1 numpy refuses what lies behind the end).
"""

from __future__ import annotations

import hashlib
import mmap
import operator
import os
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import (
    AbstractTemplate,
    AttributeTemplate,
    infer_getattr,
    infer_global,
    signature,
)
from numba.extending import (
    NativeValue,
    intrinsic,
    lower_builtin,
    lower_getattr_generic,
    models,
    register_model,
    typeof_impl,
    unbox,
)

from cpus.bounds import check_index, check_owner, site_number
from cpus.rules import OPERATIONS, READ, READING, WRITE

WORD = 8
CACHE_LINE = 64
PIDS = "cpu_pid"  # the field that tells which process is which CPU
SLOT_WORDS = 3  # header words of a field that is no constant: offset, row length, rows
HEADER_BYTES = 4096 * 4
# of the field `point`, a page of the host behind the header: the countdown, and the address of at_point
POINTS_AT, LEFT, AT_POINT = HEADER_BYTES, 0, 1
ADDRESS = "address"  # of an operation that accesses nothing
PLAIN, CHECKED, POINTS = "", "Checked", "Points"  # how memory is seen


@dataclass(frozen=True, slots=True)
class Place:
    """Where one field lives: header `slot` (its base offset; constants: its value), element `stride` and
    `offset` in bytes.

    `ndim` 0 is a constant, 1 an array, 2 a table whose row length (in elements) is header word `slot + 1`;
    the number of rows is word `slot + 2`. `owned`: only the CPU of that row may write there. `shared`: what
    is there is of interest to other CPUs, so that an access is a scheduling point.
    """

    slot: int
    dtype: str
    ndim: int
    stride: int = WORD
    offset: int = 0
    owned: bool = False
    shared: bool = False


class FieldType(types.Type):
    """Compiled type of one field: a pointer to element 0 (two dimensions: with the row length).

    `checked` is the field's name if accesses are checked: then the number of rows is there, too. With
    `pid_stride`, stores are to be made by the row's own CPU: then a pointer to the CPUs' process ids. With
    `points`, accesses are scheduling points: then a pointer to the segment.
    """

    def __init__(
        self,
        dtype: str,
        ndim: int,
        stride: int,
        checked: str = "",
        pid_stride: int = 0,
        points: bool = False,
    ):
        self.dtype, self.ndim, self.stride = dtype, ndim, stride
        self.checked, self.pid_stride, self.points = checked, pid_stride, points
        seen = f",{checked},{pid_stride}" if checked else ",points" * points
        super().__init__(name=f"Field({dtype},{ndim},{stride}{seen})")


class SegmentType(types.Type):
    """Compiled type of a whole segment: its base address. `places` is the layout's name -> Place, `text` name
    -> number in the text table.

    Compiled code holds what both of them say, so both are in the type's name, by which the cache of compiled
    code knows it: code of one layout, seen in one way, is never taken for another's.
    """

    def __init__(
        self,
        layout_name: str,
        places: dict[str, Place],
        text: dict[str, int] | None = None,
        kind: str = PLAIN,
    ):
        self.layout_name, self.places, self.text, self.kind = layout_name, places, text or {}, kind
        reported = hashlib.sha256(repr((sorted(places.items()), sorted(self.text.items()))).encode())
        super().__init__(name=f"{kind}Segment({layout_name} {reported.hexdigest()[:16]})")

    def field_type(self, name: str) -> FieldType:
        """Give the compiled type of a field that is no constant."""
        place = self.places[name]
        if self.kind != CHECKED:
            points = place.shared and self.kind == POINTS
            return FieldType(place.dtype, place.ndim, place.stride, points=points)
        pid_stride = self.places[PIDS].stride if place.owned else 0
        return FieldType(place.dtype, place.ndim, place.stride, name, pid_stride)


def seen(segment_type: SegmentType, kind: str) -> SegmentType:
    """Give the type through which code sees the same memory in another way (PLAIN, CHECKED, POINTS)."""
    return SegmentType(segment_type.layout_name, segment_type.places, segment_type.text, kind)


@register_model(SegmentType)
class _SegmentModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.IntType(8).as_pointer())


@register_model(FieldType)
class _FieldModel(models.StructModel):
    def __init__(self, dmm, fe_type):
        members = [("base", types.voidptr)]
        if fe_type.ndim == 2:
            members.append(("columns", types.int64))
        if fe_type.checked:
            members.append(("rows", types.int64))
        if fe_type.pid_stride:
            members.append(("pids", types.voidptr))
        if fe_type.points:
            members.append(("segment", types.voidptr))
        super().__init__(dmm, fe_type, members)


@infer_getattr
class _SegmentAttributes(AttributeTemplate):
    key = SegmentType

    def generic_resolve(self, segment, name):
        place = segment.places.get(name)
        if place is None:
            raise AttributeError(f"no field {name!r} in the layout of {segment}")
        return types.int64 if place.ndim == 0 else segment.field_type(name)


def _header_word(builder, base, slot):
    """Load header word `slot` of the segment at `base`. Written once before the CPUs start: marked invariant
    for LLVM.
    """
    words = builder.bitcast(base, ir.IntType(64).as_pointer())
    load = builder.load(builder.gep(words, [ir.Constant(ir.IntType(32), slot)]))
    load.set_metadata("invariant.load", builder.module.add_metadata([]))
    return load


@lower_getattr_generic(SegmentType)
def _lower_segment_getattr(context, builder, segment, value, name):
    place = segment.places[name]
    first = _header_word(builder, value, place.slot)
    if place.ndim == 0:
        return first
    field_type = segment.field_type(name)
    field = cgutils.create_struct_proxy(field_type)(context, builder)
    at = builder.add(first, ir.Constant(ir.IntType(64), place.offset))
    field.base = builder.gep(value, [at])
    if place.ndim == 2:
        field.columns = _header_word(builder, value, place.slot + 1)
    if field_type.checked:
        field.rows = _header_word(builder, value, place.slot + 2)
    if field_type.pid_stride:
        pids = segment.places[PIDS]
        at = builder.add(_header_word(builder, value, pids.slot), ir.Constant(ir.IntType(64), pids.offset))
        field.pids = builder.gep(value, [at])
    if field_type.points:
        field.segment = value
    return field._getvalue()


def scheduling_point(builder, segment, where=None, operation=READ):
    """Build one step of the countdown in the segment at this address, and what its end calls: with the place
    in the segment that is about to be accessed (0: none), how, and where in the source.
    """
    i64 = ir.IntType(64)
    words = builder.bitcast(builder.gep(segment, [i64(POINTS_AT)]), i64.as_pointer())
    left = builder.sub(builder.load(words), i64(1))
    builder.store(left, words)
    with builder.if_then(builder.icmp_signed("<=", left, i64(0)), likely=False):
        kind = ir.FunctionType(i64, [ir.IntType(8).as_pointer(), *[i64] * 4])
        code = builder.inttoptr(builder.load(builder.gep(words, [i64(AT_POINT)])), kind.as_pointer())
        place = i64(0)
        if where is not None:
            place = builder.sub(builder.ptrtoint(where, i64), builder.ptrtoint(segment, i64))
        site, number = i64(site_number()), i64(OPERATIONS.index(operation))
        builder.call(code, [segment, left, place, number, site])


def element_pointer(context, builder, field_type, field_value, index_type, index_value, operation=READ):
    """Build the typed LLVM pointer to one element for an operation, one of OPERATIONS or ADDRESS; the one
    place that knows strides. Also used by `atomics.py`.
    """
    field = cgutils.create_struct_proxy(field_type)(context, builder, value=field_value)
    i64 = ir.IntType(64)
    if field_type.ndim == 2:
        row, column = cgutils.unpack_tuple(builder, index_value, 2)
        row = context.cast(builder, row, index_type.types[0], types.int64)
        column = context.cast(builder, column, index_type.types[1], types.int64)
        if field_type.checked:
            check_index(context, builder, field_type.checked, "row", row, field.rows)
            check_index(context, builder, field_type.checked, "column", column, field.columns)
        number = builder.add(builder.mul(row, field.columns), column)
    else:
        number = context.cast(builder, index_value, index_type, types.int64)
        row = number
        if field_type.checked:
            check_index(context, builder, field_type.checked, "index", number, field.rows)
    if field_type.pid_stride and operation not in (*READING, ADDRESS):
        check_owner(context, builder, field_type.checked, row, field.pids, field_type.pid_stride)
    at = builder.mul(number, ir.Constant(i64, field_type.stride))
    raw = builder.gep(field.base, [at])
    if field_type.points and operation != ADDRESS:
        scheduling_point(builder, field.segment, raw, operation)
    return builder.bitcast(
        raw, context.get_value_type(numba.from_dtype(np.dtype(field_type.dtype))).as_pointer()
    )


def widen(builder, field_type, value):
    """Extend a loaded element to the 64 bits that kernels compute in."""
    if field_type.dtype in ("int64", "float64"):
        return value
    extend = builder.zext if field_type.dtype.startswith("u") else builder.sext
    return extend(value, ir.IntType(64))


def narrow(context, builder, field_type, value, value_type):
    """Bring a kernel's value to the declared dtype of the element that it is stored to."""
    if field_type.dtype == "float64":
        return context.cast(builder, value, value_type, types.float64)
    wide = context.cast(builder, value, value_type, types.int64)
    bits = np.dtype(field_type.dtype).itemsize * 8
    return wide if bits == 64 else builder.trunc(wide, ir.IntType(bits))


def _value_type(field_type):
    return types.float64 if field_type.dtype == "float64" else types.int64


def _index_ok(field, index):
    if field.ndim == 1:
        return isinstance(index, types.Integer)
    return (
        isinstance(index, types.BaseTuple)
        and len(index) == 2
        and all(isinstance(t, types.Integer) for t in index)
    )


@infer_global(operator.getitem)
class _FieldGetitem(AbstractTemplate):
    def generic(self, args, kws):
        if isinstance(args[0], FieldType) and _index_ok(args[0], args[1]):
            return signature(_value_type(args[0]), *args)
        return None


@infer_global(operator.setitem)
class _FieldSetitem(AbstractTemplate):
    def generic(self, args, kws):
        if (
            isinstance(args[0], FieldType)
            and _index_ok(args[0], args[1])
            and isinstance(args[2], (types.Number, types.Boolean))
        ):
            return signature(types.none, *args)
        return None


@lower_builtin(operator.getitem, FieldType, types.Any)
def _lower_getitem(context, builder, sig, args):
    pointer = element_pointer(context, builder, sig.args[0], args[0], sig.args[1], args[1])
    return widen(builder, sig.args[0], builder.load(pointer))


@lower_builtin(operator.setitem, FieldType, types.Any, types.Any)
def _lower_setitem(context, builder, sig, args):
    pointer = element_pointer(context, builder, sig.args[0], args[0], sig.args[1], args[1], WRITE)
    builder.store(narrow(context, builder, sig.args[0], args[2], sig.args[2]), pointer)
    return context.get_dummy_value()


class WideField(np.ndarray):
    """A field of narrow integers without the JIT: what is loaded has 64 bits, as in compiled code."""

    def __getitem__(self, index: Any) -> Any:
        value = super().__getitem__(index)
        return np.int64(value) if isinstance(value, np.integer) else value


if numba.config.DISABLE_JIT:

    def row(field, i):
        """Give row `i` of a two-dimensional field as a one-dimensional one."""
        return field[i]

    def columns(field):
        """Give the length of a row of a two-dimensional field."""
        return field.shape[1]

    def has_points(ram):
        """Tell whether the code that asks is compiled with scheduling points."""
        return False

else:

    @intrinsic
    def row(typingctx, field, i):
        """Give row `i` of a two-dimensional field as a one-dimensional one (hot loops: the row is found
        once).
        """
        if not (isinstance(field, FieldType) and field.ndim == 2):
            return None
        result = FieldType(field.dtype, 1, field.stride, field.checked, points=field.points)

        def build(context, builder, sig, args):
            source = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0])
            number = context.cast(builder, args[1], sig.args[1], types.int64)
            if field.checked:
                check_index(context, builder, field.checked, "row", number, source.rows)
            skip = builder.mul(
                builder.mul(number, source.columns), ir.Constant(ir.IntType(64), sig.args[0].stride)
            )
            out = cgutils.create_struct_proxy(sig.return_type)(context, builder)
            out.base = builder.gep(source.base, [skip])
            if field.checked:
                out.rows = source.columns
            if field.points:
                out.segment = source.segment
            return out._getvalue()

        return result(field, i), build

    @intrinsic
    def columns(typingctx, field):
        """Give the length of a row of a two-dimensional field."""
        if not (isinstance(field, FieldType) and field.ndim == 2):
            return None

        def build(context, builder, sig, args):
            return cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0]).columns

        return types.int64(field), build

    @intrinsic
    def has_points(typingctx, ram):
        """Tell whether the code that asks is compiled with scheduling points: a constant, so that the other
        branch costs nothing.
        """
        answer = int(ram.kind == POINTS)
        return types.boolean(ram), lambda context, builder, sig, args: ir.Constant(ir.IntType(1), answer)


class Segment:
    """A mapped segment with numpy views of its fields as attributes; passes into compiled code as one
    pointer.

    Constants read as ints (`segment.nr_cpus`); set them with `set_constant` before the CPUs start.
    Raises MemoryError when the host cannot map it. Close it with `close()`; it has no name that could outlive
    the processes.
    """

    layout: Any = None  # of a machine's RAM: what it was built from

    def __init__(self, segment_type: SegmentType, size: int, label: str = "luf-ram"):
        self._type = segment_type
        fd = os.memfd_create(label)
        try:
            os.ftruncate(fd, size)
            self._map = mmap.mmap(fd, size, flags=mmap.MAP_SHARED)
        except OSError as error:
            raise MemoryError(
                "'RAM segment' must fit the host's address space and memory limits "
                f"(got {size:,} bytes: {error})"
            ) from None
        finally:
            os.close(fd)  # the mapping keeps the memory
        self.size = size
        self.bytes = np.frombuffer(self._map, dtype=np.uint8)
        self.header = self.bytes[:HEADER_BYTES].view(np.int64)
        self._base = self.bytes.ctypes.data
        self._shown: dict[str, int] = {}  # columns of those rows that are longer than what is in them
        self.design: dict[str, np.ndarray] = {}  # views of a design's own fields

    def set_constant(self, name: str, value: int) -> None:
        """Write a constant into the header (before the CPUs start)."""
        self.header[self._type.places[name].slot] = int(value)

    def attach_view(self, name: str, shape: tuple[int, ...], offset: int, columns: int = 0) -> None:
        """Publish field `name` (its bytes start at `offset`) in the header, and so as a numpy attribute of
        `shape`; rows are `columns` long, if that is more than what is in them.
        """
        place = self._type.places[name]
        self.header[place.slot] = offset - place.offset
        self.header[place.slot + 2] = shape[0]
        if place.ndim == 2:
            self.header[place.slot + 1] = columns or shape[1]
            if columns:
                self._shown[name] = shape[1]

    def __getattr__(self, name: str) -> Any:
        place = self._type.places.get(name) if not name.startswith("_") else None
        if place is None or (place.ndim != 0 and self.header[place.slot + 2] == 0):
            raise AttributeError(f"no field {name!r} in {self._type}")
        if place.ndim == 0:
            return int(self.header[place.slot])
        view = self._view(name, place)
        setattr(self, name, view)
        return view

    def _view(self, name: str, place: Place) -> np.ndarray:
        """Make the view of a field from what the header says of it."""
        first, columns, rows = self.header[place.slot : place.slot + SLOT_WORDS].tolist()
        dtype = np.dtype(place.dtype)
        shape: tuple[int, ...] = (rows,)
        strides: tuple[int, ...] = (place.stride,)
        if place.ndim == 2:
            shape, strides = (rows, self._shown.get(name, columns)), (columns * place.stride, place.stride)
        view = np.ndarray(shape, dtype, self.bytes.data, first + place.offset, strides)
        narrow = dtype.kind in "iu" and dtype.itemsize < WORD
        return view.view(WideField) if numba.config.DISABLE_JIT and narrow else view

    def forget_views(self) -> None:
        """Look anew where each field lies: another machine has been laid out in this memory."""
        for name in [name for name in vars(self) if name in self._type.places]:
            delattr(self, name)

    def clear(self, segment_type: SegmentType) -> None:
        """Make all of it zeros, and give it back to the host as long as nobody writes to it. It is of that
        type then.
        """
        self._map.madvise(mmap.MADV_REMOVE)
        self.forget_views()
        self._type = segment_type
        self.design.clear()

    def close(self) -> None:
        """Give the memory back (numpy views of it must not be used any more)."""
        for name in [n for n, v in vars(self).items() if isinstance(v, np.ndarray)]:
            delattr(self, name)
        self.design.clear()
        try:
            self._map.close()
        except BufferError:  # somebody still holds a view: the mapping goes when that view does
            pass


@typeof_impl.register(Segment)
def _typeof_segment(segment, context):
    return segment._type


@unbox(SegmentType)
def _unbox_segment(segment_type, value, c):
    base = c.pyapi.object_getattr_string(value, "_base")
    number = c.pyapi.long_as_longlong(base)
    c.pyapi.decref(base)
    return NativeValue(c.builder.inttoptr(number, ir.IntType(8).as_pointer()))
