"""Write a workload as short Python generators, one per thread: a thread yields what it does, in order.

    def parent(t):
        yield t.store("heap")                   # touch each page of a region
        yield t.meet("ready", 2)                # spin until both threads are there
        yield t.munmap("heap")

    def worker(t):
        yield t.meet("ready", 2)

    script = Script("example", regions=[Region("heap", 64, writable=True)])
    script.process("main", [parent, worker], cpus=[0, 1])
    workload = script.workload()

What a thread can do are the methods of `Calls` (workloads/calls.py). The generators run when `workload()` is
called; they know then which processes there are. A mistake is reported with script, process, thread,
step, rule and value. The same in TOML: workloads/script_toml.py. Left out: decisions at run time; a
generator runs before the workload does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inputs.text import clipped, visible
from workloads import rows as p
from workloads.calls import Calls, Meeting, Names, Row, flat, reported
from workloads.rows import Process, Region, Workload
from workloads.rules.place import RowError
from workloads.rules.sizes import NAME_MAX, check_regions, is_name
from workloads.rules.whole import validate

ROWS_MAX = 2_000_000  # of a script: a row takes a hundred bytes while it is made, and a microsecond

Thread = Callable[[Calls], Iterable[Any]]


class ScriptError(ValueError):
    """A script that cannot be a workload: one sentence."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process of a script, as it was added."""

    name: str
    threads: tuple[Thread, ...]
    regions: tuple[Region, ...]
    cpus: tuple[int, ...]
    forked: bool


@dataclass(slots=True)
class _Made:
    """The rows of one thread, with the step that each comes from."""

    rows: list[Row] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)


class Script:
    """Collects processes, and makes a workload of them. `regions` are those of every process that names none
    of its own.
    """

    def __init__(self, name: str, description: str = "", regions: Sequence[Region] = ()) -> None:
        if not is_name(name):
            rule = f"'name' must be a name of at most {NAME_MAX} characters on one line"
            raise ScriptError(f"script: {rule} (got {clipped(name)})")
        self.name, self.description, self.regions = name, description, tuple(regions)
        self.parts: list[Part] = []
        self.snapshots: dict[str, int] = {}  # name -> number, filled by workload()
        self.rows = 0  # made so far, by all threads

    def process(
        self,
        name: str,
        threads: Sequence[Thread],
        regions: Sequence[Region] | None = None,
        cpus: Sequence[int] = (),
        forked: bool = False,
    ) -> Script:
        """Add a process whose threads start together (or, `forked`, when another one forks it); returns the
        script itself.
        """
        here = f"script {self.name!r}: process {clipped(name)}"
        if not is_name(name):
            raise ScriptError(f"{here}: 'name' must be a name on one line, of at most {NAME_MAX} characters")
        if any(part.name == name for part in self.parts):
            raise ScriptError(f"{here}: 'name' must be that of one process (got it twice)")
        if not threads or not all(callable(thread) for thread in threads):
            raise ScriptError(
                f"{here}: 'threads' must be at least one generator function (got {clipped(threads)})"
            )
        if not all(isinstance(cpu, int) and cpu >= 0 for cpu in cpus):
            raise ScriptError(f"{here}: 'cpus' must be numbers of CPUs (got {clipped(list(cpus))})")
        known = self.regions if regions is None else tuple(regions)
        for region in known:
            if not isinstance(region, Region):
                raise ScriptError(f"{here}: 'regions' must be regions with a name (got {clipped(region)})")
        try:
            check_regions(name, known)
        except ValueError as error:
            raise ScriptError(f"script {self.name!r}: {error}") from None
        self.parts.append(Part(name, tuple(threads), known, tuple(cpus), forked))
        return self

    def workload(self) -> Workload:
        """Run the generators and give the workload, checked. Raises ScriptError with process, thread, step,
        rule and value.
        """
        self.rows = 0
        names = Names({part.name: part.forked for part in self.parts})
        made = {
            (part.name, i): self._rows(names, part, i)
            for part in self.parts
            for i in range(len(part.threads))
        }
        self._check_meetings(names.meetings)
        self.snapshots = names.snapshots
        processes = tuple(
            Process(part.name, part.regions,
                    tuple(_array(made[part.name, i]) for i in range(len(part.threads))), cpus=part.cpus,
                    together=True, forked=part.forked,
                    steps=tuple(np.array(made[part.name, i].steps) for i in range(len(part.threads))))
            for part in self.parts
        )  # fmt: skip
        workload = Workload(self.name, processes, description=self.description, exact=True)
        try:
            validate(workload)
        except RowError as error:
            raise ScriptError(self._told(error, names, made[error.process, error.thread])) from None
        except ValueError as error:
            raise ScriptError(f"script {self.name!r}: {error}") from None
        return workload

    def _rows(self, names: Names, part: Part, index: int) -> _Made:
        """Run the generator of one thread; what goes wrong in a call gets the number of its step."""
        made, calls = _Made(), Calls(names, part.name, index, part.regions)
        steps, number = self._begun(part, index, calls), 0
        while True:
            try:
                step = next(steps)
                rows = list(flat(step))
            except StopIteration:
                return made
            except (AttributeError, ValueError, TypeError) as error:
                if isinstance(error, AttributeError) and error.obj is not calls:
                    raise
                raise ScriptError(
                    f"{self._place(part.name, index, number)}: {reported(calls, error)}"
                ) from error
            self.rows += len(rows)
            if self.rows > ROWS_MAX:
                where = self._place(part.name, index, number)
                raise ScriptError(f"{where}: a script must make at most {ROWS_MAX:,} rows in all (got more)")
            made.rows += rows
            made.steps += [number] * len(rows)
            number += 1

    def _begun(self, part: Part, index: int, calls: Calls) -> Iterator[Any]:
        """Call a thread's function, which must take one argument and give its steps."""
        try:
            return iter(part.threads[index](calls))
        except TypeError as error:
            rule = "'threads' must be generator functions of one argument"
            raise ScriptError(
                f"script {self.name!r}: process {part.name!r} thread {index}: {rule} (got {error})"
            ) from error

    def _place(self, process: str, thread: int, step: int) -> str:
        return f"script {self.name!r}: process {process!r} thread {thread} step {step}"

    def _told(self, error: RowError, names: Names, made: _Made) -> str:
        """Tell a broken rule in the words of the script: step, operation, name of the flag."""
        op, page = made.rows[error.row][0], made.rows[error.row][5]
        flag = f" {names.flag_name(page)!r}" if op in p.kinds_with(p.FLAG) else ""
        place = self._place(error.process, error.thread, made.steps[error.row])
        return f"{place}: {p.ROW_KINDS[op].name}{flag}: {error.rule}"

    def _check_meetings(self, meetings: dict[str, Meeting]) -> None:
        """A meeting is right for its parties only: so many threads come, all as often."""
        for name, meeting in meetings.items():
            times = set(meeting.times.values())
            if len(meeting.times) != meeting.parties or len(times) != 1:
                came = ", ".join(
                    f"process {process!r} thread {thread} {count} times"
                    for (process, thread), count in meeting.times.items()
                )
                rule = f"{meeting.parties} threads must come to it, all as often"
                raise ScriptError(
                    f"script {self.name!r}: meeting {name!r}: {rule} (got {visible(came, 200)})"
                )


def _array(made: _Made) -> np.ndarray:
    return np.array(made.rows, p.ROW)
