"""Sets of CPUs, under Linux's names (include/linux/cpumask.h).

A cpumask is a row of a table with `mask_words` columns, 32 CPUs to a word, and is named by both:
`cpumask_test_cpu(cpu, ram.mm_cpumask, mm)`. Each word is read once, with acquire, so what is read may be a
mask that others change meanwhile (an mm's): whoever orders that against something else puts the fence.
As in Linux `cpumask_set_cpu` and `cpumask_clear_cpu` are atomic; those with two underscores, and all that
writes a whole mask, are for one that nobody else changes at the time: it is this CPU's own, or a lock is
held. Where Linux names a destination and two sources, the destination is the first source here.
Left out: what nobody has needed yet (cpumask_and, cpumask_equal, ...).
"""

from collections.abc import Sequence

from cpus.atomics import fetch_and, fetch_or, load_acquire
from cpus.compiled import generator, kernel
from cpus.ram import columns

MASK_BITS = 32  # CPUs per word: 32, so that a word is never negative


@kernel
def cpumask_test_cpu(cpu, mask, row):
    """Is the CPU in the mask?"""
    return (load_acquire(mask, (row, cpu // MASK_BITS)) >> (cpu % MASK_BITS)) & 1 != 0


@kernel
def cpumask_set_cpu(cpu, mask, row):
    """Add a CPU to a mask that others change too."""
    fetch_or(mask, (row, cpu // MASK_BITS), 1 << (cpu % MASK_BITS))


@kernel
def cpumask_clear_cpu(cpu, mask, row):
    """Drop a CPU from a mask that others change too."""
    fetch_and(mask, (row, cpu // MASK_BITS), ~(1 << (cpu % MASK_BITS)))


@kernel
def __cpumask_set_cpu(cpu, mask, row):
    """Add a CPU to a mask of one's own."""
    mask[row, cpu // MASK_BITS] |= 1 << (cpu % MASK_BITS)


@kernel
def __cpumask_clear_cpu(cpu, mask, row):
    """Drop a CPU from a mask of one's own."""
    mask[row, cpu // MASK_BITS] &= ~(1 << (cpu % MASK_BITS))


@kernel
def cpumask_clear(mask, row):
    """Drop all."""
    for word in range(columns(mask)):
        mask[row, word] = 0


@kernel
def cpumask_copy(mask, row, source, source_row):
    """Make a mask the same as another."""
    for word in range(columns(mask)):
        mask[row, word] = load_acquire(source, (source_row, word))


@kernel
def cpumask_or(mask, row, source, source_row):
    """Add the CPUs of another mask."""
    for word in range(columns(mask)):
        mask[row, word] |= load_acquire(source, (source_row, word))


@kernel
def cpumask_andnot(mask, row, source, source_row):
    """Drop the CPUs of another mask; False if nobody is left."""
    left = 0
    for word in range(columns(mask)):
        mask[row, word] &= ~load_acquire(source, (source_row, word))
        left |= mask[row, word]
    return left != 0


@kernel
def cpumask_empty(mask, row):
    """Is nobody in the mask?"""
    for word in range(columns(mask)):
        if load_acquire(mask, (row, word)) != 0:
            return False
    return True


@kernel
def cpumask_weight(mask, row):
    """How many CPUs are in the mask?"""
    count = 0
    for word in range(columns(mask)):
        bits = load_acquire(mask, (row, word))
        while bits != 0:
            bits &= bits - 1
            count += 1
    return count


@generator
def for_each_cpu(mask, row):
    """Go through the CPUs of a mask, in ascending order. The body may change the mask: a word is read when
    its turn comes.
    """
    for word in range(columns(mask)):
        bits = load_acquire(mask, (row, word))
        cpu = word * MASK_BITS
        while bits != 0:
            if bits & 1:
                yield cpu
            bits >>= 1
            cpu += 1


@kernel
def cpumask_any_but(mask, row, cpu):
    """Give a CPU of the mask other than this one; -1 if there is none."""
    for other in for_each_cpu(mask, row):
        if other != cpu:
            return other
    return -1


def cpus_of(words: Sequence[int]) -> list[int]:
    """List the CPUs of a mask, given its row, in plain Python."""
    return [
        number * MASK_BITS + bit
        for number, word in enumerate(words)
        for bit in range(MASK_BITS)
        if int(word) >> bit & 1
    ]
