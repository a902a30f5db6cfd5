"""Interrupts: every request is executed and acked, every message received; nobody deadlocks; faults are
noticed.
"""

import ctypes

import pytest

from benchmarks.storm import set_storm, shoot, shots_done, small_ram, storm, visit_pages
from cpus import process, zeromq
from cpus.atomics import fetch_add, load_acquire
from cpus.compiled import kernel
from cpus.ipi import unaccounted_interrupts
from cpus.lease import RUN, WAIT_IDLE, block, new_slice
from cpus.zeromq import MESSAGE_BYTES
from emulator.supervisor import CpuDied, Stuck, Supervisor

SHOTS = 1
MODES = [{"leases": 0}, {"leases": 2}, {"leases": 2, "strict": True}, {"leases": 0, "strict": True},
         {"leases": 1, "controlled": True, "slice_ns": 3000}]  # fmt: skip
MODE_NAMES = ["ungated", "2 leases", "strict", "strict ungated", "controlled"]


def _run(
    main, nr_cpus, shots, targets, *, gap=100, shooters=None, others_compute=True, prepare=None, **constants
):
    ram = small_ram(nr_cpus, **({"wait_bound_ms": 3000} | constants))
    set_storm(ram, shots=shots, targets=targets, gap=gap, shooters=shooters, others_compute=others_compute)
    with Supervisor(ram, main, label="ipi") as run:
        run.start()
        run.watch(shots_done, tick_s=0.005)
        run.quiesce()
        run.finish()
    return ram


def _total(ram, name):
    return int(getattr(ram, name).sum())


@pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)
@pytest.mark.parametrize("cpus, targets", [(2, 1), (8, 7), (8, 3), (40, 39)])
def test_a_storm_is_accounted_for(mode, cpus, targets):
    """All shoot at all: requests = executed = acked, messages = received, and each handler saw its sender's
    words.
    """
    shots = 4 if cpus > 8 else 30
    ram = _run(storm, cpus, shots, targets, **mode)
    assert unaccounted_interrupts(ram) == []
    assert _total(ram, "ipi_requests") == cpus * shots * targets
    assert ram.irq_call.sum() == cpus * shots * targets
    assert ram.irq_call.tolist() == ram.ipi_executed.tolist()
    messages = _total(ram, "ipi_messages")
    assert (
        messages == cpus * shots * targets if mode.get("strict") else 0 < messages <= cpus * shots * targets
    )


def test_a_queue_that_is_not_empty_gets_no_second_message():
    """Many shoot at CPUs that compute: far fewer messages than requests; with strict_ipi as many."""
    loose = _run(storm, 16, 20, 15, leases=0)
    strict = _run(storm, 16, 20, 15, leases=0, strict=True)
    assert _total(loose, "ipi_messages") < _total(loose, "ipi_requests") == _total(strict, "ipi_requests")
    assert _total(strict, "ipi_messages") == _total(strict, "ipi_requests")


@pytest.mark.parametrize("compute", [True, False], ids=["computing", "idle"])
@pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)
def test_one_initiator_reaches_all_others(mode, compute):
    """Eleven targets, busy or idle: each executes each shot exactly once."""
    # without a gate a shootdown takes the host's time slices
    shots = 5 if compute and mode["leases"] == 0 else 25
    ram = _run(storm, 12, shots, 11, shooters=1, others_compute=compute, **mode)
    assert unaccounted_interrupts(ram) == []
    assert ram.irq_call.tolist() == [0] + [shots] * 11
    assert (ram.page_visits[1:] > 0).any() == compute


@kernel
def _duel(ram, cpu):
    """Shoot at the one other CPU as fast as possible."""
    new_slice(ram, cpu)
    for _ in range(ram.series[0, SHOTS]):
        shoot(ram, cpu, 1, 1)
    fetch_add(ram.run_tasks_left, 0, -1)
    while True:
        block(ram, cpu, WAIT_IDLE, 0)
    return 0


@pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)
def test_two_cpus_that_shoot_at_each_other_do_not_deadlock(mode):
    """The first litmus test: whoever waits for acks serves interrupts."""
    ram = _run(_duel, 2, 400, 1, **mode)
    assert unaccounted_interrupts(ram) == []
    assert ram.irq_call.tolist() == [400, 400]


@kernel
def _late_duel(ram, cpu):
    """Wait for acks without serving: what the litmus test is there to catch."""
    new_slice(ram, cpu)
    ram.cpu_irq_off[cpu] += 1
    for _ in range(ram.series[0, SHOTS]):
        shoot(ram, cpu, 1, 1)
    return 0


def test_planted_wait_with_interrupts_off_deadlocks_and_is_told():
    """Both wait for the other's ack with interrupts off: the graph says so."""
    with pytest.raises(
        Stuck,
        match=r"cpu0 waits for acks of cpu1 \(interrupts off, 1 interrupts not taken\); "
        r"cpu1 waits for acks of cpu0",
    ):
        _run(_late_duel, 2, 1, 1, wait_bound_ms=300)


# -- faults of the hardware, planted -------------------------------------------------------------------------


