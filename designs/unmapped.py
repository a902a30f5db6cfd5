"""A munmap that flushes its own CPU alone: what `latr` and `fpr` share.

Other CPUs may go on using their old translations of the addresses. That harms nobody as long as the addresses
are free, which a program does not use; whoever maps one of them again (HOOK_MAP) has the others flushed
first.
One range for each mm covers what is unmapped and perhaps not flushed everywhere. Only private anonymous
memory that nobody else holds is unmapped so, and only if no page table is freed.
"""

from allocator.lru import lru_add_drain
from allocator.page_alloc import free_changes_bytes
from allocator.page_cache import OBJECT_ANON
from cpus.atomics import load_acquire
from cpus.compiled import kernel
from cpus.layout import Sizes

NO_PAGE = 1 << 60


def unmapped_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shared fields of such a design."""
    # mmap_lock held for writing: unmapped, perhaps not flushed everywhere
    return {"mm_low": (sizes.nr_mms,), "mm_high": (sizes.nr_mms,)}


@kernel
def _gathered_is_private(ram, cpu):
    """Is every page of this CPU's open gather private anonymous memory that nobody else holds?"""
    lru_add_drain(ram, cpu)  # a reference of this CPU's batch is nobody's
    for i in range(ram.gather_pages[cpu]):
        pfn = ram.gather[cpu, i]
        object = ram.page_object[pfn] - 1
        if object < 0 or ram.object_kind[object] != OBJECT_ANON or load_acquire(ram.page_refcount, pfn) != 1:
            return False
    return ram.gather_pages[cpu] > 0


@kernel
def other_cpus_may_wait(ram, cpu, munmap):
    """May the flush of this CPU's open gather be left undone on other CPUs (arguments of HOOK_USER_FLUSH)?"""
    return munmap != 0 and not free_changes_bytes(ram) and _gathered_is_private(ram, cpu)


@kernel
def note_unmapped(state, mm, start, end, alone):
    """Remember addresses; `alone`: all that was unmapped before is flushed by now."""
    low, high = (NO_PAGE, 0) if alone else (state.mm_low[mm], state.mm_high[mm])
    state.mm_low[mm], state.mm_high[mm] = min(low, start), max(high, end)


@kernel
def was_unmapped(state, mm, start, end):
    """Is any of these addresses in the range that is remembered?"""
    return start < state.mm_high[mm] and state.mm_low[mm] < end
