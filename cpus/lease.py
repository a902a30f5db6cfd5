"""Leases: at most L emulated CPUs execute at a time, those with the smallest virtual clocks.

A host with few cores cannot run 64 CPU processes side by side: one that is not scheduled answers an interrupt
only when its time slice comes (tens of ms). So a CPU executes only while it holds a lease (= one host core),
and all others sleep in poll, where an interrupt wakes them at once. A CPU whose slice of virtual time is
over, or that has to wait, hands its lease to the READY CPU with the smallest clock; one that waited in the
midst of a slice is ordered by the start of that slice and goes on to the same end. A CPU that is more than a
slice ahead of one that runs gets no lease (the host may hold that one up), so clocks of CPUs with something
to do stay within two slices of each other, one if there is one lease. One that waits for acks has something
to do as well: its clock stands still while the host carries its messages, so nobody may leave it behind (but
who holds a spin lock, or has interrupts off: it may be, or hold up, a target that cannot answer; it gets a
lease out of turn, until it has let go).

With one lease and `controlled` set, the next CPU is drawn from a seeded stream among those within a slice of
the smallest clock and those whose answer is waited for; everything then happens under that one lease,
interrupts too, and a run is exactly repeatable. In a run with scheduling points (points.py) a strategy
chooses instead, and clocks may lie a window apart (strategies.py). `nr_leases` 0 means no gate: every CPU
runs as the host pleases.

Wake-ups cannot be lost: `block` and `wake` meet under `run_lease_lock`, and a wake-up for a CPU that is not
blocked leaves a token that makes its next `block` return at once. Every caller of `block` re-checks what it
waits for.
Left out: fairness beyond the clocks. The shell (process.py) does the sleeping.
"""

from cpus.abi.numbered import Numbered
from cpus.atomics import compare_exchange, fence, pause, store_release
from cpus.compiled import apart, kernel, later
from cpus.declare import ANY, FLAG, OWNER, Atomic, Constant, Field, Held, Lock, OneOf, Struct
from cpus.host import rouse, sched_yield
from cpus.ram import has_points
from cpus.spans import SPAN_WAIT, end_span, span
from cpus.steal import charge_stolen, pass_until
from cpus.strategies import PCT, STARVE, arm, choose, count, random_next, shorten

LEASE_TABLE = Held("run_lease_lock", at="one")
FIELDS = (
    Constant("nr_leases", "CPUs that may run at once, 0: all"),
    Constant("controlled", "1: one lease, and who gets it is drawn"),
    Constant("slice_ns", "how far a CPU runs before it offers its lease", "ns"),
    Struct("one", "stop", (
        Field("run_stop", Atomic("store_release"),
              "RUN, FINISHED ...: why the run ends; the first one is believed"),
    )),
    Struct("one", "leases", (
        Lock("run_lease_lock", "lease table", "who runs; held for a scan of the CPUs at most", kind=FLAG),
        Field("run_lease_free", LEASE_TABLE, "bit of each lease that nobody holds", reads=ANY),
        Field("run_random", LEASE_TABLE, "state of the schedule's random stream (controlled mode)"),
        Field("run_handovers", LEASE_TABLE, "leases that went to another CPU"),
        Field("run_schedule_hash", LEASE_TABLE,
              "hash of the CPUs that got the lease, in order (controlled mode)"),
    )),
    Struct("nr_cpus", "lease", (
        Field("cpu_state", LEASE_TABLE, "OFF, RUNNING, READY, BLOCKED", reads=ANY),
        Field("cpu_wake", LEASE_TABLE, "a wake-up that came while not blocked", reads=ANY),
        Field("cpu_ready_ns", LEASE_TABLE, "its virtual clock while it has no lease", unit="ns"),
        Field("cpu_order_ns", LEASE_TABLE, "leases go to the READY CPU where this is smallest", reads=ANY,
              unit="ns"),
        Field("cpu_wait_kind", OneOf(LEASE_TABLE, OWNER), "what it waits for (WAIT_*)", reads=ANY),
        Field("cpu_wait_object", LEASE_TABLE, "which one: an address, page, barrier", reads=ANY),
        Field("cpu_lease", LEASE_TABLE, "number of the lease it holds", reads=ANY),
        Field("cpu_out_of_turn", LEASE_TABLE, "it has its lease only because an ack may hang on it",
              reads=ANY),
    )),
    Struct("nr_cpus", "clock", (
        Field("cpu_clock", OWNER, "virtual time", reads=ANY, unit="ns"),
        Field("cpu_slice_end", OWNER, "virtual time at which it offers its lease", reads=ANY, unit="ns"),
        Field("cpu_task", OWNER, "task it runs, -1 idle", reads=ANY),
        Field("cpu_random", OWNER, "state of its random stream"),
    )),
)  # fmt: skip

