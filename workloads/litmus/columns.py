"""The columns of a litmus test as a workload: a script whose steps are its calls. Its errors name lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from inputs.text import clipped
from workloads.calls import Calls
from workloads.litmus.expression import number
from workloads.litmus.sheet import REPEAT, UNTIL, Call, Column, Line, LitmusError, Sheet
from workloads.rows import Region, Workload
from workloads.script import Script, ScriptError

TIME, MEET, TIMES_MAX = "n", "meet", 1_000_000
MADE_MAX = 100_000  # calls of a file's tests: a second to lay out; the largest file that ships has 6,000
FLAGS = {"writable": True, "shared": True, "executable": True, "unmapped": False}
FIGURES = {"offset": "file_offset", "order": "folio_order"}


def workload_of(sheet: Sheet, name: str, about: str, regions: list[Line], cpus: int) -> Workload:
    """Make the workload. Raises LitmusError."""
    return _Script(sheet, name, about, regions, cpus).workload()


class _Script(Script):
    """A script whose errors name lines of the file."""

    def __init__(self, sheet: Sheet, name: str, about: str, regions: list[Line], cpus: int) -> None:
        try:
            super().__init__(name, about)
            self.sheet = sheet
            self.at: dict[tuple[str, int], list[int]] = {}
            self.parties = _parties(sheet.columns)
            owned = [_region(sheet, line) for line in regions]
            for process in dict.fromkeys(column.process for column in sheet.columns):
                columns = [column for column in sheet.columns if column.process == process]
                own = [region for owner, region in owned if owner in ("", process)]
                self._add(process, columns, own, cpus)
        except ScriptError as error:
            raise LitmusError(f"{sheet.file}: {error}") from None

    def workload(self) -> Workload:
        """Make the workload. Raises LitmusError."""
        try:
            return super().workload()
        except ScriptError as error:
            if isinstance(error.__cause__, LitmusError):
                raise error.__cause__ from None
            text = str(error)
            raise LitmusError(
                text if text.startswith(f"{self.sheet.file}:") else f"{self.sheet.file}: {text}"
            ) from None

    def _add(self, process: str, columns: list[Column], regions: list[Region], cpus: int) -> None:
        threads = []
        for index, column in enumerate(columns):
            lines = self.at.setdefault((process, index), [])
            threads.append(lambda t, column=column, lines=lines: self._steps(t, column.calls, {}, lines))
        places = [_cpu(column.cpu, cpus) for column in columns]
        pinned = [place for place in places if place is not None]
        if pinned and len(pinned) < len(places):
            rule = f"process {process!r}: columns must all have a CPU, or all be @any"
            raise LitmusError(
                f"{self.sheet.file}: {rule} (got {', '.join(column.cpu for column in columns)})"
            )
        self.process(process, threads, regions, pinned, any(column.forked for column in columns))

    def _place(self, process: str, thread: int, step: int) -> str:
        lines = self.at[process, thread]
        line = lines[min(step, len(lines) - 1)] if lines else 1
        return f"{self.sheet.file}:{line}: process {process!r} thread {thread}"

    def _steps(
        self, t: Calls, calls: list[Call] | tuple[Call, ...], known: Mapping[str, int], lines: list[int]
    ) -> Iterator[Any]:
        """Give the steps of calls, and note the line of each."""
        for call in calls:
            if call.name == REPEAT:
                yield from self._repeated(t, call, known, lines)
                continue
            self._count(call)
            lines.append(call.line)
            if call.name != UNTIL:
                yield self._called(t, call, known)
                continue
            inner: list[int] = []
            body = list(self._steps(t, call.body, known, inner))
            yield self._until(t, call, body, known)

    def _count(self, call: Call) -> None:
        """Count a call, or one time of a loop in which none was made."""
        self.sheet.made += 1
        if self.sheet.made > MADE_MAX:
            rule = f"calls, with all repetitions, must be at most {MADE_MAX:,}"
            raise self.sheet.refuse(call.line, rule, "more")

    def _repeated(self, t: Calls, loop: Call, known: Mapping[str, int], lines: list[int]) -> Iterator[Any]:
        times = number(loop.words[1], known) if len(loop.words) in (2, 3) else None
        if times is None or not 0 <= times <= TIMES_MAX:
            rule = (
                f"`{REPEAT}` must be followed by a number of times, at most {TIMES_MAX:,}, and perhaps a name"
            )
            raise self.sheet.refuse(loop.line, rule, " ".join(loop.words[1:]))
        name = loop.words[2] if len(loop.words) == 3 else TIME
        for time in range(times):
            before = self.sheet.made
            yield from self._steps(t, loop.body, {**known, name: time}, lines)
            if self.sheet.made == before:  # loops of no time
                self._count(loop)

    def _until(self, t: Calls, loop: Call, body: list[Any], known: Mapping[str, int]) -> Any:
        arguments, named = _arguments(loop.words[1:], known)
        if len(arguments) not in (1, 2) or named:
            rule = f"`{UNTIL}` must be followed by a flag, and perhaps a number of posts"
            raise self.sheet.refuse(loop.line, rule, " ".join(loop.words[1:]))
        return t.until(arguments[0], body, *arguments[1:])

    def _called(self, t: Calls, call: Call, known: Mapping[str, int]) -> Any:
        """Make the row of one call."""
        arguments, named = _arguments(call.words[1:], known)
        if call.name == MEET and len(arguments) == 1 and not named:
            arguments = [*arguments, self.parties[str(arguments[0])]]
        if call.name not in t.names():
            raise ValueError(t.unknown(call.name))
        return getattr(t, call.name)(*arguments, **named)


def _arguments(words: tuple[str, ...], known: Mapping[str, int]) -> tuple[list[Any], dict[str, Any]]:
    """Read the arguments of a call, those with a name apart."""
    arguments: list[Any] = []
    named: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.rpartition("=")
        found = number(value, known)
        if equals and key in named:
            raise ValueError(f"{key!r} must be given once (got {clipped(' '.join(words))})")
        if equals:
            named[key] = value if found is None else found
        else:
            arguments.append(value if found is None else found)
    return arguments, named


def _parties(columns: list[Column]) -> Counter[str]:
    """Say how many columns come to each meeting."""
    return Counter(name for column in columns for name in set(_meetings(column.calls)))


def _meetings(calls: list[Call] | tuple[Call, ...]) -> Iterator[str]:
    for call in calls:
        if call.body:
            yield from _meetings(call.body)
        elif call.name == MEET and len(call.words) > 1:
            yield call.words[1]


def _cpu(text: str, cpus: int) -> int | None:
    """Give the number of a CPU; None: any."""
    if text == "any":
        return None
    return cpus - 1 if text == "last" else int(text)


def _region(sheet: Sheet, line: Line) -> tuple[str, Region]:
    """Read a region, and whose it is: that process's alone, or everybody's."""
    name, pages, *words = [*line.text.split(), "", ""][: max(2, len(line.text.split()))]
    size = number(pages, {})
    if not re.fullmatch(r"[A-Za-z_]\w*", name) or size is None:
        rule = "'region' must be a name, pages, and what it is, such as `region: m 16 writable`"
        raise sheet.refuse(line.number, rule, line.text)
    what: dict[str, Any] = {}
    owner = ""
    for word in words:
        key, _, value = word.partition("=")
        if word in FLAGS:
            what["mapped" if word == "unmapped" else word] = FLAGS[word]
        elif key == "file" and value:
            what["file"] = value
        elif key == "of" and value in {column.process for column in sheet.columns}:
            owner = value
        elif key in FIGURES and (found := number(value, {})) is not None:
            what[FIGURES[key]] = found
        else:
            rule = f"a region must be {', '.join(FLAGS)}, file=NAME, of=PROCESS, offset=N or order=N"
            raise sheet.refuse(line.number, rule, word)
    return owner, Region(name, size, **what)
