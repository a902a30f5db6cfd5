"""One host process per emulated CPU: what it needs from the host, made before its compiled loop runs.

    supervisor ── fork ──> cpu 0 .. cpu N-1      shared: the RAM segment (memfd), one eventfd per CPU
        │                    │ PULL  ipc://<private folder>/c<k>     interrupts to CPU k
        │                    │ PUSH  to a peer, connected at the first interrupt to it
        │                    │ eventfd k: "look at your state" (lease granted, woken, run stopped)
        └── fork ──> janitor: kills what is left and removes the folder should the supervisor die

Compiled code runs `main`; it sleeps and rouses others (host.py), sends and receives (zeromq.py) by itself.
The shell in Python makes the sockets, and ends the process when something failed. Where runs reuse their
processes, compiled code has a stack of its own (`Stack`): a CPU that is told to leave, or that ends the run
by what it found, drops what it was at, wherever that is, and waits beside the RAM (`Parking`) until the next
machine has been laid out there.
While a CPU waits without a lease it serves interrupts (free-running mode); in controlled mode they wait for
the lease. A CPU process ignores the signals that end a run, which are the supervisor's to handle, and dies
with the supervisor (PDEATHSIG). Left out: everything that has a policy.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import mmap
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import zmq
from numba import types

from cpus.atomics import fetch_add, load_acquire
from cpus.compiled import Text, apart, install_python, kernel, later
from cpus.declare import ANY, OWNER, Atomic, Constant, Field, Racy, Struct
from cpus.ending import ENDING
from cpus.faults import EXIT_FAULT, leave_with, listen
from cpus.host import (
    EXIT_STOPPED,
    NEWS,
    ROUSED,
    Left,
    clear_rousing,
    exit_process,
    go_to_context,
    poll,
    pollfd,
    rouse,
)
from cpus.install import install
from cpus.ipi import MESSAGE_ANNOUNCED, NOTHING_ANNOUNCED, serve_interrupts
from cpus.lease import FINISHED, LEAVE, PANIC, RUNNING
from cpus.points import end_points, own_points
from cpus.ram import WORD, has_points
from cpus.rules import rule_book
from cpus.uncompiled import UNCOMPILED, Terminal, ready
from cpus.zeromq import failure, handle, set_functions, shell_receive, shell_send

FIELDS = (
    Constant("wait_bound_ms", "longest sleep before a CPU looks by itself, 0: SLEEP_BOUND_MS", "ms"),
    Struct("one", "stop", (
        Field("run_ready", Atomic("fetch_add"), "CPUs that are ready to start"),
        Field("run_panic", Racy("the run ends; of two that panic at once one is shown"),
              "CPU + 1 that stopped the run"),
        Field("run_panic_code", Racy("the same"), "why"),
        Field("run_panic_a", Racy("the same"), "first value of the sentence"),
        Field("run_panic_b", Racy("the same"), "second value of the sentence"),
    )),
    Struct("nr_cpus", "lease", (
        Field("cpu_pid", OWNER, "process id", reads=ANY),
        Field("cpu_way_out", OWNER, "host context to which it leaves a run, 0: its process ends"),
    )),
)  # fmt: skip

PR_SET_PDEATHSIG = 1
SHELL_PANIC = Text("shell_panic", 4)  # cpu, what, and two values: stops the run
cpu_loop = later("cpu_loop", 1)
STACK_BYTES, CONTEXT_BYTES = 16 << 20, 16384  # a ucontext_t has less than that everywhere
# of one sleep: longer than the watchdog's, so that no lost wake-up is cured in silence
SLEEP_BOUND_MS = 20_000


@kernel
def run_when_started(ram, cpu):
    """Count this CPU among those that are bound and ready, and sleep until `start_all`."""
    fetch_add(ram.run_ready, 0, 1)
    shell_wait(ram, cpu, -1)


@apart
def shell_leave(ram, cpu, status):
    """Leave the run, wherever this CPU is, with nothing for it on its way; does not return. Under several
    leases somebody may be at anything meanwhile: then only when all are told to.
    """
    told = load_acquire(ram.run_stop, 0) == LEAVE
    end_points(ram, cpu)
    if ram.cpu_way_out[cpu] != 0 and (told or ram.controlled):
        while load_acquire(ram.cpu_bell, cpu) > 0:
            shell_receive(ram, cpu, MESSAGE_ANNOUNCED)
            fetch_add(ram.cpu_bell, cpu, -1)
        shell_receive(ram, cpu, NOTHING_ANNOUNCED)
        go_to_context(ram.cpu_way_out[cpu])
    exit_process(status)
    return 0


@apart
def shell_run(ram, cpu):
    """Be this CPU from its start to the end of the run."""
    run_when_started(ram, cpu)
    return cpu_loop(ram, cpu)


@apart
def shell_wait(ram, cpu, target):
    """Sleep until this CPU is RUNNING again, serving interrupts; first rouse `target` (-1: nobody)."""
    if target >= 0:
        rouse(ram, target)
    bound_ms = 2 * ram.wait_bound_ms if ram.wait_bound_ms > 0 else SLEEP_BOUND_MS
    while load_acquire(ram.cpu_state, cpu) != RUNNING:
        stop = load_acquire(ram.run_stop, 0)
        if stop > FINISHED:
            shell_leave(ram, cpu, 0 if stop == LEAVE else EXIT_STOPPED)
        served_here = not (ram.controlled or ram.cpu_irq_off[cpu] > 0)
        if served_here and load_acquire(ram.cpu_bell, cpu) > 0:
            serve_interrupts(ram, cpu)
            continue
        found = poll(ram, cpu, 2 if served_here else 1, bound_ms)
        if found & ROUSED:
            clear_rousing(ram, cpu)
        if found & NEWS and load_acquire(ram.cpu_bell, cpu) == 0:
            shell_receive(ram, cpu, NOTHING_ANNOUNCED)
    if has_points(ram) and ram.cpu_at_point[cpu]:
        return 0  # in the midst of anything
    if ram.controlled and ram.cpu_irq_off[cpu] == 0 and ram.cpu_bell[cpu] > 0:
        serve_interrupts(ram, cpu)  # under the lease
    return 0


def prepare(ram: Any, main: Callable[[Any, int], int]) -> None:
    """Compile, before the CPUs are forked, what each of them calls from Python."""
    for function in (run_when_started, main):
        if hasattr(function, "compile"):  # with the JIT off kernels are plain functions
            function.compile((ram._type, types.int64))


class Shell:
    """The part of a CPU process that makes sockets. Made in the child: a context does not survive a fork."""

    def __init__(self, ram: Any, cpu: int, eventfds: list[int], folder: str, cores: list[int]):
        self.ram, self.cpu, self.folder = ram, cpu, folder
        core = cores[cpu % len(cores)]
        os.sched_setaffinity(0, {core})  # first: ZeroMQ's I/O thread inherits it
        self.context = zmq.Context(io_threads=1)
        self.peers: dict[int, Any] = {}
        self.inbox = self.context.socket(zmq.PULL)
        # no limit: a full queue would drop or block; conservation is checked at the end
        self.inbox.set_hwm(0)
        self.inbox.linger = 0
        self.inbox.bind(f"ipc://{folder}/c{cpu}")
        ram.inbox_socket[cpu] = handle(self.inbox)
        ram.poll_set[cpu, :2] = pollfd(eventfds[cpu]), pollfd(int(self.inbox.getsockopt(zmq.FD)))
        ram.cpu_host_core[cpu] = core + 1  # also says: this CPU is bound and ready

    def connect(self, target: int) -> None:
        """Open the way to a peer (it is bound: no CPU starts before all are)."""
        socket = self.context.socket(zmq.PUSH)
        socket.set_hwm(0)
        socket.linger = 0
        socket.connect(f"ipc://{self.folder}/c{target}")
        self.peers[target] = socket
        self.ram.peer_socket[self.cpu, target] = handle(socket)


class Parking:
    """Where CPU processes wait between two runs, outside of the RAM, and how the supervisor knows."""

    def __init__(self) -> None:
        self.arrived = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # counts those who have come
        self.go: list[int] = []  # of each CPU: it may run again

    def wait(self, cpu: int) -> None:
        """Be parked, in the CPU's process."""
        os.eventfd_write(self.arrived, 1)
        os.read(self.go[cpu], WORD)  # goes on by itself after a signal

    def count(self) -> int:
        """Give how many have come since the last time, in the supervisor."""
        try:
            return os.eventfd_read(self.arrived)
        except BlockingIOError:
            return 0

    def clear(self) -> None:
        """Nobody is there any more."""
        self.count()
        for fd in self.go:
            os.close(fd)
        self.go.clear()

    def close(self) -> None:
        """Give the last file descriptor back."""
        os.close(self.arrived)


