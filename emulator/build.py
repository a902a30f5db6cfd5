"""Put a machine, a workload and a design together in one RAM: memory map, zones, files, address spaces,
programs, tasks.

After `build` everything that the CPUs will read is there; nothing runs yet. Left out: the processes
(supervisor.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from allocator.boot import boot_cpus, boot_mm, boot_region, boot_zero_page, boot_zones
from allocator.hooks import HOOKS, nothing
from allocator.mmap import MAX_REGIONS
from allocator.page_cache import OBJECT_ANON, OBJECT_FILE
from allocator.program import MAX_MARKS
from allocator.sched import DONE, TASK_DESIGN, TASK_KSWAPD, TASK_USER, base_slice_ns, enqueue, select_cpu
from allocator.sysctl import SYSCTLS
from allocator.vma import MAX_VMAS, VM_ANON, VM_EXEC, VM_READ, VM_SHARED, VM_WRITE
from cpus.held_signals import signals_held
from cpus.install import compile_ahead, install, install_at
from cpus.layout import Sizes
from cpus.oracle import NOBODY
from cpus.ram import PLAIN, POINTS, Segment
from cpus.segment import build_ram
from cpus.spans import SPAN_WORDS, SPANS_KEPT
from cpus.tlb import NR_ASIDS
from cpus.uncompiled import refuse_many
from designs.memory_map import MACHINE
from designs.ready import ReadyDesign
from emulator.machine import Machine
from emulator.near_wrap import begin_near_wrap
from emulator.order import LONG_SLICE_NS
from emulator.schedule import Schedule, constants_of, sizes_of, write_schedule
from workloads.rows import (
    DRAW,
    EVALUATION,
    FLAG,
    MPROTECT,
    PROT_WRITE,
    ROW,
    SNAPSHOT_NUMBER,
    UPROBE,
    Process,
    Region,
    Workload,
)

VIOLATIONS_LIMIT = 1  # the first ends the run: what follows it is its consequence
SERIES_LENGTH = 20_000
SERIES_NS = 2_000_000
MAX_ORDER_PAGES = 1024
PROMOTE_ENOUGH_PAGES = 262144  # pgdat_free_space_enough: 1 GiB; on a scaled machine its share
FIRST_VPN, REGION_ALIGN = 0x10000, 512
LOCK_SPINS = 64
ANON_NUMBERS = 2  # logical pages for anonymous memory, per frame (oracle.py: name_anonymous)
SPARE_VMAS = 128  # per process, for what it maps and splits while it runs
MAX_NODES = 7  # columns of a sample of free memory


class BuildError(ValueError):
    """A machine, workload and design that do not go together: one sentence."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is executed, apart from what is run."""

    leases: int
    seed: int
    check: bool = True  # every access is judged
    states: bool = True  # and frames before they change hands
    strict_ipi: bool = False
    controlled: bool = False
    events: bool = True
    slice_ns: int = LONG_SLICE_NS
    debug_luf: bool = False
    bounds: bool = False  # the design's code is compiled with every access checked
    schedule: Schedule | None = None  # the engine has scheduling points
    spans: bool = False  # what CPUs are at is recorded, for a trace

    @property
    def kind(self) -> str:
        """How the engine's code sees the RAM (cpus/ram.py)."""
        return POINTS if self.schedule else PLAIN


def build(
    machine: Machine, workload: Workload, design: ReadyDesign, options: RunOptions, progress: Any = None
) -> Any:
    """Return the RAM of a machine that is ready to start. Raises BuildError if these do not fit together."""
    ram = lay_out(machine, workload, design, options)
    with signals_held():  # the engine is compiled, and what boots the machine
        install_text(ram, design, options, progress)
        boot(ram, machine, workload, design, options)
    return ram


