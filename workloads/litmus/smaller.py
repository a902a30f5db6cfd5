"""Smaller litmus tests made of one: with some of its calls, loops opened, fewer words, columns, pages, CPUs.

Each function gives another sheet, which may mean nothing: whoever reads it again is told so. A call is named
by its path: its column, and its place in each body on the way. Left out: which smaller test still shows what
the large one did (emulator/stress/shrink.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace

from workloads.litmus.sheet import REPEAT, UNTIL, Call, Column, Line, Sheet

Path = tuple[int, ...]
KEPT_HEADS = ("region", "machine", "forbidden")  # the others say what the large test was for
UNTOUCHED = 1  # a call keeps its name
WAIT = ("meet", "post", "spin", "wait", UNTIL)  # calls by which columns wait for each other


def paths(sheet: Sheet) -> list[Path]:
    """Name every call and loop."""
    return [path for c, column in enumerate(sheet.columns) for path, _ in _walk(column.calls, (c,))]


def call_at(sheet: Sheet, path: Path) -> Call:
    """Give the call with this name."""
    call = sheet.columns[path[0]].calls[path[1]]
    for place in path[2:]:
        call = call.body[place]
    return call


def count_calls(sheet: Sheet) -> int:
    """Count calls as they are written: a loop is what is in it."""
    return sum(not call_at(sheet, path).body for path in paths(sheet))


def count_pages(sheet: Sheet) -> int:
    """Count the pages of all regions, as far as they are numbers."""
    words = [line.text.split() for key, line in sheet.heads if key == "region"]
    return sum(int(one[1]) for one in words if len(one) > 1 and one[1].isdigit())


def bare(sheet: Sheet, about: str) -> Sheet:
    """Leave only the heads that decide what runs, and say what it is about. Keys of the machine get a line
    each.
    """
    heads = [("about", Line(1, about))]
    for key, line in sheet.heads:
        if key == "machine":
            parts = filter(None, (part.strip() for part in line.text.split(",")))
            heads += [(key, Line(line.number, part)) for part in parts]
        elif key in KEPT_HEADS:
            heads.append((key, line))
    return replace(sheet, heads=heads)


def without_unused_regions(sheet: Sheet) -> Sheet:
    """Leave out the regions that no call names."""
    words = {word.rpartition("=")[2] for path in paths(sheet) for word in call_at(sheet, path).words}
    return with_heads(
        sheet,
        [(key, line) for key, line in sheet.heads if key != "region" or line.text.split()[0] in words],
    )


def with_calls(sheet: Sheet, kept: Collection[Path]) -> Sheet:
    """Keep these calls; a loop goes if nothing is left in it, and takes its calls along. Columns may be left
    empty.
    """
    kept = set(kept)
    columns = [
        replace(column, calls=list(_kept(column.calls, (c,), kept))) for c, column in enumerate(sheet.columns)
    ]
    return replace(sheet, columns=columns)


def with_columns(sheet: Sheet, kept: Iterable[Column]) -> Sheet:
    """Keep these columns."""
    return replace(sheet, columns=list(kept))


def with_heads(sheet: Sheet, heads: Iterable[tuple[str, Line]]) -> Sheet:
    """Have these heads."""
    return replace(sheet, heads=list(heads))


def changed(sheet: Sheet, path: Path, others: Iterable[Call]) -> Sheet:
    """Put other calls in the place of one."""
    columns, (at, *rest) = list(sheet.columns), path
    columns[at] = replace(columns[at], calls=list(_changed(columns[at].calls, tuple(rest), others)))
    return replace(sheet, columns=columns)


def flags(sheet: Sheet) -> list[str]:
    """Name the flags and meetings at which columns wait for each other."""
    calls = [call_at(sheet, path) for path in paths(sheet)]
    return list(dict.fromkeys(call.words[1] for call in calls if call.name in WAIT and len(call.words) > 1))


def without_flag(sheet: Sheet, flag: str) -> Sheet:
    """Have nobody wait for a flag or post it; what was done until then is done once."""

    def change(call: Call) -> Iterable[Call]:
        if call.name not in WAIT or call.words[1:2] != (flag,):
            return [call]
        return call.body

    return _everywhere(sheet, change)


def loop_counts(sheet: Sheet) -> list[str]:
    """Give the numbers of times that loops have."""
    calls = [call_at(sheet, path) for path in paths(sheet)]
    return list(dict.fromkeys(call.words[1] for call in calls if call.name == REPEAT and len(call.words) > 1))


def with_count(sheet: Sheet, count: str, fewer: str) -> Sheet:
    """Have all loops of so many times do fewer; of one time, only what is in them."""

    def change(call: Call) -> Iterable[Call]:
        if call.name != REPEAT or call.words[1:2] != (count,):
            return [call]
        return call.body if fewer == "1" else [replace(call, words=(REPEAT, fewer, *call.words[2:]))]

    return _everywhere(sheet, change)


def fewer_words(call: Call) -> Iterator[Call]:
    """Give the call with a word less, or a smaller number in it, the smallest first."""
    if call.name == REPEAT:
        yield from _smaller_words(call, 1)
        return
    if call.name != UNTIL and len(call.words) > UNTOUCHED:
        yield replace(call, words=call.words[:-1])
    for at in range(UNTOUCHED, len(call.words)):
        yield from _smaller_words(call, at)


def smaller_numbers(text: str) -> Iterator[str]:
    """Give smaller numbers than a text is, if it is one: 0, 1, a half, three quarters."""
    if text.isdigit():
        value = int(text)
        for less in dict.fromkeys((0, 1, value // 2, value - -(-value // 4))):
            if 0 <= less < value:
                yield str(less)


def smaller_regions(text: str) -> Iterator[str]:
    """Give what a region's head may be instead: fewer pages, or a word less."""
    words = text.split()
    for number in smaller_numbers(words[1]) if len(words) > 1 else ():
        yield " ".join([words[0], number, *words[2:]])
    for at in range(2, len(words)):
        yield " ".join([*words[:at], *words[at + 1 :]])


