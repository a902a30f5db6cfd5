"""However a run ends, it ends within two seconds, says so in one sentence, and leaves nothing behind: with
real signals.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

import emulator.supervisor
from allocator.panic import panic
from benchmarks.storm import set_storm, shoot, shots_done, small_ram, storm
from cpus.atomics import fetch_add, load_acquire, pause
from cpus.compiled import kernel
from cpus.ending import ENDING
from cpus.ipi import unaccounted_interrupts
from cpus.lease import RUN, VIOLATED, WAIT_IDLE, block
from cpus.locks import spin_lock
from emulator.supervisor import CpuDied, Interrupted, Panicked, RunStopped, Stuck, Supervisor

ROOT = Path(__file__).parents[2]
END_BOUND_S = 2.0
SOON = 300  # ms: the watchdog's bound where a test waits for it
FOREVER = 1 << 40
ENDINGS = [(number, 128 + number) for number in ENDING]


def _left_here():
    """What of ours this process holds: children, descriptors (a pipe is as good as another), mappings, signal
    handlers.
    """
    descriptors = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}")
    ]
    own = [link for link in descriptors if not link.startswith("/proc") and not link.endswith("/in-use")]
    kinds = [re.sub(r"\d+", "", link) for link in own]  # in-use: of the cache, open as long as we live
    mappings = [
        "mapping" for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:luf-ram" in line
    ]
    handlers = [signal.getsignal(number) for number in ENDING]
    return Counter([*_children(os.getpid()), *kinds, *mappings, *handlers])


def _children(parent):
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            rest = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(rest[1]) == parent:
            found.add(int(entry.name))
    return found


@contextmanager
def machine(main, nr_cpus=4, shots=0, targets=0, **constants):
    """A supervised machine; when it has ended, in whatever way, nothing of it may be left."""
    before = _left_here()
    ram = small_ram(nr_cpus, **constants)
    set_storm(ram, shots=shots, targets=targets, gap=100)
    supervisor = Supervisor(ram, main, label="test")
    try:
        with supervisor:
            yield supervisor
    finally:
        ram.close()
        assert not _left_here() - before
        assert not os.path.exists(supervisor.folder)
        assert supervisor.folder not in Path("/proc/net/unix").read_text()


def watched(main, *arguments, action=None, tick=None, done=shots_done, **constants):
    """Run a machine that is expected to end in an exception; `action(run)` is done when it has started."""
    with machine(main, *arguments, **constants) as run:
        run.start()
        if action:
            action(run)
        run.watch(done, tick)


def test_an_orderly_run_accounts_for_every_interrupt_and_leaves_nothing():
    """Start, watch, quiesce, finish: all work done, all CPUs left by themselves, every message and ack
    accounted for.
    """
    with machine(storm, 8, shots=20, targets=7) as run:
        run.start()
        ticks = []
        assert run.watch(shots_done, ticks.append, tick_s=0.005) == "finished"
        run.quiesce()
        run.finish()
        assert ticks
        assert unaccounted_interrupts(run.ram) == []
        assert run.ram.counter.sum() > 0


@pytest.mark.parametrize("wait", [lambda run: run.watch(shots_done), lambda run: run.quiesce()])
def test_a_violation_ends_the_run_when_it_has_been_noted(wait):
    """The CPU that found it says so at last; at the count of violations, its details are still missing."""
    with machine(storm, 4, FOREVER, 3) as run:
        run.start()
        run.ram.run_stop[0] = VIOLATED
        assert wait(run) == "violated"


# -- signals to the supervisor -------------------------------------------------------------------------------


@pytest.mark.parametrize("number, code", ENDINGS)
def test_a_signal_ends_the_run_with_the_shells_exit_code(number, code):
    """All are one exception that carries 128 and their number; the handlers of before are back afterwards."""
    began = []
    with pytest.raises(Interrupted, match=f"interrupted by {number.name}") as caught:
        watched(
            storm,
            4,
            FOREVER,
            3,
            action=lambda run: began.append(time.monotonic()),
            tick=lambda ram: os.kill(os.getpid(), number),
        )
    assert time.monotonic() - began[0] < END_BOUND_S
    assert caught.value.exit_code == code


def test_a_signal_after_the_last_look_is_not_lost():
    """A signal that comes when nothing looks any more still ends the block with the exception."""
    with pytest.raises(Interrupted):
        watched(storm, done=lambda ram: os.kill(os.getpid(), signal.SIGINT) is None)


@contextmanager
def endless(*arguments):
    """The program of supervised.py in a session of its own, started and running; yields (process, what it
    said).
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.emulator.supervised", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _wait_until_gone(said, bound_s):
    """Wait, bounded, until no process of the run exists and its folder and sockets are gone; returns what is
    left.
    """
    bound = time.monotonic() + bound_s
    while True:
        left = [pid for pid in (*said["cpus"], said["janitor"]) if _is_running(pid)]
        left += [said["folder"]] if os.path.exists(said["folder"]) else []
        left += ["sockets"] if said["folder"] in Path("/proc/net/unix").read_text() else []
        if not left or time.monotonic() > bound:
            return left
        threading.Event().wait(0.01)