SEND_TYPE = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int64] * 4)  # zmq_send(socket, buffer, length, flags)


def _faulty_send(monkeypatch, fault):
    """Put a zmq_send into the machine that goes wrong at every tenth message of cpu1: `fault(send, socket,
    buffer, length)`.
    """
    real, send = zeromq.set_functions, SEND_TYPE(zeromq._functions()["zmq_send"])
    sent = [0]

    def faulty(socket, buffer, length, flags):
        if ctypes.c_int64.from_address(buffer).value == 1:  # the sender
            sent[0] += 1
            if sent[0] % 10 == 0:
                fault(lambda length: send(socket, buffer, length, flags))
                return length
        return send(socket, buffer, length, flags)

    keep = SEND_TYPE(faulty)

    def planted(ram):
        real(ram)
        ram.set_constant("zmq_send", ctypes.cast(keep, ctypes.c_void_p).value)

    monkeypatch.setattr(process, "set_functions", planted)
    return keep


def test_planted_lost_message_is_caught(monkeypatch):
    """A message that was announced and never arrives: its target waits for it, and is named."""
    keep = _faulty_send(monkeypatch, lambda send: None)
    with pytest.raises(Stuck, match=r"interrupts not taken"):
        _run(storm, 4, 30, 3, leases=2, wait_bound_ms=300)
    assert keep


def test_planted_duplicated_message_is_caught(monkeypatch):
    """A message that arrives twice is more received than sent."""
    keep = _faulty_send(monkeypatch, lambda send: (send(MESSAGE_BYTES), send(MESSAGE_BYTES)))
    ram = _run(storm, 4, 30, 3, leases=2)
    assert keep
    assert any(
        fault.startswith("interrupts: ") and "messages, but" in fault for fault in unaccounted_interrupts(ram)
    )


def test_planted_foreign_message_is_caught(monkeypatch):
    """A message of another size ends the run, and the CPU that got it says so."""
    keep = _faulty_send(monkeypatch, lambda send: send(MESSAGE_BYTES + 1))
    with pytest.raises(CpuDied, match=r"'interrupt message' must be 64 bytes \(got 65\)"):
        _run(storm, 4, 30, 3, leases=2)
    assert keep


@pytest.mark.parametrize(
    "name", ["ipi_requests", "ipi_messages", "ipi_received", "ipi_executed", "ipi_acked"]
)
def test_each_count_that_is_off_by_one_is_a_fault(name):
    """Conservation is an equation of five counts; each of them matters."""
    ram = small_ram(3)
    for counter in ("ipi_requests", "ipi_messages", "ipi_received", "ipi_executed", "ipi_acked"):
        getattr(ram, counter)[:] = 7
    assert unaccounted_interrupts(ram) == []
    getattr(ram, name)[2] += 1
    assert unaccounted_interrupts(ram) != []


LEFT_OVERS = [
    ("cpu_bell", "messages not taken"),
    ("cpu_queue", "requests not executed"),
    ("cpu_acks", "acks missing"),
]


@pytest.mark.parametrize("field, words", LEFT_OVERS)
def test_what_is_left_over_is_a_fault(field, words):
    """Bells, queues and acks are empty at the end of a run."""
    ram = small_ram(3)
    getattr(ram, field)[1] = 1
    assert unaccounted_interrupts(ram) == [f"interrupts: {words} at cpu1"]


@kernel
def _forgetful(ram, cpu):
    """Change the request before it is acked: what `call_kind` is poisoned for."""
    new_slice(ram, cpu)
    if cpu == 0:
        for _ in range(ram.series[0, SHOTS]):
            fetch_add(ram.cpu_acks, 0, 0)
            shoot(ram, cpu, ram.nr_cpus - 1, 2)
        fetch_add(ram.run_tasks_left, 0, -1)
    while load_acquire(ram.run_tasks_left, 0) > 0 and ram.run_stop[0] == RUN:
        visit_pages(ram, cpu, 10)
    while True:
        block(ram, cpu, WAIT_IDLE, 0)
    return 0


def test_handlers_read_what_the_sender_wrote():
    """The sum over handlers is what the senders asked for, so no handler read words of before or after."""
    ram = _run(_forgetful, 4, 50, 3, shooters=1, leases=2)
    assert ram.irq_call.tolist() == [0, 100, 100, 100]


# -- virtual time --------------------------------------------------------------------------------------------


def test_interrupts_cost_virtual_time_on_both_sides():
    """The sender pays per target and waits for latency and handler; a busy target pays the handler, an idle
    one does not.
    """
    ram = _run(storm, 4, 10, 3, shooters=1, others_compute=False, leases=1, controlled=1, gap=0)
    send, latency, handle = 100, 1000, 500  # of small_ram
    assert ram.cpu_clock[0] == 10 * (3 * send + latency + handle)
    assert ram.shootdown_wait_ns[0] == 10 * (latency + handle)
    assert ram.irq_ns[1:].sum() <= 30 * handle
    # the first one comes, in this schedule, before they are idle; nine do not cost them
    assert ram.cpu_clock[1:].tolist() == [handle] * 3
