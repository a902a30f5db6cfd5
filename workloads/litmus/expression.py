"""Numbers of a litmus test: `16*n + 3`, where n is the number of the time in a loop.

Whole numbers, names that are known, and + - * // %. Left out: everything else that Python can.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache

TEXT_MAX = 80  # characters
NUMBER_MAX = 2**62
OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}  # fmt: skip


def number(text: str, known: Mapping[str, int]) -> int | None:
    """Give the number that a text says; None if it is no such expression, or names something unknown.

    >>> number("16*n+3", {"n": 2}), number("MADV_FREE", {"n": 2})
    (35, None)
    """
    tree = _parsed(text)
    try:
        return None if tree is None else _value(tree, known)
    except (ValueError, ZeroDivisionError, RecursionError):
        return None


@lru_cache(4096)
def _parsed(text: str) -> ast.expr | None:
    """Parse a text, once for all the times of a loop that it stands in."""
    if len(text) > TEXT_MAX or not text.isascii():
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python, about text that may be no expression at all: `0or`
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, known: Mapping[str, int]) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        found = node.value
    elif isinstance(node, ast.Name) and node.id in known:
        found = known[node.id]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        found = -_value(node.operand, known)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        found = OPERATORS[type(node.op)](_value(node.left, known), _value(node.right, known))
    else:
        raise ValueError
    if abs(found) > NUMBER_MAX:
        raise ValueError
    return found