def _is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number, code", ENDINGS)
def test_a_signal_to_the_whole_terminal_group(number, code):
    """Ctrl-C reaches all processes of a terminal at once: still one sentence, and nothing is left."""
    with endless() as (process, said):
        began = time.monotonic()
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=END_BOUND_S)
        assert time.monotonic() - began < END_BOUND_S
        assert errors == f"interrupted by {number.name}\n"
        assert process.returncode == code
        assert _wait_until_gone(said, 0) == []


def test_a_killed_supervisor_takes_everything_with_it(tmp_path):
    """After SIGKILL, which nobody can handle, CPUs, janitor, folder, sockets and a half-written file are gone
    within 2 s.
    """
    half = tmp_path / "half"
    with endless(str(half)) as (process, said):
        assert half.exists()
        assert len(said["cpus"]) == 8
        process.kill()
        process.communicate(timeout=END_BOUND_S)  # nobody holds its output open
        assert _wait_until_gone(said, END_BOUND_S) == []
        assert not half.exists()


def test_a_folder_that_cannot_be_made_is_not_removed(monkeypatch, tmp_path):
    """Somebody else's of the same name stays, whether the run ends by itself or is killed."""
    monkeypatch.setattr("emulator.supervisor.secrets.token_hex", lambda _: "taken")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    (tmp_path / "luf-taken").mkdir()
    (tmp_path / "luf-taken" / "diary.txt").write_text("kept")
    ram = small_ram(2)
    with pytest.raises(FileExistsError, match="luf-taken"), Supervisor(ram, storm):
        pass
    ram.close()
    assert (tmp_path / "luf-taken" / "diary.txt").read_text() == "kept"


def test_a_stopped_janitor_does_not_keep_the_run():
    """Nor does it stay."""
    with machine(storm, 4, shots=5, targets=3) as run:
        os.kill(run.janitor.pid, signal.SIGSTOP)
        run.start()
        run.watch(shots_done)
        run.quiesce()
        run.finish()


def test_without_its_janitor_a_run_still_ends_cleanly():
    """The janitor is a second line of defence: when it is killed, an orderly end is as clean as ever."""
    with machine(storm, 4, shots=5, targets=3) as run:
        os.kill(run.janitor.pid, signal.SIGKILL)
        run.start()
        run.watch(shots_done)
        run.quiesce()
        run.finish()


def test_a_janitor_that_is_killed_at_once_does_not_end_the_run(monkeypatch):
    """Before it was told of anything, too."""

    class Killed(emulator.supervisor.Janitor):
        def __init__(self):
            super().__init__()
            os.kill(self.pid, signal.SIGKILL)
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    monkeypatch.setattr(emulator.supervisor, "Janitor", Killed)
    with machine(storm, 4, shots=5, targets=3) as run:
        run.start()
        run.watch(shots_done)
        run.quiesce()
        run.finish()


# -- CPU processes that die ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_cpu_ends_the_run(number):
    """One sentence with CPU, pid and signal, within 2 s, although all others go on."""
    killed = []

    def kill(run):
        killed.extend((run.processes[3].pid, time.monotonic()))
        os.kill(killed[0], number)

    with pytest.raises(CpuDied) as caught:
        watched(storm, 6, FOREVER, 3, action=kill)
    assert time.monotonic() - killed[1] < END_BOUND_S
    assert str(caught.value).startswith(f"cpu3 (pid {killed[0]}) was killed by {number.name}")


def _raises(ram, cpu):
    if cpu == 2:
        raise ValueError("the planted mistake")
    return storm(ram, cpu)


def test_a_cpu_that_fails_is_quoted():
    """An exception in a CPU process ends the run with its traceback."""
    with pytest.raises(
        CpuDied,
        match=r"cpu2 \(pid \d+\) failed with exit code 1; it said:\n(.|\n)*ValueError: the planted mistake",
    ):
        watched(_raises, 4, FOREVER, 3)


@kernel
def _returns(ram, cpu):
    return 0


def test_a_cpu_that_returns_is_an_error():
    """A CPU's loop ends only when the run does."""
    with pytest.raises(CpuDied, match="left, although nobody had stopped the run"):
        watched(_returns)


def test_a_cpu_that_never_gets_ready_is_named(monkeypatch):
    """Start-up is bounded; the sentence names who is missing."""
    real = emulator.supervisor.cpu_process
    monkeypatch.setattr(emulator.supervisor, "READY_BOUND_S", 0.5)
    monkeypatch.setattr(
        emulator.supervisor,
        "cpu_process",
        lambda ram, cpu, *rest: signal.pause() if cpu == 1 else real(ram, cpu, *rest),
    )
    with pytest.raises(CpuDied, match=r"^cpu1 \(pid \d+\) did not get ready within"), machine(storm):
        pass


