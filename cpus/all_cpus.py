"""All CPUs of a machine at once: start them, and see whether all are asleep (the supervisor's side of the
leases).

Left out: the leases themselves (lease.py).
"""

from cpus.atomics import address, compare_exchange, word_at
from cpus.compiled import kernel
from cpus.host import rouse, sched_yield
from cpus.lease import (
    BLOCKED,
    READY,
    RUNNING,
    WAIT_IDLE,
    WAIT_LEASE,
    grant_free,
    lock_leases,
    note_grant,
    unlock_leases,
)

TRIES_OF_OBSERVER = 10_000


@kernel
def start_all(ram):
    """Make every CPU READY at virtual time 0, hand out the leases and rouse those that got one.

    One step under the lease lock, so that in controlled mode the first choice already belongs to the
    schedule.
    """
    lock_leases(ram)
    for c in range(ram.nr_cpus):
        ram.cpu_state[c] = READY if ram.nr_leases else RUNNING
        ram.cpu_ready_ns[c] = ram.cpu_order_ns[c] = ram.cpu_clock[c]
        ram.cpu_wait_kind[c] = WAIT_LEASE
    if ram.nr_leases > 0:
        ram.run_lease_free[0] = (1 << ram.nr_leases) - 1
        target = grant_free(ram, -1)
        while target >= 0:
            note_grant(ram, target)
            target = grant_free(ram, -1)
    unlock_leases(ram)
    for c in range(ram.nr_cpus):
        if ram.cpu_host_core[c] > 0 and ram.cpu_state[c] == RUNNING:  # a process is behind it
            rouse(ram, c)


@kernel
def _observed(field, c):
    """Read a word without passing a scheduling point: the supervisor is no CPU."""
    return word_at(address(field, c))[0]


@kernel
def all_idle(ram):
    """Are all CPUs asleep for want of work, with no interrupt on its way? 1 yes, 0 no, -1 the lease table
    stayed locked.

    States change only under the lease lock, so this is one moment of the whole machine: nobody is left to
    wake anybody.
    """
    spins = 0
    while compare_exchange(ram.run_lease_lock, 0, 0, 1) != 0:
        spins += 1
        if spins > TRIES_OF_OBSERVER:  # its holder was stopped or killed: the observer must not hang with it
            return -1
        sched_yield()
    idle = 1
    for c in range(ram.nr_cpus):
        if (
            ram.cpu_state[c] != BLOCKED
            or ram.cpu_wait_kind[c] != WAIT_IDLE
            or _observed(ram.queue_count, c) != 0
        ):
            idle = 0
        if _observed(ram.cpu_bell, c) != 0 or ram.cpu_in_irq[c] != 0:
            idle = 0
    unlock_leases(ram)
    return idle
