"""Account for everything at the end of a run: frames, mappings, references, lists, locks, interrupts.

`audit(ram)` is for a machine at rest: all CPUs idle, no interrupt under way (Supervisor.quiesce). It reads
the RAM as a debugger would, sharing nothing with the kernel but the names of its flags, so that no bug of the
kernel can hide itself. A check says how many objects there are and how many of them are right; the two are
equal exactly if nothing is wrong. Left out: what a design keeps in its own fields (its locks are looked at),
and contents, which the oracle judges at every access.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from allocator.page import PG_BUDDY, PG_LOCKED, PG_PCP
from allocator.sched import DONE, TASK_USER
from cpus.declare import BIT
from cpus.page_table import PTE_DIRTY
from emulator.judge.audit_check import Check, listed
from emulator.judge.audit_debug import check_debug_records
from emulator.judge.audit_frames import (
    Census,
    batch_references,
    check_cache,
    check_counts,
    check_frames,
    check_free_blocks,
    check_keys,
    check_lru,
    check_pcp,
    check_tables,
)
from emulator.judge.audit_mappings import check_ptes, check_resident, check_vmas, read_mappings


def audit(ram: Any) -> dict[str, tuple[int, int]]:
    """Return, for each kind of object, how many there are and how many of them are accounted for."""
    return {check.name: check.pair for check in examine(ram)}


def audit_text(ram: Any) -> str:
    """Say what is not accounted for, a line for each kind of object; empty if all is."""
    return "\n".join(check.text for check in examine(ram) if check.wrong)


def examine(ram: Any) -> list[Check]:
    """Make all checks, in the order in which a report names them."""
    census, tables = Census.of(ram), Check("page table")
    found = read_mappings(ram, tables)
    mapped = found.pfn[found.mapped]
    ptes = np.bincount(mapped[mapped < ram.nr_frames], minlength=ram.nr_frames)
    batch = batch_references(ram)
    lists = [
        check_free_blocks(ram, census),
        check_pcp(ram, census),
        check_tables(ram, census, found, tables),
        check_cache(ram, census, found.pfn[found.pte & PTE_DIRTY != 0]),
    ]
    frames = check_frames(ram, census, ptes, batch)
    mapcounts, references = check_counts(ram, census, ptes, batch)
    return [
        frames, *lists, check_lru(ram, census), check_ptes(ram, found), mapcounts, references,
        check_resident(ram, found), check_vmas(ram), check_keys(ram, census),
        *check_debug_records(ram, census), *check_interrupts(ram), check_flushes(ram),
        check_locks(ram, census), check_tasks(ram),
    ]  # fmt: skip


def check_interrupts(ram: Any) -> list[Check]:
    """Requests = executed = acked, all of them under a site and a time; messages sent = received; no bell,
    queue or count of acks stands.
    """
    checks = []
    for name, one, other, word, meaning in (
        ("message", "ipi_messages", "ipi_received", "cpu_bell", "announced and not taken"),
        ("request", "ipi_requests", "ipi_executed", "cpu_queue", "queued and not executed"),
        ("ack", "ipi_requests", "ipi_acked", "cpu_acks", "still waited for"),
    ):
        asked, done = int(getattr(ram, one).sum()), int(getattr(ram, other).sum())
        check = Check(name, asked)
        if asked != done:
            sentence = f"{asked:,} {one.removeprefix('ipi_')}, {done:,} {other.removeprefix('ipi_')}"
            check.fault(sentence, asked - done)
        left = np.flatnonzero(getattr(ram, word))
        if len(left):
            check.fault(f"{meaning} at {listed('cpu', left)}", 0 if check.wrong else len(left))
        checks.append(check)
    _, requests, _ = checks
    requests.equal("by site", ram.ipi_requests.sum(), ram.site_ipis.sum())
    requests.equal("over time", ram.ipi_requests.sum(), ram.site_time.sum())
    return checks


def check_flushes(ram: Any) -> Check:
    """No CPU has left a batched flush unsent."""
    check = Check("batched flush", ram.nr_cpus)
    left = np.flatnonzero(ram.ubc_required)
    if len(left):
        check.fault(f"due and not sent at {listed('cpu', left)}", len(left))
    return check


def check_locks(ram: Any, census: Census) -> Check:
    """No lock is held: no spin lock, mmap_lock, page lock; no CPU thinks that it holds one."""
    check = Check("lock")
    own = [
        (f"design's {name}", words)
        for name, words in getattr(ram, "design", {}).items()
        if name.endswith("_lock")
    ]
    declared = [
        (lock.name, getattr(ram, lock.name)) for lock in ram.layout.locks.values() if lock.kind != BIT
    ]
    for name, words in [*declared, *own]:
        held = np.flatnonzero(words)
        check.of(words.size)
        if len(held):
            check.fault(
                f"{name} {listed('', held)} held (holder {int(words.reshape(-1)[held[0]]) - 1})", len(held)
            )
    locked = census.managed & (census.flags & PG_LOCKED != 0) & (census.flags & (PG_BUDDY | PG_PCP) == 0)
    check.of(census.managed.sum())
    check.frames(ram, locked, "frame {} is locked (flags {:#x})", census.flags)
    states = (
        ("cpu_irq_off", "has interrupts off"),
        ("cpu_no_resched", "counts a spin lock as held"),
        ("cpu_in_irq", "is in an interrupt"),
    )
    for word, meaning in states:
        for cpu in np.flatnonzero(getattr(ram, word)).tolist():
            check.fault(f"cpu{cpu} {meaning}")
    return check


def check_tasks(ram: Any) -> Check:
    """Every user thread has ended, and no run queue holds anything."""
    check = Check("task", ram.user_tasks)
    user = (ram.task_kind == TASK_USER) & (np.arange(len(ram.task_kind)) < ram.user_tasks)
    left = np.flatnonzero(user & (ram.task_state != DONE))
    if len(left):
        check.fault(f"{listed('task ', left)} not ended", len(left))
    queued = np.flatnonzero(ram.queue_count)
    if len(queued):
        check.fault(f"tasks wait on {listed('cpu', queued)}", len(queued))
    return check
