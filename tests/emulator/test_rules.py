"""Every access of whole runs, without the JIT, is judged by the rule that its field declares."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.storm import small_ram
from cpus.declare import (
    ANY,
    CONFIG,
    OWNER,
    Atomic,
    Exclusive,
    Held,
    OneOf,
    OwnerOf,
    Racy,
)
from cpus.rules import allowed
from designs.memory_map import MACHINE
from emulator import run_script
from emulator.supervisor import CpuDied
from tests.support.every_call import every_call, small_machine_of_two_tiers
from tests.support.rule_checker import watch_cpus

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 300


def judged(design, instead=None):
    """Run every call under a design, each access judged; gives the shootdowns, and what broke."""
    monkeypatch = pytest.MonkeyPatch()
    watch_cpus(monkeypatch, instead)
    try:
        result, _ = run_script(design, small_machine_of_two_tiers(), every_call(), leases=1, seed=1)
    except CpuDied as error:
        return 0, str(error)
    finally:
        monkeypatch.undo()
    return result.tlb_shootdowns, "" if result.clean else "not clean"


def plainly(call):
    """Execute a call of this module in a process without the JIT; gives what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"from tests.emulator.test_rules import *; print({call})"],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return eval(done.stdout.splitlines()[-1])


def test_every_access_keeps_the_rule_of_its_field():
    """Mapping, reclaim, migration, copies, direct IO, breakpoints, balancing: under locks as declared. LUF
    takes vanilla's paths, too, and more.
    """
    shootdowns, broken = plainly("judged('luf')")
    assert broken == ""
    assert shootdowns > 100


@pytest.mark.parametrize(
    ("field", "rule", "sentence"),
    [
        ("zone_free", 'Held("lru_lock", at="any")', "zone_free[0]: "),
        ("page_mapcount", 'Atomic("exchange")', "fetch_add by cpu"),
        ("vma_flags", "CONFIG", "vma_flags["),
        ("queue_count", "OWNER", "queue_count["),
    ],
)
def test_an_access_that_a_rule_does_not_allow_ends_the_cpu(field, rule, sentence):
    """Judged by another rule than the declared one: field, CPU, function, line and rule are said."""
    _, broken = plainly(f"judged('linux', {{{field!r}: {rule}}})")
    assert "RuleBroken: " in broken
    assert sentence in broken
    assert "but the rule is" in broken


@pytest.fixture
def ram():
    """Four CPUs; zone 0 has all frames, CPU 2 holds its lock, CPU 1 reads address space 1."""
    ram = small_ram(4)
    ram.zone_end[0] = ram.node_end[0] = 64
    ram.zone_lock[0], ram.mm_lock[1], ram.page_flags[5], ram.page_refcount[6] = 3, 1, 1, 2
    ram.task_cpu[0], ram.vma_mm[0], ram.vma_object[0] = 3, 1, -1
    yield ram
    ram.close()


CASES = [  # rule, index, who may write, who may read
    (CONFIG, (0,), "", "0123"),
    (ANY, (0,), "0123", "0123"),
    (OWNER, (2,), "2", "2"),
    (OwnerOf(index=1), (2, 1), "1", "1"),
    (OwnerOf("task_cpu"), (0,), "3", "3"),
    (OwnerOf("scan"), (1,), "1", "1"),
    (Atomic("fetch_add"), (0,), "", "0123"),
    (Racy("why"), (0,), "0123", "0123"),
    (Held("zone_lock"), (0,), "2", "2"),
    (Held("zone_lock", at="zone"), (40,), "2", "2"),
    (Held("zone_lock", at="one"), (9,), "2", "2"),
    (Held("zone_lock", at="any"), (9,), "2", "2"),
    (Held("lru_lock", at="node"), (40,), "", ""),
    (Held("mm_lock"), (1,), "", ""),
    (Held("mm_lock", shared=True), (1,), "0123", "0123"),
    (Held("mm_lock", at="vma_mm", shared=True), (0,), "0123", "0123"),
    (Held("object_lock", at="vma_object"), (0,), "", ""),
    (Held("page_lock"), (5,), "0123", "0123"),
    (Held("page_lock"), (6,), "", ""),
    (Exclusive("why"), (6,), "0123", "0123"),
    (Exclusive("why", references=1), (5,), "0123", "0123"),
    (Exclusive("why", references=1), (6,), "", ""),
    (OneOf(OWNER, Held("zone_lock", at="any")), (1,), "12", "12"),
]


@pytest.mark.parametrize(("rule", "index", "writers", "readers"), CASES, ids=lambda value: str(value)[:40])
def test_a_rule_can_be_evaluated(ram, rule, index, writers, readers):
    """Each kind of rule says of every CPU whether it may write there now, and whether it may read."""
    for access, expected in (("write", writers), ("read", readers)):
        found = "".join(str(cpu) for cpu in range(4) if allowed(ram, rule, index, cpu, access, ""))
        assert found == expected, access


def test_an_atomic_rule_names_its_operations(ram):
    rule = Atomic("fetch_add", "exchange")
    assert [allowed(ram, rule, (0,), 0, "write", name) for name in ("fetch_add", "fetch_or")] == [True, False]


def test_every_kind_of_rule_is_declared_somewhere():
    """What is tested here is what fields have."""
    declared = {type(field.rule) for field in MACHINE.fields.values()}
    assert declared >= {type(rule) for rule, *_ in CASES if rule not in (ANY, CONFIG)}
