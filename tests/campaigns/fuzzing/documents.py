"""Documents that no library would write: TOML and JSON with keys twice, NaN, lone surrogates, tables a
thousand deep; and their odd variants, one node at a time.
"""

from __future__ import annotations

import copy
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

Place = tuple[Any, ...]
DEEP = 3_000
ODD_TEXTS = (
    "", "x", "a\x1b[2Jb", "a\x7fb", "a\nb", "a\u202eb", "a\u0085b", "\ud800", "é" * 3,
    "a" * 10_000, "9" * 5_000, "-1", "0x10",
    "../up", "/dev/full", "{n}", "NaN", "1e999", "__class__", "%s%n", "²", "a\x00b",
)  # fmt: skip
ODD_NUMBERS = (
    0, -1, 1, 2, 7, 255, 256, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**63,
    2**64, 10**30, -(2**31), -(2**63), 10**400, 0.0, -0.0, 0.5, 1e-300, 1e308, math.nan, math.inf, -math.inf,
)  # fmt: skip


class Raw(str):
    """Text that is written as it stands."""


class Twin(str):
    """A key that may stand beside another one of the same name."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __deepcopy__(self, memo: object) -> Twin:
        return self


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed document, and the language in which it is written: "toml", "json" or "litmus"."""

    tree: Any
    language: str

    def encoded(self) -> bytes:
        if self.language == "litmus":
            return _litmus(self.tree).encode("utf-8", "surrogatepass")
        if self.language == "json" or not isinstance(self.tree, dict):
            return _value(self.tree, ": ").encode("utf-8", "surrogatepass")
        lines = (f"{_key(key)} = {_value(one, ' = ')}\n" for key, one in self.tree.items() if one is not None)
        return "".join(lines).encode("utf-8", "surrogatepass")


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _text(key)


def _text(value: str) -> str:
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any, equals: str) -> str:
    """Write a value; `equals` stands between key and value, and tells the language."""
    json_too = equals == ": "
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        shown = _text if json_too else _key
        kept = [(key, one) for key, one in value.items() if json_too or one is not None]
        pairs = [shown(key) + equals + _value(one, equals) for key, one in kept]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(one, equals) for one in value if json_too or one is not None) + "]"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value) if json_too else str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**400:
        return ("-" if value < 0 else "") + "1" + "0" * 5_000  # Python would not write it
    return json.dumps(value)


def litmus(text: str) -> Document:
    """Take a litmus test apart, as far as its shape goes: heads with their numbers, columns of calls, each a
    list of words; loops are what they are in the file.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    heads = [line for line in lines if re.match(r"[a-z]+:", line)]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines[len(heads) :]]
    columns = [
        [name, *([_plain(word) for word in row[i].split()] for row in rows[1:] if i < len(row) and row[i])]
        for i, name in enumerate(rows[0])
    ]
    parted = [
        [key, *map(_plain, re.findall(r"\d+|\D+", rest))] for key, rest in (h.split(":", 1) for h in heads)
    ]
    return Document({"heads": parted, "columns": columns}, "litmus")


def _plain(word: str) -> str | int:
    return int(word) if word.isdigit() else word


def _litmus(tree: Any) -> str:
    """Lay it out again, whatever has become of it."""
    heads, columns = (_items(tree.get(key)) if isinstance(tree, dict) else [] for key in ("heads", "columns"))
    lines = [_word(one[0]) + ":" + "".join(map(_word, one[1:])) for one in map(_items, heads) if one]
    threads = [[" ".join(map(_word, _items(cell))) for cell in _items(column)] for column in columns]
    lines += [" | ".join(cells) for cells in zip_longest(*threads, fillvalue="")]
    return "\n".join([*lines, ""])


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else _value(value, ": ")


def nodes(tree: Any, path: Place = ()) -> Iterator[Place]:
    """Give the path of every node below the top."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from nodes(value, (*path, key))


def at(tree: Any, path: Place) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def odd_value(chance: random.Random) -> Any:
    """Give a value that is hardly what was asked for."""
    kind = chance.randrange(8)
    if kind < 2:
        return chance.choice(ODD_TEXTS)
    if kind < 5:
        return chance.choice(ODD_NUMBERS)
    if kind == 5:
        return Raw("[" * DEEP + "]" * DEEP) if chance.random() < 0.2 else [[]]
    return chance.choice([None, True, False, [], {}, [None], {"a": 1}, [1, 2], {"": {}}])


