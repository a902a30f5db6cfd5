"""What broke the kernel's own rules in a run whose schedule checks them, though nothing went wrong by it; and
where in the source a CPU was when it handed its lease over.

Left out: the place of the access that a broken one would have met.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from cpus.bounds import LINE_BITS, file_number
from cpus.rules import OPERATIONS, READING, WAITS_IRQ_OFF, RuleBook

SWITCHES_TOLD = 200


@cache
def _files() -> dict[int, str]:
    """Give number -> name of each source that is loaded."""
    paths = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return {file_number(path): "/".join(path.split("/")[-2:]) for path in paths if path}


def place_of(site: int) -> str:
    """Name a place in the source, allocator/unmap.py:88."""
    name = _files().get(site >> LINE_BITS, "a source that is not loaded")
    return f"{name}:{site & ((1 << LINE_BITS) - 1)}"


def rule_findings(ram: Any) -> list[str]:
    """Give a sentence for each pair of locks of either order, and for each place that broke a rule: orders
    come first, as they are seen however often is looked.
    """
    if not ram.rules:
        return []
    book = RuleBook(ram)
    broken = ram.broken_rule[: int(ram.run_broken_rules[0])].tolist()
    return _orders(book) + [_sentence(book, *one) for one in broken]


def _sentence(book: RuleBook, cpu: int, where: int, operation: int, site: int) -> str:
    if operation == WAITS_IRQ_OFF:
        return f"cpu{cpu} waited for acks with interrupts off"
    found = book.field_at(where)
    assert found is not None
    item, index = found
    reads = OPERATIONS[operation] in READING
    rule = item.reads if reads and item.reads is not None else item.rule
    return (
        f"{item.name}[{', '.join(map(str, index))}]: {OPERATIONS[operation]} by cpu{cpu} "
        f"at {place_of(site)}, but its rule is {rule}"
    )


def _orders(book: RuleBook) -> list[str]:
    """Look for cycles among the kinds of locks that were taken under others."""
    under: dict[str, set[str]] = {}
    for outer, inner in book.ram.lock_order[: int(book.ram.run_orders[0])].tolist():
        under.setdefault(book.name_at(outer), set()).add(book.name_at(inner))

    def reached(name: str) -> set[str]:
        found, todo = set[str](), [name]
        while todo:
            for inner in under.get(todo.pop(), set()) - found:
                found.add(inner)
                todo.append(inner)
        return found

    return [
        f"lock order: {inner} is taken under {outer}, and {outer}, at least through others, under {inner}"
        for outer in sorted(under)
        for inner in sorted(under[outer])
        if outer < inner and outer in reached(inner)
    ]


def switch_places(ram: Any) -> list[str]:
    """Say where a CPU was at each decision of a short log."""
    kept = int(ram.run_switches[0])
    if kept > min(SWITCHES_TOLD, ram.nr_switches):
        return []
    book, told = RuleBook(ram), []
    for cpu, _, target, where, site in ram.switch[:kept].tolist():
        at = f"stops at {place_of(site)}" if site else "waits, or has used its slice up"
        found = book.field_at(where) if where else None
        what = f", before it touches {found[0].name}[{', '.join(map(str, found[1]))}]" if found else ""
        told.append(f"cpu{cpu} {at}{what}: cpu{target} runs")
    return told
