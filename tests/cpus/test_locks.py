"""Locks exclude, let interrupts through where they may, put waiters to sleep and wake them all."""

import pytest

from benchmarks.storm import set_storm, shoot, shots_done, small_ram
from cpus.atomics import fetch_add, load_acquire, store_release
from cpus.compiled import kernel
from cpus.ipi import unaccounted_interrupts
from cpus.lease import WAIT_IDLE, block, new_slice, offer_lease, random_next
from cpus.locks import (
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_lock,
    mmap_write_unlock,
    spin_lock,
    spin_lock_irq,
    spin_unlock,
    spin_unlock_irq,
    try_lock,
)
from emulator.supervisor import Supervisor

SHOTS = 1  # ram.series[0, SHOTS]: rounds of each CPU
INSIDE, WRONG, TOTAL, LOOKED, LOADED = 0, 1, 2, 3, 4  # columns of ram.free_count[0]
MODES = [
    {"leases": 0},
    {"leases": 2},
    {"leases": 2, "lock_spins": 0},
    {"leases": 1, "controlled": True, "slice_ns": 500},
]
MODE_NAMES = ["ungated", "2 leases", "no spinning", "controlled"]


def _run(main, nr_cpus, rounds, **constants):
    ram = small_ram(nr_cpus, **({"wait_bound_ms": 3000, "slice_ns": 2_000} | constants))
    set_storm(ram, shots=rounds, targets=0)
    with Supervisor(ram, main, label="locks") as run:
        run.start()
        run.watch(shots_done, tick_s=0.005)
        run.quiesce()
        run.finish()
    return ram


@kernel
def _idle(ram, cpu):
    """Finish: be idle for the rest of the run."""
    fetch_add(ram.run_tasks_left, 0, -1)
    while True:
        block(ram, cpu, WAIT_IDLE, 0)


@kernel
def _work(ram, cpu, steps):
    """Spend time, and lose the lease now and then."""
    for _ in range(steps):
        ram.cpu_random[cpu] = random_next(ram.cpu_random[cpu])
        ram.cpu_clock[cpu] += 20
    if ram.cpu_clock[cpu] >= ram.cpu_slice_end[cpu]:
        offer_lease(ram, cpu)


@kernel
def _inside(ram, cpu):
    """The critical section: nobody else may be in it, and a plain addition must not be lost."""
    if ram.free_count[0, INSIDE] != 0:
        fetch_add(ram.free_count, (0, WRONG), 1)
    ram.free_count[0, INSIDE] = cpu + 1
    total = ram.free_count[0, TOTAL]
    _work(ram, cpu, 1 + ram.cpu_random[cpu] % 16)
    ram.free_count[0, TOTAL] = total + 1
    if ram.free_count[0, INSIDE] != cpu + 1:
        fetch_add(ram.free_count, (0, WRONG), 1)
    ram.free_count[0, INSIDE] = 0


@kernel
def _spin_locks(ram, cpu):
    new_slice(ram, cpu)
    for i in range(ram.series[0, SHOTS]):
        if i % 2:
            spin_lock(ram, cpu, ram.zone_lock, 0)
            _inside(ram, cpu)
            spin_unlock(ram, cpu, ram.zone_lock, 0)
        else:
            spin_lock_irq(ram, cpu, ram.zone_lock, 0)
            _inside(ram, cpu)
            spin_unlock_irq(ram, cpu, ram.zone_lock, 0)
    _idle(ram, cpu)
    return 0


@pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)
def test_a_spin_lock_excludes_and_nobody_sleeps_forever(mode):
    """Six CPUs, holders that lose their lease inside: no overlap, no lost addition, all finish, the lock is
    free.
    """
    ram = _run(_spin_locks, 6, 400, **mode)
    assert ram.free_count[0, : TOTAL + 1].tolist() == [0, 0, 6 * 400]
    assert ram.zone_lock[0] == 0
    assert not ram.cpu_no_resched.any()
    assert not ram.cpu_irq_off.any()
    if mode["leases"]:
        assert ram.lock_waits.sum() > 0


@kernel
def _meet(ram, cpu, window):
    """Wait until all CPUs are in a planted window; leases are handed on meanwhile."""
    fetch_add(ram.free_count, (0, window), 1)
    while load_acquire(ram.free_count, (0, window)) < ram.nr_cpus:
        _work(ram, cpu, 1)


