"""A machine's RAM: maps the memory that a layout (layout.py) describes, for given sizes.

The header holds constants and, for each array, its offset and row length; behind it they lie one after the
other, a design's own fields last. Left out: the compiled side of it (ram.py).
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from cpus.layout import COUNTER_TABLE, DESIGN_FIRST_SLOT, DESIGN_SLOTS, HEADER_WORDS, Array, Layout, Sizes
from cpus.ram import CACHE_LINE, PLAIN, SLOT_WORDS, WORD, Place, Segment, SegmentType, seen

DesignFields = dict[str, tuple[int, ...]]


def design_type(name: str, fields: DesignFields) -> SegmentType:
    """Give the compiled type through which a design's hooks see their own fields (int64, one or two
    dimensions).
    """
    if len(fields) > DESIGN_SLOTS:
        raise ValueError(f"'fields of design {name}' must be at most {DESIGN_SLOTS} (got {len(fields)})")
    places = {
        field: Place(DESIGN_FIRST_SLOT + SLOT_WORDS * i, "int64", len(shape), shared=True)
        for i, (field, shape) in enumerate(fields.items())
    }
    signature = ",".join(f"{field}:{len(shape)}" for field, shape in fields.items())
    return SegmentType(f"{name}:{signature}", places)


def _named(layout: Layout, sizes: Sizes) -> dict[str, int]:
    """Give all sizes by name."""
    derived = {"mask_words": sizes.mask_words, "nr_scans": sizes.nr_scans}
    return asdict(sizes) | derived | {"nr_text": len(layout.text), "nr_counters": len(layout.counters)}


def _extents(layout: Layout, named: dict[str, int]) -> tuple[list[tuple[Array, int, tuple[int, ...]]], int]:
    """Give (array, offset, shape) of everything behind the header, and the bytes needed in all."""
    at, found = HEADER_WORDS * WORD, []
    for array in layout.arrays:
        shape = tuple(named[size] if isinstance(size, str) else size for size in array.shape)
        shape = (max(shape[0], 1), *shape[1:])
        at = -(-at // array.alignment) * array.alignment
        found.append((array, at, shape))
        at += int(np.prod(shape)) * array.stride
    return found, -(-at // CACHE_LINE) * CACHE_LINE


def build_ram(
    layout: Layout,
    sizes: Sizes,
    constants: dict[str, int],
    design_fields: DesignFields | None = None,
    into: Segment | None = None,
    kind: str = PLAIN,
) -> Segment:
    """Map the segment of a machine, publish every field, write the constants. Memory starts as zeros.

    `design_fields`: name -> shape of the design's own int64 fields, placed behind the machine's. `into` is a
    segment to be used again, for another machine, which nobody may look at meanwhile. `kind`: how code will
    see it (ram.py). Raises ValueError if it is too small.
    """
    named = _named(layout, sizes)
    found, total = _extents(layout, named)
    design_fields = design_fields or {}
    design_words = sum(int(np.prod(shape)) + 8 for shape in design_fields.values())
    size, kind_of_it = total + design_words * WORD + 4096, seen(layout.type, kind)
    if into is None:
        into = Segment(kind_of_it, size)
    elif size > into.size:
        raise ValueError(f"'RAM segment' must hold the whole machine, {size:,} bytes (got {into.size:,})")
    else:
        into.clear(kind_of_it)
    ram = into
    ram.layout = layout
    for array, offset, shape in found:
        for member, inside in array.members:
            ram.attach_view(member.name, shape, offset + inside)
    counters, offset, (cpus, *_) = found[-1]
    ram.attach_view(COUNTER_TABLE, (cpus, len(layout.counters)), offset, columns=counters.stride // WORD)
    for name, value in (named | constants).items():
        if name in layout.constants or name in constants:
            ram.set_constant(name, value)
    _place_design(ram, design_fields, total)
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
    """Find what lies at an address that compiled code has noted: field, index in it, and value."""
    views = {name: getattr(ram, name) for name, place in ram.layout.places.items() if place.ndim}
    for name, view in (views | ram.design).items():
        index, rest = [], where - view.ctypes.data
        for stride in view.strides:
            index.append(rest // stride)
            rest %= stride
        if rest == 0 and name != COUNTER_TABLE and all(0 <= i < n for i, n in zip(index, view.shape)):
            return name, tuple(index), int(view[tuple(index)])
    return None
