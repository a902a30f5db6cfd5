"""Calls on ranges with holes, without rights, of several mappings: what Linux does, or one sentence. Each
program is one that random ones (test_random_programs.py) were shrunk to, or a neighbour of it.
"""

from __future__ import annotations

import pytest

from cpus.abi.numbers import TASK_SIZE
from emulator import load_machine
from emulator.experiment import run_design
from emulator.judge.bad_access import BadAccess
from workloads import Region, Script

MACHINE = load_machine("guest-8cpu", cpus=2)
REGIONS = (
    Region("file", 8, file="data"),
    Region("heap", 64, writable=True),
    Region("code", 8, file="data", executable=True),
    Region("spare", 16, writable=True, mapped=False),
    Region("room", 64, writable=True, mapped=False),
    Region("shared", 8, file="other", writable=True, shared=True),
)

ADVICES = ("MADV_COLD", "MADV_FREE", "MADV_PAGEOUT", "MADV_DONTNEED")
UNMAPPED = "must name mapped pages, but nothing is mapped there (SIGSEGV)"

CLEAN = {
    "populate across a hole": [("munmap", "file", 4, 3), ("populate", "file", 3, 5)],
    "populate with no rights in the middle": [("mprotect", "heap", 0, 8, 8), ("populate", "heap", 4, 20)],
    "populate where nothing is": [("populate", "spare")],
    "populate behind the last mapping": [("munmap", "shared"), ("populate", "shared", 4, 4)],
    "populate a page that was only read": [
        ("load", "heap", 0, 4),
        ("populate", "heap", 0, 8),
        ("store", "heap", 0, 8),
    ],
    "munmap where nothing is": [
        ("munmap", "heap", 8, 8),
        ("munmap", "heap", 0, 32),
        ("munmap", "heap", 0, 32),
    ],
    "madvise across holes": [("store", "heap"), ("munmap", "heap", 8, 8), ("munmap", "heap", 40, 1)]
    + [("madvise", "heap", advice, 4, 60) for advice in ADVICES],
    "madvise without rights": [("store", "heap"), ("mprotect", "heap", 0, 8, 8)]
    + [("madvise", "heap", advice) for advice in ADVICES],
    "move pages across holes": [
        ("store", "heap"),
        ("munmap", "heap", 8, 8),
        ("move_pages", "heap", 1, 4, 40),
    ],
    "several mappings are one again": [
        ("mprotect", "heap", 1, 8, 8),
        ("mprotect", "heap", 1, 24, 8),
        ("mprotect", "heap", 1, 0, 40),
        ("mremap", "heap", "room", 4, 30),
        ("load", "room", 0, 30),
    ],
    "moved to where something is": [
        ("store", "heap"),
        ("mremap", "heap", "shared", 0, 4),
        ("store", "shared", 0, 8),
    ],
    "moved to where there is room": [
        ("store", "heap"),
        ("place", "room"),
        ("mremap", "heap", "room", 0, 64),
        ("store", "room"),
    ],
    "code that may be written to": [
        ("mprotect", "code", 7),
        ("populate", "code"),
        ("madvise", "code", "MADV_PAGEOUT"),
    ],
    "up to the last page": [
        ("place", "spare", TASK_SIZE - 16),
        ("mmap", "spare"),
        ("store", "spare"),
        ("munmap", "spare", 15, 1),
        ("load", "spare", 0, 15),
    ],
    "a direct read into what is half there": [
        ("load", "heap", 0, 8),
        ("munmap", "heap", 12, 4),
        ("direct_read", "file", "heap", 0, 8, 4),
    ],
    "breakpoints in code with holes": [
        ("execute", "code"),
        ("munmap", "code", 2, 2),
        ("uprobe_register", "code"),
        ("mprotect", "code", 0, 0, 1),
        ("uprobe_unregister", "code"),
    ],
}

