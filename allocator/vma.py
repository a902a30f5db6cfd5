"""Virtual memory areas: finding, placing, linking, splitting, merging (mm/vma.c).

An mm has a short array of VMAs in address order, under mmap_lock. A VMA that shows a file is on the file's
list, one with private memory on that of its anon_vma, one with both on both; reverse mapping walks these
lists under the object's lock, so whoever changes a VMA's place takes the locks of both. A forked VMA comes
behind its parent on the list: rmap meets the parent first, and what fork copies meanwhile is met later (as in
Linux's interval trees).
Left out: the maple tree, per-VMA locks, guard gaps, mlock, policies per VMA; merging with areas of other
regions.
"""

from allocator.page_list import NONE
from allocator.panic import NO_ADDRESS, NO_VMA, TOO_MANY_VMAS, panic
from cpus.abi.numbers import PROT_EXEC, PROT_READ, PROT_WRITE
from cpus.atomics import compare_exchange, load_acquire, store_release
from cpus.compiled import apart, kernel
from cpus.declare import Atomic, Field, Held, Lock, OneOf, Struct
from cpus.locks import spin_lock, spin_unlock

MAX_VMAS = 256  # per mm
MM = Held("mm_lock", at="vma_mm")
READERS = OneOf(
    Held("mm_lock", at="vma_mm", shared=True),
    Held("object_lock", at="vma_object"),
    Held("object_lock", at="vma_anon"),
)
FIELDS = (
    Struct("nr_mms", "identity", (
        Field("mm_nr_vmas", Held("mm_lock"), "entries of mm_vma", reads=Held("mm_lock", shared=True)),
    )),
    Field("mm_vma", Held("mm_lock"), "VMA numbers in address order", ("nr_mms", MAX_VMAS),
          reads=Held("mm_lock", shared=True)),
    Struct("nr_vmas", "vma", (
        Field("vma_start", MM, "first vpn", reads=READERS),
        Field("vma_end", MM, "behind the last vpn", reads=READERS),
        Field("vma_flags", OneOf(MM, Atomic("fetch_or", why="VM_HAS_ANON")), "VM_*", reads=READERS),
        Field("vma_mm",
              Atomic("compare_exchange", "store_release", why="0 -> mm takes a free VMA, 0 gives it back"),
              "mm"),
        Field("vma_object", MM, "the file that it shows, -1 none", reads=READERS),
        Field("vma_anon", MM, "its anon_vma, -1 none", reads=READERS),
        Field("vma_pgoff", MM, "page of the object at vma_start", reads=READERS),
        Field("vma_next", Held("object_lock", at="vma_object"), "next VMA that shows the file + 1"),
        Field("vma_anon_next", Held("object_lock", at="vma_anon"), "next VMA of the anon_vma + 1"),
    )),
    Struct("nr_objects", "config", (
        Field("object_vmas", Held("object_lock"), "first VMA that maps it + 1 (i_mmap, anon_vma)"),
    )),
    Struct("nr_objects", "lock", (
        Lock("object_lock", "i_mmap/anon_vma lock", "who maps the object; its holder may wait for acks"),
    )),
)  # fmt: skip

VM_READ, VM_WRITE, VM_EXEC = PROT_READ, PROT_WRITE, PROT_EXEC  # mprotect gives rights as they stand
VM_SHARED, VM_SEQ_READ, VM_ANON = 8, 16, 32
VM_HAS_ANON = 64  # private pages were mapped here: fork must copy (vma->anon_vma is set)
VM_RIGHTS = VM_READ | VM_WRITE | VM_EXEC
MMAP_BASE = 0x7FFFF7FFF  # mmap_base() without randomisation: below the stack and its gap


@kernel
def is_shared_file(ram, vma):
    """Is it a shared mapping of a file?"""
    return ram.vma_flags[vma] & VM_SHARED != 0 and ram.vma_flags[vma] & VM_ANON == 0


@kernel
def find_vma_index(ram, mm, vpn):
    """Index of the first VMA of an mm that ends above `vpn` (find_vma); the number of VMAs if none does.
    mmap_lock held.
    """
    low, high = 0, ram.mm_nr_vmas[mm]
    while low < high:
        middle = (low + high) // 2
        if ram.vma_end[ram.mm_vma[mm, middle]] <= vpn:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def find_vma(ram, mm, vpn):
    """Find the VMA that holds `vpn`, -1 if none does. mmap_lock held."""
    at = find_vma_index(ram, mm, vpn)
    if at < ram.mm_nr_vmas[mm] and ram.vma_start[ram.mm_vma[mm, at]] <= vpn:
        return ram.mm_vma[mm, at]
    return NONE