STATES = Numbered[str]()  # of a CPU
OFF = STATES.add("off")
RUNNING = STATES.add("running")
READY = STATES.add("ready")
BLOCKED = STATES.add("blocked")

WAITS = Numbered[str]()  # what a CPU waits for
WAIT_NONE = WAITS.add("nothing")
WAIT_LEASE = WAITS.add("a lease")
WAIT_ACKS = WAITS.add("acks")
WAIT_WORD = WAITS.add("word")
WAIT_PAGE = WAITS.add("page lock")
WAIT_BARRIER = WAITS.add("barrier")
WAIT_IDLE = WAITS.add("work")
WAIT_MM = WAITS.add("mmap_lock")
WAIT_FLAG = WAITS.add("flag")
WAIT_INVALIDATE = WAITS.add("invalidate_lock")
# time passes behind these: whoever waits so records when it begins and ends
TELL_THEMSELVES = (WAIT_ACKS, WAIT_BARRIER, WAIT_IDLE, WAIT_FLAG)

RUN, FINISHED, INTERRUPTED, PANIC, VIOLATED, LEAVE = range(6)  # run_stop

shell_wait = later("shell_wait", 2)
SPINS_BEFORE_YIELD = 40
FAR_NS = 1 << 60


@kernel
def lock_leases(ram):
    spins = 0
    while compare_exchange(ram.run_lease_lock, 0, 0, 1) != 0:
        spins += 1
        if spins % SPINS_BEFORE_YIELD == 0:  # the holder may have lost its host core
            sched_yield()
        else:
            pause()


@kernel
def unlock_leases(ram):
    store_release(ram.run_lease_lock, 0, 0)


@kernel
def _apart_ns(ram):
    """How far may clocks of CPUs lie apart?"""
    return ram.window_ns if has_points(ram) else ram.slice_ns


@kernel
def _bound_ns(ram):
    """Give the virtual time that only CPUs that are needed may pass: a slice after the slowest one that waits
    for acks.
    """
    asking_ns = FAR_NS
    for c in range(ram.nr_cpus):
        if ram.cpu_wait_kind[c] == WAIT_ACKS and ram.cpu_state[c] == BLOCKED:
            asking_ns = min(asking_ns, ram.cpu_clock[c])
    return asking_ns + _apart_ns(ram)


@kernel
def _is_needed(ram, c):
    """May the ack that another CPU waits for hang on this one? A holder of a spin lock, interrupts off, or
    (controlled) a target.
    """
    return (
        ram.cpu_no_resched[c]
        or ram.cpu_irq_off[c]
        or ram.cpu_in_irq[c]
        or (ram.controlled and ram.cpu_bell[c] > 0)
    )


@kernel
def _first_ready(ram, bound):
    """Find the READY CPU that is next in order, unless it is more than a slice ahead of one that runs or
    waits for acks; -1 nobody.
    """
    best, best_ns, slowest_ns = -1, 0, FAR_NS
    for c in range(ram.nr_cpus):
        order_ns, state = ram.cpu_order_ns[c], ram.cpu_state[c]
        if state == READY:
            if (best < 0 or order_ns < best_ns) and (order_ns <= bound or _is_needed(ram, c)):
                best, best_ns = c, order_ns
        elif state == RUNNING:
            # just woken: its clock may not be set yet
            slowest_ns = min(slowest_ns, max(order_ns, ram.cpu_clock[c]))
    return best if best_ns <= slowest_ns + ram.slice_ns else -1