def _smaller_words(call: Call, at: int) -> Iterator[Call]:
    key, equals, value = call.words[at].rpartition("=")
    for number in smaller_numbers(value):
        yield replace(call, words=(*call.words[:at], key + equals + number, *call.words[at + 1 :]))


def _walk(calls: Iterable[Call], path: Path) -> Iterator[tuple[Path, Call]]:
    for i, call in enumerate(calls):
        yield (*path, i), call
        yield from _walk(call.body, (*path, i))


def _kept(calls: Iterable[Call], path: Path, kept: set[Path]) -> Iterator[Call]:
    for i, call in enumerate(calls):
        if (*path, i) not in kept:
            continue
        if not call.body:
            yield call
        elif body := tuple(_kept(call.body, (*path, i), kept)):
            yield replace(call, body=body)


def _everywhere(sheet: Sheet, change: Callable[[Call], Iterable[Call]]) -> Sheet:
    """Put what `change` makes of each call in its place, the inner ones first."""
    columns = [replace(column, calls=list(_mapped(column.calls, change))) for column in sheet.columns]
    return replace(sheet, columns=columns)


def _mapped(calls: Iterable[Call], change: Callable[[Call], Iterable[Call]]) -> Iterator[Call]:
    for call in calls:
        if not call.body:
            yield from change(call)
        elif body := tuple(_mapped(call.body, change)):
            yield from change(replace(call, body=body))


def _changed(calls: Iterable[Call], path: Path, others: Iterable[Call]) -> Iterator[Call]:
    for i, call in enumerate(calls):
        if i != path[0]:
            yield call
        elif len(path) == 1:
            yield from others
        else:
            yield replace(call, body=tuple(_changed(call.body, path[1:], others)))
