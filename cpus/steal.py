"""CPUs that are virtual: a guest that has more of them than its host gives it cores (steal time, as
/proc/stat calls it).

The host lets each busy CPU have a core for a turn of `host_turn_ns`, and then puts it at the end of the
queue. A CPU is busy if it runs a task or spins, for acks too; one that idles is not.

If B CPUs are busy on C cores, B > C, all that a CPU does takes B / C times as long. That is charged once per
slice of virtual time, for as many as are busy at that moment.
A CPU that spins for n others, for the acks of an interrupt say, goes on when each of them has had a core
since and it has a core again itself. `turn_ns` computes the mean of that time exactly; a test plays it.
A thread of the host that has slept, such as one that serves the disk, is due first, but it does not end
anybody's turn (kernel/sched/fair.c: place_entity, RUN_TO_PARITY).

`host_cores` 0 means that every CPU is a core of its own, and that nothing here matters. Left out: which CPUs
have a core at a moment (all make the same progress), where the host places them, what else the host runs, and
that a virtual CPU that was idle waits for a core, too.
"""

from cpus.atomics import load_acquire
from cpus.compiled import kernel
from cpus.declare import OWNER, Constant, Field, Struct

FIELDS = (
    Constant("host_cores", "cores that all CPUs share, 0: each has its own"),
    Constant("host_turn_ns", "how long one keeps a core", "ns"),
    Struct("nr_cpus", "clock", (
        Field("cpu_charged_ns", OWNER, "virtual time up to which the others have taken their share",
              unit="ns"),
    )),
)  # fmt: skip

NOBODY = -1  # of cpu_task
# Threads of the host that a request to the disk wakes: QEMU's main loop (ioeventfd), a worker of its pool
# (aio=threads, the default), the main loop again, the virtual CPU (QEMU 7.2: hw/block/virtio-blk.c,
# block/file-posix.c, util/thread-pool.c) [order].
DISK_WAKEUPS = 4


@kernel
def _busy_cpus(ram):
    """How many CPUs have a task that runs, or spins?"""
    busy = 0
    for c in range(ram.nr_cpus):
        busy += load_acquire(ram.cpu_task, c) != NOBODY
    return busy


@kernel
def charge_stolen(ram, cpu):
    """Add to a CPU's clock what the others took of the core since it was last charged."""
    if ram.host_cores == 0:
        return
    stolen = (
        (ram.cpu_clock[cpu] - ram.cpu_charged_ns[cpu]) * (_busy_cpus(ram) - ram.host_cores) // ram.host_cores
    )
    if stolen > 0:
        ram.cpu_clock[cpu] += stolen
    ram.cpu_charged_ns[cpu] = ram.cpu_clock[cpu]


@kernel
def _chance(places, cores, busy, others):
    """How likely have `others` of the busy CPUs, but for the one that asks, a core or one of the first
    `places` in the queue?
    """
    chance = 1.0
    for i in range(others):
        chance *= max(min(places, busy - cores) + cores - 1 - i, 0) / (busy - 1 - i)
    return chance


@kernel
def turn_ns(ram, others):
    """How long a CPU waits on average until `others` have had a core and it has one itself; 0 if there is one
    for each that is busy.

    Turns end one after the other, the i-th at (i - 1/2) / cores of a turn from now. Our own is the j-th to
    end, with the same chance for each j = 1 .. cores. If all others have had a core by then, we go on when
    the last of them gets it. Else we go to the end of the queue, and go on when we have a core again, which
    is as many ends later as there are CPUs in the queue.
    """
    cores = ram.host_cores
    if cores == 0:
        return 0
    busy = _busy_cpus(ram)
    if busy <= cores:
        return 0
    others = min(others, busy - 1)
    ends, within, before = 0.0, 0.0, _chance(0, cores, busy, others)
    for j in range(1, cores + 1):
        ends += within + (1.0 - before) * (j + busy - cores - 0.5)
        now = _chance(j, cores, busy, others)
        within += (now - before) * (j - 0.5)
        before = now
    return int(ends * ram.host_turn_ns / (cores * cores))


@kernel
def wakeup_turn_ns(ram):
    """How long threads of the host that serve the disk wait for a core, on average each for the first turn
    that ends; 0 if one is free.
    """
    if ram.host_cores == 0 or _busy_cpus(ram) < ram.host_cores:
        return 0
    return DISK_WAKEUPS * ram.host_turn_ns // (2 * ram.host_cores)


@kernel
def pass_time(ram, cpu, ns):
    """Let a CPU wait for `ns` in which it does nothing itself: nobody can steal from that."""
    charge_stolen(ram, cpu)
    ram.cpu_clock[cpu] += ns
    ram.cpu_charged_ns[cpu] = ram.cpu_clock[cpu]


@kernel
def pass_until(ram, cpu, at_ns):
    """Let a CPU wait until virtual time `at_ns`, if that is yet to come."""
    if at_ns > ram.cpu_clock[cpu]:
        charge_stolen(ram, cpu)
        ram.cpu_clock[cpu] = ram.cpu_charged_ns[cpu] = max(ram.cpu_clock[cpu], at_ns)
