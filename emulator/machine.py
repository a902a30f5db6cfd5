"""Describe an emulated machine: CPUs, memory nodes, TLBs, sysctls and the cost table, read from a TOML file.

`load_machine("xeon6430-cxl")` reads a machine that ships with the emulator, `load_machine("my.toml")` one of
yours; a file that starts with `like = "xeon6430-cxl"` changes only what it names. Every figure's source
stands beside it in `machines/*.toml`. Scaling divides memory and nothing else: TLB geometry, batch sizes and
per-page costs stay, watermarks go with the square root (see `watermarks`).
Left out: swap, huge pages, sub-NUMA clustering, hyper-threads sharing a core's TLB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct

from allocator.sysctl import SYSCTLS
from cpus.abi.numbers import CPUS_MAX, PAGES_PER_MIB
from emulator.costs import Nanoseconds, costs_type
from emulator.cpu_nodes import cpu_mistake, cpu_nodes
from emulator.machine_file import MACHINES, MachineError, MachineTable, did_you_mean, read_machine
from emulator.watermarks import PcpLimits, Watermarks, lowmem_reserve, pcp_limits, zone_watermarks
from inputs.checked import Line, converted
from inputs.decode import read_toml
from inputs.text import clipped, visible

MEMORY_MIB_MIN = 8
NODES_MAX = 8
LISTED = 300  # characters of a list of names in a sentence
ORDER = "order"
Grade = Annotated[str, Meta(pattern=r"\A(measured|cited|order)\Z")]
ZONES_MAX = 5  # DMA, DMA32, Normal, Movable, Device


class ZoneSize(Struct, frozen=True, kw_only=True):
    """One zone of a node, full-size: pages the allocator manages, and how many of them the kernel had in use
    when it had booted.
    """

    name: Line
    managed_pages: Annotated[int, Meta(ge=1024)]
    kernel_pages: Annotated[int, Meta(ge=0)] = 0


class Node(Struct, frozen=True, kw_only=True):
    """One memory node; `memory_mib` is the full-size machine's, `Machine.pages` has the scaled ones.

    `cpus` lists its CPUs, "0-15,32-47"; true is an equal share of those that no list names, false none.
    `zones`, lowest first, are given where a kernel's own figures are known; else the node is one zone of all
    its memory.
    """

    name: Line
    memory_mib: Annotated[float, Meta(gt=0, le=2**24)]
    cpus: bool | str
    read_latency_ns: Annotated[int, Meta(ge=1, le=10**6)]
    zones: Annotated[list[ZoneSize], Meta(max_length=ZONES_MAX)] = []

    @property
    def full_zones(self) -> list[ZoneSize]:
        """The node's zones, or the one that stands for them."""
        return self.zones or [ZoneSize(name="Normal", managed_pages=int(self.memory_mib * PAGES_PER_MIB))]


class Zone(Struct, frozen=True, kw_only=True):
    """One zone of the scaled machine."""

    node: int
    name: str
    managed_pages: int
    usable_pages: int
    lowmem_reserve: int


class TlbArray(Struct, frozen=True, kw_only=True):
    """Geometry of one TLB array; `ways` equal to `entries` is fully associative."""

    entries: Annotated[int, Meta(ge=1, le=65536)]
    ways: Annotated[int, Meta(ge=1, le=65536)]

    @property
    def sets(self) -> int:
        return self.entries // self.ways


class Tlb(Struct, frozen=True, kw_only=True):
    """The TLBs of one logical CPU, and whether entries carry an address-space tag."""

    pcid: bool
    asid_slots: Annotated[int, Meta(ge=1, le=4096)]
    dtlb_load: TlbArray
    dtlb_store: TlbArray
    itlb: TlbArray
    stlb: TlbArray


if TYPE_CHECKING:

    class Sysctl(Struct):
        """Kernel knobs, as allocator/sysctl.py declares them."""

        def __getattr__(self, name: str) -> Any: ...

else:

    def _field(one: Any) -> tuple[Any, ...]:
        """Give the field of a knob: name, type with its range, default."""
        kind = bool if one.least is False else Annotated[int, Meta(ge=one.least, le=one.most)]
        return (one.name, kind) if one.default is None else (one.name, kind, one.default)

    Sysctl = msgspec.defstruct(
        "Sysctl", [_field(one) for one in SYSCTLS.values()], frozen=True, kw_only=True, module=__name__
    )


class Host(Struct, frozen=True, kw_only=True):
    """What a virtual machine runs on: `cores` that all its CPUs share, each for a turn of `turn_ns`; 0 cores:
    no CPU waits for another.
    """

    cores: Annotated[int, Meta(ge=0, le=CPUS_MAX)] = 0
    turn_ns: Nanoseconds = 0


