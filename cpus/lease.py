"""Leases: at most L emulated CPUs execute at a time, those with the smallest virtual clocks.

A host with few cores cannot run 64 CPU processes side by side: one that is not scheduled answers an interrupt only when its
time slice comes (tens of ms). So a CPU executes only while it holds a lease (= one host core), and all others sleep in poll,
where an interrupt wakes them at once. A CPU whose slice of virtual time is over, or that has to wait, hands its lease to
the READY CPU with the smallest clock, so clocks of CPUs with something to do stay within one slice of each other. One that
waited in the midst of a slice is ordered by the start of that slice: it goes on as soon as a lease is there, to the same end.

With one lease and `controlled` set, the next CPU is drawn from a seeded stream among those within a slice of the smallest
clock; everything then happens under that one lease, interrupts too, and a run is exactly repeatable.
`nr_leases` 0 means no gate: every CPU runs as the host pleases.

Wake-ups cannot be lost: `block` and `wake` meet under `run_lease_lock`, and a wake-up for a CPU that is not blocked leaves a
token that makes its next `block` return at once. Every caller of `block` re-checks what it waits for.
Left out: fairness beyond the clocks. The shell (process.py) does the sleeping.
"""

from cpus.atomics import compare_exchange, fence, pause, store_release
from cpus.compiled import call, kernel
from cpus.host import rouse, sched_yield
from cpus.layout import TEXT

OFF, RUNNING, READY, BLOCKED = 0, 1, 2, 3
STATE_NAMES = ("off", "running", "ready", "blocked")
WAIT_NONE, WAIT_LEASE, WAIT_ACKS, WAIT_LOCK, WAIT_PAGE, WAIT_BARRIER, WAIT_IDLE, WAIT_MM = range(8)
WAIT_NAMES = ("nothing", "a lease", "acks", "lock", "page lock", "barrier", "work", "mmap_lock")

RUN, FINISHED, INTERRUPTED, PANIC, VIOLATED, LEAVE = range(6)  # run_stop

SHELL_WAIT = TEXT["shell_wait"]
SPINS_BEFORE_YIELD = 40
TRIES_OF_OBSERVER = 10_000

@kernel
def random_next(state):
    """Advance a 63-bit xorshift stream; the state is the number drawn (never 0)."""
    state ^= (state << 13) & 0x7FFFFFFFFFFFFFFF
    state ^= state >> 7
    state ^= (state << 17) & 0x7FFFFFFFFFFFFFFF
    return state


@kernel
def _lock(ram):
    spins = 0
    while compare_exchange(ram.run_lease_lock, 0, 0, 1) != 0:
        spins += 1
        if spins % SPINS_BEFORE_YIELD == 0:  # the holder may have lost its host core
            sched_yield()
        else:
            pause()


@kernel
def _unlock(ram):
    store_release(ram.run_lease_lock, 0, 0)


@kernel
def _smallest_ready(ram):
    best, best_ns = -1, 0
    for c in range(ram.nr_cpus):
        if ram.cpu_state[c] == READY and (best < 0 or ram.cpu_order_ns[c] < best_ns):
            best, best_ns = c, ram.cpu_order_ns[c]
    return best


@kernel
def _drawn_ready(ram, own, own_ns):
    """Draw the next CPU of the schedule among the READY ones (and `own`, unless -1) within a slice of the smallest clock."""
    first = _smallest_ready(ram)
    if first < 0:
        return own
    limit = ram.cpu_order_ns[first]
    if own >= 0 and own_ns < limit:
        limit = own_ns
    limit += ram.slice_ns
    count = 0
    for c in range(ram.nr_cpus):
        if (ram.cpu_state[c] == READY and ram.cpu_order_ns[c] <= limit) or (c == own and own_ns <= limit):
            count += 1
    ram.run_random[0] = random_next(ram.run_random[0])
    skip = (ram.run_random[0] >> 20) % count
    for c in range(ram.nr_cpus):
        if (ram.cpu_state[c] == READY and ram.cpu_order_ns[c] <= limit) or (c == own and own_ns <= limit):
            if skip == 0:
                return c
            skip -= 1
    return first


