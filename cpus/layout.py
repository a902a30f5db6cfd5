"""The memory map: puts together what the modules of a machine declare (declare.py).

It decides where each field lies, and checks that declarations fit each other; every mistake is one sentence
that names the module and the field. Nothing is registered: a layout is made from a list of modules
(memory_map.py of each room), and the same list gives the same map, whatever was imported before.
Compiled code holds places of fields and numbers of the text table. Both are in the name of the layout's type,
so code of one layout is never run on another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from cpus import atomics
from cpus.compiled import Entry, Text, apart_entries, texts_of
from cpus.cpumask import MASK_BITS
from cpus.declare import (
    BIT,
    OWNER,
    SPIN,
    Atomic,
    Config,
    Constant,
    Cost,
    Counter,
    Declaration,
    Field,
    Held,
    Lock,
    OneOf,
    OwnerOf,
    Rule,
    Size,
    Struct,
)
from cpus.ram import CACHE_LINE, HEADER_BYTES, SLOT_WORDS, WORD, Place, SegmentType

DESIGN_SLOTS = 48  # fields of a design's own
HEADER_WORDS = HEADER_BYTES // WORD
DESIGN_FIRST_SLOT = HEADER_WORDS - SLOT_WORDS * DESIGN_SLOTS
COUNTER_TABLE = "counter"  # all counters as one table: a row for each CPU
OF_THE_LAYOUT = ("nr_text", "nr_counters")  # sizes that declarations make
SCAN = "scan"  # OwnerOf: not a field, see declare.py
POINT = "point"  # the field behind the header (ram.py)
# Modules that carry the machine, or judge it, and are no part of it: accesses to their fields are no
# scheduling points. Nor are those to a few words of others that only such modules look at.
BENCH = {f"cpus.{name}" for name in (
    "completion", "events", "exposed", "exposed_pages", "faults", "host", "incoherent", "install", "lease",
    "lock_order", "lost_data", "oracle", "points", "process", "steal", "strategies", "trace", "uncompiled",
    "zeromq",
)} | {"allocator.cut_short", "allocator.flush_times", "allocator.vmstat"}  # fmt: skip
OBSERVED = {"cpu_in_irq", "cpu_irq_off", "cpu_no_resched", "site_flushes", "tlb_flush_count"}
OBSERVED |= {"tlb_tag", "tlb_value", "cpu_asid", "asid_context", "asid_mm", "asid_gen"}  # exposed.py looks
FOUND_BY = ("", "zone", "node", "one", "any")  # Held: what `at` may be beside a field


class LayoutError(ValueError):
    """Declarations that do not fit each other: one sentence."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many there are of each kind; fixed for the life of a machine."""

    nr_cpus: int
    nr_nodes: int
    nr_zones: int
    nr_frames: int
    nr_mms: int
    nr_tasks: int
    nr_vmas: int
    nr_objects: int
    nr_cache_slots: int
    nr_logical: int
    nr_rows: int
    nr_sections: int
    nr_chunks: int
    tlb_entries: int
    series_length: int
    nr_anon_logical: int = 1
    nr_flags: int = 1
    nr_snapshots: int = 1
    nr_lufd_frames: int = 1  # all of them if LUF is debugged
    nr_switches: int = 1  # hand-overs that a schedule's log has room for
    nr_listed: int = 1  # those that a schedule lists
    nr_touched: int = 1  # points that are noted, if they are
    nr_span_words: int = 1  # of each CPU's ring, in a run that is traced
    one: int = 1

    @property
    def mask_words(self) -> int:
        return -(-self.nr_cpus // MASK_BITS)

    @property
    def nr_scans(self) -> int:
        """One scan_control for each CPU (direct reclaim), behind them one for each node (kswapd)."""
        return self.nr_cpus + self.nr_nodes


SIZE_NAMES = (*(size.name for size in fields(Sizes)), "mask_words", "nr_scans")


@dataclass(frozen=True, slots=True)
class Array:
    """Fields that lie together: the members of a struct, or one field alone. Offsets and strides in bytes."""

    members: tuple[tuple[Field | Lock, int], ...]
    shape: tuple[Size, ...]
    stride: int
    alignment: int = CACHE_LINE


@dataclass(frozen=True)
class Layout:
    """The memory map of a kind of machine, whatever its sizes."""

    name: str
    modules: tuple[ModuleType, ...]

    def declared(self, what: str) -> Iterator[tuple[str, Any]]:
        """Give (module, declaration) of everything in the tuples of that name, in the order of the modules."""
        for module in self.modules:
            yield from ((module.__name__, item) for item in getattr(module, what, ()))

    @cached_property
    def fields(self) -> dict[str, Field | Lock]:
        """All fields and locks by name, members of structs too."""
        return {item.name: item for _, item in _flat(self) if not isinstance(item, Constant)}

    @cached_property
    def locks(self) -> dict[str, Lock]:
        """The locks among them."""
        return {name: item for name, item in self.fields.items() if isinstance(item, Lock)}

    @cached_property
    def counters(self) -> tuple[Counter, ...]:
        """What every CPU counts; in this order they lie in the rows of the table `counter`."""
        return tuple(counter for _, counter in self.declared("COUNTERS"))

    @cached_property
    def costs(self) -> tuple[Cost, ...]:
        """What costs virtual time."""
        return tuple(cost for _, cost in self.declared("COSTS"))

    @cached_property
    def constants(self) -> tuple[str, ...]:
        """The words of the header that are values: sizes, declared constants, costs."""
        own = [item.name for _, item in _flat(self) if isinstance(item, Constant)]
        sizes = [name for name in SIZE_NAMES if name not in ("one", "nr_scans")]
        return (*sizes, *own, *(f"cost_{cost.name}" for cost in self.costs))

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """Everything that takes memory behind the header, in the order in which it lies there."""
        alone = list(_alone(self))
        first = [array for array in alone if array.members[0][0].name == POINT]
        others = [array for array in alone if array not in first]
        return (*first, *_structs(self), *others, _counters(self.counters))

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where compiled code finds each name."""
        return _places(self)

    @cached_property
    def texts(self) -> dict[str, Text]:
        """Name -> place of the text table, in order. Raises LayoutError where modules contradict each other."""
        found: dict[str, Text] = {}
        for module in self.modules:
            for text in texts_of(module):
                if found.setdefault(text.name, text) != text:
                    raise LayoutError(
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
    """Put the layout together that these modules declare, in this order. Raises LayoutError."""
    layout = Layout(name, tuple(modules))
    _check_names(layout)
    _check_fields(layout)
    if len(layout.places) and layout.type:
        return layout
    raise LayoutError(f"'layout {name}' must declare something (got {len(modules)} modules)")


def _flat(layout: Layout) -> Iterator[tuple[str, Field | Lock | Constant]]:
    """Give (module, declaration) of all fields, locks and constants, members of structs one by one."""
    item: Declaration
    for module, item in layout.declared("FIELDS"):
        if isinstance(item, Struct):
            yield from ((module, member) for member in item.members)
        else:
            yield module, item


# --- where objects lie ---------------------------------------------------------------------------------------


def _structs(layout: Layout) -> Iterator[Array]:
    """Lay out the array of structs of each count: line after line, each from a cache line on."""
    lines: dict[str, dict[str, list[Field | Lock]]] = {}
    for _, item in layout.declared("FIELDS"):
        if isinstance(item, Struct):
            lines.setdefault(item.count, {}).setdefault(item.line, []).extend(item.members)
    for count, of_count in lines.items():
        members: list[tuple[Field | Lock, int]] = []
        at = 0
        for line, found in of_count.items():
            at = _up(at, CACHE_LINE if line else 1)
            for member in found:
                at = _up(at, np.dtype(member.dtype).itemsize)
                members.append((member, at))
                at += np.dtype(member.dtype).itemsize
        yield Array(tuple(members), (count,), _up(at, CACHE_LINE if any(of_count) else WORD))


def _alone(layout: Layout) -> Iterator[Array]:
    for _, item in layout.declared("FIELDS"):
        if isinstance(item, Field) or (isinstance(item, Lock) and item.kind != BIT):
            pages = 4096 if isinstance(item, Field) and item.pages else CACHE_LINE
            yield Array(((item, 0),), item.shape, np.dtype(item.dtype).itemsize, pages)


def _counters(counters: Sequence[Counter]) -> Array:
    """One memory, two views: a field for each counter, and a table of them all. Nobody writes into another
    CPU's cache line.
    """
    members = tuple((Field(one.name, OWNER, one.meaning), WORD * i) for i, one in enumerate(counters))
    return Array(members, ("nr_cpus",), _up(len(counters) * WORD, CACHE_LINE))


def _up(at: int, unit: int) -> int:
    return -(-at // unit) * unit


def _is_shared(module: str, item: Field | Lock | Constant) -> bool:
    """May a CPU see or change there what another one goes by?"""
    if isinstance(item, Constant) or module in BENCH or item.name in OBSERVED:
        return False
    if isinstance(item, Lock):
        return True
    owned = isinstance(item.rule, OwnerOf) and item.reads is None
    return not (owned or item.oracle or isinstance(item.rule, Config))


def _places(layout: Layout) -> dict[str, Place]:
    places = {name: Place(slot, "int64", 0) for slot, name in enumerate(layout.constants)}
    shared = {item.name for module, item in _flat(layout) if _is_shared(module, item)}
    slot = len(places)
    for array in layout.arrays:
        for member, offset in array.members:
            owned = member.rule == OWNER and array.shape[0] == "nr_cpus"
            places[member.name] = Place(
                slot, member.dtype, len(array.shape), array.stride, offset, owned, member.name in shared
            )
        slot += SLOT_WORDS
    places[COUNTER_TABLE] = Place(slot, "int64", 2, owned=True)
    if slot + SLOT_WORDS > DESIGN_FIRST_SLOT:
        raise LayoutError(f"'header words' must be at most {DESIGN_FIRST_SLOT} (got {slot + SLOT_WORDS})")
    return places


# --- do declarations fit each other? ------------------------------------------------------------------------


def _check_names(layout: Layout) -> None:
    """One name, one place, whoever declares it."""
    taken = dict.fromkeys((*SIZE_NAMES, COUNTER_TABLE), "the layout itself")
    named = [*_flat(layout), *layout.declared("COUNTERS")]
    for module, name in (
        *((module, item.name) for module, item in named),
        *((module, f"cost_{cost.name}") for module, cost in layout.declared("COSTS")),
    ):
        if name in taken:
            raise LayoutError(f"{module}: {name!r} must be declared once (got it from {taken[name]} too)")
        taken[name] = module


def _check_fields(layout: Layout) -> None:
    """Sizes, rules and structs name what there is."""
    for module, item in layout.declared("FIELDS"):
        if isinstance(item, Struct):
            _check_size(f"{module}: struct {item.count!r}", item.count)
            for member in item.members:
                if member.shape or (isinstance(member, Lock) and member.kind == BIT):
                    raise LayoutError(
                        f"{module}: {member.name!r} must have no shape inside a struct (got {member.shape})"
                    )
        elif not isinstance(item, Constant) and not (isinstance(item, Lock) and item.kind == BIT):
            where = f"{module}: {item.name!r}"
            if not 1 <= len(item.shape) <= 2:
                raise LayoutError(
                    f"{where} must have one or two sizes, or stand in a struct (got {item.shape})"
                )
            for size in item.shape:
                _check_size(where, size)
    for module, item in _flat(layout):
        if isinstance(item, Lock) and item.kind == BIT and item.word not in layout.fields:
            raise LayoutError(f"{module}: lock {item.name!r} must be a bit of a field (got {item.word!r})")
        if isinstance(item, Field):
            for rule in (item.rule, *([item.reads] if item.reads else [])):
                _check_rule(layout, f"{module}: {item.name!r}", rule)


def _check_size(where: str, size: Size) -> None:
    if isinstance(size, str) and size not in (*SIZE_NAMES, *OF_THE_LAYOUT):
        raise LayoutError(f"{where} must have sizes of cpus.layout.Sizes (got {size!r})")


def _check_rule(layout: Layout, where: str, rule: Rule) -> None:
    if isinstance(rule, OneOf):
        for one in rule.rules:
            _check_rule(layout, where, one)
    elif isinstance(rule, Held):
        if rule.lock not in layout.locks:
            raise LayoutError(f"{where} must be held by a lock that is declared (got {rule.lock!r})")
        if rule.at not in (*FOUND_BY, *layout.fields):
            raise LayoutError(
                f"{where} must find its lock by {', '.join(FOUND_BY[1:])} or a field (got {rule.at!r})"
            )
        if rule.shared and layout.locks[rule.lock].kind == SPIN:
            raise LayoutError(f"{where} must not be shared by holders of a spin lock (got {rule.lock!r})")
    elif isinstance(rule, OwnerOf):
        for name in rule.by:
            if name not in layout.fields and name != SCAN:
                raise LayoutError(f"{where} must have an owner that a field names (got {name!r})")
    elif isinstance(rule, Atomic):
        for operation in rule.operations:
            if not callable(getattr(atomics, operation, None)):
                raise LayoutError(f"{where} must name operations of cpus.atomics (got {operation!r})")