@kernel
def _panics(ram, cpu):
    if cpu == 1:
        panic(ram, cpu, 7, 11, 13)
    while True:
        block(ram, cpu, WAIT_IDLE, 0)
    return 0


def test_a_panic_carries_its_values():
    """The emulated kernel's panic ends the run with CPU, code and both values."""
    with pytest.raises(Panicked, match=r"cpu1: panic 7 \(11, 13\)") as caught:
        watched(_panics)
    assert (caught.value.cpu, caught.value.code, caught.value.a, caught.value.b) == (1, 7, 11, 13)


@kernel
def _does_not_leave(ram, cpu):
    if cpu == 0:
        fetch_add(ram.run_tasks_left, 0, -4)
    while True:
        pause()
    return 0


def test_a_cpu_that_does_not_leave_is_killed(monkeypatch):
    """`finish` is bounded: whoever does not come is killed."""
    monkeypatch.setattr(emulator.supervisor, "LEAVE_BOUND_S", 0.3)
    with machine(_does_not_leave) as run:
        run.start()
        run.watch(shots_done)
        run.finish()


# -- runs that do not move -----------------------------------------------------------------------------------


@kernel
def _never_acks(ram, cpu):
    if cpu == 1:  # takes no interrupt, ever
        ram.cpu_irq_off[cpu] += 1
        while ram.run_stop[0] == RUN:
            pause()
    if cpu == 0:
        shoot(ram, cpu, 1, 1)
    while True:
        block(ram, cpu, WAIT_IDLE, 0)
    return 0


def test_the_watchdog_names_a_cpu_that_never_acks():
    """Nothing moves: the sentence says who waits for whom and why."""
    with pytest.raises(Stuck) as caught:
        watched(_never_acks, wait_bound_ms=SOON)
    assert str(caught.value).startswith("nothing moved for 0.3 s: ")
    assert (
        "cpu0 waits for acks of cpu1; cpu1 runs (interrupts off, 1 interrupts not taken); 2 CPUs are idle"
        in str(caught.value)
    )


@kernel
def _deadlocks(ram, cpu):
    if cpu < 2:
        if cpu == 0:
            spin_lock(ram, cpu, ram.zone_lock, 0)
        else:
            spin_lock(ram, cpu, ram.lru_lock, 0)
        fetch_add(ram.run_tokens, 0, 1)
        while load_acquire(ram.run_tokens, 0) < 2 and ram.run_stop[0] == RUN:
            pause()
        if cpu == 0:
            spin_lock(ram, cpu, ram.lru_lock, 0)
        else:
            spin_lock(ram, cpu, ram.zone_lock, 0)
    while True:
        block(ram, cpu, WAIT_IDLE, 0)
    return 0


def test_the_watchdog_shows_a_deadlock():
    """Two CPUs that take two locks in opposite order: the graph names locks and holders."""
    with pytest.raises(Stuck) as caught:
        watched(_deadlocks, wait_bound_ms=SOON)
    assert "cpu0 waits for lruvec.lru_lock[0] held by cpu1; cpu1 waits for zone.lock[0] held by cpu0" in str(
        caught.value
    )


def test_work_that_nobody_does_is_noticed():
    """All CPUs are idle, and what was waited for has not come: that too is the end."""
    with pytest.raises(Stuck, match="all CPUs are idle, but the work is not done"):
        watched(storm, wait_bound_ms=SOON, done=lambda ram: False)


# -- where it is called from ---------------------------------------------------------------------------------


def test_a_notebook_with_threads_and_sockets_is_left_alone():
    """The caller's ZeroMQ context, threads and closures work during and after; the loop may be a lambda."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as here, context.socket(zmq.PAIR) as there:
        here.bind("inproc://notebook")
        there.connect("inproc://notebook")
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        try:
            with machine(lambda ram, cpu: storm(ram, cpu), 4, shots=5, targets=3) as run:
                run.start()
                run.watch(shots_done, lambda ram: here.send(b"tick"))
                run.quiesce()
                run.finish()
            here.send(b"after")
            assert there.recv()
        finally:
            stop.set()
            thread.join()


def test_it_works_outside_the_main_thread():
    """No signal handler can be set there; everything else is the same."""
    outcome = []

    def run_it():
        with machine(storm, 4, shots=5, targets=3) as run:
            run.start()
            outcome.append(run.watch(shots_done))
            run.finish()

    thread = threading.Thread(target=run_it)
    thread.start()
    thread.join(30)
    assert outcome == ["finished"]


def test_a_socket_path_that_is_too_long_is_refused(monkeypatch, tmp_path):
    """ZeroMQ would fail in each child; here it is one sentence before anything starts."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / ("x" * 90)))
    with pytest.raises(RunStopped, match="'socket paths' must be at most 107 bytes"), machine(storm):
        pass


def test_too_many_leases_are_refused():
    """They are the bits of one word."""
    with pytest.raises(ValueError, match=r"'leases' must be at most 62 \(got 63\)"):
        Supervisor(small_ram(2, leases=63), storm)