@kernel
def _may_be_drawn(ram, c, limit, bound):
    """Is this CPU READY, and near enough in virtual time to the first one and to those that wait for acks, or
    needed by them?
    """
    order_ns = ram.cpu_order_ns[c]
    return ram.cpu_state[c] == READY and ((order_ns <= limit and order_ns <= bound) or _is_needed(ram, c))


@kernel
def _drawn_ready(ram, leaving, first, bound):
    """Draw the next CPU of the schedule among the READY ones within a slice of `first`, and those whose
    answer is waited for.
    """
    limit = ram.cpu_order_ns[first] + _apart_ns(ram)
    count = 0
    for c in range(ram.nr_cpus):
        may = _may_be_drawn(ram, c, limit, bound)
        count += may
        if has_points(ram):
            ram.cpu_eligible[c] = may
    if has_points(ram):
        return choose(ram, leaving, first, _spins(ram, leaving))
    ram.run_random[0] = random_next(ram.run_random[0])
    skip = (ram.run_random[0] >> 20) % count
    for c in range(ram.nr_cpus):
        if _may_be_drawn(ram, c, limit, bound):
            if skip == 0:
                return c
            skip -= 1
    return first


@kernel
def _spins(ram, cpu):
    """Does a CPU that hands its lease over wait for others to come to a later virtual time (wait_until)?"""
    if cpu < 0 or ram.cpu_wait_kind[cpu] == WAIT_LEASE or ram.cpu_wait_kind[cpu] == WAIT_IDLE:
        return False
    return ram.cpu_state[cpu] == READY and ram.cpu_order_ns[cpu] > ram.cpu_clock[cpu]


@kernel
def grant_free(ram, leaving):
    """Give a free lease, if there is one, to the READY CPU whose turn it is; returns that CPU, to be roused,
    or -1. `leaving` has just given it back, or is -1.
    """
    free = ram.run_lease_free[0]
    if free == 0:
        return -1
    bound = _bound_ns(ram)
    target = _first_ready(ram, bound)
    if target < 0 and has_points(ram):  # whose ack is missing may wait for one that is beyond the bound
        bound = FAR_NS
        target = _first_ready(ram, bound)
    if target < 0:
        return -1
    if ram.controlled:
        target = _drawn_ready(ram, leaving, target, bound)
        if has_points(ram):
            arm(ram, target)
    ram.cpu_out_of_turn[target] = ram.cpu_order_ns[target] > bound
    lease = 0
    while (free >> lease) & 1 == 0:
        lease += 1
    ram.run_lease_free[0] = free & ~(1 << lease)
    ram.cpu_lease[target] = lease
    ram.cpu_state[target] = RUNNING
    return target


@kernel
def note_grant(ram, target):
    """Count a lease that went to another CPU, and add it to the schedule's hash."""
    ram.run_handovers[0] += 1
    ram.run_schedule_hash[0] = ((ram.run_schedule_hash[0] * 1000003) ^ (target + 1)) & 0x7FFFFFFFFFFFFFFF


@kernel
def pass_lease(ram, cpu):
    """Pass the lease of a CPU that is no longer RUNNING on; returns the CPU that got it (it may be the same),
    or -1.
    """
    if ram.nr_leases == 0:
        return -1
    if has_points(ram) and ram.controlled:
        count(ram, cpu)
    ram.run_lease_free[0] |= 1 << ram.cpu_lease[cpu]
    target = grant_free(ram, cpu)
    if target >= 0 and target != cpu:
        note_grant(ram, target)
    return target


@kernel
def _sleep(ram, cpu, target):
    """Rouse `target`, sleep until RUNNING (perhaps not at all); then let no lease lie free that somebody
    could use.
    """
    shell_wait(ram, cpu, target if target != cpu else -1)
    if ram.run_lease_free[0] != 0 and not ram.controlled:
        lock_leases(ram)
        another = grant_free(ram, -1)
        if another >= 0:
            note_grant(ram, another)
        unlock_leases(ram)
        if another >= 0:
            rouse(ram, another)


@kernel
def new_slice(ram, cpu):
    """Start a slice of virtual time; in controlled mode its length is drawn, so that preemption may strike
    anywhere.
    """
    length = ram.slice_ns
    if ram.controlled:
        ram.cpu_random[cpu] = random_next(ram.cpu_random[cpu])
        length = 1 + (ram.cpu_random[cpu] >> 16) % length
    ram.cpu_slice_end[cpu] = ram.cpu_clock[cpu] + length


