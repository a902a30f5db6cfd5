"""Start the CPU processes of a machine, watch over them, and leave nothing behind, whichever way the run
ends.

    with Supervisor(ram, cpu_loop, label="linux") as machine:    # the CPUs are forked, bound, and wait
        machine.start()                                          # they run
        machine.watch(done=lambda ram: ram.run_tasks_left[0] == 0)
        machine.quiesce()                                        # kernel threads finish what they are at
        machine.finish()                                         # they leave; the RAM holds the result

Every way of ending that is not this one is an exception with one sentence: Interrupted (Ctrl-C, SIGTERM, a
terminal that is closed), or RunStopped (a CPU process died, the emulated kernel panicked, nothing moved any
more although the host let all CPUs run). All processes, sockets,
eventfds and the folder are gone when the `with` block has been left; should the supervisor itself be killed,
the janitor and PDEATHSIG see to that. Left out: restarting anything. A run that lost a process is over.

With `parks` the processes carry one run after the other (emulator/stress/arena.py): `gather` has one for each
CPU of the machine that lies in the RAM, `park` takes them out of it at the end of a run, and `drop` ends them
where a run did not end well.
"""

from __future__ import annotations

import os
import resource
import secrets
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import multiprocess
from multiprocess.connection import wait as wait_for_sentinels

from cpus.abi.numbers import CPUS_MAX, LEASES_MAX
from cpus.all_cpus import all_idle, start_all
from cpus.ending import ENDING, go_on
from cpus.faults import EXIT_FAULT, fault_file, hook_of
from cpus.host import place_leases
from cpus.lease import FINISHED, INTERRUPTED, LEAVE, PANIC, RUN, VIOLATED
from cpus.process import EXIT_STOPPED, Parking, cpu_process, install_shell, prepare
from cpus.ram import POINTS
from cpus.uncompiled import UNCOMPILED, Terminal
from emulator.ending import Interrupted
from emulator.janitor import Janitor, remove
from emulator.judge.wait_graph import wait_graph
from emulator.livelock import ProgressBound
from emulator.patience import Patience
from emulator.stopped import CpuDied, DesignFault, HostFault, Panicked, RunStopped, Stuck
from emulator.streams import tell

TICK_S = 0.05
READY_TICK_S, QUIET_TICK_S = 0.005, 0.002
FIRST_TICK_S, TICKS_GROW = 0.0002, 8  # looks come an eighth of the time so far apart, at first
READY_BOUND_S = 60.0
LEAVE_BOUND_S = 5.0
WAIT_BOUND_MS = 10_000  # of the watchdog, where the machine names none
SOCKET_PATH_MAX = 107  # sun_path of a Unix socket
STDERR_SHOWN = 2000
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)


Tick = Callable[[Any], None]
Done = Callable[[Any], bool]


