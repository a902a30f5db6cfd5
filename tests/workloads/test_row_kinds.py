"""A kind of row is declared once (cpus/abi/row_kinds.py); a forgotten half is reported."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

import pytest

from cpus.abi.row_kinds import FLAG, NS, ROW_KINDS, Argument, RowKind
from tests.support.sources import names_of, sources
from workloads import rows as p
from workloads.calls import Calls, Names
from workloads.rows import Process, Region, Workload
from workloads.rules.one_row import CHECKS

REGIONS = (Region("memory", 8, writable=True, executable=True), Region("file", 8, "f"))
ARGUMENTS = {  # of calls, by the names of their parameters
    "region": "file", "rights": "PROT_READ", "target": "memory", "advice": "MADV_FREE", "node": 0,
    "buffer": "memory", "pages": 4, "child": "child", "flag": "flag", "name": "name", "parties": 1, "ns": 5,
    "steps": [p.control(p.POST)],
}  # fmt: skip


def executed(texts: Iterable[str]) -> set[str]:
    """Give the names of the numbers that some kernel compares a row's `op` with."""
    found = set()
    for text in texts:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Compare) and ast.unparse(node.left) in ("op", "ram.row_op[row]"):
                found |= {
                    name.id for name in ast.walk(node) if isinstance(name, ast.Name) and name.id.isupper()
                }
    return found


def halves(kinds: Mapping[int, RowKind], texts: Iterable[str]) -> list[str]:
    """Say which kinds are declared and not executed, or executed and not declared."""
    done, names = executed(texts), {kind.name for kind in kinds.values()}
    groups = {name for name in done if name not in names and name.startswith(("CHANGES_", "SYNCHRONISES"))}
    found = [f"row kind {name} is declared, but no kernel executes it" for name in sorted(names - done)]
    return found + [
        f"row kind {name} is executed, but not declared" for name in sorted(done - names - groups)
    ]


def without_rules(kinds: Mapping[int, RowKind]) -> list[str]:
    """Say which arguments nobody checks."""
    return [
        f"{name!r} of {kind.name} is {what.what!r}, which has no rule in workloads/rules/one_row.py"
        for kind in kinds.values()
        for name, what in kind.fields.items()
        if what not in CHECKS
    ]


def made_by(call: str) -> set[int]:
    """Give the kinds of the rows that a call of a script makes."""
    calls = Calls(Names({"main": False, "child": True}), "main", 0, REGIONS)
    given = {name: ARGUMENTS[name] for name in names_of(getattr(Calls, call)) if name in ARGUMENTS}
    rows = getattr(calls, call)(**given)
    return {row[0] for row in (rows if isinstance(rows, list) else [rows])}


def wrong_calls(kinds: Mapping[int, RowKind]) -> list[str]:
    """Say which calls are named by a kind and not there, or there and not named."""
    there, found = set(Calls.names()), []
    for number, kind in kinds.items():
        for call in kind.calls:
            if call not in there:
                found.append(
                    f"row kind {kind.name} names the call {call!r}, which workloads/calls.py has not"
                )
            elif number not in made_by(call):
                found.append(f"call {call!r} makes no row of kind {kind.name}, which names it")
    named = {call for kind in kinds.values() for call in kind.calls}
    return found + [f"call {call!r} is named by no row kind" for call in sorted(there - named)]


def with_one_more(name: str, fields: Mapping[str, Argument], *calls: str) -> dict[int, RowKind]:
    return {**ROW_KINDS, 77: RowKind(name, "planted", fields, calls)}


def test_every_kind_is_executed_and_every_argument_has_a_rule():
    """Nothing is half done."""
    assert halves(ROW_KINDS, sources("allocator").values()) == []
    assert without_rules(ROW_KINDS) == []
    assert wrong_calls(ROW_KINDS) == []


def test_a_kind_that_nobody_executes_is_named():
    """Declared, or executed, alone."""
    texts = list(sources("allocator").values())
    assert halves(with_one_more("PREFETCH", {}), texts) == [
        "row kind PREFETCH is declared, but no kernel executes it"
    ]
    planted = "def f(ram, row):\n    op = ram.row_op[row]\n    if op == PREFETCH:\n        pass"
    assert halves(ROW_KINDS, [*texts, planted]) == ["row kind PREFETCH is executed, but not declared"]


def test_an_argument_without_a_rule_is_named():
    """Also if an argument of the same meaning has one elsewhere."""
    assert without_rules(with_one_more("PREFETCH", {"count": Argument("how many lines"), "page": NS})) == [
        "'count' of PREFETCH is 'how many lines', which has no rule in workloads/rules/one_row.py"
    ]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("prefetch", "row kind PREFETCH names the call 'prefetch', which workloads/calls.py has not"),
        ("load", "call 'load' makes no row of kind PREFETCH, which names it"),
    ],
)
def test_a_call_that_is_not_there_is_named(call, sentence):
    """A kind says which calls make it, and they do."""
    assert wrong_calls(with_one_more("PREFETCH", {}, call)) == [sentence]
    assert "call 'munmap' is named by no row kind" in wrong_calls({})


def test_numbers_are_never_zero_and_fit_a_row():
    """0 is memory that nobody has written."""
    assert min(ROW_KINDS) == 1
    assert max(ROW_KINDS) <= 255
    assert all(set(kind.fields) <= set(p.ROW_FIELDS) - {"op"} for kind in ROW_KINDS.values())


def test_flags_that_only_an_exit_posts_are_counted():
    """As many words for flags as any row names, whichever its kind: EXIT_MM posts one, too."""
    rows = p.np.array([p.control(p.POST, 1), p.control(p.EXIT_MM, 4), p.control(p.WAIT_FOR, 2, 0)], p.ROW)
    workload = Workload("flags", (Process("main", REGIONS, (rows,), together=True),))
    assert workload.count_of(FLAG) == 5
    assert workload.count_of(p.SNAPSHOT_NUMBER) == 0