@apart
def offer_lease(ram, cpu):
    """At the end of a slice: let a READY CPU that is behind in virtual time run first."""
    charge_stolen(ram, cpu)
    if ram.nr_leases == 0:
        new_slice(ram, cpu)
        return 0
    answered = True
    while answered:
        served = ram.ipi_received[cpu]
        lock_leases(ram)
        ram.cpu_state[cpu] = READY
        ram.cpu_ready_ns[cpu] = ram.cpu_order_ns[cpu] = ram.cpu_clock[cpu]
        ram.cpu_wait_kind[cpu] = WAIT_LEASE
        target = pass_lease(ram, cpu)
        unlock_leases(ram)
        _sleep(ram, cpu, target)
        ram.cpu_wait_kind[cpu] = WAIT_NONE
        # it may be far ahead, and was drawn for this alone
        answered = ram.controlled and ram.ipi_received[cpu] != served
    new_slice(ram, cpu)
    return 0


@apart
def idle_until(ram, cpu, due_ns):
    """Idle until virtual time `due_ns`, when a task of this CPU wakes up, or until `wake` brings another one
    that is due earlier.

    The clock stands still meanwhile and then is at that time; a lease comes when it is this CPU's turn at
    that time.
    """
    if ram.nr_leases == 0:
        pass_until(ram, cpu, due_ns)
        new_slice(ram, cpu)
        return 0
    lock_leases(ram)
    if ram.cpu_wake[cpu] != 0:  # something came before: look again
        ram.cpu_wake[cpu] = 0
        unlock_leases(ram)
        return 0
    served = ram.ipi_received[cpu]
    ram.cpu_state[cpu] = READY
    ram.cpu_ready_ns[cpu] = ram.cpu_order_ns[cpu] = due_ns
    ram.cpu_wait_kind[cpu] = WAIT_IDLE
    target = pass_lease(ram, cpu)
    unlock_leases(ram)
    _sleep(ram, cpu, target)
    ram.cpu_wait_kind[cpu] = WAIT_NONE
    if ram.controlled and ram.ipi_received[cpu] != served:
        return 0  # drawn to answer: its time has not come, look again
    pass_until(ram, cpu, ram.cpu_order_ns[cpu])
    new_slice(ram, cpu)
    return 0


@kernel
def begin_wait(ram, cpu, kind, object):
    """Declare CPU `cpu` blocked, with the lease table locked; False (and unlocked) if a wake-up came before.

    Between this and `finish_wait` or `cancel_wait` the caller may re-check, against wakers that look for
    blocked CPUs.
    """
    lock_leases(ram)
    if ram.cpu_wake[cpu] != 0:
        ram.cpu_wake[cpu] = 0
        unlock_leases(ram)
        return False
    ram.cpu_state[cpu] = BLOCKED
    ram.cpu_ready_ns[cpu] = ram.cpu_clock[cpu]
    ram.cpu_order_ns[cpu] = ram.cpu_clock[cpu] if ram.controlled else ram.cpu_slice_end[cpu] - ram.slice_ns
    ram.cpu_wait_kind[cpu] = kind
    ram.cpu_wait_object[cpu] = object
    # the caller's re-check must not be done before these stores are seen (store-buffering, also on x86)
    fence()
    return True


@kernel
def cancel_wait(ram, cpu):
    """Take back `begin_wait`: what was waited for is there."""
    ram.cpu_state[cpu] = RUNNING
    ram.cpu_wait_kind[cpu] = WAIT_NONE
    unlock_leases(ram)


@apart
def finish_wait(ram, cpu):
    """Pass the lease on and sleep until somebody wakes this CPU and a lease is there."""
    if ram.controlled and ram.cpu_bell[cpu] > 0 and ram.cpu_irq_off[cpu] == 0 and ram.cpu_in_irq[cpu] == 0:
        # an interrupt came while it ran: it will be served when the schedule runs this CPU again
        ram.cpu_state[cpu] = READY
    target = pass_lease(ram, cpu)
    unlock_leases(ram)
    kind = ram.cpu_wait_kind[cpu]
    told = kind in TELL_THEMSELVES
    if not told:
        span(ram, cpu, SPAN_WAIT, kind, ram.cpu_wait_object[cpu])
    _sleep(ram, cpu, target)
    if not told:
        end_span(ram, cpu, SPAN_WAIT)
    ram.cpu_wait_kind[cpu] = WAIT_NONE
    if ram.cpu_out_of_turn[cpu]:
        ram.cpu_slice_end[cpu] = ram.cpu_clock[cpu]  # as far as it is needed, no further
    elif ram.cpu_clock[cpu] >= ram.cpu_slice_end[cpu] or ram.controlled:
        new_slice(ram, cpu)
    return 0


