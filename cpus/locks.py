"""Locks of the emulated kernel. A waiter spins a little, then sleeps without its lease until the holder lets
go.

A lock word is 0 (free) or holder + 1, with bit 40 when somebody sleeps for it. Spin locks come in two kinds
as in Linux: irq-safe ones (`_irq`: the holder takes no interrupts, and must not wait for acks) and plain ones
(interrupts are served while waiting). Reader-writer locks (mmap_lock) count readers, -1 is a writer.
No lock serialises virtual time: clocks of CPUs may differ by a slice, and carrying the holder's clock over to
the waiter would drag all clocks to the largest. Lock contention therefore costs host time, not virtual time
(stated in docs/design.md). Left out: fairness (queued spin locks), sleeping readers' order.
"""

from cpus.atomics import (
    address,
    compare_exchange,
    exchange,
    fence,
    fence_after_atomic,
    fetch_add,
    load_acquire,
    pause,
    store_release,
    word_at,
)
from cpus.compiled import apart, kernel
from cpus.declare import ANY, OURS, OWNER, RWSEM, Atomic, Constant, Counter, Field, Lock, Struct
from cpus.ipi import serve_interrupts
from cpus.lease import (
    WAIT_MM,
    WAIT_WORD,
    begin_wait,
    cancel_wait,
    finish_wait,
    sched_yield,
    wake_all_waiting_for,
)
from cpus.lock_order import note_let_go, note_taken
from cpus.ram import has_points

FIELDS = (
    Constant("lock_spins", "tries before a waiter sleeps"),
    Struct("nr_cpus", "clock", (
        Field("cpu_irq_off", OWNER, "depth of irq-safe locks held", reads=ANY),
        Field("cpu_no_resched", OWNER, "depth of spin locks held", reads=ANY),
    )),
    Struct("nr_mms", "lock", (
        Lock("mm_lock", "mm.mmap_lock", "the mm's VMAs and page tables", kind=RWSEM),
        Field("mm_lock_waiters", Atomic("exchange"), "somebody sleeps for mm_lock"),
    )),
)  # fmt: skip

COUNTERS = (Counter("lock_waits", OURS, "times that a CPU slept for a spin lock, having spun in vain"),)

WAITERS = 1 << 40


@kernel
def try_lock(word, index, cpu):
    """Take the lock if it is free."""
    return compare_exchange(word, index, 0, cpu + 1) == 0


@kernel
def _wait_for_lock(ram, cpu, word, where):
    """Sleep until the lock is let go (or was meanwhile). The waiters bit goes up only while we are declared
    blocked.
    """
    if not begin_wait(ram, cpu, WAIT_WORD, where):
        return
    held = load_acquire(word, 0)
    if held == 0 or (held & WAITERS == 0 and compare_exchange(word, 0, held, held | WAITERS) != held):
        cancel_wait(ram, cpu)
        return
    ram.lock_waits[cpu] += 1
    finish_wait(ram, cpu)


@apart
def lock_slow(ram, cpu, where):
    """Take a lock that was not free, given the address of its word."""
    word = word_at(where)
    spins = 0
    limit = ram.lock_spins
    while not try_lock(word, 0, cpu):
        if ram.cpu_bell[cpu] > 0:
            serve_interrupts(ram, cpu)  # does nothing while interrupts are off
        spins += 1
        if spins < limit:
            pause()
        elif spins < limit + 2:
            sched_yield()
        else:
            _wait_for_lock(ram, cpu, word, where)
    return 0


@kernel
def spin_lock(ram, cpu, word, index):
    """Take a lock with interrupts on."""
    if not try_lock(word, index, cpu):
        lock_slow(ram, cpu, address(word, index))
    ram.cpu_no_resched[cpu] += 1
    if has_points(ram) and ram.rules:
        note_taken(ram, cpu, address(word, index))


