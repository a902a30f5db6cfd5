"""What one page visit costs, beside the same algorithm in C.

The C twin (access_twin.c) is built with gcc -O2 when the benchmark runs and works on the very same shared
memory; the two take turns on the same visits, and must agree on every counter, on the clock and on every word
of the TLB. Without gcc, only our own figures are given. The CPU time of the best turn counts: other programs
on the machine can only make a turn slower.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpus import tlb
from cpus.abi.numbers import IFETCH, LOAD, STORE
from cpus.access import visit_pages
from cpus.compiled import kernel
from cpus.layout import Sizes
from cpus.oracle import VERSION_BITS, VERSION_MASK
from cpus.page_table import PTE_ACCESSED, PTE_DIRTY, PTE_PRESENT, PTE_WRITE
from cpus.segment import build_ram
from designs.memory_map import MACHINE

TWIN = Path(__file__).with_name("access_twin.c")
FIRST_VPN = 1 << 30  # where the pages are mapped
GOLDEN_COVE = {"dtlb": (96, 6), "store": (16, 16), "itlb": (256, 8), "stlb": (2048, 16)}  # entries, ways
COSTS = {"access_tenths": 5, "line_dram_tenths": 53, "line_cxl_tenths": 106, "stlb_hit": 3, "walk": 15}
NEVER = 1 << 50
SEED = 1


@kernel
def run_rows(ram, cpu, vpn, first, last):
    """Visit what rows first..last-1 say, as the user part of a CPU's loop does."""
    for r in range(first, last):
        visit_pages(ram, cpu, ram.row_kind[r], vpn + ram.row_page[r], ram.row_pages[r], ram.row_count[r], 0)


@dataclass(frozen=True)
class Case:
    """Rows to run: `pages` of each row are visited in order from `page` on."""

    name: str
    page: np.ndarray
    kind: int | np.ndarray = LOAD
    pages: int = 1
    count: int = 100
    check: bool = True

    @property
    def visits(self) -> int:
        return len(self.page) * self.pages