class Stack:
    """A stack for the compiled code of a CPU, which can leave it from anywhere (ucontext.h)."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(None, use_errno=True)
        self.memory = mmap.mmap(-1, STACK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.here, self.there = (ctypes.create_string_buffer(CONTEXT_BYTES) for _ in range(2))

    def run(self, ram: Any, cpu: int) -> None:
        """Be a CPU in one run. Raises OSError."""
        ram.cpu_way_out[cpu] = ctypes.addressof(self.here)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        code = int(ram.text[ram.layout.text[shell_run.entry.text.name]])
        self.library.getcontext(self.there)
        # uc_link, where the code's end leads, and uc_stack: address, flags, bytes
        words = (ctypes.c_uint64 * 5).from_buffer(self.there)
        words[1:5] = [ctypes.addressof(self.here), base, 0, STACK_BYTES]
        self.library.makecontext(
            self.there, ctypes.c_void_p(code), 2, ctypes.c_int64(ram._base), ctypes.c_int64(cpu)
        )
        if self.library.swapcontext(self.here, self.there) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class ProcessWords:
    """What a RAM says of the processes of its CPUs, and not of what they run: kept while another machine is
    laid out in it.
    """

    NAMES = ("cpu_pid", "cpu_way_out", "cpu_host_core", "poll_set", "inbox_socket", "peer_socket")

    def __init__(self) -> None:
        self.kept: dict[str, np.ndarray] = {}

    def save(self, ram: Any) -> None:
        """Take the words of the CPUs that this machine has; of others those from before are kept."""
        for name in self.NAMES:
            found = getattr(ram, name)
            before = self.kept.get(name, found[:0])
            whole = np.zeros(np.maximum(found.shape, before.shape), found.dtype)
            for words in (before, found):
                whole[tuple(map(slice, words.shape))] = words
            self.kept[name] = whole

    def restore(self, ram: Any) -> None:
        """Put them into a machine that may have fewer CPUs, or more."""
        for name, words in self.kept.items():
            place = getattr(ram, name)
            common = tuple(map(slice, np.minimum(place.shape, words.shape)))
            place[common] = words[common]


_shell: Shell | None = None  # of this CPU process


def _guard(action: Callable[[Any], Any]) -> int:
    """Run one of the shell's actions, and give its answer, 0 if it has none; an exception cannot cross
    compiled code, so it ends the process with its traceback.
    """
    try:
        return int(action(_shell) or 0)
    except BaseException:  # noqa: BLE001 (nothing may pass)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def install_shell(ram: Any) -> list[Any]:
    """Put the shell's entries into the text table; keep the result alive. Before the CPUs are forked."""

    def connect(_cpu, target):
        return _guard(lambda shell: shell.connect(target))

    def failed(_cpu, what, result):
        return _guard(lambda _: _fail(what, result))

    def panic(cpu, code, a, b):
        return _guard(lambda _: _panic(ram, cpu, code, a, b))

    def rule(cpu, where, operation):
        return _guard(lambda _: rule_book(ram).breaks(cpu, where, operation))

    def order(_cpu, outer, inner):
        return _guard(lambda _: rule_book(ram).is_new_order(outer, inner))

    entries = [shell_wait.entry, shell_leave.entry, shell_run.entry, shell_send.entry, shell_receive.entry]
    install(ram, entries)
    set_functions(ram)
    python: dict[str, Any] = {"shell_connect": connect, "shell_failed": failed, SHELL_PANIC.name: panic}
    python |= {"shell_rule": rule, "shell_order": order}
    return [install_python(ram, name, function) for name, function in python.items()]


