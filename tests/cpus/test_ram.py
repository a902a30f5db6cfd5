"""Shared RAM: the same names give the same memory in compiled code and in Python, whatever the type and
shape.
"""

import numpy as np
import pytest

from cpus.compiled import kernel
from cpus.declare import Struct
from cpus.layout import DESIGN_SLOTS
from cpus.ram import CACHE_LINE, Place, Segment, SegmentType, row
from cpus.segment import build_ram, design_type
from designs.memory_map import MACHINE

DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float64")
STRIDE = 64  # of an array of structs with one member of each type
PLACES_HERE = (
    {"elements": Place(0, "int64", 0)}
    | {f"m_{dtype}": Place(1, dtype, 1, STRIDE, 8 * i) for i, dtype in enumerate(DTYPES)}
    | {f"t_{dtype}": Place(10 + 3 * i, dtype, 2, np.dtype(dtype).itemsize) for i, dtype in enumerate(DTYPES)}
)
ZOO = SegmentType("zoo of types", PLACES_HERE)


@pytest.fixture
def zoo():
    """A segment with a struct of 10 elements and a 10 x 6 table of each type."""
    segment = Segment(ZOO, 1 << 17)
    segment.set_constant("elements", 10)
    at = 16384
    for name, place in PLACES_HERE.items():
        if place.ndim == 1:
            segment.attach_view(name, (10,), 16384 + place.offset)
        elif place.ndim == 2:
            at += 4096
            segment.attach_view(name, (10, 6), at)
    yield segment
    segment.close()


@kernel
def _set_members(ram, i, value):
    ram.m_int8[i] = value
    ram.m_uint8[i] = value
    ram.m_int16[i] = value
    ram.m_uint16[i] = value
    ram.m_int32[i] = value
    ram.m_uint32[i] = value
    ram.m_int64[i] = value
    ram.m_float64[i] = value


@kernel
def _get_member(ram, i, which):
    if which == 0:
        return ram.m_int8[i]
    if which == 1:
        return ram.m_uint8[i]
    if which == 2:
        return ram.m_int16[i]
    if which == 3:
        return ram.m_uint16[i]
    if which == 4:
        return ram.m_int32[i]
    if which == 5:
        return ram.m_uint32[i]
    if which == 6:
        return ram.m_int64[i]
    return int(ram.m_float64[i])


@kernel
def _set_tables(ram, i, j, value):
    ram.t_int8[i, j] = value
    ram.t_uint8[i, j] = value
    ram.t_int16[i, j] = value
    ram.t_uint16[i, j] = value
    ram.t_int32[i, j] = value
    ram.t_uint32[i, j] = value
    ram.t_int64[i, j] = value
    ram.t_float64[i, j] = value + 0.5


@kernel
def _sum_of_row(ram, i):
    first = row(ram.t_int64, i)
    total = 0
    for j in range(6):
        total += first[j]
    return total


@kernel
def _half(ram, i):
    return ram.t_float64[i, 0] / 2


@pytest.mark.parametrize("value", [0, 5, -1, 127, 200, -32768, 70_000, 1 << 40, -(1 << 62)])
def test_members_are_cut_on_store_and_widened_on_load(zoo, value):
    """A kernel computes in 64 bits; memory keeps what the declared type can, and its neighbours stay as they
    were.
    """
    _set_members(zoo, 4, value)
    for which, dtype in enumerate(DTYPES):
        expected = int(np.array(value, np.int64).astype(dtype))
        view = getattr(zoo, f"m_{dtype}")
        assert int(view[4]) == expected
        assert _get_member(zoo, 4, which) == expected
        assert not np.delete(view, 4).any()


def test_tables_have_rows_of_the_given_length(zoo):
    """Element [i, j] of a table is row i, column j in both worlds, and nothing else changes."""
    _set_tables(zoo, 3, 5, 9)
    for dtype in DTYPES:
        expected = np.zeros((10, 6))
        expected[3, 5] = 9.5 if dtype == "float64" else 9
        assert np.array_equal(getattr(zoo, f"t_{dtype}"), expected)


def test_a_row_reads_as_an_array(zoo):
    """`row` finds the row once; what Python wrote is what the kernel adds up."""
    zoo.t_int64[:] = np.arange(60).reshape(10, 6)
    assert _sum_of_row(zoo, 7) == sum(range(42, 48))


def test_floats_stay_floats(zoo):
    """A float64 field is not turned into an integer on its way."""
    zoo.t_float64[2, 0] = 0.5
    assert _half(zoo, 2) == 0.25


