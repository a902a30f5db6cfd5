"""A litmus test as text again: what was read, perhaps with less in it, in columns as one would write it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest

from workloads.litmus.sheet import END, LINES_MAX, Call, Column, Sheet

INDENT = "  "
KEY_WIDTH = 9  # `machine: ` and its like


def text_of(sheet: Sheet) -> str:
    """Write heads and columns, so that reading it gives the same.

    >>> from workloads.litmus.sheet import lines_of, read_sheet
    >>> text = "region: m 4\\np @0 | q @last\\nuntil go; load m; end | post go"
    >>> print(text_of(read_sheet("a", lines_of("a", text))))
    region:   m 4
    <BLANKLINE>
    p @0      | q @last
    until go  | post go
      load m  |
    end       |
    <BLANKLINE>
    """
    heads = [f"{key + ':':<{KEY_WIDTH}} {line.text}".rstrip() for key, line in sheet.heads]
    columns = [[_name(column), *_cells(column.calls, sheet)] for column in sheet.columns]
    widths = [max(map(len, cells)) for cells in columns]
    lines = [
        "  | ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in zip_longest(*columns, fillvalue="")
    ]
    return "\n".join([*heads, "", *lines, ""])


def _name(column: Column) -> str:
    return f"{column.process} " + ("forked" if column.forked else f"@{column.cpu}")


def _cells(calls: Iterable[Call], sheet: Sheet) -> list[str]:
    """Give a cell for each call of a column; of very many, several in a cell."""
    cells = list(_lines(calls, ""))
    room = max(1, LINES_MAX - len(sheet.heads) - 1)
    several = -(-len(cells) // room)
    if several < 2:
        return cells
    return ["; ".join(cell.strip() for cell in cells[i : i + several]) for i in range(0, len(cells), several)]


def _lines(calls: Iterable[Call], indent: str) -> Iterator[str]:
    for call in calls:
        yield indent + " ".join(call.words)
        if call.body:
            yield from _lines(call.body, indent + INDENT)
            yield indent + END
