"""Sets of CPUs over several words: each operation does to a mask what Python's sets do."""

import numpy as np
import pytest

from benchmarks.storm import small_ram
from cpus.atomics import load_acquire
from cpus.compiled import kernel
from cpus.cpumask import (
    __cpumask_clear_cpu,
    __cpumask_set_cpu,
    cpumask_andnot,
    cpumask_any_but,
    cpumask_clear,
    cpumask_clear_cpu,
    cpumask_copy,
    cpumask_empty,
    cpumask_or,
    cpumask_set_cpu,
    cpumask_test_cpu,
    cpumask_weight,
    cpus_of,
    for_each_cpu,
)
from tests.cpus.forked import run_forked

CPUS = 70  # three words, the last one not full
ONE, OTHER = 5, 6  # rows
SETS = [set(), {0}, {31, 32}, {63, 64, 69}, {0, 31, 32, 63, 64, 69}, set(range(CPUS))]
ROUNDS = 3_000_000
UNTIL_LOST = 10**10  # a minute


@pytest.fixture(scope="module")
def ram():
    return small_ram(CPUS)


def fill(ram, row, cpus):
    """Write a set into a row, with neighbours that would show if an operation left its row."""
    ram.tmp_mask[row - 1 : row + 2] = -1
    ram.tmp_mask[row] = 0
    for cpu in cpus:
        ram.tmp_mask[row, cpu // 32] |= 1 << cpu % 32


@kernel
def _change(ram, cpu):
    __cpumask_set_cpu(cpu, ram.tmp_mask, ONE)
    added = cpumask_test_cpu(cpu, ram.tmp_mask, ONE)
    __cpumask_clear_cpu(cpu, ram.tmp_mask, ONE)
    return added, cpumask_test_cpu(cpu, ram.tmp_mask, ONE)


@kernel
def _change_shared(ram, cpu):
    cpumask_set_cpu(cpu, ram.tmp_mask, ONE)
    added = cpumask_test_cpu(cpu, ram.tmp_mask, ONE)
    cpumask_clear_cpu(cpu, ram.tmp_mask, ONE)
    return added, cpumask_test_cpu(cpu, ram.tmp_mask, ONE)


@pytest.mark.parametrize("change", [_change, _change_shared])
@pytest.mark.parametrize("cpu", [0, 31, 32, 69])
@pytest.mark.parametrize("cpus", SETS)
def test_a_cpu_is_added_and_dropped_alone(ram, cpus, cpu, change):
    fill(ram, ONE, cpus)
    assert change(ram, cpu) == (True, False)
    assert cpus_of(ram.tmp_mask[ONE]) == sorted(cpus - {cpu})
    assert (ram.tmp_mask[[ONE - 1, ONE + 1]] == -1).all()


@kernel
def _look(ram, cpu):
    return (
        cpumask_empty(ram.tmp_mask, ONE),
        cpumask_weight(ram.tmp_mask, ONE),
        cpumask_test_cpu(cpu, ram.tmp_mask, ONE),
        cpumask_any_but(ram.tmp_mask, ONE, cpu),
    )


@pytest.mark.parametrize("cpu", [0, 31, 69])
@pytest.mark.parametrize("cpus", SETS)
def test_what_is_asked_of_a_mask(ram, cpus, cpu):
    fill(ram, ONE, cpus)
    assert _look(ram, cpu) == (not cpus, len(cpus), cpu in cpus, min(cpus - {cpu}, default=-1))


@kernel
def _combine(ram, how):
    left = True
    if how == 0:
        cpumask_or(ram.tmp_mask, ONE, ram.ubc_mask, OTHER)
    elif how == 1:
        cpumask_copy(ram.tmp_mask, ONE, ram.ubc_mask, OTHER)
    elif how == 2:
        left = cpumask_andnot(ram.tmp_mask, ONE, ram.ubc_mask, OTHER)
    else:
        cpumask_clear(ram.tmp_mask, ONE)
    return left


@pytest.mark.parametrize("b", SETS)
@pytest.mark.parametrize("a", SETS)
def test_two_masks_become_one(ram, a, b):
    """The first is the destination too; andnot says whether anybody is left in it."""
    for how, expected in enumerate((a | b, b, a - b, set())):
        fill(ram, OTHER, b)
        ram.ubc_mask[OTHER] = ram.tmp_mask[OTHER]
        fill(ram, ONE, a)
        left = _combine(ram, how)
        assert cpus_of(ram.tmp_mask[ONE]) == sorted(expected)
        assert how != 2 or left == bool(expected)
        assert cpus_of(ram.ubc_mask[OTHER]) == sorted(b)
        assert (ram.tmp_mask[[ONE - 1, ONE + 1]] == -1).all()


@kernel
def _walk(ram, seen, drop):
    count = 0
    for cpu in for_each_cpu(ram.tmp_mask, ONE):
        seen[count] = cpu
        count += 1
        if drop:
            __cpumask_clear_cpu(cpu, ram.tmp_mask, ONE)
    return count


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("cpus", SETS)
def test_every_cpu_is_gone_through_once(ram, cpus, drop):
    """In ascending order, and also if the body drops each."""
    fill(ram, ONE, cpus)
    seen = np.zeros(CPUS, np.int64)
    count = _walk(ram, seen, drop)
    assert seen[:count].tolist() == sorted(cpus)
    assert cpus_of(ram.tmp_mask[ONE]) == ([] if drop else sorted(cpus))


@kernel
def _come_and_go(ram, cpu, shared):
    """Add and drop oneself many times in a word that another CPU changes too; how often was it not so? What
    is to be lost for sure goes on until one of the two has lost something.
    """
    for _ in range(ROUNDS if shared else UNTIL_LOST):
        if shared:
            cpumask_set_cpu(cpu, ram.tmp_mask, ONE)
        else:
            __cpumask_set_cpu(cpu, ram.tmp_mask, ONE)
        if not cpumask_test_cpu(cpu, ram.tmp_mask, ONE):
            ram.cpu_clock[cpu] += 1
        if shared:
            cpumask_clear_cpu(cpu, ram.tmp_mask, ONE)
        else:
            __cpumask_clear_cpu(cpu, ram.tmp_mask, ONE)
        if cpumask_test_cpu(cpu, ram.tmp_mask, ONE):
            ram.cpu_clock[cpu] += 1
        if not shared and load_acquire(ram.cpu_clock, 3) + load_acquire(ram.cpu_clock, 4) > 0:
            break


def _lost(ram, shared):
    """How many additions and drops of two CPUs in one word were lost?"""
    ram.cpu_clock[3] = 1
    _come_and_go(ram, 0, shared)  # compiled before the fork
    ram.tmp_mask[ONE] = ram.cpu_clock[:] = 0
    assert run_forked([lambda cpu=cpu: _come_and_go(ram, cpu, shared) for cpu in (3, 4)]) == [0, 0]
    return int(ram.cpu_clock.sum())


def test_cpus_change_one_word_at_once(ram):
    """Atomic operations lose nothing; those for a mask of one's own, planted here, lose some."""
    assert _lost(ram, True) == 0
    assert _lost(ram, False) > 0