REFUSED = {
    "rights across a hole": (
        [("munmap", "heap", 8, 2), ("mprotect", "heap", 1)],
        f"1: MPROTECT of page 8 of region 'heap' {UNMAPPED}",
    ),
    "moving across a hole": (
        [("munmap", "heap", 8, 2), ("mremap", "heap", "room")],
        f"1: MREMAP of page 8 of region 'heap' {UNMAPPED}",
    ),
    "moving two mappings": (
        [("mprotect", "heap", 1, 8, 2), ("mremap", "heap", "room")],
        "1: MREMAP of page 8 of region 'heap' must name pages of one mapping, "
        "but another one begins there (EFAULT)",
    ),
    "moving onto itself": (
        [("mremap", "heap", "heap", 4, 8)],
        "0: MREMAP of page 4 of region 'heap' must not move pages onto themselves (EINVAL)",
    ),
    "freeing a file's pages lazily": (
        [("load", "file"), ("madvise", "file", "MADV_FREE", 2, 2)],
        "1: MADVISE of page 2 of region 'file' with MADV_FREE must name anonymous memory, "
        "but a file is mapped there (EINVAL)",
    ),
    "a region without a place": (
        [("munmap", "heap"), ("place", "heap"), ("madvise", "heap", "MADV_COLD")],
        "2: MADVISE must name a region that has a place: mmap it first",
    ),
    "a target that reaches beyond user space": (
        [("place", "spare", TASK_SIZE - 16), ("mremap", "heap", "spare", 0, 20)],
        "1: MREMAP of page 0 of region 'spare' must not reach beyond the end of user space (ENOMEM)",
    ),
    "a buffer with a hole": (
        [("munmap", "heap", 6, 1), ("direct_read", "file", "heap", 0, 8)],
        f"1: DIRECT_READ of page 6 of region 'heap' {UNMAPPED}",
    ),
}


def thread(steps):
    """Make a thread of steps, each a call and its arguments."""
    return lambda t: (getattr(t, call)(*arguments) for call, *arguments in steps)


def run(*steps, regions=REGIONS, child=(), design="linux"):
    """Run one thread, and the child that it forks."""
    script = Script("mine", regions=regions).process("p", [thread(steps)])
    if child:
        script.process("child", [thread(child)], forked=True)
    return run_design(design, MACHINE, script.workload(), leases=1, seed=1)


@pytest.mark.parametrize("name", CLEAN)
def test_a_range_is_worked_on_as_far_as_it_is_there(name):
    """Oracle and audit have nothing to say."""
    result = run(*CLEAN[name])
    assert result.clean
    assert result.unaccounted == {}


@pytest.mark.parametrize("name", REFUSED)
def test_what_linux_refuses_is_one_sentence(name):
    """It names process, thread, step, page and region."""
    steps, said = REFUSED[name]
    with pytest.raises(BadAccess) as error:
        run(*steps)
    assert str(error.value) == f"workload 'mine': process 'p' thread 0 step {said}"


def test_a_place_that_does_not_take_the_region_is_refused_before_the_run():
    """Above it the page numbers begin anew."""
    with pytest.raises(ValueError, match="'vpn' must be a whole number from 1 to 34359738304"):
        run(("place", "heap", TASK_SIZE - 8))


@pytest.mark.parametrize(
    "child",
    [
        [("munmap", "heap"), ("mmap", "heap"), ("store", "heap")],
        [("mmap", "spare"), ("store", "spare"), ("populate", "spare")],
        [
            ("munmap", "heap"),
            ("place", "heap"),
            ("mmap", "heap"),
            ("store", "heap"),
            ("madvise", "heap", "MADV_PAGEOUT"),
        ],
        [("mprotect", "code", 7), ("populate", "code")],
    ],
    ids=["again", "first", "elsewhere", "code"],
)
def test_a_child_has_anonymous_memory_of_its_own(child):
    """What it maps anew belongs to what its parent's regions belong to, as what it got from it does."""
    steps = [("store", "heap"), ("fork", "child"), ("store", "heap", 0, 8), ("wait", "gone")]
    result = run(*steps, child=[*child, ("exit", "gone")])
    assert result.clean
    assert result.unaccounted == {}


@pytest.mark.parametrize("leases", [1, 2])
@pytest.mark.parametrize(
    "calls",
    [
        ("truncate", "truncate"),
        ("direct_write", "direct_write"),
        ("truncate", "direct_write"),
        ("write", "truncate"),
    ],
    ids="-".join,
)
def test_two_who_change_a_file_at_once_leave_nobody_stale(calls, leases):
    """One page, again and again, while a third thread reads it: the file's locks keep them apart, and the
    disk orders what they let through. That they wait is tested in tests/allocator/test_inode_lock.py.
    """
    script = Script("mine", regions=REGIONS)

    def changes(call, buffer):
        step = (call, "shared", *([buffer] if call.startswith("direct") else []), 0, 2)
        return thread([("meet", "begin", 3), *[step] * 30])

    reads = thread([("meet", "begin", 3), *[("load", "shared", 0, 2, 2000)] * 60])
    script.process("p", [changes(calls[0], "heap"), changes(calls[1], "file"), reads])
    result = run_design("linux", load_machine("guest-8cpu", cpus=3), script.workload(), leases=leases, seed=1)
    assert result.violations == []
    assert result.unaccounted == {}
