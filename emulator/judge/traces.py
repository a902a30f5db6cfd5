"""The lines that kernels and hooks left with `trace` (cpus/trace.py): printed while the run goes on, and put
among the events of a proof.

Printed are the first TRACES_FIRST of each CPU, in their order as far as they are there at a look; with one
lease that is the order of the whole run. For a proof the last TRACES_LAST are there, too. Left out: what lies
between, of which only the number is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Self

from allocator.sched import TASK_DESIGN, TASK_KSWAPD, TASK_USER
from cpus.events import EVENT_TASK_SHIFT
from cpus.faults import hook_name
from cpus.trace import HEAD_WORDS, TRACE_WORDS, TRACES_FIRST, TRACES_LAST, places_in

CPU_MASK = (1 << EVENT_TASK_SHIFT) - 1


class Line(NamedTuple):
    """One line; in the order of lines and events, it comes behind event number `sequence`."""

    sequence: int
    number: int
    t_ns: int
    who: int
    hook: str
    said: str
    values: tuple[int, ...]


def actor(ram: Any, who: int) -> str:
    """Name the CPU of an event, and its task if that is a kernel thread."""
    cpu, task = who & CPU_MASK, (who >> EVENT_TASK_SHIFT) - 1
    kind = int(ram.task_kind[task]) if task >= 0 else TASK_USER
    threads = {TASK_KSWAPD: f" (kswapd{int(ram.task_index[task])})", TASK_DESIGN: " (the design's thread)"}
    return f"cpu{cpu}{threads.get(kind, '')}"


def kept_lines(ram: Any) -> list[Line]:
    """Give all lines that are kept, in order."""
    found = []
    for cpu in range(ram.nr_cpus):
        made = int(ram.cpu_traces[cpu])
        last = range(max(TRACES_FIRST, made - TRACES_LAST), made)
        found += _lines(ram, cpu, [*range(min(made, TRACES_FIRST)), *last])
    return sorted(found)


def _lines(ram: Any, cpu: int, numbers: Iterable[int]) -> list[Line]:
    return [_line(ram, cpu, number) for number in numbers]


def _line(ram: Any, cpu: int, number: int) -> Line:
    place = number if number < TRACES_FIRST else TRACES_FIRST + (number - TRACES_FIRST) % TRACES_LAST
    words = ram.trace[cpu, place * TRACE_WORDS : (place + 1) * TRACE_WORDS]
    sequence, order, t_ns, who, hook, count = words[:6].tolist()
    values = tuple(words[6 : 6 + count].tolist())
    text = words[HEAD_WORDS:].tobytes().rstrip(b"\0").decode()
    return Line(sequence, order, t_ns, who, hook_name(ram, hook), _worded(text, values), values)


def _worded(text: str, values: tuple[int, ...]) -> str:
    """Put values in the places that the text has for them, and the others behind it."""
    placed = places_in(text)
    return " ".join([text.format(*values) if placed else text, *map(str, values[placed:])])


class Printer:
    """Prints the lines of a run as they come, and at its end what is left; `say` takes a line of text."""

    def __init__(self, ram: Any, say: Callable[[str], None]):
        self.ram, self.say = ram, say
        self.printed = [0] * ram.nr_cpus

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.look()
        for cpu, made in enumerate(self.ram.cpu_traces.tolist()):
            if made > TRACES_FIRST:
                self.say(f"trace: {made - TRACES_FIRST:,} more lines of cpu{cpu} are not printed")

    def look(self) -> None:
        """Print what is new."""
        ram, new = self.ram, []
        for cpu, made in enumerate(ram.cpu_traces.tolist()):
            until = min(made, TRACES_FIRST)
            new += _lines(ram, cpu, range(self.printed[cpu], until))
            self.printed[cpu] = until
        for line in sorted(new):
            task = (line.who >> EVENT_TASK_SHIFT) - 1
            where = f"task {task}" if task >= 0 else "no task"
            hook = f" in hook {line.hook}" if line.hook else ""
            self.say(f"trace {line.t_ns:,} ns, {actor(ram, line.who)}, {where}{hook}: {line.said}")
