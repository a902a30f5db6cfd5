"""Rows that are repeated until a flag is posted, and accesses that may fail: a reader is there when it
matters.
"""

from __future__ import annotations

import pytest

from emulator import load_machine, run_design
from emulator.judge.bad_access import BadAccess
from workloads import Region, Script
from workloads.script import ScriptError

PAGES = 8
LATE_NS = 3_000_000


def run(design, *threads, **region):
    """Run threads of one process, each on a CPU of its own, in controlled mode."""
    script = Script("rows", regions=[Region("m", PAGES, **region)])
    script.process("p", threads, cpus=range(len(threads)))
    return run_design(design, load_machine("guest-8cpu", cpus=len(threads)), script.workload(), leases=1)


def visits(result):
    return sum(result.counters["page_visits"])


def sleeper(t):
    yield [t.nanosleep(LATE_NS), t.post("stop")]


def test_a_reader_reads_as_long_as_the_other_thread_needs():
    """It reads all the time that the other one sleeps, and not long after."""
    once = run("linux", lambda t: [t.load("m"), t.wait("stop")], sleeper)
    again = run("linux", lambda t: [t.until("stop", t.load("m", count=100))], sleeper)
    assert visits(once) == PAGES
    assert visits(again) > 100 * PAGES
    assert again.runtime_mean_ns < LATE_NS + 2_000_000


def test_what_is_not_mapped_is_passed_over():
    """Page by page; the same access without a handler ends the run with a sentence."""

    def holes(t, access="try_load"):
        yield [t.munmap("m", 2, 3), getattr(t, access)("m")]

    result = run("linux", holes, file="f", shared=True)
    assert result.violations == []
    assert visits(result) == PAGES - 3
    with pytest.raises(BadAccess, match="LOAD of page 2 of region 'm' must name mapped pages"):
        run("linux", lambda t: holes(t, "load"), file="f", shared=True)


def test_what_lacks_the_rights_is_passed_over():
    """A store to pages that may only be read, and any access to those that may not."""

    def protected(t):
        yield [t.store("m"), t.mprotect("m", "PROT_READ", 0, 2), t.mprotect("m", "PROT_NONE", 2, 2)]
        yield [t.try_store("m"), t.try_load("m"), t.try_execute("m")]

    result = run("linux", protected, writable=True, executable=True)
    assert visits(result) == PAGES + (PAGES - 4) + (PAGES - 2) + (PAGES - 2)


def test_a_translation_that_should_be_gone_is_no_hole():
    """What is passed over is a fault. A page that an old translation still shows is read, and judged."""

    def unmapper(t):
        yield [t.store("m"), t.meet("there", 2), t.munmap("m"), t.post("gone")]

    def reader(t):
        yield [t.load("m"), t.meet("there", 2), t.until("gone", t.try_load("m")), t.try_load("m")]

    assert run("linux", unmapper, reader, writable=True).violations == []
    assert len(run("none:what=user", unmapper, reader, writable=True).violations) == 1


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (lambda t: [t.until("never", t.load("m"))], "UNTIL 'never': 'pages' of a wait must be at most"),
        (lambda t: [t.post("a"), t.until("a", t.wait("a"))], "WAIT_FOR 'a': 'op' must not be FORK, EXIT_MM"),
        (lambda t: [t.until("a", [])], "'steps' must be at least one call (got none)"),
        (lambda t: [t.until("a", "load m")], "a thread must yield what its calls return (got 'load m')"),
        (lambda t: [(*t.until("a", t.post("a"))[1][:4], 2, 0)], "'count' of UNTIL must be from 1 to"),
    ],
)  # fmt: skip
def test_a_loop_that_cannot_be_is_refused(steps, message):
    """One that would never end, that waits in itself, that has nothing in it, that goes back too far."""

    def thread(t):
        yield steps(t)

    with pytest.raises(ScriptError) as refused:
        run("linux", thread)
    assert message in str(refused.value)
