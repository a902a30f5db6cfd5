"""What the host does to CPU processes is named and waited for; it is nobody's deadlock."""

from __future__ import annotations

import os
import signal

import pytest

import emulator.supervisor
from benchmarks.storm import shots_done, small_ram, storm
from cpus.ipi import unaccounted_interrupts
from emulator.patience import Patience
from emulator.supervisor import Stuck, Supervisor
from tests.emulator.test_supervisor import SOON, _never_acks, machine


class Told(list):
    """What was said, of which a word may end what the host does."""

    def __init__(self, action):
        super().__init__()
        self.action = action

    def __call__(self, text):
        self.append(text)
        self.action()


def test_a_cpu_that_the_host_has_stopped_is_waited_for_and_named():
    """It is not a deadlock of the design, however long it takes: the run goes on with SIGCONT, and ends as
    any other.
    """
    with machine(storm, 4, shots=2000, targets=3, wait_bound_ms=SOON) as run:
        pid = run.processes[2].pid
        run.say = Told(lambda: os.kill(pid, signal.SIGCONT))
        os.kill(pid, signal.SIGSTOP)
        run.start()
        assert run.watch(shots_done) == "finished"
        run.quiesce()
        run.finish()
        why = "stopped by a signal such as SIGSTOP: the run waits until the host lets it go on"
        assert run.say == [f"luf: cpu2 (pid {pid}) is {why}"]
        assert unaccounted_interrupts(run.ram) == []


def test_a_cpu_that_is_stopped_before_it_is_ready_is_waited_for(monkeypatch):
    """Start-up is bounded for what can run."""
    real = emulator.supervisor.cpu_process

    def stopped(ram, cpu, *rest):
        if cpu == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        real(ram, cpu, *rest)

    monkeypatch.setattr(emulator.supervisor, "READY_BOUND_S", 0.3)
    monkeypatch.setattr(emulator.supervisor, "cpu_process", stopped)
    ram = small_ram(2)
    supervisor = Supervisor(ram, storm)
    supervisor.say = Told(lambda: os.kill(supervisor.processes[1].pid, signal.SIGCONT))
    with supervisor:
        assert len(supervisor.say) == 1
    ram.close()


def test_a_deadlock_is_one_although_a_cpu_was_stopped_meanwhile():
    """Planted: what the host does excuses nothing that stays when it has let go."""
    with machine(_never_acks, wait_bound_ms=SOON) as run:
        pid = run.processes[2].pid
        run.say = Told(lambda: os.kill(pid, signal.SIGCONT))
        os.kill(pid, signal.SIGSTOP)
        run.start()
        with pytest.raises(Stuck, match="cpu0 waits for acks of cpu1"):
            run.watch(shots_done)
        assert len(run.say) == 1


def test_time_in_which_the_supervisor_was_stopped_does_not_count(monkeypatch):
    """As by Ctrl-Z, which stops all: the first look after it is not the end. Planted: that much time in many
    looks is.
    """
    now = [0.0]
    monkeypatch.setattr("emulator.patience.time.monotonic", lambda: now[0])
    patience = Patience(10.0, dict, pytest.fail)
    now[0] += 3600
    assert not patience.is_over()
    looks = 0
    while not patience.is_over():
        now[0] += 0.5
        looks += 1
    assert looks == 19