class Machine(Struct, frozen=True, kw_only=True, dict=True):
    """A machine, scaled and checked. `nodes` keep their full-size memory; `pages`, `watermarks` and `pcp` are
    the scaled machine's.
    """

    name: Line
    description: Line
    cpus: Annotated[int, Meta(ge=1, le=CPUS_MAX)]
    default_scale: Annotated[float, Meta(ge=1, le=2**20)]
    swap_mib: Annotated[int, Meta(ge=0, le=0)]
    distances: list[list[Annotated[int, Meta(ge=10, le=255)]]]
    nodes: Annotated[list[Node], Meta(min_length=1, max_length=NODES_MAX)]
    tlb: Tlb
    sysctl: Sysctl
    costs: Any  # emulator.costs.Costs
    # how sure costs are: measured or cited (published, with a figure), or only their order of magnitude
    grades: dict[str, Grade] = {}
    host: Host = Host()
    scale: Annotated[float, Meta(ge=1, le=2**20)] = 1.0
    overrides: dict[str, Any] = {}  # keys that were changed when it was loaded (--set), as given

    @cached_property
    def pages(self) -> list[int]:
        """Pages of each node of the scaled machine."""
        return [
            sum(zone.managed_pages for zone in self.zones if zone.node == n) for n in range(len(self.nodes))
        ]

    @cached_property
    def zones(self) -> list[Zone]:
        """Zones of the scaled machine: node by node, in each the lowest first."""
        found = []
        for n, node in enumerate(self.nodes):
            sizes = node.full_zones
            managed = [int(zone.managed_pages / self.scale) for zone in sizes]
            for i, zone in enumerate(sizes):
                above = sum(managed[i + 1 :])
                found.append(
                    Zone(
                        node=n,
                        name=zone.name,
                        managed_pages=managed[i],
                        usable_pages=managed[i] - int(zone.kernel_pages / self.scale),
                        lowmem_reserve=lowmem_reserve(above),
                    )
                )
        return found

    @cached_property
    def cpu_nodes(self) -> list[int]:
        """Node of each CPU. Nodes with `cpus = true` share, in order, what no list names; a list may name
        more than there are.
        """
        return cpu_nodes([node.cpus for node in self.nodes], self.cpus)

    def zonelist(self, node: int) -> list[int]:
        """Zones, by number, in the order in which an allocation for `node` tries them (build_zonelists)."""
        return sorted(
            range(len(self.zones)),
            key=lambda z: (self.distances[node][self.zones[z].node], self.zones[z].node, -z),
        )

    @cached_property
    def watermarks(self) -> list[Watermarks]:
        """Watermarks of each zone of the scaled machine, in pages."""
        full = [zone.managed_pages for node in self.nodes for zone in node.full_zones]
        return zone_watermarks(
            full,
            watermark_scale_factor=self.sysctl.watermark_scale_factor,
            min_free_kb=self.sysctl.min_free_kbytes,
            scale=self.scale,
        )

    @cached_property
    def pcp(self) -> list[PcpLimits]:
        """Limits of the per-CPU free lists of each zone of the scaled machine."""
        return [
            pcp_limits(
                zone.managed_pages,
                mark.low,
                local_cpus=self.cpu_nodes.count(zone.node),
                online_cpus=self.cpus,
            )
            for zone, mark in zip(self.zones, self.watermarks)
        ]

    def summary(self) -> str:
        """Return one line for people: `64 CPUs, DRAM 42 GiB + CXL 96 GiB, no swap, tiering on`."""
        memory = " + ".join(f"{node.name} {memory_text(node.memory_mib)}" for node in self.nodes)
        modes = ("NUMA balancing off", "NUMA balancing 1, which does nothing here", "tiering on")
        tiering = modes[self.sysctl.numa_balancing]
        return f"{self.cpus} CPU{'s' * (self.cpus > 1)}, {memory}, no swap, {tiering}"

    def scaled_summary(self) -> str:
        """Return the scaling in one line: `scale 1/1024: 42 MiB + 96 MiB`."""
        memory = " + ".join(memory_text(pages / PAGES_PER_MIB) for pages in self.pages)
        return f"scale 1/{self.scale:.4g}: {memory}"


def memory_text(mib: float) -> str:
    """Return a memory size as people write it: 42 GiB, 96 MiB, 1.5 GiB."""
    value, unit = (mib / 1024, "GiB") if mib >= 1024 else (mib, "MiB")
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"


def machine_names() -> dict[str, str]:
    """Return the machines that ship with the emulator: name -> one-line description."""
    return {
        path.stem: str(read_toml(path, MachineError)["description"])
        for path in sorted(MACHINES.glob("*.toml"))
    }


