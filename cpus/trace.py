"""`trace(ram, cpu, "frame {}, key {}", pfn, key)`: a line on stderr and in the proof, from any kernel or
hook.

Compiled code cannot print. It leaves a record in shared memory instead: virtual time, task, hook, the text
(at most TEXT_BYTES, known when the code is compiled) and up to four values, which take the places of the
text's {} or stand behind it. The supervisor prints it (emulator/judge/traces.py). A record bears the number
of the event before it and a number of its own, so lines and events have one order, and tracing changes no
event: a controlled run has the same fingerprint with it. Of each CPU's lines the first TRACES_FIRST are kept,
which are printed, and the last TRACES_LAST, for a proof. The rest is counted. Left out: code that does not
trace, which pays nothing.
"""

from __future__ import annotations

from string import Formatter

import numba
from numba import types
from numba.core.errors import TypingError
from numba.extending import overload

from cpus.atomics import fetch_add, load_acquire, store_release
from cpus.compiled import kernel
from cpus.declare import ANY, OWNER, Atomic, Field, OneOf, Struct
from cpus.events import EVENT_TASK_SHIFT

TRACES_FIRST, TRACES_LAST, TRACE_WORDS = 1000, 4000, 24  # lines kept per CPU
FIELDS = (
    Struct("one", "events", (Field("run_trace_seq", Atomic("fetch_add"), "total order of trace lines"),)),
    Struct("nr_cpus", "clock", (
        Field("cpu_traces", OneOf(OWNER, Atomic("store_release")), "trace lines made", reads=ANY),
    )),
    Field("trace", OWNER, "TRACES_FIRST lines, then a ring of TRACES_LAST",
          ("nr_cpus", (TRACES_FIRST + TRACES_LAST) * TRACE_WORDS), reads=ANY),
)  # fmt: skip

VALUES_MAX = 4
HEAD_WORDS = 10  # event before it, its number, virtual ns, CPU and task, hook, number of values, values
TEXT_BYTES = 8 * (TRACE_WORDS - HEAD_WORDS)


def places_in(text: str) -> int:
    """Count the {} of a text. Raises ValueError if they are not what str.format takes."""
    return sum(name is not None for _, name, _, _ in Formatter().parse(text))


def packed(text: str, values: int) -> tuple[int, ...]:
    """Give a text for so many values as the words of a record. Raises ValueError in a sentence."""
    try:
        text.format(*[0] * values)
    except (ValueError, LookupError, AttributeError) as error:
        raise ValueError(f"its {{}} must be places for {values} whole numbers ({error})") from None
    data = text.encode()
    if len(data) > TEXT_BYTES:
        raise ValueError(f"it must be at most {TEXT_BYTES} bytes (got {len(data)})")
    data = data.ljust(TEXT_BYTES, b"\0")
    return tuple(int.from_bytes(data[at : at + 8], "little", signed=True) for at in range(0, TEXT_BYTES, 8))


@kernel
def _note(ram, cpu, words, count, a, b, c, d):
    made = ram.cpu_traces[cpu]
    place = made if made < TRACES_FIRST else TRACES_FIRST + (made - TRACES_FIRST) % TRACES_LAST
    at = place * TRACE_WORDS
    ram.trace[cpu, at] = load_acquire(ram.run_event_seq, 0)
    ram.trace[cpu, at + 1] = fetch_add(ram.run_trace_seq, 0, 1) + 1
    ram.trace[cpu, at + 2] = ram.cpu_clock[cpu]
    ram.trace[cpu, at + 3] = cpu | ((ram.cpu_task[cpu] + 1) << EVENT_TASK_SHIFT)
    ram.trace[cpu, at + 4] = ram.cpu_hook[cpu]
    ram.trace[cpu, at + 5] = count
    ram.trace[cpu, at + 6] = a
    ram.trace[cpu, at + 7] = b
    ram.trace[cpu, at + 8] = c
    ram.trace[cpu, at + 9] = d
    for i in range(len(words)):
        ram.trace[cpu, at + HEAD_WORDS + i] = words[i]
    store_release(ram.cpu_traces, cpu, made + 1)  # last: the supervisor reads what it counts


def trace(ram, cpu, text, *values):
    """Leave a line: a text, and up to four whole numbers."""
    if len(values) > VALUES_MAX:
        raise TypeError(f"trace cannot take more than {VALUES_MAX} values (got {len(values)})")
    four = values + (0,) * (VALUES_MAX - len(values))
    _note(ram, cpu, packed(text, len(values)), len(values), four[0], four[1], four[2], four[3])


if not numba.config.DISABLE_JIT:

    @overload(trace, prefer_literal=True)
    def _compiled_trace(ram, cpu, text, *values):
        if not isinstance(text, types.StringLiteral):
            raise TypingError("trace cannot take this text: it must be a literal, known when it is compiled")
        if len(values) > VALUES_MAX:
            raise TypingError(f"trace cannot take more than {VALUES_MAX} values (got {len(values)})")
        for value in values:
            if not isinstance(value, types.Integer | types.Boolean):
                raise TypingError(f"trace cannot take a value that is no whole number (got {value})")
        try:
            words = packed(text.literal_value, len(values))
        except ValueError as error:
            raise TypingError(f"trace cannot take the text {text.literal_value!r}: {error}") from None
        count, zeros = len(values), (0,) * (VALUES_MAX - len(values))

        def build(ram, cpu, text, *values):
            four = values + zeros
            _note(ram, cpu, words, count, four[0], four[1], four[2], four[3])

        return build
