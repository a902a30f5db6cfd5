"""The lock of an inode: who changes a file, and who must not meanwhile (inode.i_rwsem; fs/ext4/file.c,
fs/open.c: do_truncate, mm/filemap.c: the order of locks).

Buffered write and truncation have it alone; direct reads and direct writes of blocks that are there share it
(ext4_dio_read_iter, ext4_dio_write_checks). Faults and readahead do not take it. Its order is: i_rwsem before
mmap_lock before invalidate_lock before page locks.
It is held for a whole row, while its task waits for the disk and while others run on its CPU: so who waits
for it is a task, not a CPU. It sleeps, and whoever lets go wakes all who do; they try anew. Left out:
fairness (hand-off to the first one, optimistic spinning), the locks of directories.
"""

from allocator.sched import wake_task
from cpus.atomics import compare_exchange, exchange, fence, fetch_add, load_acquire, store_release
from cpus.compiled import kernel
from cpus.declare import RWSEM, Atomic, Field, Lock, OwnerOf, Struct
from cpus.locks import WRITER

FIELDS = (
    Struct("nr_objects", "inode", (
        Lock("inode_lock", "inode.i_rwsem", "what the file is: written to or truncated by its holder alone",
             kind=RWSEM),
        Field("inode_waiters", Atomic("exchange"), "a task sleeps for inode_lock"),
    )),
    Struct("nr_tasks", "task", (
        Field("task_inode_held", OwnerOf("task_cpu"), "how it holds the lock of its row's file"),
        Field("task_wait_inode",
              Atomic("store_release", "exchange", why="the sleeper sets it, who takes it back wakes it"),
              "file whose lock it sleeps for + 1"),
    )),
)  # fmt: skip

NOT_HELD, SHARED, EXCLUSIVE = range(3)  # task_inode_held


@kernel
def _is_free(ram, object, how):
    held = load_acquire(ram.inode_lock, object)
    return held == 0 or (how == SHARED and held != WRITER)


@kernel
def _try(ram, object, how):
    """Take the lock if it is free; False if it is not."""
    while True:
        held = load_acquire(ram.inode_lock, object)
        if held == WRITER or (how == EXCLUSIVE and held != 0):
            return False
        wanted = WRITER if how == EXCLUSIVE else held + 1
        if compare_exchange(ram.inode_lock, object, held, wanted) == held:
            return True


@kernel
def inode_lock(ram, cpu, task, object, how):
    """Take the lock of a file for a task that does not hold it so yet; False: the task is entered as a
    sleeper, its CPU must choose another, and then it must come again.
    """
    if ram.task_inode_held[task] == how:
        return True
    inode_unlock(ram, cpu, task, object)  # there is no way from one to the other
    while not _try(ram, object, how):
        store_release(ram.task_wait_inode, task, object + 1)
        exchange(ram.inode_waiters, object, 1)
        fence()  # the entry before the second look: who lets go changes the lock before it looks for sleepers
        # whoever takes the entry back goes on with the task: we, if the lock is free by now, or who woke it
        if not _is_free(ram, object, how) or exchange(ram.task_wait_inode, task, 0) == 0:
            return False
    ram.task_inode_held[task] = how
    return True


@kernel
def inode_unlock(ram, cpu, task, object):
    """Let go of the lock, if the task holds it, and wake who sleeps for it."""
    held = ram.task_inode_held[task]
    if held == NOT_HELD:
        return
    ram.task_inode_held[task] = NOT_HELD
    if held == EXCLUSIVE:
        store_release(ram.inode_lock, object, 0)
    else:
        fetch_add(ram.inode_lock, object, -1)
    fence()
    if load_acquire(ram.inode_waiters, object) and exchange(ram.inode_waiters, object, 0):
        for sleeper in range(ram.user_tasks):
            if load_acquire(ram.task_wait_inode, sleeper) == object + 1:
                if exchange(ram.task_wait_inode, sleeper, 0) == object + 1:
                    wake_task(ram, cpu, sleeper, ram.cpu_clock[cpu])
