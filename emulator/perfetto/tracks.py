"""The tracks of one run, as packets: two for each CPU, and counters for each node.

A packet sequence of each CPU bears its names (interned) and its track, so that an event is its time, a type,
and two numbers. An interrupt's clock may have gone on further than it is charged for: what would lie behind
its end is drawn at its end. What was still going on at the end of the run ends with the CPU's last record.
A CPU's records bear its own clock, which may stand still in a wait while others run: what others asked it for
has a track of its own, and there the time of who asked, when the request came in. So arrows lead forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cpus.abi.numbers import CPUS_MAX, PAGE_BYTES
from cpus.lease import WAIT_IDLE
from cpus.spans import ENDS, SPAN_ACKED, SPAN_EXECUTED, SPAN_REQUEST, SPAN_WAIT, SPAN_WORDS
from emulator.perfetto.names import KIND, NOTES, T_NS, A, B, Names, keys
from emulator.perfetto.recorder import Recorder
from emulator.perfetto.wire import (
    Rows,
    column,
    constant,
    fixed_columns,
    interleaved,
    message,
    messages,
    number,
    text,
)

# fields of Perfetto's messages (protos/perfetto/trace)
PACKET = 1  # of Trace
TIMESTAMP, SEQUENCE, TRACK_EVENT, INTERNED, FLAGS, DEFAULTS, DESCRIPTOR = 8, 10, 11, 12, 13, 59, 60
CATEGORY, NOTE, TYPE, NAME, TRACK, COUNTER_VALUE, FLOWS = 3, 4, 9, 10, 11, 30, 47  # of TrackEvent
NOTE_NAME, NOTE_VALUE = 1, 4  # of DebugAnnotation
CATEGORIES, NAMES, NOTES_NAMED = 1, 2, 3  # of InternedData
UUID, TITLE, PROCESS, PARENT, COUNTER, ORDERING, RANK = 1, 2, 3, 5, 8, 11, 12  # of TrackDescriptor
PID, PROCESS_NAME, LABEL = 1, 6, 8  # of ProcessDescriptor
UNIT, BYTES_UNIT, EXPLICIT = 3, 3, 3
BEGIN, END, INSTANT, VALUE = 1, 2, 3, 4  # types of events
STATE_CLEARED, NEEDS_STATE = 1, 2  # of FLAGS

INSTANTS = (SPAN_REQUEST, SPAN_EXECUTED, SPAN_ACKED)
CPU_TRACK, COUNTER_TRACK, RUN_SHIFT = 1, 1 << 16, 32
ASKED_TRACK = 1 << 12  # of what others asked the CPUs for
SEQUENCES = 2 * CPUS_MAX + 2  # of a run: CPUs, what they were asked for, counters
RUN_BITS, CPU_BITS = 56, 8  # a flow's id: run, who asked, who was asked, number of the request


class Tracks:
    """One run. `number` tells it from the others of the file."""

    def __init__(self, ram: Any, recorder: Recorder, names: Names, number: int):
        self.ram, self.recorder, self.names, self.number = ram, recorder, names, number
        self.flows, self.requests, self.asked_ns = self._messages()

    def packets(self, title: str, label: str) -> Iterator[bytes]:
        """Give the whole run, piece by piece."""
        group = (self.number + 1) << RUN_SHIFT
        pid = number(PID, self.number + 1)
        process = message(PROCESS, pid, text(PROCESS_NAME, title), text(LABEL, label))
        yield _descriptor(number(UUID, group), process, number(ORDERING, EXPLICIT))
        end_ns = 0
        for cpu in range(self.ram.nr_cpus):
            spans = ended(self.recorder.spans(cpu))
            end_ns = max(end_ns, int(spans[:, T_NS].max(initial=0)))
            executed = spans[:, KIND] == SPAN_EXECUTED
            asked = self._as_asked(spans[executed])
            for track, sequence, title, rows in (
                (CPU_TRACK, cpu, f"cpu{cpu}", spans[~executed]),
                (ASKED_TRACK, CPUS_MAX + cpu, f"cpu{cpu} is asked", asked),
            ):
                uuid, rank = group + track + cpu, COUNTER_TRACK << 1 | cpu << 1 | (track == ASKED_TRACK)
                named = (number(UUID, uuid), number(PARENT, group), text(TITLE, title))
                yield _descriptor(*named, number(RANK, rank))
                yield self._track(cpu, rows, uuid, self._sequence(sequence))
        yield from self._counters(group, end_ns)

    # -- CPUs ------------------------------------------------------------------------------------------------

    def _sequence(self, place: int) -> int:
        return self.number * SEQUENCES + place + 1

    def _as_asked(self, executed: np.ndarray) -> np.ndarray:
        """Give what a CPU executed for others by the time of who asked, and behind it the CPU's own."""
        own_ns = executed[:, T_NS : T_NS + 1].copy()
        requests = self._flow(executed[:, A], 0, executed[:, B])
        executed = np.hstack([executed, own_ns])
        if len(self.requests):
            at = np.searchsorted(self.requests, requests).clip(max=len(self.requests) - 1)
            known = self.requests[at] == requests  # not those whose record was lost
            executed[known, T_NS] = self.asked_ns[at][known] + self.ram.cost_ipi_latency
        return executed[executed[:, T_NS].argsort(kind="stable")]

    def _track(self, cpu: int, spans: np.ndarray, track: int, sequence: int) -> bytes:
        """Give the events of a track, in their order."""
        begins = spans[:, KIND] & ENDS == 0
        used, which = np.unique(keys(self.ram, spans[begins]), return_inverse=True)
        named = [self.names.of(key) for key in used.tolist()]
        categories = sorted({category for _, category in named})
        first = _packet(
            number(SEQUENCE, sequence),
            number(FLAGS, STATE_CLEARED),
            message(DEFAULTS, message(TRACK_EVENT, number(TRACK, track))),
            message(INTERNED, *_interned(CATEGORIES, categories), *_interned(NAMES, [n for n, _ in named]),
                    *_interned(NOTES_NAMED, [name for name, _ in NOTES.values()])),
        )  # fmt: skip
        name = np.zeros(len(spans), np.int64)
        name[begins] = which + 1
        category = np.zeros(len(spans), np.int64)
        category[begins] = np.array([categories.index(c) + 1 for _, c in named], np.int64)[which]
        pieces = []
        for places, flows in self._shapes(cpu, spans):
            rows = self._rows(sequence, spans[places], name[places], category[places], flows)
            pieces.append((places, rows))
        return first + interleaved(pieces, len(spans))

    def _shapes(self, cpu: int, spans: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Give the records of each kind that have equally many flows: their places, and the flows' ids."""
        for kind in np.unique(spans[:, KIND]).tolist():
            places = np.flatnonzero(spans[:, KIND] == kind)
            none = np.zeros((len(places), 0), np.uint64)
            if kind == SPAN_EXECUTED:
                yield places, self._flow(spans[places, A], cpu, spans[places, B])[:, None]
            elif kind in INSTANTS:
                own = self._flow(cpu, 0, spans[places, B])
                starts = np.searchsorted(self.flows, own)
                counts = np.searchsorted(self.flows, own + np.uint64(1 << CPU_BITS)) - starts
                for count in np.unique(counts).tolist():
                    same = counts == count
                    yield places[same], self.flows[starts[same][:, None] + np.arange(count)]
            else:
                yield places, none

    def _rows(self, sequence: int, spans: np.ndarray, name: Any, category: Any, flows: np.ndarray) -> Rows:
        """Give the packets of records of one kind."""
        count, kind = len(spans), int(spans[0, KIND])
        shape = END if kind & ENDS else INSTANT if kind in INSTANTS else BEGIN
        event = [constant(count, number(TYPE, shape))]
        if shape != END:
            event += [column(NAME, name), column(CATEGORY, category)]
        if kind in NOTES:
            place, (_, word) = list(NOTES).index(kind), NOTES[kind]
            note = constant(count, number(NOTE_NAME, place + 1)), column(NOTE_VALUE, spans[:, word])
            event.append(messages(NOTE, count, *note))
        if flows.shape[1]:
            event.append(fixed_columns(FLOWS, flows))
        return _events(spans[:, T_NS], number(SEQUENCE, sequence), event)

    # -- flows: from the request to each CPU that executes it, and to the last ack ---------------------------

    def _flow(self, sender: Any, target: Any, sequence: Any) -> np.ndarray:
        """Give ids of flows; sorted, those of one request lie together, from that with target 0 on."""
        sent = np.asarray(sequence, np.uint64) << np.uint64(CPU_BITS)
        who = np.asarray(sender, np.uint64) << np.uint64(RUN_BITS - CPU_BITS)
        return np.uint64(self.number << RUN_BITS) | who | sent | np.asarray(target, np.uint64)

    def _messages(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give the flows of all requests that were executed, sorted; and the requests, sorted, with times."""
        flows, requests, times = ([np.zeros(0, kind)] for kind in (np.uint64, np.uint64, np.int64))
        for cpu in range(self.ram.nr_cpus):
            spans = self.recorder.spans(cpu)
            executed, made = (spans[spans[:, KIND] == kind] for kind in (SPAN_EXECUTED, SPAN_REQUEST))
            flows.append(self._flow(executed[:, A], cpu, executed[:, B]))
            requests.append(self._flow(cpu, 0, made[:, B]))
            times.append(made[:, T_NS])
        order = np.concatenate(requests).argsort()
        return np.sort(np.concatenate(flows)), np.concatenate(requests)[order], np.concatenate(times)[order]

    # -- counters of nodes -----------------------------------------------------------------------------------

    def _counters(self, group: int, end_ns: int) -> Iterator[bytes]:
        """Give free memory of each node over time, what of it has nothing pending, and the watermarks."""
        ram, sequence = self.ram, number(SEQUENCE, self._sequence(2 * CPUS_MAX))
        yield _packet(sequence, number(FLAGS, STATE_CLEARED))
        count = min(int(ram.run_series_count[0]), ram.series_length)
        rows = ram.series[:count][ram.series[:count, 0].argsort()]
        nodes = min(ram.nr_nodes, (rows.shape[1] - 1) // 2)
        ends, at = np.array([0, end_ns]), group + COUNTER_TRACK
        for node in range(nodes):
            free, clean = rows[:, 1 + node], rows[:, 1 + nodes + node]
            lines = [("free", rows[:, 0], free), ("free, nothing pending", rows[:, 0], clean)]
            for mark in ("min", "low", "high"):
                pages = int(getattr(ram, f"wmark_{mark}")[ram.zone_node == node].sum())
                lines.append((f"watermark {mark}", ends, np.full(2, pages)))
            for title, times, pages in lines:
                unit, place = message(COUNTER, number(UNIT, BYTES_UNIT)), number(RANK, at - group)
                named = text(TITLE, f"node{node}: {title}")
                yield _descriptor(number(UUID, at), number(PARENT, group), named, unit, place)
                track = constant(len(times), number(TYPE, VALUE) + number(TRACK, at))
                yield _events(times, sequence, [track, column(COUNTER_VALUE, pages * PAGE_BYTES)]).tobytes()
                at += 1


def ended(spans: np.ndarray) -> np.ndarray:
    """Give records whose times never go back, without idling that took none, each with its end."""
    spans = spans.copy()
    spans[:, T_NS] = np.minimum.accumulate(spans[::-1, T_NS])[::-1]
    idle = (spans[:-1, KIND] == SPAN_WAIT) & (spans[:-1, A] == WAIT_IDLE)
    idle &= (spans[1:, KIND] == SPAN_WAIT | ENDS) & (spans[1:, T_NS] == spans[:-1, T_NS])
    first = np.flatnonzero(idle)
    spans = np.delete(spans, np.concatenate([first, first + 1]), axis=0)
    is_end = spans[:, KIND] & ENDS != 0
    begins = ~is_end & ~np.isin(spans[:, KIND], INSTANTS)
    still_open = int(begins.sum() - is_end.sum())
    last = np.zeros((still_open, SPAN_WORDS), np.int64)
    last[:, T_NS], last[:, KIND] = spans[-1, T_NS] if len(spans) else 0, ENDS
    return np.concatenate([spans, last])


def _events(times: np.ndarray, sequence: bytes, event: list[Rows]) -> Rows:
    """Give a packet for each row of the columns that make an event."""
    count = len(times)
    return messages(
        PACKET,
        count,
        column(TIMESTAMP, times),
        constant(count, sequence + number(FLAGS, NEEDS_STATE)),
        messages(TRACK_EVENT, count, *event),
    )


def _packet(*fields: bytes) -> bytes:
    return message(PACKET, *fields)


def _descriptor(*fields: bytes) -> bytes:
    return _packet(message(DESCRIPTOR, *fields))


def _interned(field: int, names: list[str]) -> list[bytes]:
    return [message(field, number(1, i), text(2, name)) for i, name in enumerate(names, 1)]
