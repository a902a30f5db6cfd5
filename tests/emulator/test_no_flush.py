"""`none:what=user` leaves out the flushes of changes by the user: each kind of call is caught, at the same
access each time.

Scripts of two threads on a CPU each: one changes a mapping and posts a flag, the other one waits for it and
uses the mapping. Under vanilla the same script is clean, or ends with the signal that Linux would send.
"""

from __future__ import annotations

import pytest

from emulator import run_design
from emulator.machine import load_machine
from emulator.supervisor import Panicked
from workloads import Region, Script

PAGES = 8
SMALL = {"nodes.0.memory_mib": 8, "nodes.1.memory_mib": 16}


def machine(cpus: int = 3):
    return load_machine("guest-8cpu", cpus=cpus, overrides=SMALL)


def changed(change, use="load", again=()):
    """A script: both threads have stored to the heap; main changes it; then the other one uses it."""

    def main(t):
        yield [t.mmap("heap"), t.store("heap"), t.meet("mapped", 2), t.meet("used", 2)]
        yield change(t)
        yield [again(t) if again else [], t.post("changed"), t.spin("done")]

    def other(t):
        yield [
            t.meet("mapped", 2),
            t.store("heap"),
            t.meet("used", 2),
            t.spin("changed"),
            getattr(t, use)("heap"),
            t.post("done"),
        ]

    regions = [
        Region("heap", PAGES, writable=True, mapped=False),
        Region("room", PAGES, writable=True, mapped=False),
    ]
    return Script("changed", regions=regions).process("main", [main, other], cpus=[0, 1]).workload()


def forked():
    """A parent forks and stores; its second thread waits for that and reads what the parent stored."""

    def main(t):
        yield [
            t.store("heap"),
            t.meet("used", 2),
            t.fork("child"),
            t.store("heap"),
            t.post("changed"),
            t.spin("done"),
            t.wait("gone"),
        ]

    def other(t):
        yield [t.load("heap"), t.meet("used", 2), t.spin("changed"), t.load("heap"), t.post("done")]

    def child(t):
        yield t.exit("gone")

    script = Script("forked", regions=[Region("heap", PAGES, writable=True)])
    script.process("parent", [main, other], cpus=[0, 1])
    return script.process("child", [child], cpus=[2], forked=True).workload()


def stored_after_fork():
    """A parent forks; its second thread waits for that and stores to what the child shares, through its old
    right to.
    """

    def main(t):
        yield [
            t.store("heap"),
            t.meet("used", 2),
            t.fork("child"),
            t.post("changed"),
            t.spin("done"),
            t.wait("gone"),
        ]

    def other(t):
        yield [t.store("heap"), t.meet("used", 2), t.spin("changed"), t.store("heap"), t.post("done")]

    def child(t):
        yield t.exit("gone")

    script = Script("stored", regions=[Region("heap", PAGES, writable=True)])
    script.process("parent", [main, other], cpus=[0, 1])
    return script.process("child", [child], cpus=[2], forked=True).workload()


def truncated():
    """A file that two processes map is truncated by one of them."""

    def main(t):
        yield [t.load("file"), t.meet("used", 2), t.truncate("file"), t.post("changed"), t.spin("done")]

    def other(t):
        yield [t.load("file"), t.meet("used", 2), t.spin("changed"), t.load("file"), t.post("done")]

    script = Script("truncated", regions=[Region("file", PAGES, file="file", shared=True)])
    return script.process("main", [main], cpus=[0]).process("other", [other], cpus=[1]).workload()


def written_directly():
    """The same, written with O_DIRECT."""

    def main(t):
        yield [
            t.load("file"),
            t.store("memory"),
            t.meet("used", 2),
            t.direct_write("file", "memory"),
            t.post("changed"),
            t.spin("done"),
        ]

    def other(t):
        yield [t.load("file"), t.meet("used", 2), t.spin("changed"), t.load("file"), t.post("done")]

    script = Script(
        "written",
        regions=[Region("file", PAGES, file="file", shared=True), Region("memory", PAGES, writable=True)],
    )
    return script.process("main", [main], cpus=[0]).process("other", [other], cpus=[1]).workload()


CALLS = {
    "munmap": changed(lambda t: t.munmap("heap"), again=lambda t: [t.mmap("heap"), t.store("heap")]),
    "mremap": changed(lambda t: t.mremap("heap", "room"), again=lambda t: [t.mmap("heap"), t.store("heap")]),
    "madvise": changed(lambda t: t.madvise("heap", "MADV_DONTNEED")),
    "fork and copy on write": forked(),
    "fork": stored_after_fork(),
    "truncate": truncated(),
    "direct write": written_directly(),
}


def violations(design, workload):
    return [
        violation["kind"]
        for violation in run_design(design, machine(), workload, leases=1, seed=1).violations
    ]


NAMED = {
    "munmap": "munmap of heap, pages 0-7 at 0x1000_0000, step 1",
    "mremap": "mremap of heap, pages 0-7, to room at 0x1000_0000, step 1",
    "madvise": "madvise(MADV_DONTNEED) of heap, pages 0-7 at 0x1000_0000, step 1",
    "fork and copy on write": "a write fault in mm 1 at 0x1000_0000",
    "fork": "fork of child, step 0",
    "truncate": "truncate of file, pages 0-7 at 0x1000_0000, step 0",
    "direct write": "direct_write of file, pages 0-7 at 0x1000_0000, step 0",
}


@pytest.mark.parametrize("what", ["user", "all"])
@pytest.mark.parametrize("call", CALLS)
def test_a_change_that_flushes_nobody_is_caught(call, what):
    """And the witness names the call: main made it on cpu0, and it had returned."""
    result = run_design(f"none:what={what}", machine(), CALLS[call], leases=1, seed=1)
    assert [violation["kind"] for violation in result.violations] == ["access after completion"]
    taken = result.violations[0]["taken"]
    assert taken["what"] == NAMED[call]
    assert taken["actor"].startswith("cpu0 (")
    assert taken["begin"] < taken["end"] < result.violations[0]["events"][-1]["place"]


@pytest.mark.parametrize("design", ["linux", "luf", "none"])
@pytest.mark.parametrize("call", CALLS)
def test_the_same_change_flushed_is_clean(call, design):
    """Also under `none` as it was: what it leaves out is reclaim's."""
    assert violations(design, CALLS[call]) == []


@pytest.mark.parametrize(
    ("rights", "use", "sees"), [("PROT_READ", "store", "write"), ("PROT_NONE", "load", "access")]
)
def test_mprotect(rights, use, sees):
    """A store after the right to write is gone: vanilla ends with SIGSEGV, without a flush it goes through,
    and is caught.
    """
    workload = changed(lambda t: t.mprotect("heap", rights), use=use)
    result = run_design("none:what=user", machine(), workload, leases=1, seed=1)
    assert [violation["kind"] for violation in result.violations] == ["access after completion"]
    assert result.violations[0]["taken"]["call"] == f"mprotect({rights})"
    with pytest.raises(Panicked, match="SIGSEGV"):
        run_design("linux", machine(), workload, leases=1, seed=1)


@pytest.mark.parametrize("workload", ["munmap-storm", "fork-storm", "direct-io", "uprobes"])
@pytest.mark.parametrize("cpus", [3, 8])
def test_every_workload_of_such_changes_has_somebody_who_notices(workload, cpus):
    """So `clean` under another design means something. Three seeds each."""
    for seed in (1, 2, 3):
        result = run_design("none:what=user", machine(cpus), workload, tokens=1, leases=1, seed=seed)
        assert [violation["kind"] for violation in result.violations] == ["access after completion"], seed