def _replace(chance: random.Random, parent: Any, key: Any, tree: Any) -> None:
    parent[key] = odd_value(chance)


def _nudge(chance: random.Random, parent: Any, key: Any, tree: Any) -> None:
    """Change a value a little, in its own type, or its type alone."""
    old = parent[key]
    if isinstance(old, int) and abs(old) >= 2**64:
        old = "huge"  # Python itself refuses to write or convert some of them
    if isinstance(old, bool) or not isinstance(old, int | float):
        parent[key] = chance.choice([[old], str(old), {"x": old}, f"{old}x", None])
    else:
        parent[key] = chance.choice(
            [old + 1, old - 1, -old, old * 1000, old * 10**9, str(old), [old], old + 0.5]
        )


def _remove(chance: random.Random, parent: Any, key: Any, tree: Any) -> None:
    del parent[key]


def _rename(chance: random.Random, parent: Any, key: Any, tree: Any) -> None:
    """Rename a key; of a list, swap two elements."""
    if isinstance(parent, list):
        other = chance.randrange(len(parent))
        parent[key], parent[other] = parent[other], parent[key]
        return
    new = chance.choice(
        [f"{key}s", key[:-1], key.upper(), f"{key}\x1b[1m", f"{key}\x7f", chance.choice(ODD_TEXTS)]
    )
    parent[new] = parent.pop(key)


def _twice(chance: random.Random, parent: Any, key: Any, tree: Any) -> None:
    """Give a key twice, an element once more or ten thousand times."""
    if isinstance(parent, dict):
        parent[Twin(key)] = copy.deepcopy(parent[key])
    else:
        parent[key:key] = [copy.deepcopy(parent[key])] * chance.choice([1, 1, 3, 10_000])


def _graft(chance: random.Random, parent: Any, key: Any, tree: Any) -> None:
    """Put another part of the document in this place."""
    places = list(nodes(tree))
    parent[key] = copy.deepcopy(at(tree, chance.choice(places)))


def _widen(chance: random.Random, parent: Any, key: Any, tree: Any) -> None:
    """Add a key that nobody knows, or an element."""
    if isinstance(parent, dict):
        parent[chance.choice(ODD_TEXTS)] = odd_value(chance)
    else:
        parent.append(odd_value(chance))


CHANGES: tuple[Callable[..., None], ...] = (
    _replace, _replace, _replace, _nudge, _nudge, _nudge, _remove, _rename, _twice, _graft, _widen,
)  # fmt: skip


def mutated(chance: random.Random, document: Document) -> Document:
    """Give a copy of which one to three nodes are odd."""
    tree = copy.deepcopy(document.tree)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        places = list(nodes(tree))
        if not places:
            break
        # a place of each depth is as likely as one of another: most nodes lie deep
        depth = chance.choice(sorted({len(path) for path in places}))
        path = chance.choice([path for path in places if len(path) == depth])
        chance.choice(CHANGES)(chance, at(tree, path[:-1]), path[-1], tree)
    return Document(tree, document.language)


def mutated_bytes(chance: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Flip bits, cut, double, or splice with another file."""
    made = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8])):
        if not made:
            break
        place = chance.randrange(len(made))
        end = min(len(made), place + chance.choice([1, 4, 64, 1024]))
        match chance.randrange(6):
            case 0:
                made[place] ^= 1 << chance.randrange(8)
            case 1:
                made[place] = chance.choice([0, 0xFF, 0x1B, 0x7F, 0x22, 0x5B, 0x7B, 0x2D, 0x39])
            case 2:
                del made[place:]
            case 3:
                del made[place:end]
            case 4:
                made[place:place] = made[place:end] * chance.choice([1, 2, 100])
            case _:
                other = chance.choice(others)
                made[place:end] = other[place : place + chance.choice([1, 16, 256])]
    return bytes(made)


def smaller(document: Document) -> Iterator[Document]:
    """Give copies of which one node is missing, or is plain; large parts first."""
    places = sorted(nodes(document.tree), key=len)
    for path in places:
        tree = copy.deepcopy(document.tree)
        parent = at(tree, path[:-1])
        del parent[path[-1]]
        yield Document(tree, document.language)