@kernel
def block(ram, cpu, kind, object):
    """Sleep until woken (spurious returns happen: re-check)."""
    if begin_wait(ram, cpu, kind, object):
        finish_wait(ram, cpu)


@kernel
def wait_until(ram, cpu, ns):
    """After `begin_wait`: sleep until woken, or until all who have something to do have come to virtual time
    `ns` (True).

    So who spins for others that are behind does not spin longer than they take. Spurious returns happen.
    """
    if ram.nr_leases == 0:  # nobody keeps virtual time together
        cancel_wait(ram, cpu)
        return True
    ram.cpu_state[cpu] = READY
    ram.cpu_order_ns[cpu] = ns
    finish_wait(ram, cpu)
    return ram.cpu_order_ns[cpu] >= ns and not ram.cpu_out_of_turn[cpu]


@kernel
def _wake_locked(ram, target, at_ns):
    """Make a BLOCKED CPU runnable, or one that waits for a later time so much earlier; returns a CPU that
    must be roused, or -1.
    """
    waits = ram.cpu_state[target] == READY and ram.cpu_wait_kind[target] != WAIT_LEASE
    if waits and ram.cpu_wait_kind[target] == WAIT_IDLE:
        if at_ns >= ram.cpu_order_ns[target]:
            return -1  # it looks at its queue then anyway
        ram.cpu_ready_ns[target] = ram.cpu_order_ns[target] = at_ns
    elif waits and at_ns < ram.cpu_order_ns[target]:
        ram.cpu_order_ns[target] = min(ram.cpu_order_ns[target], max(at_ns, ram.cpu_ready_ns[target]))
    elif ram.cpu_state[target] != BLOCKED:
        ram.cpu_wake[target] = 1
        return -1
    else:
        if at_ns > ram.cpu_ready_ns[target]:
            ram.cpu_ready_ns[target] = at_ns
        if at_ns > ram.cpu_slice_end[target] or (ram.controlled and at_ns > ram.cpu_order_ns[target]):
            ram.cpu_order_ns[target] = at_ns
    if ram.nr_leases == 0:
        ram.cpu_state[target] = RUNNING
        return target
    ram.cpu_state[target] = READY
    if has_points(ram) and (ram.strategy == PCT or ram.strategy == STARVE):
        shorten(ram)  # it may come before the one that runs
    granted = grant_free(ram, -1)
    if granted >= 0:
        note_grant(ram, granted)
    return granted


@kernel
def _wake_and_unlock(ram, target, at_ns):
    """Wake a CPU, let go of the lease lock, and rouse the process that got a lease by it."""
    granted = _wake_locked(ram, target, at_ns)
    unlock_leases(ram)
    if granted >= 0:
        rouse(ram, granted)


@apart
def wake(ram, target, at_ns):
    """Make CPU `target` look again at what it waits for; it becomes runnable at virtual time `at_ns` at the
    earliest.
    """
    lock_leases(ram)
    _wake_and_unlock(ram, target, at_ns)
    return 0


@apart
def wake_all_waiting_for(ram, kind, object, at_ns):
    """Wake every CPU that is blocked on this very object (the slow path of unlocking: somebody said that it
    waits).
    """
    for c in range(ram.nr_cpus):
        if ram.cpu_wait_object[c] == object:  # a waiter wrote it before the word that let us know of it
            lock_leases(ram)
            waits = ram.cpu_wait_kind[c] == kind and ram.cpu_wait_object[c] == object
            if waits and ram.cpu_state[c] != RUNNING:
                _wake_and_unlock(ram, c, at_ns)
            else:
                unlock_leases(ram)
    return 0
