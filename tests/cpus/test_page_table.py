"""The page table and the walk: bits are set atomically, so that an unmapper sees every bit that was ever
used.
"""

import multiprocessing
import time

import pytest

from cpus.atomics import exchange, fetch_add, load_acquire, pause, store_release
from cpus.compiled import kernel
from cpus.lease import sched_yield
from cpus.looks import read_pte
from cpus.page_table import (
    NOT_PRESENT,
    NOT_WRITABLE,
    PTE_ACCESSED,
    PTE_DIRTY,
    PTE_MIGRATION,
    PTE_PRESENT,
    PTE_PROTNONE,
    PTE_WRITE,
    find_table,
)
from tests.cpus import bare_machine as bare
from tests.support.hardware import hardware_walk

LAST_VPN = (1 << 36) - 1
EPOCHS = 200_001
ENOUGH = 200  # mappings that a walk used, to call it a meeting
BITS = PTE_ACCESSED | PTE_DIRTY
OVERWRITTEN = -1  # an older mapping was there again


@pytest.fixture
def ram():
    ram = bare.build()
    yield ram
    ram.close()


@pytest.mark.parametrize("vpn", [0, 511, 512, 1 << 18, (1 << 27) - 1, 1 << 27, LAST_VPN])
def test_finds_what_was_mapped_at_every_level_boundary(ram, vpn):
    """The frame comes back, and the neighbours stay unmapped."""
    bare.set_pte(ram, 0, vpn, 77 << 12 | PTE_PRESENT)
    assert read_pte(ram, ram.mm_pgd[0], vpn) == 77 << 12 | PTE_PRESENT
    assert hardware_walk(ram, ram.mm_pgd[0], vpn, False) == 77 << 12 | PTE_PRESENT | PTE_ACCESSED
    assert read_pte(ram, ram.mm_pgd[0], vpn ^ 1) == 0
    assert read_pte(ram, ram.mm_pgd[1], vpn) == 0


def test_a_missing_level_reads_as_unmapped(ram):
    assert find_table(ram, ram.mm_pgd[0], 5) == -1
    assert read_pte(ram, ram.mm_pgd[0], 5) == 0
    assert hardware_walk(ram, ram.mm_pgd[0], 5, False) == NOT_PRESENT


@pytest.mark.parametrize("pte", [0, 77 << 12 | PTE_MIGRATION, 77 << 12 | PTE_PROTNONE | PTE_WRITE])
def test_entries_that_are_not_present_fault_and_stay_as_they_are(ram, pte):
    bare.set_pte(ram, 0, 5, pte)
    assert hardware_walk(ram, ram.mm_pgd[0], 5, False) == NOT_PRESENT
    assert hardware_walk(ram, ram.mm_pgd[0], 5, True) == NOT_PRESENT
    assert read_pte(ram, ram.mm_pgd[0], 5) == pte


def test_loads_set_accessed_and_stores_set_dirty_too(ram):
    bare.set_pte(ram, 0, 5, 77 << 12 | PTE_PRESENT | PTE_WRITE)
    hardware_walk(ram, ram.mm_pgd[0], 5, False)
    assert bare.pte_of(ram, 0, 5) == (77, PTE_PRESENT | PTE_WRITE | PTE_ACCESSED)
    hardware_walk(ram, ram.mm_pgd[0], 5, True)
    assert bare.pte_of(ram, 0, 5) == (77, PTE_PRESENT | PTE_WRITE | BITS)


def test_a_store_to_a_read_only_page_sets_nothing(ram):
    bare.set_pte(ram, 0, 5, 77 << 12 | PTE_PRESENT)
    assert hardware_walk(ram, ram.mm_pgd[0], 5, True) == NOT_WRITABLE
    assert bare.pte_of(ram, 0, 5) == (77, PTE_PRESENT)


# --- one process walks, another unmaps: the frame number is the number of the mapping, `version` and
# `disk_version` take notes


@kernel
def careless_walk(ram, table):
    """The planted bug: read, and write back with the bits. An unmapper in between never sees them."""
    pte = load_acquire(ram.frame_word, (table, 5))
    if pte & PTE_PRESENT == 0:
        return -1
    for _ in range(50):
        pause()
    store_release(ram.frame_word, (table, 5), pte | BITS)
    return pte | BITS


@kernel
def walk_until_stopped(ram, careless):
    """Store to page 5 again and again; note for each mapping that it was used."""
    fetch_add(ram.run_ready, 0, 1)
    table = find_table(ram, ram.mm_pgd[0], 5)
    while load_acquire(ram.run_stop, 0) == 0:
        pte = careless_walk(ram, table) if careless else hardware_walk(ram, ram.mm_pgd[0], 5, True)
        if pte >= 0:
            ram.version[pte >> 12] = 1
        else:
            sched_yield()


@kernel
def map_and_unmap(ram, first, last):
    """Map page 5 anew, wait a little, take it away; note the bits that were found in it."""
    table = find_table(ram, ram.mm_pgd[0], 5)
    for epoch in range(first, last):
        store_release(ram.frame_word, (table, 5), (epoch << 12) | PTE_PRESENT | PTE_WRITE)
        waited = 0
        # on a busy host the walker needs to come on
        while epoch % 16 == 0 and waited < 2000 and load_acquire(ram.version, epoch) == 0:
            sched_yield()
            waited += 1
        for _ in range(epoch % 7):
            pause()
        taken = exchange(ram.frame_word, (table, 5), 0)
        ram.disk_version[epoch] = taken & BITS if taken >> 12 == epoch else OVERWRITTEN


def lost_bits(careless):
    """Let the two processes loose on each other for a while; returns (mappings used, of these without their
    bits).
    """
    ram = bare.build(nr_logical=EPOCHS + 500)
    bare.set_pte(ram, 0, 5, 0)
    map_and_unmap(ram, 0, 0)  # compiled before the fork
    ram.run_stop[0] = 1
    walk_until_stopped(ram, careless)
    ram.run_stop[0] = 0
    walker = multiprocessing.get_context("fork").Process(target=walk_until_stopped, args=(ram, careless))
    walker.start()
    began = time.monotonic()
    while ram.run_ready[0] < 2 and time.monotonic() < began + 20:
        time.sleep(0.001)
    done, used, missing = 1, 0, 0
    while (
        done < EPOCHS
        and missing == 0
        and (used < ENOUGH or time.monotonic() < began + 1)
        and time.monotonic() < began + 20
    ):
        map_and_unmap(ram, done, done + 500)
        done += 500
        used, missing = int(ram.version.sum()), count_missing(ram, done)
    ram.run_stop[0] = 1
    walker.join(20)
    assert walker.exitcode == 0
    used, missing = int(ram.version.sum()), count_missing(ram, done)
    ram.close()
    return used, missing


def count_missing(ram, done):
    """Count mappings that were used and taken away without the bits, or overwritten by an older one."""
    used, found = ram.version[:done] == 1, ram.disk_version[:done]
    return int(((used & (found != BITS)) | (found == OVERWRITTEN)).sum())


def test_no_bit_is_ever_lost_to_an_unmapper():
    """Every mapping that a walk used was taken away with its accessed and dirty bits."""
    used, lost = lost_bits(careless=False)
    assert used >= ENOUGH, "the two must have met"
    assert lost == 0


def test_a_walk_that_is_not_atomic_loses_bits():
    """The planted bug is caught: the test above can fail."""
    _, lost = lost_bits(careless=True)
    assert lost > 0