def _fail(what: int, result: int) -> None:
    raise RuntimeError(failure(what, result))


def _panic(ram: Any, cpu: int, code: int, a: int, b: int) -> None:
    """Stop the whole run: note who, why and two values. The CPU leaves it then."""
    if ram.run_panic[0] == 0:
        ram.run_panic[0], ram.run_panic_code[0], ram.run_panic_a[0], ram.run_panic_b[0] = cpu + 1, code, a, b
    ram.run_stop[0] = PANIC


def _run_forever(ram: Any, cpu: int, parking: Parking) -> None:
    """Be a CPU of one run after the other. Never returns."""
    stack = Stack()
    while True:
        if UNCOMPILED:
            ram.cpu_way_out[cpu] = 1
            with suppress(Left):
                shell_run(ram, cpu)
        else:
            stack.run(ram, cpu)
        parking.wait(cpu)
        ram.forget_views()


def cpu_process(
    ram: Any,
    cpu: int,
    eventfds: list[int],
    folder: str,
    cores: list[int],
    main: Callable[[Any, int], int],
    terminal: Terminal | None = None,
    parking: Parking | None = None,
) -> None:
    """Be CPU `cpu` until the run ends; with `parking` of one run after the other, until somebody kills it.
    `main(ram, cpu)` is the compiled loop, which is the kernel's then. `terminal` is there without the JIT.
    Never returns.
    """
    global _shell
    status = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)  # the supervisor's would interrupt system calls
        errors = os.open(f"{folder}/err{cpu}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(errors, 2)
        # not a notebook's, which sends over inherited sockets
        sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        faulthandler.enable(file=2)
        listen(ram, cpu, folder)
        if terminal:
            ready(ram, terminal)
        gc.disable()  # the shell makes no cycles, and a collection would copy pages that all CPUs share
        ram.cpu_pid[cpu] = os.getpid()
        own_points(ram, cpu)
        _shell = Shell(ram, cpu, eventfds, folder, cores)
        if parking:
            _run_forever(ram, cpu, parking)
        run_when_started(ram, cpu)
        status = int(main(ram, cpu))
    except BaseException as error:  # noqa: BLE001 (the process ends here)
        traceback.print_exc()
        if leave_with(ram, cpu, folder, error):
            status = EXIT_FAULT
    finally:
        sys.stderr.flush()
        os._exit(status)