def load_machine(
    name_or_path: str | Path,
    *,
    scale: float | None = None,
    cpus: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Machine:
    """Return the machine of that name or TOML file, with memory divided by `scale`; not given, by the
    file's own default_scale, as on the command line.

    The config.toml of a run folder gives that run's machine, at its scale. `overrides` maps dotted keys to
    values, as in {"sysctl.numa_balancing": 0, "nodes.1.memory_mib": 512}. Raises MachineError with one
    sentence: file, key, rule, value.

    >>> load_machine("xeon6430-cxl", scale=1024).pages
    [10752, 24576]
    """
    read = read_machine(str(name_or_path))
    table = read.table
    for key, value in (overrides or {}).items():
        read.override(key, value)
    for key, option in (("scale", "--scale, or be the file's 'default_scale'"), ("overrides", "--set")):
        if key in table:
            raise MachineError(
                f"{read.named(key)}: '{key}' must be given as {option} (got {clipped(table[key])})"
            )
    table["overrides"] = read.changed
    table["scale"] = table.get("default_scale", 1.0) if scale is None else scale
    _check_keys(Machine, table, "", read)
    if cpus is not None:
        # what is replaced must be right too
        converted({"cpus": cpus} | table, Machine, read.named, MachineError)
        table["cpus"] = cpus
    machine = converted(table, Machine, read.named, MachineError)
    costed: Any = msgspec.defstruct("Costed", [("costs", costs_type())])
    costs = converted({"costs": machine.costs}, costed, read.named, MachineError).costs
    machine = msgspec.structs.replace(machine, costs=costs)
    _check_rules(machine, read.named)
    return machine


def rescaled(machine: Machine, scale: float) -> Machine:
    """Return the same machine with memory divided by another scale. Raises MachineError if that is too
    little.
    """
    other = msgspec.structs.replace(machine, scale=scale)
    _check_rules(other, lambda key: machine.name)
    return other


def machine_table(machine: Machine) -> dict[str, Any]:
    """Return the machine as plain tables and lists, to be written beside a result."""
    table = msgspec.to_builtins(machine)
    assert isinstance(table, dict)
    return table


# -- checking ------------------------------------------------------------------------------------------------


def _check_keys(kind: type, table: Any, where: str, read: MachineTable) -> None:
    if not isinstance(table, dict):
        return
    known = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in table.items():
        if key not in known:
            hint = did_you_mean(key, list(known)) or f"; known are {visible(', '.join(known), LISTED)}"
            raise MachineError(
                f"{read.named(where + key)}: {clipped(where + key)} is not a key of a machine{hint}"
            )
        inner = {
            "nodes": Node,
            "zones": ZoneSize,
            "tlb": Tlb,
            "sysctl": Sysctl,
            "costs": costs_type(),
            "host": Host,
        }.get(key, known[key])
        if key in ("nodes", "zones") and isinstance(value, list):
            for i, part in enumerate(value[:NODES_MAX]):  # more are refused by their number
                _check_keys(inner, part, f"{where}{key}[{i}].", read)
        elif isinstance(inner, type) and issubclass(inner, Struct):
            _check_keys(inner, value, f"{where}{key}.", read)


def _check_rules(machine: Machine, named: Callable[[str], str]) -> None:
    def refuse(key: str, rule: str, got: object) -> None:
        raise MachineError(f"{named(key)}: '{key}' must {rule} (got {got})")

    if not any(node.cpus for node in machine.nodes):
        refuse("nodes", "have at least one node with cpus = true", "none")
    mistake = cpu_mistake([node.cpus for node in machine.nodes], machine.cpus)
    if mistake:
        refuse(*mistake)
    count = len(machine.nodes)
    if [len(row) for row in machine.distances] != [count] * count:
        refuse(
            "distances", f"be {count} rows of {count} numbers, one for each pair of nodes", machine.distances
        )
    for i, node in enumerate(machine.nodes):
        scaled_mib = node.memory_mib / machine.scale
        if scaled_mib < MEMORY_MIB_MIN:
            refuse(
                f"nodes[{i}].memory_mib", f"be at least {MEMORY_MIB_MIN} after scaling", f"{scaled_mib:.2g}"
            )
        managed = sum(zone.managed_pages for zone in node.zones)
        if managed > node.memory_mib * PAGES_PER_MIB:
            refuse(
                f"nodes[{i}].zones",
                f"manage no more than the {node.memory_mib:g} MiB of the node",
                f"{managed} pages",
            )
        for size in node.zones:
            if size.kernel_pages > size.managed_pages // 2:
                refuse(
                    f"nodes[{i}].zones",
                    f"leave half of zone {size.name} to others than the kernel",
                    f"{size.kernel_pages} pages",
                )
    for name in ("dtlb_load", "dtlb_store", "itlb", "stlb"):
        array: TlbArray = getattr(machine.tlb, name)
        if array.entries % array.ways:
            refuse(f"tlb.{name}.ways", f"divide the {array.entries} entries", array.ways)
        if array.sets & (array.sets - 1):
            refuse(f"tlb.{name}", "have a power of two of sets, entries / ways", array.sets)
    for name in machine.grades:
        if not hasattr(machine.costs, name):
            refuse(f"grades.{name}", "name a cost", clipped(name))
    around = machine.sysctl.fault_around_bytes
    if around & (around - 1):
        refuse("sysctl.fault_around_bytes", "be a power of two", around)
    for zone, mark in zip(machine.zones, machine.watermarks):
        if mark.promo > zone.managed_pages // 2:
            rule = f"keep its watermarks below half of the {zone.managed_pages} pages of its zone {zone.name}"
            refuse(f"nodes[{zone.node}].memory_mib", rule, f"WMARK_PROMO {mark.promo}")
