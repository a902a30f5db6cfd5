"""Machines and workloads that ship, run small with real CPU processes: clean, and each does what it is for
under linux and luf.
"""

from __future__ import annotations

from itertools import islice

import pytest

from emulator.experiment import run_design
from emulator.machine import load_machine

SMALL = {"nodes.0.memory_mib": 8, "nodes.1.memory_mib": 16}


def small(design: str, workload: str, cpus: int = 8, rounds: int = 1, **switches: object):
    """Run on 24 MiB, controlled, so that figures repeat."""
    machine = load_machine(
        "guest-8cpu",
        cpus=cpus,
        overrides=SMALL | {f"sysctl.{name}": value for name, value in switches.items()},
    )
    result = run_design(design, machine, workload, tokens=rounds, leases=1, seed=1)
    assert result.violations == []
    assert result.unaccounted == {}
    return result


@pytest.mark.parametrize("machine", ["qemu-16", "two-socket", "cpu-128"])
def test_machines_run_and_audit_clean(machine):
    """Each loads at its own scale, runs a short workload under pressure, and accounts for everything."""
    loaded = load_machine(machine, scale=None)
    result = run_design("luf", loaded, "readers-writer", tokens=1, leases=2, seed=1)
    assert result.clean
    assert result.length_text == "1 round"
    assert result.cpus == loaded.cpus
    assert result.vmstat["pgsteal_file"] > 0
    assert result.timeline.sites.keys() >= {"page allocation"}


def test_two_sockets_use_their_own_memory():
    """Threads on both sockets: all that they allocate is near them, and at the end frames of both nodes are
    in use.
    """
    seen = []

    def look(ram):
        used = [
            int((ram.page_refcount[first:end] > 0).sum()) for first, end in zip(ram.zone_start, ram.zone_end)
        ]
        seen.append((list(ram.cpu_node), min(used)))

    result = run_design(
        "linux",
        load_machine("two-socket", scale=1024, cpus=8),
        "munmap-storm",
        tokens=1,
        leases=1,
        seed=1,
        observe=look,
    )
    assert result.clean
    assert seen[0][0] == [0] * 4 + [1] * 4
    assert seen[0][1] > 50
    assert result.vmstat["numa_hit"] > 500
    assert result.vmstat["numa_miss"] == 0


# where vanilla and LUF must flush: the lookups of xsbench nowhere, since all of its memory fits
FLUSHES = {
    "munmap-storm": ("fault", "fault"),
    "readers-writer": ("munmap/madvise", "page allocation"),
    "churn": ("kswapd", "page allocation"),
    "fork-storm": ("fault", "fault"),
    "xsbench": (None, None),
    "read-only:50%": ("kswapd", "page allocation"),
    "direct-io": ("kswapd", "page allocation"),
    "uprobes": ("munmap/madvise", "munmap/madvise"),
}


@pytest.mark.parametrize("design", ["linux", "luf"])
@pytest.mark.parametrize("workload", FLUSHES)
def test_every_workload_is_clean_and_flushes_where_it_is_meant_to(design, workload):
    """Two designs, small."""
    result = small(design, workload, cpus=3)
    site = FLUSHES[workload][design == "luf"]
    assert result.vmstat["pgfault"] > 500
    if site is None:
        assert result.tlb_shootdowns == 0
    else:
        assert result.flush_sites[site] > 0
        assert result.tlb_shootdowns >= result.flush_sites[site]


@pytest.mark.parametrize("workload", ["readers-writer", "churn", "read-only:50%"])
def test_who_never_flushes_after_reclaim_is_caught(workload):
    """These are no vacuous tests of a design: `none` has a violation on each, with the talk's memory at
    1/1024.

    Whether somebody uses a stale translation in time depends on the schedule: up to six are explored, each
    exactly repeatable (one lease), until two have shown it.
    """
    machine = load_machine("xeon6430-cxl", scale=1024, cpus=8)
    runs = (run_design("none", machine, workload, tokens=2, leases=1, seed=seed) for seed in range(1, 7))
    reused = (run for run in runs if "reuse" in {violation["kind"] for violation in run.violations})
    assert len(list(islice(reused, 2))) == 2


def test_luf_saves_where_memory_is_read_only():
    """99 % read-only: most shootdowns saved; 0 %: nothing was deferred, none is sent by an allocation."""
    linux, luf = (small(design, "read-only:99%", rounds=6) for design in ("linux", "luf"))
    assert linux.tlb_shootdowns > 10
    assert luf.tlb_shootdowns < linux.tlb_shootdowns / 2
    assert linux.unmapped_read_only > 0.9
    written = small("luf", "read-only:0%")
    assert written.unmapped_read_only == 0
    assert "page allocation" not in written.flush_sites


LARGE = {"sysctl.demotion_enabled": False}  # what is demoted is split first


