"""Check, before anything starts, that this host can carry a machine: memory, file descriptors, CPUs.

The need is estimated from above: prototypes took 2.5 to 10 MB private per CPU process; BYTES_FIXED (compiled
engine and supervisor) and BYTES_PER_FRAME (a page's state, never its 4096 bytes) are allowances, not
measurements.
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from cpus.abi.numbers import CPUS_MAX
from emulator.machine import Machine, MachineError
from inputs.text import clipped

BYTES_PER_FRAME = 512
BYTES_PER_FILE_PAGE = 32  # its place in the page cache and its versions
BYTES_PER_CPU = 12 << 20
BYTES_FIXED = 400 << 20
# limit -> how a shell calls it, and what a process takes of it: measured 458 and 180 MiB for a small run that
# finds its code compiled and draws nothing. LLVM aborts where it gets less.
LIMITED = {resource.RLIMIT_AS: ("-v", 768 << 20), resource.RLIMIT_DATA: ("-d", 384 << 20)}


class HostError(MachineError):
    """This host cannot run that machine: one sentence with what is needed, what is there, and what to do."""


def memory_needed(machine: Machine) -> int:
    """Return an upper estimate, in bytes, of the host memory that a run of `machine` takes."""
    return BYTES_FIXED + machine.cpus * BYTES_PER_CPU + sum(machine.pages) * BYTES_PER_FRAME


def files_needed(cpus: int) -> int:
    """Return the open files of the hungriest process, a CPU that is connected with all others: measured 5.2 a
    CPU and 20.
    """
    return 6 * cpus + 64


def check_host(machine: Machine, *, memory_available: int | None = None) -> None:
    """Raise HostError unless a run of `machine` fits this host; raise the limit of open files to what the
    host allows.

    The limit is inherited by the CPU processes, so call this before they start.
    """
    if not 1 <= machine.cpus <= CPUS_MAX:
        raise HostError(f"'cpus' must be 1 to {CPUS_MAX} (got {machine.cpus})")
    available = psutil.virtual_memory().available if memory_available is None else memory_available
    needed = memory_needed(machine)
    if needed > available:
        raise HostError(
            f"{machine.cpus} CPUs and {sum(machine.pages):,} pages need about {needed >> 20:,} MiB of host "
            f"memory, but {available >> 20:,} MiB are available: use a larger --scale or fewer --cpus"
        )
    check_limits(sum(machine.pages))
    _raise_open_files(machine.cpus)


def check_limits(pages: int = 0) -> None:
    """Raise HostError if this shell allows a process less memory than a run with so many pages takes."""
    for limit, (option, bytes_fixed) in LIMITED.items():
        allowed, needed = resource.getrlimit(limit)[0], bytes_fixed + pages * BYTES_PER_FRAME
        if allowed != resource.RLIM_INFINITY and allowed < needed:
            raise HostError(
                f"a process of a run needs about {needed >> 20:,} MiB of memory, but this shell allows "
                f"{allowed >> 20:,} MiB (ulimit {option}): raise it"
            )


@contextmanager
def memory_for(workload: str, file_pages: int = 0) -> Iterator[None]:
    """Raise HostError if what is made of a workload in this block does not fit this host: because of the
    pages of files, which no scale makes fewer, or for whatever else memory was not given.
    """
    needed, available = file_pages * BYTES_PER_FILE_PAGE, psutil.virtual_memory().available
    what = f"workload {clipped(workload)}"
    if needed > available:
        raise HostError(
            f"{what}: {file_pages:,} pages of files need about {needed >> 20:,} MiB of host memory, but "
            f"{available >> 20:,} MiB are available: use smaller files"
        )
    try:
        yield
    except (MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENOMEM:
            raise
        raise HostError(f"{what}: the host gives no more memory ({error}): use a smaller one") from error


def _raise_open_files(cpus: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = files_needed(cpus)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise HostError(
            f"{cpus} CPUs need {needed} open files, but this shell allows {hard} (ulimit -Hn): "
            "raise it, or use fewer --cpus"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else max(needed, 65536), hard)
        )