@apart
def address_is_mapped(ram, mm, vpn):
    """Does a VMA hold `vpn`? 0 also if nobody keeps the VMAs as they are."""
    if load_acquire(ram.mm_lock, mm) <= 0:
        return 0
    return 0 if find_vma(ram, mm, vpn) == NONE else 1


@kernel
def first_hole(ram, mm, start, end):
    """The first page of start..end that no VMA holds, `end` if there is none. mmap_lock held."""
    at = find_vma_index(ram, mm, start)
    while start < end and at < ram.mm_nr_vmas[mm] and ram.vma_start[ram.mm_vma[mm, at]] <= start:
        start = ram.vma_end[ram.mm_vma[mm, at]]
        at += 1
    return min(start, end)


@kernel
def get_unmapped_area(ram, cpu, mm, pages):
    """Choose the highest free place for `pages` pages below MMAP_BASE (vm_unmapped_area, top down)."""
    top = MMAP_BASE
    for i in range(ram.mm_nr_vmas[mm] - 1, -1, -1):
        vma = ram.mm_vma[mm, i]
        if ram.vma_start[vma] >= MMAP_BASE:
            continue
        if top - ram.vma_end[vma] >= pages:
            return top - pages
        top = ram.vma_start[vma]
    if top < pages:
        panic(ram, cpu, NO_ADDRESS, mm, pages)
    return top - pages


@kernel
def new_vma(ram, cpu, mm):
    """Take a free VMA (vm_area_alloc)."""
    for vma in range(ram.nr_vmas):
        if ram.vma_mm[vma] == 0 and compare_exchange(ram.vma_mm, vma, 0, mm) == 0:
            ram.vma_ra_start[vma] = ram.vma_ra_size[vma] = ram.vma_ra_async[vma] = ram.vma_ra_miss[
                vma
            ] = ram.vma_ra_prev[vma] = 0
            return vma
    panic(ram, cpu, NO_VMA, mm, ram.nr_vmas)
    return NONE


# --- the lists of files and anon_vmas -----------------------------------------------------------------------


@kernel
def lock_object(ram, cpu, object):
    """Take the lock of a file's or anon_vma's list of VMAs; of none (-1) there is nothing to take."""
    if object >= 0:
        spin_lock(ram, cpu, ram.object_lock, object)


@kernel
def unlock_object(ram, cpu, object):
    """Let go of it."""
    if object >= 0:
        spin_unlock(ram, cpu, ram.object_lock, object)


@kernel
def lock_rmap(ram, cpu, vma):
    """Keep reverse mapping away from a VMA: file first, then anon_vma (vma_prepare, take_rmap_locks)."""
    lock_object(ram, cpu, ram.vma_object[vma])
    lock_object(ram, cpu, ram.vma_anon[vma])


@kernel
def unlock_rmap(ram, cpu, vma):
    """Let reverse mapping in again."""
    unlock_object(ram, cpu, ram.vma_anon[vma])
    unlock_object(ram, cpu, ram.vma_object[vma])


@kernel
def next_vma_of(ram, object, vma):
    """The VMA behind `vma` on the list of an object, -1 at its end. Object lock held."""
    return (ram.vma_next[vma] if ram.vma_object[vma] == object else ram.vma_anon_next[vma]) - 1


@kernel
def _set_next(ram, object, vma, after):
    if ram.vma_object[vma] == object:
        ram.vma_next[vma] = after + 1
    else:
        ram.vma_anon_next[vma] = after + 1


@kernel
def _link(ram, object, vma, before):
    """Put a VMA on an object's list behind `before`, at its head if that is -1. Object lock held."""
    if object < 0:
        return
    if before == NONE:
        _set_next(ram, object, vma, ram.object_vmas[object] - 1)
        ram.object_vmas[object] = vma + 1
    else:
        _set_next(ram, object, vma, next_vma_of(ram, object, before))
        _set_next(ram, object, before, vma)


@kernel
def _unlink(ram, object, vma):
    if object < 0:
        return
    after = next_vma_of(ram, object, vma)
    if ram.object_vmas[object] == vma + 1:
        ram.object_vmas[object] = after + 1
        return
    before = ram.object_vmas[object] - 1
    while next_vma_of(ram, object, before) != vma:
        before = next_vma_of(ram, object, before)
    _set_next(ram, object, before, after)


@kernel
def link_rmap(ram, cpu, vma, before):
    """Enter a VMA into the lists of its file and its anon_vma, behind VMA `before` (-1: first)."""
    lock_rmap(ram, cpu, vma)
    _link(ram, ram.vma_object[vma], vma, before)
    _link(ram, ram.vma_anon[vma], vma, before)
    unlock_rmap(ram, cpu, vma)


