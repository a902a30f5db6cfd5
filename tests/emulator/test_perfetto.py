"""A trace says what the counters say, in slices that balance, with arrows that have all their ends."""

import gzip

import numpy as np
import pytest

pytest.importorskip("perfetto", reason="reads traces back")

from cpus.events import EV_FAULT, EVENT_RING, EVENT_WORDS
from cpus.lease import WAIT_IDLE
from cpus.spans import ENDS, SPAN_INTERRUPT, SPAN_TASK, SPAN_WAIT, SPANS_KEPT
from emulator.experiment import Experiment
from emulator.litmus.run import experiment_of
from emulator.machine import load_machine
from emulator.perfetto.file import TraceFile
from emulator.perfetto.recorder import Recorder
from emulator.perfetto.tracks import ended
from tests.support.read_trace import BEGIN, END, INSTANT, Read, packets_of
from workloads.litmus.shelf import litmus_test


def _faults_in_event_log(ram):
    assert max(ram.cpu_event_head) < EVENT_RING
    return sum(
        int((ram.event[cpu].reshape(EVENT_RING, EVENT_WORDS)[: ram.cpu_event_head[cpu], 2] == EV_FAULT).sum())
        for cpu in range(ram.nr_cpus)
    )


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """One run under memory pressure that repeats exactly, its result, its faults, and its trace."""
    file, noted = tmp_path_factory.mktemp("trace") / "out.pftrace", []
    machine = load_machine("xeon6430-cxl", scale=4096, cpus=4)
    one = Experiment("linux", machine, tokens=0, leases=1, seed=1)
    with TraceFile(str(file)) as trace:
        result = one.run(trace=trace, observe=lambda ram: noted.append(_faults_in_event_log(ram)))
    return one, result, noted[0], file.read_bytes(), trace.said()


def test_a_trace_is_whole_and_says_what_the_counters_say(traced):
    """Slices balance, tracks have parents, arrows have all ends; totals are those of the result."""
    _, result, faults, data, said = traced
    read, total = Read(packets_of(data)), {k: sum(v) for k, v in result.counters.items()}
    assert read.faults() == []
    assert read.count("shootdown: ") == total["nr_tlb_remote_flush"] > 0
    assert read.count("interrupt") == total["ipi_received"] > 0
    assert read.count("flush for ") == total["ipi_executed"] == total["nr_tlb_remote_flush_received"]
    asked = [event.notes["CPUs asked"] for event in read.events if event.name == "request"]
    assert sum(asked) == total["ipi_requests"] == sum(result.flush_sites.values())
    assert {event.name.split()[0] for event in read.titled("cpu1 is asked")} == {"flush"}
    assert read.count("fault: ") == faults >= total["pgfault"] > 0
    assert set(read.by_category("shootdown: ")) >= set(result.flush_sites)
    assert read.count("direct reclaim") + read.count("reclaim by kswapd") > 0
    assert read.count("waits for word") == total["lock_waits"]
    assert {"user", "fault", "reclaim", "interrupt", "wait"} <= {event.category for event in read.events}
    assert len(read.titled("node0: free")) > 0
    assert "found no room" not in said


def test_tracing_changes_nothing(traced):
    """The same run without a trace has the same fingerprint."""
    one, result, *_ = traced
    assert one.run().fingerprint == result.fingerprint


def test_what_is_missing_or_wrong_is_noticed(tmp_path):
    """Planted: an end, a begin, one side of an arrow and a track are gone, one leads back or elsewhere."""
    file = tmp_path / "out.pftrace"
    with TraceFile(str(file)) as trace:
        experiment_of(litmus_test("munmap"), "linux").run(trace=trace)
    packets = packets_of(file.read_bytes())
    assert Read(packets).faults() == []

    def without(wanted):
        place = next(i for i, packet in enumerate(packets) if wanted(packet))
        return str(Read(packets[:place] + packets[place + 1 :]).faults())

    assert "has no end" in without(lambda packet: packet.track_event.type == END)
    assert "an end without a begin" in without(lambda packet: packet.track_event.type == BEGIN)
    assert "has [" in without(lambda packet: packet.track_event.flow_ids)
    assert "parent is missing" in without(lambda packet: packet.track_descriptor.HasField("process"))
    asked = next(i for i, p in enumerate(packets) if p.track_event.type == INSTANT)
    packets[asked].timestamp += 10**9
    assert "has [" in str(Read(packets).faults())
    packets[asked].timestamp -= 10**9
    assert Read(packets).faults() == []
    next(p for p in packets if len(p.track_event.flow_ids) == 1).track_event.flow_ids[0] += 1
    assert "has [" in str(Read(packets).faults())


def test_what_was_going_on_at_the_end_ends_and_idling_that_took_no_time_is_left_out():
    """Records of a CPU that was stopped in an interrupt, whose clock had gone on too far."""
    spans = np.array(
        [[5, SPAN_WAIT, WAIT_IDLE, 0], [5, SPAN_WAIT | ENDS, 0, 0], [5, SPAN_TASK, 0, 0],
         [8, SPAN_INTERRUPT, 0, 0], [11, SPAN_WAIT, 1, 0], [9, SPAN_WAIT | ENDS, 0, 0]]
    )  # fmt: skip
    assert ended(spans)[:, :2].tolist() == [
        [5, SPAN_TASK], [8, SPAN_INTERRUPT], [9, SPAN_WAIT], [9, SPAN_WAIT | ENDS], [9, ENDS], [9, ENDS],
    ]  # fmt: skip


class Rings:
    """The rings of one CPU, which is not running."""

    def __init__(self):
        self.cpu_span_head, self.cpu_span_tail = np.zeros(1, np.int64), np.zeros(1, np.int64)
        self.cpu_spans_lost, self.span = np.zeros(1, np.int64), np.zeros((1, SPANS_KEPT * 4), np.int64)

    def record(self, numbers):
        for number in numbers:
            self.span[0].reshape(-1, 4)[number % SPANS_KEPT] = number
        self.cpu_span_head[0] = numbers[-1] + 1


def test_a_ring_that_goes_round_is_taken_out_in_order_and_what_found_no_room_is_counted():
    """Three looks, the ring full at the second, which begins in its middle."""
    ram = Rings()
    recorder, numbers = (
        Recorder(ram),
        [range(5), range(5, 5 + SPANS_KEPT), range(5 + SPANS_KEPT, SPANS_KEPT + 9)],
    )
    for some in numbers:
        ram.record(some)
        recorder.look()
    ram.cpu_spans_lost[0] = 3
    recorder.look()
    assert recorder.spans(0)[:, 0].tolist() == list(range(SPANS_KEPT + 9))
    assert recorder.lost == 3
    recorder.close()


def test_a_compressed_trace_is_the_same(traced, tmp_path):
    """A name that ends in .gz."""
    *_, data, _ = traced
    file = tmp_path / "out.pftrace.gz"
    with TraceFile(str(file)) as trace:
        trace._pieces, trace.runs = [data], [("linux", 1, 0)]
    assert gzip.decompress(file.read_bytes()) == data


def test_a_run_that_a_violation_ended_leaves_its_trace(tmp_path):
    """What was going on then ends with the last record of each CPU; a request may be without an ack."""
    file = tmp_path / "out.pftrace"
    with TraceFile(str(file)) as trace:
        result = experiment_of(litmus_test("munmap"), "none:what=user").run(trace=trace)
    assert result.violations
    read = Read(packets_of(file.read_bytes()))
    assert [fault for fault in read.faults() if not fault.startswith("flow")] == []
    assert read.count("munmap") > 0