def build_machine(mapped: int, rows: int) -> Any:
    """Give RAM with one CPU and `mapped` pages mapped one to one, clean and writable."""
    tables = mapped // 512 + mapped // 512**2 + 8
    sizes = Sizes(
        nr_cpus=1, nr_nodes=2, nr_zones=2, nr_frames=mapped + tables, nr_mms=2, nr_tasks=1, nr_vmas=1,
        nr_objects=1, nr_cache_slots=1, nr_logical=mapped, nr_rows=rows, nr_sections=1, nr_chunks=1,
        tlb_entries=sum(entries for entries, _ in GOLDEN_COVE.values()), series_length=1,
    )  # fmt: skip
    constants, base = {"nr_asids": 6, "check": 1, "first_anon_logical": mapped}, 0
    for name, (entries, ways) in GOLDEN_COVE.items():
        constants |= {f"{name}_sets": entries // ways, f"{name}_ways": ways, f"{name}_base": base}
        base += entries
    ram = build_ram(MACHINE, sizes, constants)
    for name, value in COSTS.items():
        ram.set_constant(f"cost_{name}", value)
    # 30 % of the pages in DRAM, as on the talk's machine
    ram.node_end[:] = mapped * 30 // 100, mapped + tables
    ram.cpu_slice_end[0] = NEVER
    ram.mm_pgd[0] = _map(ram, mapped)
    return ram


def _map(ram: Any, mapped: int) -> int:
    """Write the page table of FIRST_VPN .. into the frames behind the mapped ones; returns the top table's
    frame.
    """
    pfns = np.arange(mapped)
    entries = pfns << 12 | PTE_PRESENT | PTE_WRITE
    first, at = FIRST_VPN, mapped
    while True:
        count = -(-(first % 512 + len(entries)) // 512)
        words = np.zeros(count * 512, np.int64)
        words[first % 512 : first % 512 + len(entries)] = entries
        ram.frame_word[at : at + count] = words.reshape(count, 512)
        if count == 1 and first < 512:
            return at
        entries = (np.arange(at, at + count) << 12) | PTE_PRESENT | PTE_WRITE
        first, at = first // 512, at + count


def reset(ram: Any, mapped: int, case: Case) -> None:
    """Put everything back that a run changes, and load the case's rows."""
    leaf_tables = ram.frame_word[mapped : mapped + -(-mapped // 512)]
    np.bitwise_and(leaf_tables, ~(PTE_ACCESSED | PTE_DIRTY), out=leaf_tables)
    ram.content[:mapped] = np.arange(mapped) << VERSION_BITS
    for name in (
        "version",
        "counter",
        "tlb_tag",
        "tlb_value",
        "tlb_logical",
        "tlb_age",
        "tlb_filled_ns",
        "run_violations",
    ):
        getattr(ram, name)[:] = 0
    for name in ("cpu_clock", "cpu_tenths", "cpu_visit_stamp"):
        getattr(ram, name)[0] = 0
    ram.cpu_context[0] = ram.asid_context[0, 0] = 1
    ram.set_constant("check", case.check)
    n = len(case.page)
    ram.row_page[:n], ram.row_kind[:n], ram.row_pages[:n], ram.row_count[:n] = (
        case.page,
        case.kind,
        case.pages,
        case.count,
    )


def result_of(ram: Any) -> tuple[bytes, ...]:
    """Give everything that both programs must agree on."""
    names = (
        "counter",
        "cpu_clock",
        "cpu_tenths",
        "run_violations",
        "tlb_tag",
        "tlb_value",
        "tlb_logical",
        "tlb_age",
        "tlb_filled_ns",
    )
    return tuple(getattr(ram, name).tobytes() for name in names)


def build_twin() -> Callable[..., None] | None:
    """Compile the C twin for this layout; None where there is no gcc."""
    if not shutil.which("gcc"):
        return None
    names = {
        "CONTEXT_BITS": tlb.CONTEXT_BITS, "VALUE_SHIFT": tlb.VALUE_SHIFT, "VERSION_BITS": VERSION_BITS,
        "VERSION_MASK": f"{VERSION_MASK}L",
    }  # fmt: skip
    for field, place in MACHINE.places.items():
        names |= {
            f"{field}_SLOT": place.slot,
            f"{field}_STRIDE": place.stride,
            f"{field}_OFFSET": place.offset,
        }
    defines = "".join(f"#define {name} {value}\n" for name, value in names.items())
    with tempfile.TemporaryDirectory(prefix="luf-twin-") as folder:
        library = f"{folder}/twin.so"
        command = [
            "gcc",
            "-O2",
            "-march=native",
            "-shared",
            "-fPIC",
            "-Wall",
            "-include",
            f"{folder}/layout.h",
            "-o",
            library,
            str(TWIN),
        ]
        Path(folder, "layout.h").write_text(defines, encoding="utf-8")
        subprocess.run(command, check=True)
        function = ctypes.CDLL(library).run_rows
    function.argtypes = [ctypes.c_void_p] + [ctypes.c_int64] * 4
    function.restype = None
    return function


def cases(mapped: int, visits: int) -> list[Case]:
    """Give the visits to measure: each isolates one path through the TLBs, the last ones mix them."""
    random = np.random.default_rng(SEED)
    ranks = random.zipf(1.2, 3 * visits) - 1
    zipf = random.permutation(mapped)[ranks[ranks < mapped][:visits]]
    mix = random.choice([LOAD, STORE, IFETCH], len(zipf), p=[0.7, 0.2, 0.1])
    # a cycle: the first level, being LRU, never has the next one
    in_second_level = np.resize(random.permutation(1024), visits)
    another = random.integers(0, 64, visits)
    anywhere = random.integers(0, mapped, visits)
    sequential = np.resize(np.arange(0, mapped, 64), visits // 64)
    return [
        Case("L1 hit, one page again and again", np.zeros(visits, np.int64)),
        Case("L1 hit, another page each", another),
        Case("L1 hit, another page each, oracle off", another, check=False),
        Case("L1 hit, rows of 64 pages", np.zeros(visits // 64, np.int64), pages=64),
        Case("L1 hit, rows of 64 pages, oracle off", np.zeros(visits // 64, np.int64), pages=64, check=False),
        Case("L1 miss, STLB hit", in_second_level),
        Case("L1 miss, STLB hit, oracle off", in_second_level, check=False),
        Case("L1 miss, STLB hit, rows of 1024 pages", np.zeros(visits // 1024, np.int64), pages=1024),
        Case("walk, rows of 64 pages in sequence", sequential, pages=64),
        Case("walk, pages at random", anywhere),
        Case("walk, pages at random, oracle off", anywhere, check=False),
        Case("store, L1 hit", random.integers(0, 16, visits), STORE),
        Case("store, zipf", zipf, STORE),
        Case("zipf, loads, stores, fetches", zipf, mix),
        Case("zipf, the same, oracle off", zipf, mix, check=False),
    ]


def measure(ram: Any, mapped: int, case: Case, twin: Callable[..., None] | None, turns: int) -> dict:
    """Time one case, ours and the twin taking turns; raises ValueError if they disagree."""

    def ours():
        run_rows(ram, 0, FIRST_VPN, 0, len(case.page))

    def theirs():
        twin(ram._base, 0, FIRST_VPN, 0, len(case.page))

    best: dict[Callable, float] = {}
    results = {}
    for _ in range(turns):
        for program in (ours, theirs) if twin else (ours,):
            reset(ram, mapped, case)
            began = time.thread_time_ns()
            program()
            best[program] = min(best.get(program, NEVER), time.thread_time_ns() - began)
            results[program] = result_of(ram)
    if ram.run_violations[0] or int(ram.page_visits[0]) != case.visits:
        raise ValueError(
            f"'{case.name}' must end without violation (got {ram.run_violations[0]}) "
            f"after {case.visits} visits"
        )
    if twin and results[ours] != results[theirs]:
        raise ValueError(f"'{case.name}' must give the same counters, clock and TLB in C (it does not)")
    ns = best[ours] / case.visits
    row = {
        "case": case.name,
        "visits": case.visits,
        "ns_per_visit": round(ns, 2),
        "million_visits_per_second": round(1000 / ns, 1),
    }
    if twin:
        c_ns = best[theirs] / case.visits
        row |= {"c_ns_per_visit": round(c_ns, 2), "speed_of_c": round(c_ns / ns, 2)}
    counted = ("dtlb_load_misses", "dtlb_store_misses", "itlb_load_misses", "stlb_hits")
    return (
        row | {name: int(getattr(ram, name)[0]) for name in counted} | {"virtual_ns": int(ram.cpu_clock[0])}
    )


def run(quick: bool) -> list[dict]:
    """Measure all cases; one dict each. `speed_of_c` is the share of the C twin's speed: 1 is as fast."""
    mapped, visits, turns = (1 << 17, 1 << 16, 5) if quick else (1 << 20, 1 << 18, 21)
    twin = build_twin()
    note = {} if twin else {"note": "no gcc here: not compared with C"}
    ram = build_machine(mapped, visits)
    try:
        return [
            {"benchmark": "access", **measure(ram, mapped, case, twin, turns), **note}
            for case in cases(mapped, visits)
        ]
    finally:
        ram.close()