def test_constants_are_ints_and_unknown_names_are_errors(zoo):
    """Constants read as ints; a name that the layout does not have is an AttributeError."""
    assert zoo.elements == 10
    with pytest.raises(AttributeError, match="no field 'page_flgas'"):
        _ = zoo.page_flgas


def test_close_gives_the_memory_back():
    """After `close` no mapping and no file descriptor of the segment is left in this process."""
    before = _mappings()
    segment = Segment(ZOO, 1 << 20)
    segment.attach_view("m_int64", (10,), 16384)
    assert _mappings() == before + 1
    segment.close()
    assert _mappings() == before


def test_a_machine_gives_its_memory_back(small):
    """The same with all fields of a machine and of a design."""
    before = _mappings()
    ram = build_ram(MACHINE, small, {}, {"mine": (3, 4), "other": (5,)})
    ram.design["mine"][2, 3] = 1
    ram.close()
    assert _mappings() == before


def _mappings() -> int:
    with open("/proc/self/maps") as maps:
        return sum("memfd:luf-ram" in line for line in maps)


def test_too_large_a_segment_is_a_memory_error():
    """A segment that the host cannot map is refused with one sentence, and leaves no file descriptor."""
    with pytest.raises(MemoryError, match="'RAM segment' must fit"):
        Segment(ZOO, 1 << 62)


@pytest.fixture
def small():
    from cpus.layout import Sizes

    return Sizes(nr_cpus=5, nr_nodes=2, nr_zones=2, nr_frames=7, nr_mms=3, nr_tasks=4, nr_vmas=6,
                 nr_objects=2, nr_cache_slots=9, nr_logical=11, nr_rows=3, nr_sections=2, nr_chunks=4,
                 tlb_entries=8, series_length=10)  # fmt: skip


def test_no_two_fields_of_the_machine_overlap(small):
    """Each field owns its bytes: painting one changes no other."""
    ram = build_ram(MACHINE, small, {}, {"first": (4, 3), "second": (5,)})
    places = {name for name, place in MACHINE.places.items() if place.ndim}
    fields = {name: getattr(ram, name) for name in places - {"counter"}} | ram.design
    for number, (name, view) in enumerate(fields.items()):
        assert not view.any(), f"{name} was painted by another field"
        view[...] = number % 100 + 1
    for number, (name, view) in enumerate(fields.items()):
        assert (view == number % 100 + 1).all(), f"{name} was painted over"


def test_counters_are_fields_and_rows_of_one_table(small):
    """A counter is counted by its name; sums and snapshots take a CPU's row, in the order of declarations."""
    ram = build_ram(MACHINE, small, {})
    for number, counter in enumerate(MACHINE.counters):
        getattr(ram, counter.name)[3] = number + 1
    assert ram.counter[3].tolist() == list(range(1, len(MACHINE.counters) + 1))
    assert not ram.counter[[0, 1, 2, 4]].any()
    assert ram.nr_counters == ram.counter.shape[1] == len(MACHINE.counters)
    assert ram.counter[2].ctypes.data % CACHE_LINE == 0, "no CPU writes into another's cache line"
    before = int(ram.counter[3].sum())
    _count(ram, 3)
    assert _sum_of_counters(ram, 3) == ram.counter[3].sum() == before + 1


@kernel
def _sum_of_counters(ram, cpu):
    total = 0
    for i in range(ram.nr_counters):
        total += ram.counter[cpu, i]
    return total


@kernel
def _count(ram, cpu):
    ram.pgfault[cpu] += 1


def test_lines_of_a_struct_are_cache_lines_of_their_own(small):
    """Members of one line share cache lines with each other and with nobody else, in every element."""
    ram = build_ram(MACHINE, small, {})
    lines: dict[tuple[int, ...], set[tuple[str, str]]] = {}
    for _, item in MACHINE.declared("FIELDS"):
        if isinstance(item, Struct) and item.line:
            for member in item.members:
                view = getattr(ram, member.name)
                for element in range(len(view)):
                    line = (view.ctypes.data + element * view.strides[0]) // CACHE_LINE
                    lines.setdefault((line,), set()).add((item.count, f"{item.line}[{element}]"))
    assert len(lines) > 50
    assert {line: of for line, of in lines.items() if len(of) > 1} == {}


def test_constants_and_fields_have_names_that_a_segment_has_not(zoo):
    """`ram.close` is a method."""
    assert not set(MACHINE.places) & ({*dir(Segment), *vars(zoo)} - set(PLACES_HERE))


def test_too_many_fields_of_a_design_are_refused():
    """A design may have so many fields and no more."""
    with pytest.raises(ValueError, match=f"must be at most {DESIGN_SLOTS}"):
        design_type("greedy", {f"f{i}": (1,) for i in range(DESIGN_SLOTS + 1)})
