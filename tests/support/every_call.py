"""A small program that makes every call of the kernel, some of them while others use the same pages, on a
machine whose memory it does not fit into.
"""

from emulator import load_machine
from workloads import Region, Script

CPUS = 3
LONG = 400_000_000  # accesses to one page: 0.2 s of virtual time
HALF = 1024  # pages of a node that are the kernel's, the other half is the program's


def main(t):
    """Maps, changes and unmaps what the other threads and processes use."""
    yield [t.store("cold"), t.store("heap"), t.madvise("heap", "MADV_FREE", 240, 40)]
    yield [t.load("file"), t.store("shared", 0, 64), t.execute("code")]
    yield [t.meet("begin", CPUS), t.fork("child")]
    yield [t.store("heap", 0, 40), t.mprotect("heap", "PROT_READ", 0, 16), t.load("heap", 0, 16)]
    yield [t.mprotect("heap", "PROT_READ|PROT_WRITE", 0, 16), t.store("heap", 0, 16)]
    yield [t.post("go"), t.wait("gone"), t.post("write")]
    for advice in ("MADV_COLD", "MADV_PAGEOUT", "MADV_FREE", "MADV_DONTNEED"):
        yield [t.store("heap", 40, 24), t.madvise("heap", advice, 40, 24)]
    yield [t.madvise("file", "MADV_PAGEOUT", 0, 64), t.load("file", 0, 64)]
    yield [t.move_pages("heap", 1, 0, 16), t.store("heap", 0, 16), t.move_pages("heap", 0, 0, 16)]
    yield [t.write("shared", 0, 16), t.fdatasync("shared", 0, 16), t.truncate("shared", 8, 8)]
    yield [t.store("shared", 16, 8), t.madvise("shared", "MADV_DONTNEED", 16, 8)]
    yield [t.fadvise_dontneed("other"), t.uprobe_register("code", 0, 4), t.uprobe_unregister("code", 0, 4)]
    yield [t.direct_read("other", "buffer", 0, 16), t.direct_write("other", "buffer", 0, 16)]
    yield [t.mmap("late"), t.store("late"), t.mremap("late", "place"), t.munmap("place")]
    yield [t.memory_reclaim(64), t.snapshot("end"), t.post("over"), t.meet("end", CPUS)]
    yield [t.munmap("file"), t.munmap("heap", 100, 100)]


def reader(t, sweeps):
    """Goes round in the file, so that there is always something to reclaim."""
    yield [t.meet("begin", CPUS), t.populate("file", 0, 32)]
    for _ in range(sweeps):
        yield [t.load("file"), t.nanosleep(1_000_000)]
    yield [t.spin("over"), t.meet("end", CPUS)]


def writer(t):
    """Writes to memory that it shares with nobody, and to the shared file."""
    yield [t.meet("begin", CPUS), t.wait("write")]
    for _ in range(2):
        yield [t.store("heap", 200, 100), t.store("shared", 0, 32), t.load("other", 0, 32)]
    for _ in range(3):  # long enough for the NUMA scanner to come by
        yield [t.load("heap", 200, 1, count=LONG), t.load("heap", 200, 100)]
    yield [t.wait("over"), t.meet("end", CPUS)]


def child(t):
    """Copies what it writes to."""
    yield [t.store("heap", 0, 8), t.wait("go"), t.exit("gone")]


def every_call(pages: int = 2600, sweeps: int = 2) -> Script:
    """Give the script; it goes `sweeps` times through a file of so many pages."""
    regions = [
        Region("heap", 300, writable=True),
        Region("cold", 200, writable=True),
        Region("file", pages, file="data"),
        Region("other", 64, file="other"),
        Region("shared", 64, file="written", writable=True, shared=True),
        Region("code", 8, file="code", executable=True),
        Region("buffer", 16, writable=True),
        Region("late", 32, writable=True, mapped=False),
        Region("place", 32, writable=True, mapped=False),
    ]
    script = Script("every call", "every call of the kernel", regions)
    threads = [main, lambda t: reader(t, sweeps), writer]
    script.process("main", threads, cpus=range(CPUS))
    return script.process("child", [child], forked=True)


def small_machine_of_two_tiers():
    """Give a machine with two nodes of 2 * HALF pages, half of them the kernel's, and an eager scanner."""
    zone = {"name": "Normal", "managed_pages": 2 * HALF, "kernel_pages": HALF}
    sysctl = {"numa_balancing_scan_delay_ms": 0, "numa_balancing_scan_period_min_ms": 1}
    changes = {f"sysctl.{name}": value for name, value in sysctl.items()}
    changes |= {f"nodes.{node}.zones": [zone] for node in (0, 1)}
    changes |= {f"nodes.{node}.memory_mib": 8 for node in (0, 1)}
    return load_machine("xeon6430-cxl", scale=1, cpus=CPUS, overrides=changes)
