"""Where the fields that layout.py declares lie in a machine's RAM, and the RAM itself.

A layout is put together from a list of modules (`memory_map.py` of each room): from what they declare, and
from the names of the text table that they mention.

The header holds constants and, for each struct and table, its offset and row length; behind it they lie one
after the other, a design's own fields last. Left out: the compiled side of it (ram.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from types import ModuleType

import numpy as np

from cpus.compiled import Entry, Text, apart_entries, texts_of
from cpus.declare import Cost, Counter
from cpus.layout import CONSTANTS, DESIGN_SLOTS, HEADER_WORDS, LAYOUT, Sizes, Struct, Table
from cpus.ram import CACHE_LINE, SLOT_WORDS, WORD, Place, Segment, SegmentType


def _dimension(sizes: dict[str, int], size: str | int | None) -> int:
    return sizes[size] if isinstance(size, str) else int(size or 1)


def _member_offsets(struct: Struct) -> tuple[list[int], int]:
    """Lay the members out: natural alignment, `new_line` on a cache line; returns offsets and the struct's
    size.
    """
    offsets, at = [], 0
    for member in struct.members:
        width = np.dtype(member.dtype).itemsize
        unit = CACHE_LINE if member.new_line else width
        at = -(-at // unit) * unit
        offsets.append(at)
        at += width
    unit = CACHE_LINE if any(m.new_line for m in struct.members) else WORD
    return offsets, -(-at // unit) * unit


def _counter_row(counters: Sequence[Counter]) -> int:
    """Give the bytes of one CPU's counters: whole cache lines, since others write the next row."""
    return -(-len(counters) * WORD // CACHE_LINE) * CACHE_LINE


def _places(constants: Sequence[str], counters: Sequence[Counter]) -> dict[str, Place]:
    places, slot = {}, 0
    for name in constants:
        places[name] = Place(slot, "int64", 0)
        slot += 1
    for item in LAYOUT:
        if isinstance(item, Struct):
            offsets, size = _member_offsets(item)
            for member, offset in zip(item.members, offsets, strict=True):
                places[member.name] = Place(slot, member.dtype, 1, size, offset)
        else:
            ndim = 1 if item.columns is None else 2
            places[item.name] = Place(slot, item.dtype, ndim, np.dtype(item.dtype).itemsize)
        slot += SLOT_WORDS
    # one memory, two views: a field for each counter, and a table of them all
    for i, counter in enumerate(counters):
        places[counter.name] = Place(slot, "int64", 1, _counter_row(counters), WORD * i, owned=True)
    places["counter"] = Place(slot, "int64", 2, owned=True)
    words = slot + SLOT_WORDS + SLOT_WORDS * DESIGN_SLOTS
    if words > HEADER_WORDS:
        raise ValueError(f"'header words' must be at most {HEADER_WORDS} (got {words})")
    return places


@dataclass(frozen=True)
class Layout:
    """The memory map of a kind of machine: what these modules declare, whatever the sizes."""

    name: str
    modules: tuple[ModuleType, ...]

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where each field lies."""
        return _places(self.constants, self.counters)

    @cached_property
    def counters(self) -> tuple[Counter, ...]:
        """What every CPU counts; in this order they lie in the rows of the table `counter`."""
        return tuple(one for module in self.modules for one in getattr(module, "COUNTERS", ()))

    @cached_property
    def costs(self) -> tuple[Cost, ...]:
        """What costs virtual time."""
        return tuple(one for module in self.modules for one in getattr(module, "COSTS", ()))

    @cached_property
    def constants(self) -> tuple[str, ...]:
        """The words of the header that are no places of fields."""
        return (*CONSTANTS, *(f"cost_{cost.name}" for cost in self.costs))

    @cached_property
    def texts(self) -> dict[str, Text]:
        """Name -> place of the text table, in order. Raises ValueError if modules contradict each other."""
        found: dict[str, Text] = {}
        for module in self.modules:
            for text in texts_of(module):
                if found.setdefault(text.name, text) != text:
                    raise ValueError(
                        f"{module.__name__}: text {text.name!r} must take the arguments that others say,"
                        f" {found[text.name].arguments} (got {text.arguments})"
                    )
        return {name: found[name] for name in sorted(found)}

    @cached_property
    def text(self) -> dict[str, int]:
        """Name -> number in the text table."""
        return {name: number for number, name in enumerate(self.texts)}

    @cached_property
    def entries(self) -> list[Entry]:
        """The apart functions of all modules: what a whole machine needs compiled."""
        return apart_entries(self.modules)

    @cached_property
    def type(self) -> SegmentType:
        """What compiled code knows such a RAM by."""
        return SegmentType(self.name, self.places, self.text)


def assemble(name: str, modules: Sequence[ModuleType]) -> Layout:
    """Put the layout together that these modules declare, in this order. Raises ValueError in a sentence."""
    layout = Layout(name, tuple(modules))
    _ = layout.type
    return layout


DESIGN_FIRST_SLOT = HEADER_WORDS - SLOT_WORDS * DESIGN_SLOTS


def _extents(layout: Layout, sizes: Sizes) -> tuple[list[tuple[Struct | Table, int, tuple[int, ...]]], int]:
    """Give (item, offset, shape) of every struct and table, and the bytes needed in all."""
    named = asdict(sizes) | {
        "mask_words": sizes.mask_words,
        "nr_scans": sizes.nr_scans,
        "nr_text": len(layout.text),
        "nr_counters": len(layout.counters),
    }
    at, found = HEADER_WORDS * WORD, []
    for item in LAYOUT:
        at = (
            -(-at // 4096) * 4096
            if isinstance(item, Table) and item.name == "frame_word"
            else -(-at // CACHE_LINE) * CACHE_LINE
        )
        if isinstance(item, Struct):
            shape: tuple[int, ...] = (max(_dimension(named, item.count), 1),)
            size = shape[0] * _member_offsets(item)[1]
        else:
            rows = max(_dimension(named, item.rows), 1)
            shape = (rows,) if item.columns is None else (rows, _dimension(named, item.columns))
            size = int(np.prod(shape)) * np.dtype(item.dtype).itemsize
        found.append((item, at, shape))
        at += size
    return found, -(-at // CACHE_LINE) * CACHE_LINE


DesignFields = dict[str, tuple[int, ...]]


def design_type(name: str, fields: DesignFields) -> SegmentType:
    """Give the compiled type through which a design's hooks see their own fields (int64, one or two
    dimensions).
    """
    if len(fields) > DESIGN_SLOTS:
        raise ValueError(f"'fields of design {name}' must be at most {DESIGN_SLOTS} (got {len(fields)})")
    places = {
        field: Place(DESIGN_FIRST_SLOT + SLOT_WORDS * i, "int64", len(shape))
        for i, (field, shape) in enumerate(fields.items())
    }
    signature = ",".join(f"{field}:{len(shape)}" for field, shape in fields.items())
    return SegmentType(f"{name}:{signature}", places)


def build_ram(
    layout: Layout, sizes: Sizes, constants: dict[str, int], design_fields: DesignFields | None = None
) -> Segment:
    """Map the segment of a machine, publish every field, write the constants. Memory starts as zeros.

    `design_fields`: name -> shape of the design's own int64 fields, placed behind the machine's.
    """
    found, total = _extents(layout, sizes)
    design_fields = design_fields or {}
    design_words = sum(int(np.prod(shape)) + 8 for shape in design_fields.values())
    row = _counter_row(layout.counters)
    ram = Segment(layout.type, total + row * sizes.nr_cpus + design_words * WORD + 4096)
    ram.layout = layout
    for item, offset, shape in found:
        if isinstance(item, Struct):
            for member, inside in zip(item.members, _member_offsets(item)[0], strict=True):
                ram.attach_view(member.name, shape, offset + inside)
        else:
            ram.attach_view(item.name, shape, offset)
    for i, counter in enumerate(layout.counters):
        ram.attach_view(counter.name, (sizes.nr_cpus,), total + WORD * i)
    ram.attach_view("counter", (sizes.nr_cpus, len(layout.counters)), total, columns=row // WORD)
    for name in CONSTANTS:
        ram.set_constant(name, asdict(sizes).get(name, 0))
    ram.set_constant("mask_words", sizes.mask_words)
    ram.set_constant("nr_counters", len(layout.counters))
    for name, value in constants.items():
        ram.set_constant(name, value)
    _place_design(ram, design_fields, total + row * sizes.nr_cpus)
    return ram


def _place_design(ram: Segment, fields: DesignFields, at: int) -> None:
    for i, (name, shape) in enumerate(fields.items()):
        slot = DESIGN_FIRST_SLOT + SLOT_WORDS * i
        ram.header[slot] = at
        ram.header[slot + 1] = shape[1] if len(shape) == 2 else 0
        ram.header[slot + 2] = shape[0]
        ram.design[name] = np.ndarray(shape, np.int64, buffer=ram.bytes.data, offset=at)
        at += -(-int(np.prod(shape)) * WORD // CACHE_LINE) * CACHE_LINE


def word_at_address(ram: Segment, where: int) -> tuple[str, tuple[int, ...], int] | None:
    """Find what lies at an address that compiled code has noted: field, index in it, value now."""
    views = {name: getattr(ram, name) for name, place in ram.layout.places.items() if place.ndim}
    for name, view in (views | ram.design).items():
        index, rest = [], where - view.ctypes.data
        for stride in view.strides:
            index.append(rest // stride)
            rest %= stride
        if rest == 0 and name != "counter" and all(0 <= i < n for i, n in zip(index, view.shape)):
            return name, tuple(index), int(view[tuple(index)])
    return None