class Supervisor:
    """All host processes of one run, as a context manager. `main(ram, cpu) -> int` is the compiled loop of a
    CPU.

    `host_cores`: the cores that leases stand for (default: all this process may use). `panic_text(code, a,
    b)` words a panic. `hook_places`: name of each hook of the design -> where its function stands. `say` is
    told what the host does to the run.
    """

    def __init__(
        self,
        ram: Any,
        main: Callable[[Any, int], int],
        *,
        host_cores: list[int] | None = None,
        label: str = "run",
        panic_text: Callable[[int, int, int], str] | None = None,
        hook_places: Mapping[str, str] | None = None,
        say: Callable[[str], None] = tell,
        parks: bool = False,
    ):
        if ram.nr_leases > LEASES_MAX:
            raise ValueError(f"'leases' must be at most {LEASES_MAX} (got {ram.nr_leases})")
        self.ram, self.main, self.label = ram, main, label
        self.cores = host_cores or sorted(os.sched_getaffinity(0))
        self.hook_places = hook_places or {}
        self.say = say
        self.panic_text = panic_text or (lambda code, a, b: f"panic {code} ({a}, {b})")
        self.processes: list[Any] = []
        self.eventfds: list[int] = []
        self.parks = parks
        self.parking: Parking | None = None
        self._parked: list[int] = []  # CPUs whose processes wait for the next run
        self.folder, self._folder_is_ours = "", False
        self.janitor: Janitor | None = None
        self.terminal: Terminal | None = None
        self.ready_s = 0.0
        self._signal = 0
        self._handlers: dict[int, Any] = {}
        self._shell: list[Any] = []
        self._open_files: tuple[int, int] | None = None

    # -- the run, step by step -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._catch_signals()
            self._enter()
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._clean()
        if kind is None and self._signal:
            raise Interrupted(self._signal)

    def start(self) -> None:
        """Let the CPUs run: as many as there are leases, all of them if there is no gate."""
        start_all(self.ram)
        if self.parking:
            for cpu in self._parked[: self.ram.nr_cpus]:
                os.eventfd_write(self.parking.go[cpu], 1)

    def watch(self, done: Done, tick: Tick | None = None, *, tick_s: float = TICK_S) -> str:
        """Wait until `done(ram)`; returns "finished", or "violated" if the oracle has ended the run first.

        It does so once it has noted the violation; to go by the number of violations would be too early.
        Looks, and calls `tick(ram)`, every `tick_s` seconds, at first more often. Raises as the module's text
        says.
        """
        watchdog, pace = self._watchdog(), _Pace(tick_s)
        while not done(self.ram):
            self._look(pace.next_s())
            if tick:
                tick(self.ram)
            if self.ram.run_stop[0] == VIOLATED:
                return "violated"
            watchdog.look()
        return "finished"

    def quiesce(self, tick: Tick | None = None) -> str:
        """After the last user thread: wait until every CPU is idle and no interrupt is under way; returns
        "finished", or "violated" as a kernel thread may still find something. `tick` as for `watch`.
        """
        watchdog, pace = self._watchdog(), _Pace(QUIET_TICK_S)
        while (idle := all_idle(self.ram)) != 1:
            self._look(pace.next_s())
            if self.ram.run_stop[0] == VIOLATED:
                return "violated"
            if tick:
                tick(self.ram)
            watchdog.look("the lease table stays locked" if idle < 0 else "")
        return "finished"

    def finish(self) -> None:
        """Tell all CPUs to leave, and wait for them; one that does not come is killed."""
        self.ram.run_stop[0] = LEAVE
        self._rouse_all()
        bound = time.monotonic() + LEAVE_BOUND_S
        for process in self.processes:
            process.join(max(0.0, bound - time.monotonic()))
        self._kill_all()

    def gather(self) -> None:
        """Have a process for each CPU of the machine that the RAM holds now: those that are parked, or new
        ones.
        """
        place_leases(self.ram, self.cores)
        if self.processes:
            return
        self.eventfds = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(self.ram.nr_cpus)]
        if self.parking:
            self.parking.go = [os.eventfd(0, os.EFD_CLOEXEC) for _ in self.eventfds]
        # Python 3.12+ warns of forks beside threads; a CPU touches nothing that they may hold
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            for cpu in range(self.ram.nr_cpus):
                self._fork(cpu)
        self._wait_until_ready()

    def park(self) -> None:
        """After `quiesce`: have all CPUs leave the RAM, and wait beside it for the next run."""
        assert self.parking is not None
        self.ram.run_stop[0] = LEAVE
        count = self.ram.nr_cpus
        self._rouse_all()
        patience, arrived = self._patience(LEAVE_BOUND_S), 0
        while arrived < count:
            self._look(LEAVE_BOUND_S, self.parking.arrived)
            arrived += self.parking.count()
            if patience.is_over():
                raise CpuDied(f"{count - arrived} of {count} CPUs did not leave the run in time")
        self._parked = sorted({*self._parked, *range(count)})

    def drop(self) -> None:
        """End all CPU processes: the next `gather` starts new ones."""
        self._kill_all()
        self._close_eventfds()
        for path in Path(self.folder).iterdir():
            path.unlink()
        if self.janitor:
            self.janitor.forget_cpus()

    def load_shell(self) -> None:
        """Put what CPUs call in Python into the text table of the machine that the RAM holds now, and compile
        what they are called by.
        """
        self._shell += install_shell(self.ram)
        prepare(self.ram, self.main)

    def remove_if_killed(self, path: str | os.PathLike[str]) -> None:
        """Have a half-written file or folder removed should this process be killed."""
        if self.janitor:
            self.janitor.remove_if_killed(path)

    # -- getting ready ---------------------------------------------------------------------------------------

    def _enter(self) -> None:
        began = time.monotonic()
        self._raise_open_files()
        if self.parks:
            self.parking = Parking()
        else:
            self.load_shell()
        self.janitor = Janitor()
        self._make_folder(self.janitor)
        if UNCOMPILED:
            self.terminal = Terminal.of_this_process()
        if not self.parks:
            self.gather()
        self.ready_s = time.monotonic() - began

    def _make_folder(self, janitor: Janitor) -> None:
        """Make the folder of the sockets. That its name, which nobody can guess, was free is the proof that
        what bears it is ours.
        """
        self.folder = folder = os.path.join(tempfile.gettempdir(), f"luf-{secrets.token_hex(8)}")
        if len(os.fsencode(folder)) + len(f"/c{CPUS_MAX}") > SOCKET_PATH_MAX:
            raise HostFault(
                f"'socket paths' must be at most {SOCKET_PATH_MAX} bytes "
                f"(got {folder}/c...): use a shorter TMPDIR"
            )
        janitor.remove_if_killed(folder)
        os.mkdir(folder, 0o700)
        self._folder_is_ours = True

    def _fork(self, cpu: int) -> None:
        janitor = self.janitor
        assert janitor is not None

        def be_cpu() -> None:
            janitor.leave_to_parent()
            cpu_process(
                self.ram,
                cpu,
                self.eventfds,
                self.folder,
                self.cores,
                self.main,
                self.terminal,
                self.parking,
            )

        process = multiprocess.get_context("fork").Process(
            target=be_cpu, name=f"{self.label}-cpu{cpu}", daemon=True
        )
        try:
            process.start()
        except OSError as error:
            raise HostFault(
                f"the host cannot start the process of cpu{cpu}: {error.strerror} (ulimit -u, ulimit -n)"
            ) from None
        self.processes.append(process)
        janitor.watch_cpu(process.pid)

    def _wait_until_ready(self) -> None:
        ram = self.ram
        patience, pace = self._patience(READY_BOUND_S), _Pace(READY_TICK_S)
        while ram.run_ready[0] < ram.nr_cpus:
            self._look(pace.next_s())
            if patience.is_over():
                missing = [cpu for cpu in range(ram.nr_cpus) if ram.cpu_host_core[cpu] == 0]
                names = ", ".join(f"cpu{cpu} (pid {self.processes[cpu].pid})" for cpu in missing[:8])
                raise CpuDied(
                    f"{names} did not get ready within {READY_BOUND_S:.0f} s{self._said(missing[0])}"
                )

    def _raise_open_files(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            self._open_files = soft, hard

    # -- watching --------------------------------------------------------------------------------------------

    def _patience(self, bound_s: float) -> Patience:
        return Patience(
            bound_s, lambda: {f"cpu{cpu}": one.pid for cpu, one in enumerate(self.processes)}, self.say
        )

    def _watchdog(self) -> Watchdog:
        return Watchdog(self.ram, self._patience((self.ram.wait_bound_ms or WAIT_BOUND_MS) / 1000))

    def _look(self, seconds: float, *news: int) -> None:
        """Sleep at most so long, or until there is news, then raise if a signal, a death or a panic ended the
        run.
        """
        dead = wait_for_sentinels([*news, *(p.sentinel for p in self.processes)], seconds)
        if self._signal:
            self.ram.run_stop[0] = INTERRUPTED
            raise Interrupted(self._signal)
        if self.ram.run_stop[0] == PANIC:
            self._panic()
        if self.ram.run_stop[0] == VIOLATED:
            return  # the CPU that saw it has left; `watch` says so
        for cpu, process in enumerate(self.processes):
            if process.sentinel in dead:
                process.join()
                raise self._death(cpu, process)

    def _death(self, cpu: int, process: Any) -> RunStopped:
        """Word the end of a CPU process that nobody had asked to leave."""
        code, hook = process.exitcode, hook_of(self.ram, cpu)
        if code == EXIT_FAULT:
            return DesignFault(fault_file(self.folder, cpu).read_text(encoding="utf-8") + self._said(cpu))
        if -code in CRASHES and hook:
            place = self.hook_places.get(hook)
            where = f"in hook {hook}{f' ({place})' if place else ''}"
            return DesignFault(f"cpu{cpu} crashed with {signal.Signals(-code).name} {where}")
        return CpuDied(f"cpu{cpu} (pid {process.pid}) {_ending(code)}{self._said(cpu)}")

    def _panic(self) -> None:
        ram = self.ram
        cpu, code, a, b = (
            int(ram.run_panic[0]) - 1,
            int(ram.run_panic_code[0]),
            int(ram.run_panic_a[0]),
            int(ram.run_panic_b[0]),
        )
        raise Panicked(f"cpu{cpu}: {self.panic_text(code, a, b)}", cpu, code, a, b)

    def _said(self, cpu: int) -> str:
        """Give the end of what a CPU wrote to its stderr."""
        with suppress(OSError):
            text = Path(self.folder, f"err{cpu}").read_text(encoding="utf-8", errors="replace").strip()
            if text:
                return "; it said:\n" + text[-STDERR_SHOWN:]
        return ""

    def _catch_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._handlers[signal.SIGCONT] = signal.getsignal(signal.SIGCONT)
            signal.signal(signal.SIGCONT, go_on)
            for number in ENDING:
                handler = signal.getsignal(number)
                if handler != signal.SIG_IGN or number == signal.SIGINT:  # as nohup has SIGHUP
                    self._handlers[number] = handler
                    signal.signal(number, self._note_signal)

    def _note_signal(self, number: int, _frame: Any) -> None:
        self._signal = self._signal or number

    # -- the end ---------------------------------------------------------------------------------------------

    def _rouse_all(self) -> None:
        for fd in self.eventfds[: self.ram.nr_cpus]:
            os.eventfd_write(fd, 1)

    def _kill_all(self) -> None:
        for process in self.processes:
            if process.is_alive():
                process.kill()
        for process in self.processes:
            process.join()
            process.close()
        self.processes.clear()
        self._parked.clear()

    def _close_eventfds(self) -> None:
        for fd in self.eventfds:
            os.close(fd)
        self.eventfds.clear()
        if self.parking:
            self.parking.clear()

    def _clean(self) -> None:
        """Undo everything that `__enter__` did, in whatever state it is."""
        if self.processes and self.ram.run_stop[0] in (RUN, FINISHED):
            self.ram.run_stop[0] = INTERRUPTED
        self._kill_all()
        self._close_eventfds()
        if self.parking:
            self.parking.close()
            self.parking = None
        if self.terminal:
            self.terminal.close()
            self.terminal = None
        if self._folder_is_ours:
            remove(self.folder)
            self._folder_is_ours = False
        if self.janitor:
            self.janitor.dismiss()
            self.janitor = None
        if self._open_files:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._open_files)
            self._open_files = None
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()