@pytest.mark.parametrize("design", ["linux", "luf", "luf_v12", "luf_hold", "latr", "epoch"])
@pytest.mark.parametrize("share", [0, 99])
def test_large_folios_are_clean(design, share):
    """Whether a design makes an exception for them (LUF) or has each of their pages back with a key."""
    machine = load_machine("guest-8cpu", overrides=SMALL | LARGE)
    result = run_design(design, machine, f"read-only:{share}%,order=4", tokens=1, leases=1, seed=1)
    assert result.violations == []
    assert result.unaccounted == {}
    assert result.vmstat["pgsteal_file"] > 1000


def test_luf_gains_less_where_folios_are_large():
    """Of single pages it defers nearly all; for a folio it flushes while it reclaims, as vanilla does."""
    machine = load_machine("guest-8cpu", overrides=SMALL | LARGE)
    reclaim = {}
    for order in (0, 4):
        sites = run_design(
            "luf", machine, f"read-only:99%,order={order}", tokens=3, leases=1, seed=1
        ).flush_sites
        reclaim[order] = sum(sites.get(site, 0) for site in ("kswapd", "direct reclaim")) / sum(
            sites.values()
        )
    assert reclaim[0] < 0.25
    assert reclaim[4] > 2 * reclaim[0]


def test_a_large_folio_that_is_not_flushed_is_caught():
    """`none` frees it as a block, and somebody else has it."""
    machine = load_machine("guest-8cpu", overrides=SMALL | LARGE)
    result = run_design("none", machine, "read-only:99%,order=4", tokens=3, leases=1, seed=1)
    assert {violation["kind"] for violation in result.violations} == {"reuse"}


@pytest.mark.parametrize("design", ["linux", "luf", "luf_v12"])
@pytest.mark.parametrize("cpus", [4, 8])
@pytest.mark.parametrize("workload", ["direct-io", "uprobes"])
def test_calls_that_defeat_luf_flush_under_every_design(workload, cpus, design):
    """A direct write unmaps what is cached, a breakpoint replaces a page: both flush in the call, whatever
    reclaim defers.
    """
    result = small(design, workload, cpus)
    assert result.flush_sites["munmap/madvise"] > 0
    assert result.unmapped_read_only > 0.9
    deferred = "page allocation" in result.flush_sites
    assert deferred == (design != "linux")


def test_a_direct_write_makes_luf_flush_early():
    """What reclaim has unmapped of the file, LUF flushes when it is written past the cache; vanilla has done
    so long before.
    """
    machine = load_machine("guest-8cpu", overrides=SMALL | LARGE)
    linux, luf = (
        run_design(design, machine, "direct-io:pages=5000", tokens=1, leases=1, seed=1).flush_sites
        for design in ("linux", "luf")
    )
    assert luf["file write"] > 0
    assert "file write" not in linux


@pytest.mark.parametrize("switch", ["init_on_free", "kasan_poison"])
def test_a_kernel_that_writes_to_free_pages_leaves_nothing_to_defer(switch):
    """With either switch LUF flushes exactly where and when vanilla does."""
    linux = small("linux", "read-only:99%", rounds=6)
    luf = small("luf", "read-only:99%", rounds=6, **{switch: True})
    assert luf.tlb_shootdowns == linux.tlb_shootdowns > 1000
    assert luf.flush_sites == linux.flush_sites


@pytest.mark.parametrize("design", ["luf_v12", "luf_hold", "latr", "epoch", "fpr"])
def test_no_other_design_defers_where_free_pages_are_written_to(design):
    """Each falls back, or keeps the page from being freed; none shows an old translation the new bytes."""
    small(design, "read-only:99%", rounds=2, init_on_free=True)


def test_who_defers_all_the_same_is_caught():
    """The switch is no mere word: `none` on one CPU's worth of memory reads what freeing has written."""
    machine = load_machine("guest-8cpu", overrides=SMALL | {"sysctl.init_on_free": True})
    result = run_design("none", machine, "read-only:99%", tokens=6, leases=1, seed=1)
    assert {violation["kind"] for violation in result.violations} == {"reuse"}


@pytest.mark.parametrize("workload", ["munmap-storm", "fork-storm"])
def test_changes_by_the_user_are_not_deferred(workload):
    """munmap, mprotect, fork, copy on write: LUF sends exactly what vanilla sends."""
    linux, luf = (small(design, workload) for design in ("linux", "luf"))
    assert luf.tlb_shootdowns == linux.tlb_shootdowns > 100
    assert luf.flush_sites == linux.flush_sites


def test_a_writer_makes_luf_flush_early():
    """Page-cache writes from another process cost LUF flushes that vanilla has done long before; truncation
    is flushed by both.
    """
    linux, luf = (small(design, "readers-writer:pages=3000").flush_sites for design in ("linux", "luf"))
    assert luf["file write"] > 0
    assert "file write" not in linux
    assert linux["munmap/madvise"] > 0
    assert luf["munmap/madvise"] > 0