@kernel
def _hand_over(ram, cpu, target):
    """Give the lease of `cpu` to READY `target`."""
    ram.cpu_state[target] = RUNNING
    ram.cpu_lease[target] = ram.cpu_lease[cpu]
    ram.run_handovers[0] += 1
    ram.run_schedule_hash[0] = ((ram.run_schedule_hash[0] * 1000003) ^ (target + 1)) & 0x7FFFFFFFFFFFFFFF


@kernel
def _release(ram, cpu):
    """Pass the lease on; returns the CPU that got it, or -1 (it lies free)."""
    if ram.nr_leases == 0:
        return -1
    target = _drawn_ready(ram, -1, 0) if ram.controlled else _smallest_ready(ram)
    if target >= 0:
        _hand_over(ram, cpu, target)
    else:
        ram.run_lease_free[0] |= 1 << ram.cpu_lease[cpu]
    return target


@kernel
def new_slice(ram, cpu):
    """Start a slice of virtual time; in controlled mode its length is drawn, so that preemption may strike anywhere."""
    length = ram.slice_ns
    if ram.controlled:
        ram.cpu_random[cpu] = random_next(ram.cpu_random[cpu])
        length = 1 + (ram.cpu_random[cpu] >> 16) % length
    ram.cpu_slice_end[cpu] = ram.cpu_clock[cpu] + length


@kernel
def offer_lease(ram, cpu):
    """At the end of a slice: let a READY CPU that is behind in virtual time run first."""
    if ram.nr_leases == 0:
        new_slice(ram, cpu)
        return
    _lock(ram)
    clock = ram.cpu_clock[cpu]
    if ram.controlled:
        target = _drawn_ready(ram, cpu, clock)
    else:
        target = _smallest_ready(ram)
        if target >= 0 and ram.cpu_order_ns[target] >= clock:
            target = cpu
    if target < 0 or target == cpu:
        _unlock(ram)
    else:
        ram.cpu_state[cpu] = READY
        ram.cpu_ready_ns[cpu] = ram.cpu_order_ns[cpu] = clock
        ram.cpu_wait_kind[cpu] = WAIT_LEASE
        _hand_over(ram, cpu, target)
        _unlock(ram)
        call(ram, SHELL_WAIT, cpu, target, 0, 0, 0)
    new_slice(ram, cpu)


@kernel
def begin_wait(ram, cpu, kind, thing):
    """Declare CPU `cpu` blocked, with the lease table locked; False (and unlocked) if a wake-up came before.

    Between this and `finish_wait` or `cancel_wait` the caller may re-check, against wakers that look for blocked CPUs.
    """
    _lock(ram)
    if ram.cpu_wake[cpu] != 0:
        ram.cpu_wake[cpu] = 0
        _unlock(ram)
        return False
    ram.cpu_state[cpu] = BLOCKED
    ram.cpu_ready_ns[cpu] = ram.cpu_clock[cpu]
    ram.cpu_order_ns[cpu] = ram.cpu_clock[cpu] if ram.controlled else ram.cpu_slice_end[cpu] - ram.slice_ns
    ram.cpu_wait_kind[cpu] = kind
    ram.cpu_wait_object[cpu] = thing
    fence()  # the caller's re-check must not be done before these stores are seen (store-buffering, also on x86)
    return True


@kernel
def cancel_wait(ram, cpu):
    """Take back `begin_wait`: what was waited for is there."""
    ram.cpu_state[cpu] = RUNNING
    ram.cpu_wait_kind[cpu] = WAIT_NONE
    _unlock(ram)


@kernel
def finish_wait(ram, cpu):
    """Pass the lease on and sleep until somebody wakes this CPU and a lease is there."""
    if ram.controlled and ram.cpu_bell[cpu] > 0 and ram.cpu_irq_off[cpu] == 0 and ram.cpu_in_irq[cpu] == 0:
        ram.cpu_state[cpu] = READY  # an interrupt came while it ran: it will be served when the schedule runs this CPU again
    target = _release(ram, cpu)
    _unlock(ram)
    call(ram, SHELL_WAIT, cpu, target, 0, 0, 0)
    ram.cpu_wait_kind[cpu] = WAIT_NONE
    if ram.cpu_clock[cpu] >= ram.cpu_slice_end[cpu] or ram.controlled:
        new_slice(ram, cpu)


