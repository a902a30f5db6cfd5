"""ZeroMQ called from compiled code: one message out, one message in, without the interpreter.

What Python does for an interrupt is cold code after a context switch, and a shootdown of 63 CPUs runs it 63
times. the addresses of libzmq's C functions are constants of the RAM; socket handles are words in RAM that
mean something in their CPU's process only. Sockets are made by the shell in Python (process.py), a peer's at
the first message to it.
Left out: everything else that ZeroMQ can do. A call that fails ends the process through the shell, in a
sentence.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from zmq.backend.cython import _zmq

from cpus.atomics import address, load_acquire
from cpus.compiled import apart, kernel, later
from cpus.cpumask import for_each_cpu
from cpus.declare import OWNER, Constant, Field
from cpus.host import EXIT_STOPPED, exit_process, poll_inbox
from cpus.ipi import MESSAGE_ANNOUNCED

MESSAGE_WORDS = 8  # sender, sequence, kind, mm, start, end, tlb_gen, virtual send time
FIELDS = (
    Constant("zmq_send", "address of libzmq's function"),
    Constant("zmq_recv", "address of libzmq's function"),
    Constant("zmq_getsockopt", "address of libzmq's function"),
    Field("message", OWNER, "the interrupt message being sent, behind it the one received",
          ("nr_cpus", 2 * MESSAGE_WORDS)),
    Field("inbox_socket", OWNER, "ZeroMQ handle, of its process only", ("nr_cpus",)),
    Field("peer_socket", OWNER, "ZeroMQ handle of the way to each CPU, 0 not connected",
          ("nr_cpus", "nr_cpus")),
    Field("socket_events", OWNER, "scratch of zmq_getsockopt", ("nr_cpus", 8)),
)  # fmt: skip

MESSAGE_BYTES = 8 * MESSAGE_WORDS
RECEIVED_AT = 8  # first word of the received message in ram.message
ZMQ_DONTWAIT, ZMQ_EVENTS, ZMQ_POLLIN = 1, 15, 1
STOPPED = 1  # run_stop above it: leave (lease.FINISHED)
RECEIVE_BOUND_MS = 500  # between two looks at run_stop while an announced message is on its way

SENDING, RECEIVING = 0, 1  # what has failed
shell_connect, shell_failed = later("shell_connect", 2), later("shell_failed", 3)


@cache
def _functions() -> dict[str, int]:
    """Give constant -> address of libzmq's functions, of the libzmq that pyzmq uses."""
    library = ctypes.CDLL(_zmq.__file__)  # found through its dependencies, wherever they were installed
    return {
        name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
        for name in ("zmq_send", "zmq_recv", "zmq_getsockopt")
    }


def set_functions(ram: Any) -> None:
    """Tell compiled code where libzmq's functions are."""
    for name, where in _functions().items():
        ram.set_constant(name, where)


if numba.config.DISABLE_JIT:
    _KIND = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int64] * 4)

    def _call_c(where, a, b, c, d):
        return _KIND(int(where))(int(a), int(b), int(c), int(d))

else:

    @intrinsic
    def _call_c(typingctx, where, a, b, c, d):
        """Call the C function at an address with four integers or pointers; it returns an int."""

        def build(context, builder, sig, args):
            i64 = ir.IntType(64)
            kind = ir.FunctionType(ir.IntType(32), [i64] * 4)
            result = builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
            return builder.sext(result, i64)

        return types.int64(*[types.int64] * 5), build


@kernel
def _send_to(ram, cpu, target):
    if ram.peer_socket[cpu, target] == 0:
        shell_connect(ram, cpu, target)
    sent = _call_c(
        ram.zmq_send, ram.peer_socket[cpu, target], address(ram.message, (cpu, 0)), MESSAGE_BYTES, 0
    )
    if sent != MESSAGE_BYTES:
        shell_failed(ram, cpu, SENDING, sent)


@apart
def shell_send(ram, cpu):
    """Send the request in this CPU's `call_*` words to every CPU in its `call_mask`."""
    ram.message[cpu, 0] = cpu
    ram.message[cpu, 1] = ram.call_sequence[cpu]
    ram.message[cpu, 2] = ram.call_kind[cpu]
    ram.message[cpu, 3] = ram.call_mm[cpu]
    ram.message[cpu, 4] = ram.call_start[cpu]
    ram.message[cpu, 5] = ram.call_end[cpu]
    ram.message[cpu, 6] = ram.call_gen[cpu]
    ram.message[cpu, 7] = ram.call_time[cpu]
    for target in for_each_cpu(ram.call_mask, cpu):
        _send_to(ram, cpu, target)
    return 0


@kernel
def _take(ram, cpu):
    """Take a message if one is there; returns its bytes, negative if none is."""
    return _call_c(
        ram.zmq_recv,
        ram.inbox_socket[cpu],
        address(ram.message, (cpu, RECEIVED_AT)),
        MESSAGE_BYTES,
        ZMQ_DONTWAIT,
    )


@kernel
def _something_there(ram, cpu):
    """Ask the inbox whether it has a message. Its file descriptor reports news only to somebody who was
    answered "no".
    """
    ram.socket_events[cpu, 0] = 0
    ram.socket_events[cpu, 1] = 4  # bytes of an int
    value, size = address(ram.socket_events, (cpu, 0)), address(ram.socket_events, (cpu, 1))
    _call_c(ram.zmq_getsockopt, ram.inbox_socket[cpu], ZMQ_EVENTS, value, size)
    return ram.socket_events[cpu, 0] & ZMQ_POLLIN != 0


@apart
def shell_receive(ram, cpu, what):
    """Take one message that the doorbell has announced; it may still be on its way. Then be answered "nothing
    there" (see above).
    """
    counted = 0
    if what == MESSAGE_ANNOUNCED:
        counted = 1  # of the bell: the caller subtracts it after this
        size = _take(ram, cpu)
        while size < 0:
            # under one lease it has been sent, whatever else has happened
            if load_acquire(ram.run_stop, 0) > STOPPED and not ram.controlled:
                exit_process(EXIT_STOPPED)
            poll_inbox(ram, cpu, RECEIVE_BOUND_MS)
            size = _take(ram, cpu)
        if size != MESSAGE_BYTES:
            shell_failed(ram, cpu, RECEIVING, size)
    while load_acquire(ram.cpu_bell, cpu) <= counted and _something_there(ram, cpu):
        if load_acquire(ram.cpu_bell, cpu) <= counted:  # a message that nobody announced
            _take(ram, cpu)
            ram.ipi_received[cpu] += 1  # conservation will fail
    return 0


def failure(what: int, result: int) -> str:
    """Word what went wrong in sending or receiving that returned `result`."""
    if what == RECEIVING:
        return f"'interrupt message' must be {MESSAGE_BYTES} bytes (got {result})"
    return f"'sent bytes' must be {MESSAGE_BYTES} (got {result})"


def handle(socket: Any) -> int:
    """Give the word by which compiled code names a socket of this process."""
    return int(socket.underlying)
