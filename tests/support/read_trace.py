"""Reads a trace back with Perfetto's own protobuf classes, and says what is wrong with it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TracePacket, TrackDescriptor, TrackEvent

BEGIN, END, INSTANT = TrackEvent.TYPE_SLICE_BEGIN, TrackEvent.TYPE_SLICE_END, TrackEvent.TYPE_INSTANT
ENDS_OF_FLOW = ("request", "flush", "acked")


def packets_of(data: bytes) -> list[TracePacket]:
    """Give the packets of a trace."""
    return list(Trace.FromString(data).packet)


@dataclass
class Event:
    """One event, its names looked up."""

    track: int
    t_ns: int
    type: int
    name: str = ""
    category: str = ""
    flows: tuple[int, ...] = ()
    notes: dict[str, int] = field(default_factory=dict)


class Read:
    """A trace: its tracks, and its events in the order of the file."""

    def __init__(self, packets: Sequence[TracePacket]):
        self.tracks: dict[int, TrackDescriptor] = {}
        self.events = list(self._events(packets))

    def _events(self, packets: Sequence[TracePacket]) -> Iterator[Event]:
        states: dict[int, _State] = {}
        for packet in packets:
            sequence = packet.trusted_packet_sequence_id
            if packet.HasField("track_descriptor"):
                assert packet.track_descriptor.uuid not in self.tracks
                self.tracks[packet.track_descriptor.uuid] = packet.track_descriptor
            if packet.sequence_flags & TracePacket.SEQ_INCREMENTAL_STATE_CLEARED:
                states[sequence] = _State(packet)
            if packet.HasField("track_event"):
                yield _event(packet, states[sequence])

    def titled(self, title: str) -> list[Event]:
        """Give the events of the track of that name."""
        return [event for event in self.events if self.tracks[event.track].name == title]

    def count(self, name: str) -> int:
        """Give how many slices and instants bear a name that begins so."""
        return sum(e.name.startswith(name) for e in self.events if e.type in (BEGIN, INSTANT))

    def by_category(self, name: str) -> Counter[str]:
        """Count the slices that bear a name that begins so."""
        return Counter(e.category for e in self.events if e.type == BEGIN and e.name.startswith(name))

    def faults(self) -> list[str]:
        """Say what is wrong."""
        return [*self._parents(), *self._balance(), *self._flow_ends()]

    def _parents(self) -> Iterator[str]:
        for track in self.tracks.values():
            if track.parent_uuid and track.parent_uuid not in self.tracks:
                yield f"{track.name}: its parent is missing"
        for uuid in {event.track for event in self.events} - set(self.tracks):
            yield f"track {uuid} is not described"

    def _balance(self) -> Iterator[str]:
        open_slices: defaultdict[int, list[Event]] = defaultdict(list)
        last: defaultdict[int, int] = defaultdict(int)
        for event in self.events:
            if event.t_ns < last[event.track]:
                yield f"{self.tracks[event.track].name}: time goes back at {event.t_ns}"
            last[event.track] = event.t_ns
            if event.type == BEGIN:
                open_slices[event.track].append(event)
            elif event.type == END and open_slices[event.track]:
                open_slices[event.track].pop()
            elif event.type == END:
                yield f"{self.tracks[event.track].name}: an end without a begin at {event.t_ns}"
        for track, still in open_slices.items():
            if still:
                yield f"{self.tracks[track].name}: {still[-1].name!r} has no end"

    def _flow_ends(self) -> Iterator[str]:
        """An arrow goes forward in time, from a request by a flush to the last ack."""
        ends: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
        for event in self.events:
            for flow in event.flows:
                ends[flow].append((event.t_ns, event.name.split()[0]))
        for flow in ends:
            if tuple(name for _, name in sorted(ends[flow], key=lambda end: end[0])) != ENDS_OF_FLOW:
                yield f"flow {flow:#x} has {ends[flow]}"


class _State:
    """What the first packet of a sequence says for all of its events."""

    def __init__(self, packet: TracePacket):
        interned = packet.interned_data
        self.track = packet.trace_packet_defaults.track_event_defaults.track_uuid
        self.names = {one.iid: one.name for one in interned.event_names}
        self.categories = {one.iid: one.name for one in interned.event_categories}
        self.notes = {one.iid: one.name for one in interned.debug_annotation_names}


def _event(packet: TracePacket, state: _State) -> Event:
    event = packet.track_event
    return Event(
        track=event.track_uuid or state.track,
        t_ns=packet.timestamp,
        type=event.type,
        name=state.names.get(event.name_iid, ""),
        category=" ".join(state.categories[iid] for iid in event.category_iids),
        flows=tuple(event.flow_ids),
        notes={state.notes[one.name_iid]: one.int_value for one in event.debug_annotations},
    )