@kernel
def _planted_lock(ram, cpu):
    """In the first round all have looked before anybody takes, and all have loaded before anybody stores."""
    new_slice(ram, cpu)
    for i in range(ram.series[0, SHOTS]):
        while load_acquire(ram.zone_lock, 0) != 0:
            _work(ram, cpu, 1)
        if i == 0:
            _meet(ram, cpu, LOOKED)
        _work(ram, cpu, 4)
        store_release(ram.zone_lock, 0, cpu + 1)
        if i == 0:
            total = ram.free_count[0, TOTAL]
            _meet(ram, cpu, LOADED)
            ram.free_count[0, TOTAL] = total + 1
        else:
            _inside(ram, cpu)
        store_release(ram.zone_lock, 0, 0)
    _idle(ram, cpu)
    return 0


@pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)
def test_planted_lock_that_looks_before_it_takes_is_caught(mode):
    """The same section under a lock that two can take: seen as overlap or as lost additions, controlled mode
    included.
    """
    ram = _run(_planted_lock, 6, 2000, **mode)
    assert ram.free_count[0, TOTAL] < 6 * 2000


@kernel
def _shoot_and_lock(ram, cpu):
    """Half of the CPUs shoot at all while the others hold and wait for locks of both kinds."""
    new_slice(ram, cpu)
    for i in range(ram.series[0, SHOTS]):
        if cpu % 2 == 0:
            if i % 3 == 0:  # a plain lock may be held across a shootdown: its waiters serve interrupts
                spin_lock(ram, cpu, ram.lru_lock, 0)
                shoot(ram, cpu, ram.nr_cpus - 1, 1)
                spin_unlock(ram, cpu, ram.lru_lock, 0)
            else:
                shoot(ram, cpu, ram.nr_cpus - 1, 1)
        elif i % 2:
            spin_lock(ram, cpu, ram.lru_lock, 0)
            _work(ram, cpu, 50)
            spin_unlock(ram, cpu, ram.lru_lock, 0)
        else:
            spin_lock_irq(ram, cpu, ram.zone_lock, 0)
            before = ram.irq_call[cpu]
            _inside(ram, cpu)
            if ram.irq_call[cpu] != before:  # an interrupt was served although they are off
                fetch_add(ram.free_count, (0, WRONG), 1)
            spin_unlock_irq(ram, cpu, ram.zone_lock, 0)
    _idle(ram, cpu)
    return 0


@pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)
def test_lock_holders_and_waiters_answer_interrupts(mode):
    """Shootdowns by holders of a plain lock, waiters that serve, irq-safe sections that do not: no deadlock,
    nothing lost.
    """
    ram = _run(_shoot_and_lock, 6, 60, **mode)
    assert unaccounted_interrupts(ram) == []
    assert ram.irq_call.sum() == 3 * 60 * 5
    assert ram.free_count[0, : TOTAL + 1].tolist() == [0, 0, 3 * 30]


@kernel
def _mmap_locks(ram, cpu):
    """Every fourth round writes: then no reader may be inside. Readers count themselves in `run_tokens`."""
    new_slice(ram, cpu)
    for i in range(ram.series[0, SHOTS]):
        if (i + cpu) % 4 == 0:
            mmap_write_lock(ram, cpu, 1)
            if load_acquire(ram.run_tokens, 0) != 0:
                fetch_add(ram.free_count, (0, WRONG), 1)
            _inside(ram, cpu)
            mmap_write_unlock(ram, cpu, 1)
        else:
            mmap_read_lock(ram, cpu, 1)
            fetch_add(ram.run_tokens, 0, 1)
            if ram.free_count[0, INSIDE] != 0:
                fetch_add(ram.free_count, (0, WRONG), 1)
            _work(ram, cpu, 1 + ram.cpu_random[cpu] % 32)
            fetch_add(ram.run_tokens, 0, -1)
            mmap_read_unlock(ram, cpu, 1)
    _idle(ram, cpu)
    return 0


@pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)
def test_mmap_lock_excludes_writers_from_all(mode):
    """Readers share, a writer is alone, and the lock ends free with nobody waiting."""
    ram = _run(_mmap_locks, 6, 400, **mode)
    assert ram.free_count[0, : TOTAL + 1].tolist() == [0, 0, 6 * 100]
    assert ram.mm_lock[1] == 0


@kernel
def _try_twice(ram):
    return try_lock(ram.zone_lock, 0, 1), try_lock(ram.zone_lock, 0, 0)


def test_try_lock_takes_only_what_is_free():
    """The word says who holds it."""
    ram = small_ram(2)
    assert _try_twice(ram) == (True, False)
    assert ram.zone_lock[0] == 2
