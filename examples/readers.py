"""Page-cache readers: a workload of your own.

Covers:
- Rows of a program: what each thread visits, and how main starts its workers and waits for them
- Running two designs on the same machine, in controlled mode (one lease: the same figures every time)

Scenario:
  Four threads of one process read a file of 94 MiB twice, each from another place on, on a machine with 48
  MiB. Whatever one of them brings in, the kernel must soon take away again while the others still have the
  process's page tables loaded. Every page is read-only, so LUF may put the flushes off until the frames are
  allocated again.
"""

import numpy as np

from emulator import load_machine, run_design
from workloads import validate
from workloads.rows import CLONE, EXIT, JOIN, LOAD, ROW, Process, Region, Workload, control, visit

THREADS = 4
FILE_PAGES = 24_000  # of 4 KiB
SWEEPS = 2
READS_PER_PAGE = 64  # one for each cache line
FILE = 0  # number of the region that rows name


def sweeps(first: int) -> list[tuple]:
    """Rows that read the file from page `first` to its end and on from its beginning."""
    rest = visit(LOAD, FILE, first, FILE_PAGES - first, READS_PER_PAGE)
    start = visit(LOAD, FILE, 0, first, READS_PER_PAGE)
    return SWEEPS * ([rest, start] if first else [rest])


def readers() -> Workload:
    """One process, four threads; main (thread 0) starts the others and waits for them."""
    quarter = FILE_PAGES // THREADS
    clones = [control(CLONE, worker) for worker in range(1, THREADS)]
    main = [*clones, *sweeps(0), control(JOIN, pages=THREADS - 1)]
    workers = [[*sweeps(k * quarter), control(EXIT)] for k in range(1, THREADS)]
    threads = tuple(np.array(rows, ROW) for rows in [main, *workers])
    process = Process("reader", (Region("file", FILE_PAGES, file="data"),), threads)
    workload = Workload("readers", (process,), "four threads read a file")
    validate(workload)  # says which row of which thread breaks a rule
    return workload


machine = load_machine("guest-8cpu", scale=16)
for design in ("linux", "luf"):
    run = run_design(design, machine, readers(), leases=1, seed=1)
    sites = ", ".join(f"{site} {count:,}" for site, count in run.flush_sites.items())
    print(f"{run.design:<6} {run.tlb_shootdowns:>7,} TLB shootdowns ({sites})")
    reclaimed = f"{run.vmstat['pgsteal_file']:>7,} pages reclaimed"
    print(f"       {reclaimed}, {run.dtlb_load_misses:,} dTLB load misses, clean: {run.clean}")
