"""The text of a litmus test: heads, then columns of calls, one for each thread.

    about:    After munmap has returned, nobody reads through the old translation.
    covers:   munmap, I5
    needs:    nr_tlb_remote_flush > 0
    machine:  cpus = 3, memory = 1024
    region:   m 16 writable

    p @0        | p @1          | q @last
    store m     | load m        | load m
    meet there  | meet there    | meet there
    munmap m    | until gone
    post gone   |   try_load m
                | end

A head is `key: value`. The first line without a key names the columns: process, and CPU of its thread (a
number, `last`, or `any`), or `forked`. Columns are parted by bars with a blank beside them; a cell may
have several calls, parted by semicolons. `repeat TIMES [NAME]` ... `end` and `until FLAG` ... `end` stand for
loops. What follows a # is a comment. This module knows the shape alone; workloads/litmus/test.py gives it a
meaning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from inputs.text import clipped, is_odd

HEAD = re.compile(r"([a-z]+):(?:\s+(.*))?")
BAR = re.compile(r"(?:^|(?<=\s))\||\|(?=\s|$)")
PLACE = re.compile(r"(\S+)\s+(?:@(\d{1,4}|last|any)|(forked))")
LINES_MAX, COLUMNS_MAX, CALLS_MAX, DEPTH_MAX = 400, 64, 4000, 8
REPEAT, UNTIL, END = "repeat", "until", "end"


class LitmusError(ValueError):
    """A litmus test that cannot be: one sentence with file, line, rule and value."""


@dataclass(frozen=True, slots=True)
class Line:
    """Text of a line of the file."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call, or the head of a loop with what it repeats."""

    line: int
    words: tuple[str, ...]
    body: tuple[Call, ...] = ()

    @property
    def name(self) -> str:
        return self.words[0]


@dataclass(slots=True)
class Column:
    """One thread: its process, where it runs, what it does."""

    process: str
    cpu: str  # a number, last or any
    forked: bool
    calls: list[Call] = field(default_factory=list)


@dataclass(slots=True)
class Sheet:
    """A whole file."""

    file: str
    heads: list[tuple[str, Line]]
    columns: list[Column]
    made: int = 0  # calls, with all repetitions, once it has been laid out

    def refuse(self, line: int, rule: str, got: object) -> LitmusError:
        """Make the error of a line."""
        return LitmusError(f"{self.file}:{line}: {rule} (got {clipped(got)})")


def lines_of(file: str, text: str) -> list[Line]:
    """Give what stands on each line that is not empty, without comments."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if is_odd(line):
            raise LitmusError(f"{file}:{number}: a line must be text without control characters")
        line = line.partition("#")[0].rstrip()
        if line.strip():
            found.append(Line(number, line))
    if len(found) > LINES_MAX:
        raise LitmusError(f"{file}: a test must have at most {LINES_MAX} lines (got {len(found):,})")
    return found


def read_sheet(file: str, lines: list[Line]) -> Sheet:
    """Tell heads from columns, and read the columns' calls. Raises LitmusError."""
    sheet = Sheet(file, [], [])
    body = 0
    for body, line in enumerate(lines):  # noqa: B007 (where it ends)
        head = HEAD.fullmatch(line.text)
        if head is None:
            break
        sheet.heads.append((head[1], Line(line.number, (head[2] or "").strip())))
    else:
        raise LitmusError(f"{file}: columns of calls must follow the heads (got none)")
    sheet.columns = [_column(sheet, lines[body].number, text) for text in cells_of(lines[body].text)]
    if len(sheet.columns) > COLUMNS_MAX:
        raise sheet.refuse(lines[body].number, f"columns must be at most {COLUMNS_MAX}", len(sheet.columns))
    _read_calls(sheet, lines[body + 1 :])
    return sheet


def cells_of(text: str) -> list[str]:
    """Part a line at its bars."""
    return [cell.strip() for cell in BAR.split(text)]


def _column(sheet: Sheet, line: int, text: str) -> Column:
    place = PLACE.fullmatch(text)
    if place is None:
        rule = "columns must be named first, by process and CPU, such as `p @0 | p @last | child forked`"
        raise sheet.refuse(line, rule, text)
    return Column(place[1], place[2] or "any", place[3] is not None)


def _read_calls(sheet: Sheet, lines: list[Line]) -> None:
    """Put each cell's calls into its column, loops closed."""
    words: list[list[tuple[int, tuple[str, ...]]]] = [[] for _ in sheet.columns]
    for line in lines:
        cells = cells_of(line.text)
        if len(cells) > len(words):
            raise sheet.refuse(line.number, f"a line must have at most {len(words)} columns", len(cells))
        for found, cell in zip(words, cells, strict=False):
            found += [(line.number, tuple(call.split())) for call in cell.split(";") if call.strip()]
    for column, calls in zip(sheet.columns, words, strict=True):
        if len(calls) > CALLS_MAX:
            raise LitmusError(f"{sheet.file}: a column must have at most {CALLS_MAX:,} calls (got more)")
        column.calls = _nested(sheet, calls)


def _nested(sheet: Sheet, found: list[tuple[int, tuple[str, ...]]]) -> list[Call]:
    """Make loops of what stands between `repeat` or `until` and `end`."""
    open_loops: list[tuple[int, tuple[str, ...]]] = []
    bodies: list[list[Call]] = [[]]
    for line, words in found:
        if words[0] in (REPEAT, UNTIL):
            open_loops.append((line, words))
            bodies.append([])
            if len(open_loops) > DEPTH_MAX:
                raise sheet.refuse(line, f"loops must be at most {DEPTH_MAX} deep", " ".join(words))
        elif words[0] != END:
            bodies[-1].append(Call(line, words))
        elif not open_loops:
            raise sheet.refuse(line, f"`{END}` must end a loop of its column", " ".join(words))
        else:
            begun, head = open_loops.pop()
            inner = tuple(bodies.pop())
            if not inner:
                raise sheet.refuse(begun, "a loop must have a call", " ".join(head))
            bodies[-1].append(Call(begun, head, inner))
    if open_loops:
        line, head = open_loops[-1]
        raise sheet.refuse(line, f"a loop must be closed by `{END}` in its column", " ".join(head))
    return bodies[0]