def lay_out(
    machine: Machine,
    workload: Workload,
    design: ReadyDesign,
    options: RunOptions,
    into: Segment | None = None,
) -> Segment:
    """Return the memory of a machine, all constants written, in a segment of its own or in one to be used
    again. Raises BuildError.
    """
    refuse_many(options.leases)
    sizes, kind = _sizes(machine, workload, design.has_thread, options), options.kind
    ram = build_ram(MACHINE, sizes, _constants(machine, workload, options), design.fields(sizes), into, kind)
    for cost in MACHINE.costs:
        ram.set_constant(f"cost_{cost.name}", getattr(machine.costs, cost.name))
    return ram


def boot(ram: Any, machine: Machine, workload: Workload, design: ReadyDesign, options: RunOptions) -> None:
    """Write all that a machine has in its memory when it starts, by the code that its text table has."""
    if options.schedule:
        write_schedule(ram, options.schedule)
    _zones(ram, machine)
    rng = np.random.default_rng(np.random.SeedSequence([options.seed, 0x5EED]))
    ram.cpu_random[:] = rng.integers(1, 2**62, ram.nr_cpus)
    ram.run_random[0] = int(rng.integers(1, 2**62))
    boot_zones(ram)
    boot_zero_page(ram, ram.zero_page, ram.zero_logical)
    boot_cpus(ram)
    design.prepare(ram)
    if options.schedule and options.schedule.wraps:
        begin_near_wrap(ram)
    _processes(ram, workload)
    _kernel_threads(ram)


def install_text(ram: Any, design: ReadyDesign, options: RunOptions, progress: Any = None) -> None:
    """Compile or load the engine, then the design's hooks over the defaults."""
    hooks = design.hooks(debug_luf=options.debug_luf, bounds=options.bounds)
    for hook in HOOKS.values():
        install_at(ram, hook, nothing)
    compile_ahead((*hooks, *MACHINE.entries), ram, progress)
    install(ram, MACHINE.entries, progress)
    design.install(ram, hooks, progress)


