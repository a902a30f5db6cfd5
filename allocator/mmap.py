"""mmap, munmap, and the end of an address space (mm/mmap.c: do_mmap, do_vmi_align_munmap, exit_mmap).

What is unmapped from the middle of a VMA splits it. Page tables that no neighbour needs go with the mapping,
and make the flush reach CPUs that have the mm loaded lazily.
Left out: stack growth, mlock, limits, MAP_POPULATE as a flag (a row of its own), the downgrade of mmap_lock
while pages are zapped.
"""

from allocator.flush_sites import SITE_USER
from allocator.hooks import HOOK_MAP, HOOK_VMA_DONE
from allocator.mmu_gather import tlb_finish_mmu, tlb_finish_munmap, tlb_flush_everything, tlb_gather_mmu
from allocator.panic import BEYOND_USER_SPACE, NOT_FREE, panic
from allocator.pgtables import free_pgtables, free_table, new_table
from allocator.tlb_flush import INIT_MM, inc_mm_tlb_gen, switch_mm
from allocator.unmap import zap_ptes
from allocator.vma import (
    find_vma_index,
    get_unmapped_area,
    insert_vma,
    link_rmap,
    merge_vmas,
    new_vma,
    remove_vma,
    split_at,
)
from cpus.abi.numbers import TASK_SIZE
from cpus.compiled import apart, call, kernel
from cpus.completion import UNMAPPED, change_begins, change_is_complete
from cpus.declare import ANY, CONFIG, Exclusive, Field, Struct
from cpus.locks import mmap_write_lock, mmap_write_unlock

MAX_REGIONS = 64  # per process of a workload
REGIONS = ("nr_mms", MAX_REGIONS)
FIELDS = (
    Struct("nr_mms", "identity", (
        Field("mm_users", Exclusive("who makes or ends the mm"), "1: it exists", reads=ANY),
        Field("mm_process", CONFIG, "process that it belongs to"),
    )),
    Field("proc_region", Exclusive("the thread whose call places it"), "first vpn of each region", REGIONS,
          reads=ANY),
    Field("proc_flags", CONFIG, "VM_* of each region", REGIONS),
    Field("proc_file", CONFIG, "file that each region shows, -1 none", REGIONS),
    Field("proc_offset", CONFIG, "page of the file at which it begins", REGIONS),
    Field("proc_anon", Exclusive("who forks the process"), "anon_vma of each region, -1 none", REGIONS,
          reads=ANY),
)  # fmt: skip

UNPLACED = -1  # of proc_region: the kernel finds room


@kernel
def new_mm(ram, cpu, mm):
    """Give an mm its top page table. Its generation goes on from where the number was last used: old TLB
    entries are older.
    """
    ram.mm_pgd[mm] = new_table(ram, cpu, mm)
    inc_mm_tlb_gen(ram, mm)
    ram.mm_users[mm] = 1
    return ram.mm_pgd[mm]


@kernel
def check_in_user_space(ram, cpu, start, pages):
    """Stop the run at a mapping that would not lie in user space."""
    if start < 0 or start + pages > TASK_SIZE:
        panic(ram, cpu, BEYOND_USER_SPACE, start, pages)


@apart
def do_mmap(ram, cpu, mm, region, page, pages):
    """Map pages `page` .. `page + pages - 1` of a region at its place, or wherever there is room if that is
    UNPLACED (do_mmap).

    The region's declaration says what is mapped, and `proc_region` where it lies. Returns the first vpn. What
    lay there before is unmapped first, as MAP_FIXED does.
    """
    process = ram.mm_process[mm]
    mmap_write_lock(ram, cpu, mm)
    if ram.proc_region[process, region] == UNPLACED:
        start = get_unmapped_area(ram, cpu, mm, pages)
        ram.proc_region[process, region] = start - page
    else:
        start = ram.proc_region[process, region] + page
        check_in_user_space(ram, cpu, start, pages)
        unmap_range(ram, cpu, mm, start, start + pages)
    call(ram, HOOK_MAP, cpu, mm, start, start + pages, 0)
    map_region(ram, cpu, mm, region, page, pages)
    mmap_write_unlock(ram, cpu, mm)
    return start