@kernel
def block(ram, cpu, kind, thing):
    """Sleep until woken (spurious returns happen: re-check)."""
    if begin_wait(ram, cpu, kind, thing):
        finish_wait(ram, cpu)


@kernel
def _wake_locked(ram, target, at_ns):
    """Make a BLOCKED CPU runnable; True if it got a free lease and must be roused."""
    if ram.cpu_state[target] != BLOCKED:
        ram.cpu_wake[target] = 1
        return False
    if at_ns > ram.cpu_ready_ns[target]:
        ram.cpu_ready_ns[target] = at_ns
    if at_ns > ram.cpu_slice_end[target] or (ram.controlled and at_ns > ram.cpu_order_ns[target]):
        ram.cpu_order_ns[target] = at_ns
    free = ram.run_lease_free[0]
    if ram.nr_leases == 0:
        ram.cpu_state[target] = RUNNING
        return True
    if free == 0:
        ram.cpu_state[target] = READY
        return False
    lease = 0
    while (free >> lease) & 1 == 0:
        lease += 1
    ram.run_lease_free[0] = free & ~(1 << lease)
    ram.cpu_lease[target] = lease
    _hand_over(ram, target, target)
    return True


@kernel
def wake(ram, target, at_ns):
    """Make CPU `target` look again at what it waits for; it becomes runnable at virtual time `at_ns` at the earliest."""
    _lock(ram)
    granted = _wake_locked(ram, target, at_ns)
    _unlock(ram)
    if granted:
        rouse(ram, target)


@kernel
def wake_all_waiting_for(ram, kind, thing, at_ns):
    """Wake every CPU that is blocked on this very thing (the slow path of unlocking: somebody said that it waits)."""
    for c in range(ram.nr_cpus):
        if ram.cpu_wait_object[c] == thing:  # a waiter wrote it before the word that told us of it
            _lock(ram)
            granted = False
            if ram.cpu_state[c] == BLOCKED and ram.cpu_wait_kind[c] == kind and ram.cpu_wait_object[c] == thing:
                granted = _wake_locked(ram, c, at_ns)
            _unlock(ram)
            if granted:
                rouse(ram, c)


@kernel
def start_all(ram):
    """Make every CPU READY at virtual time 0, hand out the leases and rouse those that got one.

    One step under the lease lock, so that in controlled mode the first choice already belongs to the schedule.
    """
    _lock(ram)
    for c in range(ram.nr_cpus):
        ram.cpu_state[c] = READY if ram.nr_leases else RUNNING
        ram.cpu_ready_ns[c] = ram.cpu_order_ns[c] = ram.cpu_clock[c]
        ram.cpu_wait_kind[c] = WAIT_LEASE
    for lease in range(ram.nr_leases):
        target = _drawn_ready(ram, -1, 0) if ram.controlled else _smallest_ready(ram)
        if target < 0:
            ram.run_lease_free[0] |= 1 << lease
        else:
            ram.cpu_lease[target] = lease
            _hand_over(ram, target, target)
    _unlock(ram)
    for c in range(ram.nr_cpus):
        if ram.cpu_host_core[c] > 0 and ram.cpu_state[c] == RUNNING:
            rouse(ram, c)


@kernel
def all_idle(ram):
    """Are all CPUs asleep for want of work, with no interrupt on its way? 1 yes, 0 no, -1 the lease table stayed locked.

    States change only under the lease lock, so this is one moment of the whole machine: nobody is left to wake anybody.
    """
    spins = 0
    while compare_exchange(ram.run_lease_lock, 0, 0, 1) != 0:
        spins += 1
        if spins > TRIES_OF_OBSERVER:  # its holder was stopped or killed: the observer must not hang with it
            return -1
        sched_yield()
    idle = 1
    for c in range(ram.nr_cpus):
        if ram.cpu_state[c] != BLOCKED or ram.cpu_wait_kind[c] != WAIT_IDLE or ram.queue_count[c] != 0:
            idle = 0
        if ram.cpu_bell[c] != 0 or ram.cpu_in_irq[c] != 0:
            idle = 0
    _unlock(ram)
    return idle
