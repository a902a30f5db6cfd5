"""The host's system calls that compiled code makes by itself: sleep in poll, rouse a CPU process, move it to
a lease's core.

Handing a lease over costs two context switches and three system calls; through Python it took three times as
long (measured), nearly all of it cold interpreter code after the switch. `ram.poll_set` holds the two `struct
pollfd` of each CPU, one word each: the eventfd that rouses it, and ZeroMQ's file descriptor of its inbox.
Left out: ZeroMQ itself (zeromq.py).
"""

from __future__ import annotations

import os
import select
from typing import Any

import numba
from numba import types

from cpus.abi.numbers import LEASES_MAX
from cpus.atomics import address
from cpus.compiled import kernel
from cpus.declare import ANY, CONFIG, OWNER, Exclusive, Field, Struct

AFFINITY_WORDS = 16  # a cpu_set_t of 1024 host cores
POLLED = 8  # words of a row of poll_set
FIELDS = (
    Struct("nr_cpus", "lease", (
        Field("cpu_host_core",
              Exclusive("who has granted it a lease rouses it, and nobody else does until it has run"),
              "host core it is pinned to, + 1", reads=ANY),
    )),
    Field("poll_set", OWNER, "struct pollfd of its eventfd and of its inbox, scratch", ("nr_cpus", POLLED),
          reads=ANY),
    Field("lease_core", CONFIG, "host core of each lease", (LEASES_MAX,)),
    Field("lease_affinity", CONFIG, "the same as a cpu_set_t", (LEASES_MAX, AFFINITY_WORDS)),
)  # fmt: skip

EXIT_STOPPED = 17  # status of a CPU process that left because the run was stopped
# what `poll` found: somebody wants this CPU to look at its state; its inbox has something to say
ROUSED, NEWS = 1, 2
POLLIN = 1
FD_MASK = 0xFFFFFFFF


def pollfd(fd: int) -> int:
    """Give a struct pollfd that asks for input, as one little-endian word."""
    return fd | POLLIN << 32


def place_leases(ram: Any, cores: list[int]) -> None:
    """Tell which host core each lease stands for."""
    for lease in range(len(ram.lease_affinity)):
        core = cores[lease % len(cores)]
        ram.lease_core[lease] = core
        ram.lease_affinity[lease, :] = 0
        ram.lease_affinity[lease, core // 64] = -(1 << 63) if core % 64 == 63 else 1 << core % 64


class Left(BaseException):
    """Takes a CPU out of its run, without the JIT."""


if numba.config.DISABLE_JIT:
    sched_yield = os.sched_yield
    exit_process = os._exit

    def go_to_context(where):
        """Leave everything, and go on where that host context was saved."""
        raise Left

    def poll(ram, cpu, count, timeout_ms):
        """Sleep until one of the first `count` file descriptors of this CPU has something; returns ROUSED |
        NEWS.
        """
        polled = select.poll()
        for i in range(count):
            polled.register(int(ram.poll_set[cpu, i]) & FD_MASK, POLLIN)
        return sum(
            ROUSED if fd == int(ram.poll_set[cpu, 0]) & FD_MASK else NEWS for fd, _ in polled.poll(timeout_ms)
        )

    def poll_inbox(ram, cpu, timeout_ms):
        """Sleep until ZeroMQ has something to say."""
        polled = select.poll()
        polled.register(int(ram.poll_set[cpu, 1]) & FD_MASK, POLLIN)
        return len(polled.poll(timeout_ms))

    def clear_rousing(ram, cpu):
        """Take note that somebody roused this CPU."""
        os.eventfd_read(int(ram.poll_set[cpu, 0]) & FD_MASK)

    def ring(ram, target):
        """Rouse a CPU process."""
        os.eventfd_write(int(ram.poll_set[target, 0]) & FD_MASK, 1)

    def move_to_lease(ram, target, lease):
        """Pin a CPU process to the host core of a lease."""
        os.sched_setaffinity(int(ram.cpu_pid[target]), {int(ram.lease_core[lease])})

else:
    sched_yield = types.ExternalFunction("sched_yield", types.int32())
    exit_process = types.ExternalFunction("_exit", types.void(types.int32))
    go_to_context = types.ExternalFunction("setcontext", types.int32(types.int64))
    _poll = types.ExternalFunction("poll", types.int32(types.int64, types.int64, types.int32))
    _eventfd_read = types.ExternalFunction("eventfd_read", types.int32(types.int32, types.int64))
    _eventfd_write = types.ExternalFunction("eventfd_write", types.int32(types.int32, types.int64))
    _sched_setaffinity = types.ExternalFunction(
        "sched_setaffinity", types.int32(types.int32, types.int64, types.int64)
    )

    @kernel
    def poll(ram, cpu, count, timeout_ms):
        """Sleep until one of the first `count` file descriptors of this CPU has something; returns ROUSED |
        NEWS.
        """
        if _poll(address(ram.poll_set, (cpu, 0)), count, timeout_ms) <= 0:
            return 0  # the bound, or a signal: the caller looks at everything again
        found = 0
        if (ram.poll_set[cpu, 0] >> 48) & POLLIN:
            found |= ROUSED
        if count > 1 and (ram.poll_set[cpu, 1] >> 48) & POLLIN:
            found |= NEWS
        return found

    @kernel
    def poll_inbox(ram, cpu, timeout_ms):
        """Sleep until ZeroMQ has something to say."""
        return _poll(address(ram.poll_set, (cpu, 1)), 1, timeout_ms)

    @kernel
    def clear_rousing(ram, cpu):
        """Take note that somebody roused this CPU."""
        _eventfd_read(ram.poll_set[cpu, 0] & FD_MASK, address(ram.poll_set, (cpu, 2)))

    @kernel
    def ring(ram, target):
        """Rouse a CPU process."""
        _eventfd_write(ram.poll_set[target, 0] & FD_MASK, 1)

    @kernel
    def move_to_lease(ram, target, lease):
        """Pin a CPU process to the host core of a lease (should it be dead, the supervisor ends the run)."""
        _sched_setaffinity(ram.cpu_pid[target], AFFINITY_WORDS * 8, address(ram.lease_affinity, (lease, 0)))


@kernel
def rouse(ram, target):
    """Make a CPU look at its state; if it was given a lease, on the lease's host core: a hand-over stays on
    one core.
    """
    if ram.nr_leases > 0:
        lease = ram.cpu_lease[target]
        core = ram.lease_core[lease] + 1
        if ram.cpu_host_core[target] != core:
            ram.cpu_host_core[target] = core
            move_to_lease(ram, target, lease)
    ring(ram, target)
