"""The system calls that a thread's rows ask for: each finds its range and calls the function named after
Linux's.

A row names a region of its process; where that lies now stands in `proc_region`. Left out: error codes (what
Linux would refuse stops the run with a sentence), partial success.
"""

from allocator.filemap import fadvise, sync_file_page, truncate_range, write_to_file
from allocator.fork import dup_mm
from allocator.inode_lock import EXCLUSIVE, inode_lock, inode_unlock
from allocator.madvise import madvise
from allocator.migrate import move_pages
from allocator.mmap import UNPLACED, do_mmap, do_munmap, exit_mm
from allocator.mprotect import mprotect
from allocator.mremap import mremap
from allocator.outcome import BLOCKED, NEXT, RAN
from allocator.panic import BAD_OPERATION, HAS_NO_PLACE, panic
from allocator.sched import wake_task
from cpus.abi.numbers import MADV_DONTNEED
from cpus.abi.row_kinds import (
    ANYWHERE,
    DONTNEED,
    FADVISE,
    MADVISE,
    MMAP,
    MOVE_PAGES,
    MPROTECT,
    MREMAP,
    MUNMAP,
    PLACE_SHIFT,
    SYNC,
    TRUNCATE,
    WRITE,
)
from cpus.compiled import kernel
from cpus.declare import Cost
from cpus.events import EV_TASK, record
from cpus.ipi import serve_interrupts

COSTS = (Cost("syscall", "entry and return of a system call"),)

CHANGES_MAPPING = (DONTNEED, MUNMAP, MMAP, MPROTECT, MREMAP, MADVISE, MOVE_PAGES)
CHANGES_FILE = (WRITE, SYNC, TRUNCATE, FADVISE)


@kernel
def place_region(ram, task, row):
    """Say where a region will be mapped next: the vpn in `page` and `count`, or wherever there is room."""
    vpn = (ram.row_count[row] << PLACE_SHIFT) | ram.row_page[row]
    ram.proc_region[ram.task_process[task], ram.row_region[row]] = (
        UNPLACED if ram.row_kind[row] == ANYWHERE else vpn
    )


@kernel
def start_child(ram, cpu, task, row):
    """fork(2): copy the address space to process `page` of the workload and start its main thread at its next
    row.
    """
    child = ram.row_page[row]
    main = ram.proc_first_task[child]
    dup_mm(ram, cpu, ram.task_mm[task], ram.task_mm[main])
    record(ram, cpu, EV_TASK, main, 1, 0, 0)
    wake_task(ram, cpu, main, ram.cpu_clock[cpu])


@kernel
def change_mapping(ram, cpu, task, row):
    """The calls that change or inspect mappings of the caller's process."""
    op, mm, region = ram.row_op[row], ram.task_mm[task], ram.row_region[row]
    place = ram.proc_region[ram.task_process[task], region]
    if place == UNPLACED and op != MMAP:
        panic(ram, cpu, HAS_NO_PLACE, ram.task_process[task], region)
    first = place + ram.row_page[row]
    last = first + ram.row_pages[row]
    ram.cpu_clock[cpu] += ram.cost_syscall
    if op == MMAP:
        do_mmap(ram, cpu, mm, region, ram.row_page[row], ram.row_pages[row])
    elif op == MUNMAP:
        do_munmap(ram, cpu, mm, first, last)
    elif op == MPROTECT:
        mprotect(ram, cpu, mm, first, last, ram.row_kind[row])
    elif op == MREMAP:
        target = (ram.task_process[task], ram.row_count[row])
        ram.proc_region[target] = mremap(ram, cpu, mm, first, ram.row_pages[row], ram.proc_region[target])
    elif op == DONTNEED:
        madvise(ram, cpu, mm, first, last, MADV_DONTNEED)
    elif op == MADVISE:
        madvise(ram, cpu, mm, first, last, ram.row_kind[row])
    elif op == MOVE_PAGES:
        move_pages(ram, cpu, mm, first, last, ram.row_kind[row])
    else:
        panic(ram, cpu, BAD_OPERATION, row, op)
    ram.cpu_live_count[cpu] = 0  # it does not use what it gives away


@kernel
def _change_pages(ram, cpu, task, op, object, first, pages):
    """The calls that go page by page, and may go on in another slice."""
    while ram.task_visit[task] < pages:
        index = first + ram.task_visit[task]
        if op == WRITE:
            write_to_file(ram, cpu, object, index)
        elif op == SYNC:
            sync_file_page(ram, cpu, object, index)
        else:
            panic(ram, cpu, BAD_OPERATION, index, op)
        ram.task_visit[task] += 1
        if ram.cpu_bell[cpu] > 0:
            serve_interrupts(ram, cpu)
        if ram.cpu_clock[cpu] >= ram.cpu_slice_end[cpu] and ram.task_visit[task] < pages:
            return RAN
    return NEXT


@kernel
def change_file(ram, cpu, task, row):
    """write(2), fdatasync, truncation, posix_fadvise of the file that a region shows, from where the task
    left it.
    """
    op, process, region = ram.row_op[row], ram.task_process[task], ram.row_region[row]
    object, pages = ram.proc_file[process, region], ram.row_pages[row]
    first = ram.proc_offset[process, region] + ram.row_page[row]
    if op in (WRITE, TRUNCATE) and not inode_lock(ram, cpu, task, object, EXCLUSIVE):
        return BLOCKED
    if ram.task_visit[task] == 0:
        ram.cpu_clock[cpu] += ram.cost_syscall
    result = NEXT
    if op == TRUNCATE:
        truncate_range(ram, cpu, object, first, first + pages)
    elif op == FADVISE:
        fadvise(ram, cpu, object, first, first + pages)
    else:
        result = _change_pages(ram, cpu, task, op, object, first, pages)
    if result == NEXT:
        ram.task_visit[task] = 0
        inode_unlock(ram, cpu, task, object)
    return result


@kernel
def leave_process(ram, cpu, task):
    """exit_group(2) by the last thread: its address space ends."""
    exit_mm(ram, cpu, ram.task_mm[task])
