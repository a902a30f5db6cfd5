"""Plant a schedule: let one CPU stop here, let another one do that meanwhile, and see what the oracle says.

    machine = SmallMachine(cpus=2, mms=1, design="luf")
    machine.run(1, cpu=0)                              # both CPUs run threads of process 1
    machine.run(1, cpu=1)
    machine.use(FILE_VPN, 16, cpu=1)                   # cpu1 reads 16 pages of a file
    machine.after_hook("pte_cleared", lambda cpu, mm, vpn, *_: machine.touch(vpn, cpu=1))
    machine.reclaim_file(FILE, cpu=0)                  # cpu0 takes them; cpu1 reads each just then
    machine.violations(), machine.asked()              # what was wrong; who was interrupted

The kernel is the real one, compiled as for a run, but there are no processes: one thread plays all CPUs, one
call at a time. Interrupts are delivered on the spot, on the CPU that they are for, and noted. Any kernel
function can be called as well, `try_to_unmap(machine.ram, cpu, ...)`. What others do in the midst of a call
is planted: before, after or instead of a hook of the design (`before_hook`, `after_hook`, `on_hook`), just
before the targets of an interrupt flush (`on_send`), and while a CPU would have to sleep (`on_wait`; without
it, sleeping is an error). A panic ends the process unless it is asked for (`panic_of`).

Every mm has three regions: a file that is read (FILE_VPN), a shared file that may be written (SHARED_VPN),
and anonymous memory (ANON_VPN). The files are the same in all mms. Left out: time that passes by itself
(clocks move by what CPUs do, `scan` moves them on), kernel threads (`scan` is what kswapd would do).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from allocator.boot import boot_cpus, boot_mm, boot_region, boot_zero_page, boot_zones
from allocator.hooks import HOOKS, nothing
from allocator.kswapd import ASLEEP
from allocator.lru import LRU_ACTIVE_FILE, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE, lru_add_drain
from allocator.page_cache import OBJECT_ANON, OBJECT_FILE
from allocator.panic import panic_text
from allocator.sched import TASK_KSWAPD
from allocator.shrink_lruvec import inactive_is_low
from allocator.tlb_flush import TRACE_PAGES, enter_lazy_tlb, switch_mm
from allocator.vma import VM_ANON, VM_EXEC, VM_READ, VM_SHARED, VM_WRITE
from allocator.vmscan import BY_KSWAPD, shrink_active_list, shrink_inactive_list
from cpus.abi.numbers import LOAD, STORE
from cpus.access import visit_pages
from cpus.compiled import call, install_python, kernel, python_text
from cpus.cpumask import cpus_of
from cpus.install import install, install_at
from cpus.ipi import serve_interrupts
from cpus.layout import Sizes
from cpus.lease import RUNNING, WAITS
from cpus.looks import invalidate_all, read_pte
from cpus.oracle import VERSION_BITS, VIOLATIONS
from cpus.segment import build_ram
from designs import Design
from designs import design as design_named
from designs.memory_map import MACHINE

FILE_VPN, SHARED_VPN, ANON_VPN = 0x10000, 0x20000, 0x30000
FILE, SHARED = 0, 1  # objects; anonymous memory of mm is object 1 + mm
NEVER = 1 << 50
LATER = 1_000_000_000  # ns: reads under way are done by then
GEOMETRY = {"dtlb": (24, 6), "store": (16, 16), "itlb": (64, 8), "stlb": (256, 16)}  # entries, ways
COSTS = {
    "fault_entry": 500,
    "fault_minor": 500,
    "page_zero": 300,
    "disk_latency": 80_000,
    "disk_page": 1_000,
    "walk": 15,
}


@kernel
def enter(ram, number, a, b, c, d, e):
    """Call an entry of the text table."""
    return call(ram, number, a, b, c, d, e)


def nobody(*_: int) -> None:
    """Nobody does anything at a hook."""


def _text_of(hook: str) -> str:
    """Give the name of a hook in the text table. Raises ValueError for one that there is not."""
    if hook not in HOOKS:
        raise ValueError(f"'hook' must be one of {', '.join(HOOKS)} (got {hook!r})")
    return HOOKS[hook].name


class SmallMachine:
    """RAM (`ram`), booted, and what one needs to play with it.

    `pages` of each zone, so many `cpus` and address spaces (`mms`, numbered from 1), `region` pages in each
    region; `design` is a name of the shelf or a Design. `constants` are words of the RAM's header by name.
    """

    def __init__(
        self, *, pages: tuple[int, ...] = (512,), cpus: int = 2, mms: int = 2, region: int = 256,
        design: str | Design = "linux", marks: tuple[int, int, int] = (16, 24, 32), demotion: bool = False,
        node_of: tuple[int, ...] = (), debug_luf: bool = False, **constants: int,
    ):  # fmt: skip
        starts = np.cumsum([0, *(-(-n // 1024) * 1024 for n in pages)])
        # zone -> node; usually each node is one zone
        zones, node_of = len(pages), node_of or tuple(range(len(pages)))
        nodes, logical, frames = node_of[-1] + 1, region * 2, int(starts[-1]) + 1
        sizes = Sizes(
            nr_cpus=cpus, nr_nodes=nodes, nr_zones=zones, nr_frames=frames, nr_mms=mms + 1,
            nr_tasks=cpus + nodes + 1, nr_vmas=16 * mms, nr_objects=2 + mms, nr_cache_slots=2 * region,
            nr_logical=logical + 1 + 2 * frames + 1, nr_anon_logical=2 * frames, nr_rows=1, nr_sections=1,
            nr_chunks=1, nr_lufd_frames=frames if debug_luf else 1,
            tlb_entries=sum(n for n, _ in GEOMETRY.values()), series_length=8,
        )  # fmt: skip
        usual = {
            "nr_leases": 0, "slice_ns": NEVER, "check": 1, "states": 1, "pcid": 1, "nr_asids": 6,
            "flush_ceiling": 33, "base_slice_ns": 3_000_000, "readahead_pages": 32, "fault_around_pages": 16,
            "swappiness": 60, "promote_enough": 0, "lock_spins": 4,
            "scan_pages": 64, "zero_page": frames - 1, "zero_logical": logical,
            "first_anon_logical": logical + 1, "promote_limit": 1000, "hot_threshold_ns": 1_000_000_000,
            "events_on": 1, "lufd": int(debug_luf),
        }  # fmt: skip
        at = 0
        for name, (entries, ways) in GEOMETRY.items():
            usual |= {f"{name}_sets": entries // ways, f"{name}_ways": ways, f"{name}_base": at}
            at += entries
        self.design = design_named(design) if isinstance(design, str) else design
        self.hooks = (*self.design.hooks, *(self.design.debug_hooks if debug_luf else ()))
        self.ram = ram = build_ram(MACHINE, sizes, usual | constants, self.design.fields(sizes))
        for name, value in COSTS.items():
            ram.set_constant(f"cost_{name}", value)
        self.interrupts: list[tuple[int, list[int]]] = []  # (sender, targets) of every broadcast
        self.panics: list[str] = []
        self.on_wait: Callable[[int], None] | None = None
        self.on_send: Callable[[int, list[int]], None] | None = None  # just before the targets flush
        self._install()
        for zone, count in enumerate(pages):
            node = node_of[zone]
            ram.zone_start[zone], ram.zone_end[zone] = starts[zone], starts[zone] + count
            ram.wmark_min[zone], ram.wmark_low[zone], ram.wmark_high[zone], ram.wmark_promo[zone] = (
                *marks,
                marks[2] * 2,
            )
            ram.pcp_batch[zone], ram.pcp_high_min[zone], ram.pcp_high_max[zone] = 8, 32, 32
            ram.zone_node[zone], ram.node_end_zone[node], ram.node_end[node] = (
                node,
                zone + 1,
                starts[zone + 1],
            )
        for node in range(nodes):
            ram.node_first_zone[node], ram.node_latency[node] = node_of.index(node), int(node > 0)
            ram.demotion_target[node] = node + 1 if demotion and node + 1 < nodes else -1
            ram.zonelist[node] = sorted(range(zones), key=lambda zone: (abs(node_of[zone] - node), -zone))
            ram.task_kind[cpus + node], ram.task_index[cpus + node], ram.kswapd_task[node] = (
                TASK_KSWAPD,
                node,
                cpus + node,
            )
        ram.task_pinned[:], ram.task_cpu[:], ram.cpu_slice_end[:], ram.cpu_state[:] = -1, -1, NEVER, RUNNING
        ram.poll_set[:] = -1  # nobody is roused: every write to an eventfd fails
        boot_zones(ram)
        boot_zero_page(ram, ram.zero_page, ram.zero_logical)
        boot_cpus(ram)
        self.design.prepare(ram)
        ram.cpu_task[:] = range(cpus)
        self._spaces(mms, region)

    def _install(self) -> None:
        ram = self.ram
        for hook in HOOKS.values():
            install_at(ram, hook, nothing)
        install(ram, (*MACHINE.entries, *self.hooks))
        self._shell = [
            install_python(ram, "shell_wait", self._wait),
            install_python(ram, "shell_send", self._send),
            install_python(ram, "shell_receive", lambda *_: 0),
            install_python(ram, "shell_panic", self._panic),
        ]

    def _spaces(self, mms: int, region: int) -> None:
        ram = self.ram
        for object in range(2 + mms):
            ram.object_kind[object] = OBJECT_FILE if object <= SHARED else OBJECT_ANON
            ram.object_pages[object] = region
            ram.object_logical[object] = ram.object_cache[object] = object * region if object <= SHARED else 0
        for mm in range(1, mms + 1):
            process = ram.mm_process[mm] = mm - 1
            boot_mm(ram, mm)
            for i, (vpn, object, flags) in enumerate((
                (FILE_VPN, FILE, VM_READ),
                (SHARED_VPN, SHARED, VM_READ | VM_WRITE | VM_SHARED),
                (ANON_VPN, 1 + mm, VM_READ | VM_WRITE | VM_ANON),
            )):  # fmt: skip
                ram.proc_region[process, i], ram.proc_flags[process, i] = vpn, flags
                ram.proc_file[process, i], ram.proc_anon[process, i] = (
                    (object, -1) if object <= SHARED else (-1, object)
                )
                boot_region(ram, mm, i, region)

    # -- the shell -------------------------------------------------------------------------------------------

    def _wait(self, cpu: int, *_: int) -> int:
        if self.on_wait is None:
            kind, object = int(self.ram.cpu_wait_kind[cpu]), int(self.ram.cpu_wait_object[cpu])
            sys.stderr.write(
                f"cpu{cpu} sleeps for {WAITS[kind]} {object:#x}, and nobody is there to wake it\n"
            )
            os._exit(86)  # it would spin for ever
        self.on_wait(cpu)
        self.ram.cpu_state[cpu] = RUNNING
        return 0

    def _send(self, cpu: int, *_: int) -> int:
        targets = cpus_of(self.ram.call_mask[cpu])
        self.interrupts.append((cpu, targets))
        if self.on_send:
            self.on_send(cpu, targets)
        for target in targets:
            serve_interrupts(self.ram, target)
        return 0

    def _panic(self, _cpu: int, code: int, a: int, b: int) -> int:
        self.panics.append(panic_text(code, a, b))
        return 0

    def on_hook(self, name: str, function: Callable[..., Any]) -> None:
        """Have `function(cpu, a, b, c, d)` called at a hook of the design, instead of the design: what others
        do at that moment.
        """

        def answer(*args: int) -> int:
            return int(function(*args) or 0)

        self._shell.append(install_python(self.ram, _text_of(name), answer))

    def before_hook(self, name: str, function: Callable[..., Any]) -> None:
        """Have `function(cpu, a, b, c, d)` called when a hook is reached, before the design's own answer."""
        self._around_hook(name, before=function)

    def after_hook(self, name: str, function: Callable[..., Any]) -> None:
        """Have `function(cpu, a, b, c, d)` called after the design's own answer: what others do before its
        caller goes on.
        """
        self._around_hook(name, after=function)

    def _around_hook(
        self, name: str, before: Callable[..., Any] = nobody, after: Callable[..., Any] = nobody
    ) -> None:
        """What is planted is not called for what it does itself."""
        number = MACHINE.text[_text_of(name)]

        def there() -> tuple[int, Any]:
            return int(self.ram.text[number]), python_text.get(number)

        def put(address: int, function: Any) -> None:
            self.ram.text[number], python_text[number] = address, function

        def answer(*args: int) -> int:
            put(*own)
            before(*args)
            result = int(enter(self.ram, number, *args))
            after(*args)
            put(*planted)
            return result

        own = there()
        self._shell.append(install_python(self.ram, _text_of(name), answer))
        planted = there()

    def panic_of(self, function: Callable[..., Any], *args: Any) -> str:
        """Call in a child process what must panic; returns the sentence. The machine is not fit for anything
        else then.
        """
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:

            def leave(_cpu, code, a, b):
                os.write(writer, panic_text(code, a, b).encode())
                os._exit(0)

            self._shell.append(install_python(self.ram, "shell_panic", leave))
            function(self.ram, *args)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        return said

    # -- what CPUs do ----------------------------------------------------------------------------------------

    def run(self, mm: int, cpu: int = 0) -> None:
        """Have a CPU, and its task, run in an address space."""
        self.ram.task_mm[self.ram.cpu_task[cpu]] = mm
        switch_mm(self.ram, cpu, mm)

    def idle(self, cpu: int) -> None:
        """Have a CPU keep its address space lazily, as in idle."""
        enter_lazy_tlb(self.ram, cpu)

    def touch(self, vpn: int, kind: int = LOAD, *, pages: int = 1, cpu: int = 0) -> int:
        """Access pages through the TLB, waiting for the disk where needed; returns how often it waited."""
        done, waits = 0, 0
        while done < pages:
            done = int(visit_pages(self.ram, cpu, kind, vpn, pages, 1, done))
            if done < 0:
                done, waits = -1 - done, waits + 1
                self.ram.cpu_clock[cpu] = self.ram.task_wait_ns[self.ram.cpu_task[cpu]]
        return waits

    def use(self, vpn: int, pages: int, kind: int = LOAD, cpu: int = 0) -> None:
        """Access pages with an empty TLB, so that their accessed bits are set; they reach their LRU list."""
        self.forget_tlb(cpu)
        self.touch(vpn, kind, pages=pages, cpu=cpu)
        lru_add_drain(self.ram, cpu)

    def scan(self, pages: int, which: int = LRU_INACTIVE_FILE, node: int = 0, cpu: int = 0) -> int:
        """Look at pages from the old end of a list, all reads done; returns how many were reclaimed."""
        self.ram.cpu_clock[:] = int(self.ram.cpu_clock.max()) + LATER
        reclaimed = 0
        while pages > 0:
            self.ram.sc_by[cpu], self.ram.sc_batch[cpu], self.ram.sc_flags[cpu] = BY_KSWAPD, min(pages, 32), 0
            if which in (LRU_INACTIVE_FILE, LRU_INACTIVE_ANON):
                reclaimed += int(shrink_inactive_list(self.ram, cpu, cpu, node, which))
            elif inactive_is_low(self.ram, node, which - 1):
                shrink_active_list(self.ram, cpu, cpu, node, which)
            pages -= 32
        return reclaimed

    def reclaim_file(self, object: int, cpu: int = 0) -> None:
        """Reclaim on a CPU until no page of a file is cached."""
        for _ in range(60):
            if not self.cached_pages(object):
                return
            self.scan(32, LRU_ACTIVE_FILE, cpu=cpu)
            self.scan(32, cpu=cpu)
        raise AssertionError(f"pages {self.cached_pages(object)} of object {object} cannot be reclaimed")

    def forget_wakeups(self) -> None:
        """Nobody runs kswapd here: let it never have been woken."""
        self.ram.kswapd_state[:] = ASLEEP
        for name in ("queue_count", "queue_first", "queue_last"):
            getattr(self.ram, name)[:] = 0

    def enter(self, name: str, cpu: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
        """Call an entry of the text table by name."""
        return int(enter(self.ram, MACHINE.text[name], cpu, a, b, c, d))

    # -- looking ---------------------------------------------------------------------------------------------

    def pte(self, mm: int, vpn: int) -> int:
        """Give a PTE, 0 if there is none."""
        return int(read_pte(self.ram, int(self.ram.mm_pgd[mm]), vpn))

    def pfn(self, mm: int, vpn: int) -> int:
        """Give the frame that a PTE names."""
        return self.pte(mm, vpn) >> 12

    def cached(self, object: int, index: int) -> int:
        """Give the frame that caches a page of a file, -1 if none does."""
        return max(int(self.ram.cache_slot[self.ram.object_cache[object] + index]) - 1, -1)

    def cached_pages(self, object: int) -> list[int]:
        """Give the pages of a file that are cached."""
        return [
            index for index in range(int(self.ram.object_pages[object])) if self.cached(object, index) >= 0
        ]

    def content(self, pfn: int) -> tuple[int, int]:
        """Give (logical page, version) of a frame."""
        word = int(self.ram.content[pfn])
        return word >> VERSION_BITS, word & ((1 << VERSION_BITS) - 1)

    def violations(self) -> list[str]:
        """Name what the oracle has seen so far, in order."""
        return [VIOLATIONS[int(self.ram.violation[i, 0])] for i in range(int(self.ram.run_violations[0]))]

    def count(self, name: str) -> int:
        """Give a counter, summed over all CPUs."""
        return int(getattr(self.ram, name).sum())

    def events(self, reason: int) -> dict[int, int]:
        """Give pages -> number of the tlb:tlb_flush events of a reason, over all CPUs (ALL_PAGES: full
        flushes).
        """
        counts = self.ram.tlb_flush_count.sum(axis=0)[reason * TRACE_PAGES : (reason + 1) * TRACE_PAGES]
        return {pages: int(counts[pages]) for pages in np.flatnonzero(counts).tolist()}

    def frame_of(self, vpn: int, mm: int = 1) -> int:
        """Store to a page of the process on CPU 0 and give its frame."""
        self.touch(vpn, STORE)
        return self.pfn(mm, vpn)

    def asked(self) -> list[list[int]]:
        """Give the targets of all broadcasts since the last look."""
        found, self.interrupts = [targets for _, targets in self.interrupts], []
        return found

    def flags(self, pfn: int) -> int:
        """Give the flags of a frame."""
        return int(self.ram.page_flags[pfn])

    def forget_tlb(self, cpu: int = 0) -> None:
        """Empty the TLB of a CPU, so that its next accesses walk and leave accessed bits."""
        invalidate_all(self.ram, cpu)

    def make_code(self, mm: int) -> None:
        """Let an mm map the read-only file executable."""
        self.ram.vma_flags[3 * (mm - 1)] |= VM_EXEC