@kernel
def map_region(ram, cpu, mm, region, page, pages):
    """Make the VMA that shows `pages` pages of a region from `page` on, at its place. mmap_lock held for
    writing; nothing is there.
    """
    process = ram.mm_process[mm]
    start = ram.proc_region[process, region] + page
    at = find_vma_index(ram, mm, start)
    if at < ram.mm_nr_vmas[mm] and ram.vma_start[ram.mm_vma[mm, at]] < start + pages:
        panic(ram, cpu, NOT_FREE, start, pages)
    vma = new_vma(ram, cpu, mm)
    ram.vma_start[vma], ram.vma_end[vma], ram.vma_flags[vma] = (
        start,
        start + pages,
        ram.proc_flags[process, region],
    )
    ram.vma_object[vma], ram.vma_anon[vma] = ram.proc_file[process, region], ram.proc_anon[process, region]
    ram.vma_pgoff[vma] = ram.proc_offset[process, region] + page
    link_rmap(ram, cpu, vma, -1)
    insert_vma(ram, cpu, mm, vma)
    merge_vmas(ram, cpu, mm, start)
    merge_vmas(ram, cpu, mm, start + pages)


@kernel
def unmap_range(ram, cpu, mm, start, end):
    """Unmap start..end; mmap_lock held for writing."""
    split_at(ram, cpu, mm, start)
    split_at(ram, cpu, mm, end)
    first = find_vma_index(ram, mm, start)
    count = 0
    while first + count < ram.mm_nr_vmas[mm] and ram.vma_start[ram.mm_vma[mm, first + count]] < end:
        count += 1
    if count == 0:
        return
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_USER
    change = change_begins(ram, mm)
    tlb_gather_mmu(ram, cpu, mm)
    for i in range(first, first + count):
        vma = ram.mm_vma[mm, i]
        zap_ptes(ram, cpu, mm, ram.vma_start[vma], ram.vma_end[vma], True)
        call(ram, HOOK_VMA_DONE, cpu, mm, vma, 0, 0)
    free_pgtables(ram, cpu, mm, first, count)
    tlb_finish_munmap(ram, cpu)
    change_is_complete(ram, cpu, mm, change, start, end, UNMAPPED)
    ram.cpu_site[cpu] = site
    for _ in range(count):
        remove_vma(ram, mm, first)


@apart
def do_munmap(ram, cpu, mm, start, end):
    """Unmap start..end, whatever lies there (do_munmap)."""
    mmap_write_lock(ram, cpu, mm)
    unmap_range(ram, cpu, mm, start, end)
    mmap_write_unlock(ram, cpu, mm)
    return 0


@apart
def exit_mm(ram, cpu, mm):
    """The last thread of a process leaves: its address space is torn down (exit_mm, exit_mmap)."""
    switch_mm(ram, cpu, INIT_MM)
    mmap_write_lock(ram, cpu, mm)
    count = ram.mm_nr_vmas[mm]
    tlb_gather_mmu(ram, cpu, mm)
    tlb_flush_everything(ram, cpu)
    for i in range(count):
        vma = ram.mm_vma[mm, i]
        zap_ptes(ram, cpu, mm, ram.vma_start[vma], ram.vma_end[vma], True)
        call(ram, HOOK_VMA_DONE, cpu, mm, vma, 0, 0)
    if count:
        free_pgtables(ram, cpu, mm, 0, count)
    tlb_finish_mmu(ram, cpu)
    for _ in range(count):
        remove_vma(ram, mm, 0)
    free_table(ram, cpu, ram.mm_pgd[mm])
    ram.mm_users[mm] = 0
    mmap_write_unlock(ram, cpu, mm)
    return 0
