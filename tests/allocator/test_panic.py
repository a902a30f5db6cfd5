"""A panic is declared once: its text with the values that it prints; and some kernel stops with it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

from allocator import panic
from allocator.panic import PANICS, Panic, panic_text
from cpus import host
from tests.support.sources import never_read, sources


def wrong_texts(panics: Mapping[int, Panic]) -> list[str]:
    """Say which codes have no text that can be printed."""
    found = []
    for code, one in panics.items():
        try:
            said = one.text.format(a=1, b=2)
        except (KeyError, IndexError, ValueError) as error:
            found.append(
                f"panic {code} must have a text with {{a}} and {{b}} alone (got {one.text!r}: {error!r})"
            )
            continue
        if not said:
            found.append(f"panic {code} must have a text (got '')")
    return found


def declared() -> set[str]:
    """Name the codes: whole numbers of that module, but for exit codes that it imports."""
    return {name for name, value in vars(panic).items() if type(value) is int and not hasattr(host, name)}


def undeclared(texts: Iterable[str]) -> list[str]:
    """Say which codes a kernel panics with that are not declared."""
    calls = [
        node
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "panic"
    ]
    codes = {ast.unparse(call.args[2]) for call in calls}
    return [
        f"a kernel panics with {code}, which allocator/panic.py does not declare"
        for code in codes - declared()
    ]


def unused(texts: Iterable[str]) -> list[str]:
    return [
        f"{name} is declared in allocator/panic.py, but no kernel panics with it"
        for name in never_read(panic, "", texts)
        if name in declared()
    ]


def test_every_panic_has_a_text_and_a_kernel():
    """Both halves."""
    texts = sources("allocator", "designs").values()
    assert wrong_texts(PANICS) == []
    assert unused(texts) == []
    assert undeclared(texts) == []
    assert 0 not in PANICS  # nobody has stopped the run
    assert panic_text(panic.DOUBLE_FREE, 7, 16) == "buddy: frame 7 is freed twice (flags 0x10)"


def test_a_half_declared_panic_is_named():
    """Without a text; with another value than a and b; called and not declared; declared and not called."""
    assert wrong_texts({1: Panic("")}) == ["panic 1 must have a text (got '')"]
    (sentence,) = wrong_texts({1: Panic("page {c} is gone")})
    assert sentence.startswith("panic 1 must have a text with {a} and {b} alone (got 'page {c} is gone'")
    assert undeclared(["panic(ram, cpu, PAGE_GONE, 1, 2)"]) == [
        "a kernel panics with PAGE_GONE, which allocator/panic.py does not declare"
    ]
    texts = [text for text in sources("allocator", "designs").values() if "TABLE_IN_USE" not in text]
    assert unused(texts) == ["TABLE_IN_USE is declared in allocator/panic.py, but no kernel panics with it"]
