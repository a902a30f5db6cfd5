"""The experiments of the papers that are small enough to be written down: micro-benchmarks as scripts, and
the machines they ran on.

Each gives a `Script` whose first thread notes "begin" and "end" around what is measured
(emulator/snapshots.py). What a paper does on all CPUs at once is done by all threads; they meet before and
after. Sizes are ours: enough repetitions that the start does not show. Left out: the papers' own programs and
inputs (Apache, PARSEC, RocksDB); what stands for those is a workload of the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from workloads.calls import Calls
from workloads.rows import Region
from workloads.script import Script

FILE_RAMS = 10  # lru-file-mmap-read reads files of ten times the memory


def _cpus(count: int) -> list[int]:
    return list(range(count))


def touch_and_drop(threads: int, times: int) -> Script:
    """One thread touches a page and drops it (MADV_DONTNEED), over and over; the others spin in the same
    address space.
    """

    def initiator(t: Calls) -> Iterator[Any]:
        yield t.store("page")
        yield t.meet("ready", threads)
        yield t.snapshot("begin")
        for _ in range(times):
            yield t.store("page", 0, 1)
            yield t.madvise("page", "MADV_DONTNEED", 0, 1)
        yield t.snapshot("end")
        yield t.post("over")

    def spinner(t: Calls) -> Iterator[Any]:
        yield t.load("page")
        yield t.meet("ready", threads)
        yield t.spin("over")

    script = Script("touch-and-drop", regions=[Region("page", 2, writable=True)])
    return script.process("main", [initiator, *[spinner] * (threads - 1)], cpus=_cpus(threads))


def tlb_flush2(threads: int, pages: int) -> Script:
    """will-it-scale's tlb_flush2: every thread touches, drops and reads each page of its own memory.

    The program maps 1 MiB anew for each round; here each thread has one round, of `pages`.
    """

    def worker(first: int) -> Callable[[Calls], Iterator[Any]]:
        def run(t: Calls) -> Iterator[Any]:
            yield t.meet("ready", threads)
            if first == 0:
                yield t.snapshot("begin")
            for page in range(first, first + pages):
                yield t.store("memory", page, 1)
                yield t.madvise("memory", "MADV_DONTNEED", page, 1)
                yield t.load("memory", page, 1)
            yield t.meet("over", threads)
            if first == 0:
                yield t.snapshot("end")

        return run

    script = Script("tlb-flush2", regions=[Region("memory", threads * pages, writable=True)])
    return script.process("main", [worker(k * pages) for k in range(threads)], cpus=_cpus(threads))


def shared_munmap(threads: int, times: int) -> Script:
    """One thread unmaps a page that all threads have just read, `times` over; the page tables stay. Only the
    unmapping is measured.

    The snapshots are "begin 0", "end 0", "begin 1" and so on.
    """

    def main(t: Calls) -> Iterator[Any]:
        yield t.store("memory")
        for page in range(times):
            yield t.meet("ready", threads)
            yield t.meet("read", threads)
            yield t.snapshot(f"begin {page}")
            yield t.munmap("memory", page, 1)
            yield t.snapshot(f"end {page}")

    def reader(t: Calls) -> Iterator[Any]:
        for page in range(times):
            yield t.meet("ready", threads)
            yield t.load("memory", page, 1)
            yield t.meet("read", threads)
        yield t.spin("over", 0)

    script = Script("shared-munmap", regions=[Region("memory", times + 1, writable=True)])
    return script.process("main", [main, *[reader] * (threads - 1)], cpus=_cpus(threads))


def map_and_unmap(threads: int, pages: int, times: int) -> Script:
    """Every thread writes a piece of fresh memory of its own and unmaps it, `times` over; the next piece lies
    elsewhere.
    """

    def worker(number: int) -> Callable[[Calls], Iterator[Any]]:
        def run(t: Calls) -> Iterator[Any]:
            yield t.meet("ready", threads)
            if number == 0:
                yield t.snapshot("begin")
            for i in range(times):
                piece = (number * times + i) * pages
                yield t.store("memory", piece, pages, 64)
                yield t.munmap("memory", piece, pages)
            yield t.meet("over", threads)
            if number == 0:
                yield t.snapshot("end")

        return run

    # the last page keeps the page table
    script = Script("map-and-unmap", regions=[Region("memory", threads * times * pages + 1, writable=True)])
    return script.process("main", [worker(k) for k in range(threads)], cpus=_cpus(threads))


def mapped_readers(readers: int, memory_pages: int) -> Script:
    """vm-scalability's lru-file-mmap-read: a process for each CPU reads a mapped file of its own once, ten
    times the memory in all.
    """
    script = Script("mapped-readers")

    def reader(number: int) -> Callable[[Calls], Iterator[Any]]:
        def run(t: Calls) -> Iterator[Any]:
            if number == 0:
                yield t.snapshot("begin")
            yield t.load("file", 0, None, 64)
            if number == 0:
                yield t.snapshot("end")

        return run

    for number in range(readers):
        file = Region("file", FILE_RAMS * memory_pages // readers, file=f"sparse{number}", shared=True)
        script.process(f"reader{number}", [reader(number)], regions=[file], cpus=[number])
    return script


def move_back_and_forth(threads: int, pages: int, times: int) -> Script:
    """One thread moves memory that all others read to node 1 and back (migratepages beside pmbench)."""

    def main(t: Calls) -> Iterator[Any]:
        yield t.store("memory")
        yield t.meet("ready", threads)
        yield t.snapshot("begin")
        for i in range(times):
            yield t.move_pages("memory", 1 - i % 2)
        yield t.snapshot("end")
        yield t.post("over")

    def reader(t: Calls) -> Iterator[Any]:
        yield t.load("memory")
        yield t.meet("ready", threads)
        yield t.spin("over")

    script = Script("move-back-and-forth", regions=[Region("memory", pages, writable=True)])
    return script.process("main", [main, *[reader] * (threads - 1)], cpus=_cpus(threads))