@kernel
def unlink_rmap(ram, cpu, vma):
    """Hide a VMA from reverse mapping (unlink_anon_vmas, unlink_file_vma)."""
    lock_rmap(ram, cpu, vma)
    _unlink(ram, ram.vma_object[vma], vma)
    _unlink(ram, ram.vma_anon[vma], vma)
    unlock_rmap(ram, cpu, vma)


# --- the mm's array; mmap_lock held for writing -------------------------------------------------------------


@kernel
def insert_vma(ram, cpu, mm, vma):
    """Enter a filled-in VMA into its mm."""
    count = ram.mm_nr_vmas[mm]
    if count >= MAX_VMAS:
        panic(ram, cpu, TOO_MANY_VMAS, mm, MAX_VMAS)
    at = count
    while at > 0 and ram.vma_start[ram.mm_vma[mm, at - 1]] > ram.vma_start[vma]:
        ram.mm_vma[mm, at] = ram.mm_vma[mm, at - 1]
        at -= 1
    ram.mm_vma[mm, at] = vma
    ram.mm_nr_vmas[mm] = count + 1


@kernel
def remove_vma(ram, mm, at):
    """Take the VMA at index `at` out of its mm and give it back."""
    vma = ram.mm_vma[mm, at]
    for i in range(at, ram.mm_nr_vmas[mm] - 1):
        ram.mm_vma[mm, i] = ram.mm_vma[mm, i + 1]
    ram.mm_nr_vmas[mm] -= 1
    store_release(ram.vma_mm, vma, 0)


@kernel
def split_vma(ram, cpu, mm, vma, vpn):
    """Cut a VMA in two at `vpn`; returns the upper part (__split_vma)."""
    upper = new_vma(ram, cpu, mm)
    ram.vma_start[upper], ram.vma_end[upper], ram.vma_flags[upper] = vpn, ram.vma_end[vma], ram.vma_flags[vma]
    ram.vma_pgoff[upper] = ram.vma_pgoff[vma] + vpn - ram.vma_start[vma]
    ram.vma_object[upper], ram.vma_anon[upper] = ram.vma_object[vma], ram.vma_anon[vma]
    lock_rmap(ram, cpu, vma)
    ram.vma_end[vma] = vpn
    _link(ram, ram.vma_object[upper], upper, vma)
    _link(ram, ram.vma_anon[upper], upper, vma)
    unlock_rmap(ram, cpu, vma)
    insert_vma(ram, cpu, mm, upper)
    return upper


@kernel
def split_at(ram, cpu, mm, vpn):
    """Make `vpn` a boundary between VMAs, if it lies inside one."""
    vma = find_vma(ram, mm, vpn)
    if vma != NONE and ram.vma_start[vma] < vpn:
        split_vma(ram, cpu, mm, vma, vpn)


@kernel
def _mergeable(ram, low, high):
    same = (ram.vma_flags[low] ^ ram.vma_flags[high]) & ~VM_HAS_ANON == 0 and ram.vma_object[
        low
    ] == ram.vma_object[high]
    adjacent = ram.vma_end[low] == ram.vma_start[high] and ram.vma_anon[low] == ram.vma_anon[high]
    return (
        same
        and adjacent
        and ram.vma_pgoff[low] + ram.vma_end[low] - ram.vma_start[low] == ram.vma_pgoff[high]
    )


@kernel
def merge_vmas(ram, cpu, mm, vpn):
    """Merge the VMAs on both sides of `vpn` if they show the same memory in the same way (vma_merge)."""
    at = find_vma_index(ram, mm, vpn)
    if at == 0 or at >= ram.mm_nr_vmas[mm] or ram.vma_start[ram.mm_vma[mm, at]] != vpn:
        return
    low, high = ram.mm_vma[mm, at - 1], ram.mm_vma[mm, at]
    if not _mergeable(ram, low, high):
        return
    lock_rmap(ram, cpu, low)
    ram.vma_end[low] = ram.vma_end[high]
    ram.vma_flags[low] |= ram.vma_flags[high]
    _unlink(ram, ram.vma_object[high], high)
    _unlink(ram, ram.vma_anon[high], high)
    unlock_rmap(ram, cpu, low)
    remove_vma(ram, mm, at)


@kernel
def merge_range(ram, cpu, mm, start, end):
    """Merge what can be merged at each boundary between VMAs from `start` to `end`. No hole lies there."""
    edge = start
    while edge <= end:
        merge_vmas(ram, cpu, mm, edge)
        at = find_vma_index(ram, mm, edge)
        if at == ram.mm_nr_vmas[mm]:
            return
        edge = ram.vma_end[ram.mm_vma[mm, at]]