class _Pace:
    """How long to sleep between two looks: the longer it took so far the longer, so that what ends soon is
    noticed soon.
    """

    def __init__(self, most_s: float):
        self.most_s, self.began = most_s, time.monotonic()

    def next_s(self) -> float:
        """Give the time until the next look."""
        return min(self.most_s, max(FIRST_TICK_S, (time.monotonic() - self.began) / TICKS_GROW))


class Watchdog:
    """Notices that nothing moves: no virtual clock, no lease, no event, for `wait_bound_ms` of host time."""

    def __init__(self, ram: Any, patience: Patience):
        self.ram, self.patience = ram, patience
        self.progress = ProgressBound(ram) if ram._type.kind == POINTS else None
        self.seen = self._state()

    def _state(self) -> tuple[int, ...]:
        ram = self.ram
        return (
            int(ram.cpu_clock.sum()),
            int(ram.run_handovers[0]),
            int(ram.run_event_seq[0]),
            int(ram.run_ready[0]),
        )

    def look(self, reason: str = "") -> None:
        """Raise Stuck if nothing has moved since long, Livelock if no thread got on meanwhile."""
        if self.progress:
            self.progress.look()
        state = self._state()
        if state != self.seen or self.ram.run_debugger[0]:
            self.seen = state
            self.patience.restart()
        elif self.patience.is_over():
            raise Stuck(
                f"nothing moved for {self.patience.bound_s:g} "
                f"s{': ' + reason if reason else ''}: {wait_graph(self.ram)}"
            )


def _ending(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return (
        "left, although nobody had stopped the run"
        if code in (0, EXIT_STOPPED)
        else f"failed with exit code {code}"
    )