@kernel
def spin_unlock(ram, cpu, word, index):
    """Let go; wakes those who sleep for it. With scheduling points, an interrupt may strike then, as
    anywhere in the kernel; without, where it serves some.
    """
    ram.cpu_no_resched[cpu] -= 1
    if has_points(ram) and ram.rules:
        note_let_go(ram, cpu, address(word, index))
    if exchange(word, index, 0) & WAITERS:
        wake_all_waiting_for(ram, WAIT_WORD, address(word, index), ram.cpu_clock[cpu])
    if has_points(ram) and ram.cpu_no_resched[cpu] == 0 and ram.cpu_bell[cpu] > 0:
        serve_interrupts(ram, cpu)  # does nothing while interrupts are off


@kernel
def spin_lock_irq(ram, cpu, word, index):
    """Take an irq-safe lock: no interrupt is served until it is let go."""
    ram.cpu_irq_off[cpu] += 1
    spin_lock(ram, cpu, word, index)


@kernel
def spin_unlock_irq(ram, cpu, word, index):
    """Let go of an irq-safe lock and serve what came meanwhile."""
    spin_unlock(ram, cpu, word, index)
    ram.cpu_irq_off[cpu] -= 1
    if ram.cpu_irq_off[cpu] == 0 and ram.cpu_bell[cpu] > 0:
        serve_interrupts(ram, cpu)


WRITER = -1


@kernel
def _wait_for_rwsem(ram, cpu, lock, waiters, index, kind, seen):
    """Sleep until a reader-writer lock is no longer as `seen`."""
    if ram.cpu_bell[cpu] > 0:
        serve_interrupts(ram, cpu)
    if not begin_wait(ram, cpu, kind, index):
        return
    exchange(waiters, index, 1)
    fence()  # the flag before the second look: the releaser changes the lock before it looks at the flag
    if load_acquire(lock, index) != seen:
        cancel_wait(ram, cpu)
    else:
        finish_wait(ram, cpu)


@kernel
def _wake_rwsem(ram, cpu, waiters, index, kind):
    """Wake who waits for a reader-writer lock. The caller has let go of it before, with a fence between that
    and this look at the flag.
    """
    if load_acquire(waiters, index) and exchange(waiters, index, 0):
        wake_all_waiting_for(ram, kind, index, ram.cpu_clock[cpu])


@kernel
def down_read(ram, cpu, lock, waiters, index, kind):
    """Take a reader-writer lock shared: many readers, no writer. Interrupts are served while waiting; `kind`
    says what for.
    """
    while True:
        readers = load_acquire(lock, index)
        if readers == WRITER:
            _wait_for_rwsem(ram, cpu, lock, waiters, index, kind, readers)
        elif compare_exchange(lock, index, readers, readers + 1) == readers:
            return


@kernel
def up_read(ram, cpu, lock, waiters, index, kind):
    """Let go of it as a reader."""
    if fetch_add(lock, index, -1) == 1:
        fence_after_atomic()
        _wake_rwsem(ram, cpu, waiters, index, kind)


@kernel
def down_write(ram, cpu, lock, waiters, index, kind):
    """Take it alone."""
    while True:
        readers = load_acquire(lock, index)
        if readers != 0:
            _wait_for_rwsem(ram, cpu, lock, waiters, index, kind, readers)
        elif compare_exchange(lock, index, 0, WRITER) == 0:
            return


@kernel
def up_write(ram, cpu, lock, waiters, index, kind):
    """Let go of it as the writer."""
    store_release(lock, index, 0)
    fence()
    _wake_rwsem(ram, cpu, waiters, index, kind)


@kernel
def mmap_read_lock(ram, cpu, mm):
    """Take mmap_lock shared."""
    down_read(ram, cpu, ram.mm_lock, ram.mm_lock_waiters, mm, WAIT_MM)


@kernel
def mmap_read_unlock(ram, cpu, mm):
    """Let go of mmap_lock as a reader."""
    up_read(ram, cpu, ram.mm_lock, ram.mm_lock_waiters, mm, WAIT_MM)


@kernel
def mmap_write_lock(ram, cpu, mm):
    """Take mmap_lock alone."""
    down_write(ram, cpu, ram.mm_lock, ram.mm_lock_waiters, mm, WAIT_MM)


@kernel
def mmap_write_unlock(ram, cpu, mm):
    """Let go of mmap_lock as the writer."""
    up_write(ram, cpu, ram.mm_lock, ram.mm_lock_waiters, mm, WAIT_MM)
