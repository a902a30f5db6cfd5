"""Random small programs as rows, of the kinds that no script can make: workers that are cloned and joined,
barriers, chunks of sections, evaluations.

Main goes through rounds. In each it clones workers and all of them meet at barriers or draw from a section;
between rounds it unmaps and maps. Left out: what scripts can make (random_programs.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from tests.support.program import Program
from tests.support.random_programs import machine
from workloads import rows as p
from workloads.rows import Process, Region, Section, Workload
from workloads.rules.whole import validate

Row = tuple[int, ...]
REGIONS = (
    Region("heap", 48, writable=True),
    Region("view", 64, file="data"),
    Region("shared", 32, file="data", writable=True, shared=True),
    Region("gap", 24, writable=True),
)
GAP = 3  # the region that main unmaps and maps again, and nobody visits


@dataclass(frozen=True, slots=True)
class RowProgram(Program):
    """A program of one process, as rows."""

    process: Process | None = None

    def workload(self) -> Workload:
        """Give the workload, checked."""
        assert self.process is not None
        workload = Workload("rows", (self.process,), exact=True)
        validate(workload)
        return workload

    def keep(self, folder: Path, name: str, design: str) -> str:
        """Write the machine and the rows; returns what they are. No file that `luf run` reads has rows."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}-machine.toml").write_text(self.machine_toml(), encoding="utf-8")
        (folder / f"{name}.txt").write_text(self.workload_toml(), encoding="utf-8")
        return f"{folder / name}.txt: rows of a Process, {design}, leases {self.leases}, seed {self.seed}"

    def workload_toml(self) -> str:
        """Give the rows as text."""
        assert self.process is not None
        threads = [[tuple(map(int, row)) for row in rows] for rows in self.process.threads]
        chunks = [tuple(map(int, row)) for row in self.process.chunk_rows]
        sections = [section.chunks.tolist() for section in self.process.sections]
        return f"threads = {threads}\nchunk_rows = {chunks}\nsections = {sections}\n"


def _visits(rng: Random, most: int) -> list[Row]:
    """Visits, and calls that any thread may make."""
    made: list[Row] = []
    for _ in range(rng.randint(0, most)):
        region = rng.randint(0, GAP - 1)
        first = rng.randint(0, REGIONS[region].pages - 1)
        pages = rng.randint(1, REGIONS[region].pages - first)
        op = rng.choice([p.VISIT, p.VISIT, p.VISIT, p.DONTNEED, p.POPULATE])
        kind = rng.choice([p.LOAD, p.STORE]) if op == p.VISIT else 0
        if kind == p.STORE and not REGIONS[region].writable:
            kind = p.LOAD
        made.append((op, kind, region, pages, rng.randint(1, 3) if op == p.VISIT else 0, first))
    return made


def _round(
    rng: Random, threads: list[list[Row]], numbers: dict[str, int], chunks: list[Row]
) -> list[Section]:
    """What happens between two JOINs; `numbers` are those of the next barrier and section."""
    main, sections = threads[0], []
    workers = [w for w in range(1, len(threads)) if rng.random() < 0.5]
    parties = len(workers) + 1
    main += _visits(rng, 2)
    main += [p.control(p.CLONE, worker) for worker in workers]
    for worker in (0, *workers):
        threads[worker] += _visits(rng, 3)
    if rng.random() < 0.5:
        for worker in (0, *workers):
            spun = rng.randint(0, GAP - 1)
            barrier = p.control(p.BARRIER, numbers["barrier"], parties, region=spun)
            threads[worker] += [barrier, *_visits(rng, 2)]
        numbers["barrier"] += rng.randint(1, 2)
    if rng.random() < 0.5:
        made = []
        for _ in range(parties + rng.randint(0, 3)):
            first = len(chunks)
            chunks += [row for row in _visits(rng, 3) if row[0] == p.VISIT]
            made.append((first, len(chunks)))
        sections.append(Section(np.array(made, np.int64)))
        for own, worker in enumerate((0, *workers)):
            threads[worker].append(p.control(p.DRAW, numbers["section"], parties, own))
        numbers["section"] += 1
    for worker in workers:
        threads[worker].append(p.control(p.EXIT))
    if workers:
        main.append(p.control(p.JOIN, 0, parties - 1))
    return sections


def random_rows(rng: Random) -> RowProgram:
    """Programs of one process whose main thread clones up to three workers."""
    like, cpus, changes, _ = machine(rng)
    threads: list[list[Row]] = [[] for _ in range(rng.randint(1, 4))]
    numbers, chunks, sections = {"barrier": 0, "section": 0}, [], []
    for number in range(rng.randint(1, 3)):
        if rng.random() < 0.5:
            threads[0].append(p.control(p.MARK, number))
        sections += _round(rng, threads, numbers, chunks)
        first = rng.randint(0, REGIONS[GAP].pages - 1)
        pages = rng.randint(1, REGIONS[GAP].pages - first)
        gap = [(op, 0, GAP, pages, 0, first) for op in (p.MUNMAP, p.MMAP)]
        store = (p.VISIT, p.STORE, GAP, REGIONS[GAP].pages, 1, 0)
        threads[0] += [store, gap[0], *_visits(rng, 1), gap[1], store] if rng.random() < 0.5 else [store]
    process = Process(
        "rows",
        REGIONS,
        tuple(np.array(rows, p.ROW) for rows in threads),
        chunk_rows=np.array(chunks, p.ROW),
        sections=tuple(sections),
    )
    leases = 1 if rng.randint(0, 3) else 2
    return RowProgram((), like, cpus, changes, leases, rng.randint(1, 1000), process)