def _zone_starts(machine: Machine) -> list[int]:
    """First frame of each zone, and the number of all frames. What the kernel has in use itself are no frames
    of ours.
    """
    starts, at = [], 0
    for zone in machine.zones:
        starts.append(at)
        at += -(-zone.usable_pages // MAX_ORDER_PAGES) * MAX_ORDER_PAGES
    return [*starts, at]


def folio_orders(workload: Workload) -> dict[str, int]:
    """Give the order of the folios that cache each file."""
    orders: dict[str, int] = {}
    for process in workload.processes:
        for region in process.regions:
            if region.file is not None:
                orders[region.file] = max(orders.get(region.file, 0), region.folio_order)
    return orders


def probed_files(workload: Workload) -> set[str | None]:
    """Name the files in whose code breakpoints are set."""
    found = set()
    for process in workload.processes:
        for rows in process.threads:
            found |= {
                process.regions[number].file
                for number in np.unique(rows["region"][rows["op"] == UPROBE]).tolist()
            }
    return found


def files_of_copies(workload: Workload) -> set[str | None]:
    """Name the files of whose pages there may be private copies although no region says so: breakpoints are
    set in their code, or mprotect(2) gives the right to write to what shows them, wherever it was moved.
    """
    rows = [rows for process in workload.processes for rows in process.threads]
    if any(((one["op"] == MPROTECT) & (one["kind"] & PROT_WRITE != 0)).any() for one in rows):
        return {region.file for process in workload.processes for region in process.regions}
    return probed_files(workload)


def has_private_pages(region: Region, copied: set[str | None]) -> bool:
    """May a process have pages of its own there: anonymous ones, or copies of a file's?"""
    return region.file is None or (not region.shared and (region.writable or region.file in copied))


def file_sizes(workload: Workload) -> dict[str, int]:
    """Give each file's size in pages: as far as any region reaches."""
    sizes: dict[str, int] = {}
    for process in workload.processes:
        for region in process.regions:
            if region.file is not None:
                sizes[region.file] = max(sizes.get(region.file, 0), region.file_offset + region.pages)
    return sizes


def _sizes(machine: Machine, workload: Workload, with_thread: bool, options: RunOptions) -> Sizes:
    files, copied = file_sizes(workload), files_of_copies(workload)
    private = sum(
        1 for p in workload.processes for r in p.regions if not p.forked and has_private_pages(r, copied)
    )
    frames = _zone_starts(machine)[-1] + 1  # the last one, in no zone, is the zero page
    regions = max(len(p.regions) for p in workload.processes)
    if regions > min(MAX_REGIONS, MAX_VMAS):
        raise BuildError(
            f"'regions of a process' must be at most {min(MAX_REGIONS, MAX_VMAS)} (got {regions})"
        )
    threads = sum(len(p.threads) for p in workload.processes)
    # files, zero page, anonymous pages, one that no frame holds
    logical = sum(files.values()) + 1 + ANON_NUMBERS * frames + 1
    marks = max(0, workload.count_of(EVALUATION) - 1)
    for process in workload.processes:
        for thread, cpu in enumerate(process.cpus):
            if cpu >= machine.cpus:
                where = f"workload {workload.name!r}: process {process.name!r} thread {thread}"
                raise BuildError(
                    f"{where}: 'cpus' must be below the machine's {machine.cpus} CPUs (got {cpu})"
                )
    for name, most, found in (
        ("pages of all files and frames", NOBODY - 1, logical),
        ("evaluations (tokens)", MAX_MARKS - 1, marks),
        ("tlb.asid_slots", NR_ASIDS, machine.tlb.asid_slots),
        ("nodes", MAX_NODES, len(machine.nodes)),
    ):
        if found > most:
            raise BuildError(f"'{name}' must be at most {most:,} (got {found:,})")
    tlb = machine.tlb
    return Sizes(
        nr_cpus=machine.cpus,
        nr_nodes=len(machine.nodes),
        nr_zones=len(machine.zones),
        nr_frames=frames,
        nr_mms=len(workload.processes) + 1,
        nr_tasks=threads + len(machine.nodes) + with_thread,
        nr_vmas=sum(len(p.regions) + SPARE_VMAS for p in workload.processes),
        nr_objects=len(files) + private,
        nr_cache_slots=sum(files.values()),
        nr_logical=logical,
        nr_anon_logical=ANON_NUMBERS * frames,
        nr_rows=workload.stored_rows(),
        nr_sections=sum(len(p.sections) for p in workload.processes),
        nr_chunks=sum(len(s.chunks) for p in workload.processes for s in p.sections),
        tlb_entries=tlb.dtlb_load.entries + tlb.dtlb_store.entries + tlb.itlb.entries + tlb.stlb.entries,
        series_length=SERIES_LENGTH,
        nr_flags=workload.count_of(FLAG),
        nr_snapshots=workload.count_of(SNAPSHOT_NUMBER),
        nr_lufd_frames=frames if options.debug_luf else 1,
        nr_span_words=SPANS_KEPT * SPAN_WORDS if options.spans else 1,
        **sizes_of(options.schedule),
    )


def _constants(machine: Machine, workload: Workload, options: RunOptions) -> dict[str, int]:
    tlb, sysctl = machine.tlb, machine.sysctl
    found: dict[str, int] = {}
    base = 0
    for name, array in (
        ("dtlb", tlb.dtlb_load),
        ("store", tlb.dtlb_store),
        ("itlb", tlb.itlb),
        ("stlb", tlb.stlb),
    ):
        found |= {f"{name}_sets": array.sets, f"{name}_ways": array.ways, f"{name}_base": base}
        base += array.entries
    for one in (one for one in SYSCTLS.values() if one.constant):
        found[one.constant] = int(one.becomes(getattr(sysctl, one.name), machine.scale))
    return found | {
        "pcid": int(tlb.pcid),
        "nr_asids": tlb.asid_slots if tlb.pcid else 1,
        "nr_leases": options.leases,
        "controlled": int(options.controlled),
        "slice_ns": options.slice_ns,
        "check": int(options.check),
        "states": int(options.states),
        "strict_ipi": int(options.strict_ipi),
        "violations_limit": VIOLATIONS_LIMIT,
        "events_on": int(options.events),
        "promote_enough": round(PROMOTE_ENOUGH_PAGES / machine.scale),
        "user_tasks": sum(len(p.threads) for p in workload.processes),
        "nr_processes": len(workload.processes),
        "lock_spins": LOCK_SPINS,
        "exact_rows": int(workload.exact),
        "zero_page": _zone_starts(machine)[-1],
        "zero_logical": sum(file_sizes(workload).values()),
        "first_anon_logical": sum(file_sizes(workload).values()) + 1,
        "series_ns": SERIES_NS,
        "lufd": int(options.debug_luf),
        "spans_on": int(options.spans),
        "host_cores": machine.host.cores,
        "host_turn_ns": machine.host.turn_ns,
        "base_slice_ns": found["base_slice_ns"] or base_slice_ns(machine.cpus),
        **constants_of(options.schedule),
    }


def _zones(ram: Any, machine: Machine) -> None:
    """Lay nodes and zones out, with watermarks, reserves, distances and demotion targets."""
    starts = _zone_starts(machine)
    for z, zone in enumerate(machine.zones):
        ram.zone_start[z], ram.zone_end[z], ram.zone_node[z] = (
            starts[z],
            starts[z] + zone.usable_pages,
            zone.node,
        )
        ram.zone_reserve[z] = zone.lowmem_reserve
        marks, pcp = machine.watermarks[z], machine.pcp[z]
        ram.wmark_min[z], ram.wmark_low[z], ram.wmark_high[z], ram.wmark_promo[z] = (
            marks.min,
            marks.low,
            marks.high,
            marks.promo,
        )
        ram.pcp_batch[z], ram.pcp_high_min[z], ram.pcp_high_max[z] = pcp.batch, pcp.high_min, pcp.high_max
    slowest_fast = min(node.read_latency_ns for node in machine.nodes)
    ram.zonelist[:] = -1
    ram.cpu_node[:] = machine.cpu_nodes
    for n, node in enumerate(machine.nodes):
        own = [z for z, zone in enumerate(machine.zones) if zone.node == n]
        ram.node_first_zone[n], ram.node_end_zone[n], ram.node_end[n] = (
            own[0],
            own[-1] + 1,
            starts[own[-1] + 1],
        )
        ram.node_latency[n] = int(node.read_latency_ns > slowest_fast)
        slower = [m for m, other in enumerate(machine.nodes) if other.read_latency_ns > node.read_latency_ns]
        near = sorted(slower, key=lambda m: machine.distances[n][m])
        ram.demotion_target[n] = near[0] if near and machine.sysctl.demotion_enabled else -1
        ram.zonelist[n] = machine.zonelist(n)


def _processes(ram: Any, workload: Workload) -> None:
    """Create files, anonymous memory, address spaces, programs and user tasks; queue the main threads."""
    at = {"object": 0, "slot": 0, "row": 0, "section": 0, "chunk": 0, "task": 0}
    files: dict[str, int] = {}
    orders, copied = folio_orders(workload), files_of_copies(workload)
    for name, pages in file_sizes(workload).items():
        files[name] = _new_object(ram, at, OBJECT_FILE, pages)
        ram.object_order[files[name]] = orders[name]
    for p, process in enumerate(workload.processes):
        _address_space(ram, at, files, copied, p, process)
        _programs(ram, at, p, process)
    for p, process in enumerate(workload.processes):
        main = int(ram.proc_first_task[p])
        started = 0 if process.forked else len(process.threads) if process.together else 1
        for task in range(main, main + started):
            enqueue(ram, 0, int(select_cpu(ram, 0, task, 0)), task)
        # nobody clones a worker that has nothing to do: its end would be waited for in vain
        never = [task for task in range(main + started, main + len(process.threads))
                 if ram.task_row[task] == ram.task_end[task]]  # fmt: skip
        ram.task_state[never] = DONE
        ram.run_tasks_left[0] += len(process.threads) - len(never)


def _new_object(ram: Any, at: dict[str, int], kind: int, pages: int) -> int:
    number = at["object"]
    at["object"] += 1
    ram.object_kind[number], ram.object_pages[number] = kind, pages
    if kind == OBJECT_FILE:
        ram.object_logical[number] = ram.object_cache[number] = at["slot"]
        at["slot"] += pages
    return number


def _address_space(
    ram: Any, at: dict[str, int], files: dict[str, int], copied: set[str | None], p: int, process: Process
) -> None:
    """Write down what the regions are and where they lie; make the mm and map them, unless it is a process
    that will be forked.
    """
    mm, vpn = p + 1, FIRST_VPN
    ram.mm_process[mm] = p
    if not process.forked:
        boot_mm(ram, mm)
    for i, region in enumerate(process.regions):
        flags = (
            VM_READ
            | (VM_WRITE if region.writable else 0)
            | (VM_EXEC if region.executable else 0)
            | (VM_SHARED if region.shared else 0)
        )
        if region.file is None:
            flags = (flags | VM_ANON) & ~VM_SHARED
        private = has_private_pages(region, copied)
        ram.proc_region[p, i], ram.proc_flags[p, i] = vpn, flags
        ram.proc_file[p, i] = -1 if region.file is None else files[region.file]
        ram.proc_offset[p, i] = region.file_offset
        ram.proc_anon[p, i] = (
            _new_object(ram, at, OBJECT_ANON, region.pages) if private and not process.forked else -1
        )
        if region.mapped and not process.forked:
            boot_region(ram, mm, i, region.pages)
        vpn = -(-(vpn + region.pages + REGION_ALIGN) // REGION_ALIGN) * REGION_ALIGN


def _programs(ram: Any, at: dict[str, int], p: int, process: Process) -> None:
    """Copy rows and sections; one task per thread."""
    ram.proc_first_task[p], ram.proc_first_section[p] = at["task"], at["section"]
    for index, rows in enumerate(process.threads):
        task = at["task"]
        at["task"] += 1
        ram.task_kind[task], ram.task_mm[task], ram.task_process[task], ram.task_index[task] = (
            TASK_USER,
            p + 1,
            p,
            index,
        )
        ram.task_cpu[task], ram.task_section[task] = -1, -1
        ram.task_pinned[task] = process.cpus[index] if process.cpus else -1
        ram.task_row[task], ram.task_end[task] = at["row"], at["row"] + len(rows)
        _copy_rows(ram, at["row"], rows)
        at["row"] += len(rows)
        draws = rows[rows["op"] == DRAW]
        ram.section_next[at["section"] + draws["page"].astype(np.int64)] = draws["pages"]
    base = at["row"]
    _copy_rows(ram, base, process.chunk_rows)
    at["row"] += len(process.chunk_rows)
    for section in process.sections:
        count = len(section.chunks)
        ram.section_info[at["section"]] = at["chunk"], count
        ram.chunk_rows[at["chunk"] : at["chunk"] + count] = section.chunks + base
        at["section"] += 1
        at["chunk"] += count


def _copy_rows(ram: Any, first: int, rows: np.ndarray) -> None:
    for name in ROW.names or ():
        getattr(ram, f"row_{name}")[first : first + len(rows)] = rows[name]


def _kernel_threads(ram: Any) -> None:
    """One kswapd per node, behind them the design's thread if it has one; all asleep."""
    for task in range(ram.user_tasks, len(ram.task_kind)):
        node = task - ram.user_tasks
        ram.task_kind[task] = TASK_KSWAPD if node < ram.nr_nodes else TASK_DESIGN
        ram.task_index[task], ram.task_cpu[task], ram.task_pinned[task] = node, -1, -1
        if node < ram.nr_nodes:
            ram.kswapd_task[node] = task
