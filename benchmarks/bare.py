"""Bare PUSH/PULL over ipc: what ZeroMQ itself gives on this host, with receivers that do nothing but wait. A
yardstick.

One sender, k receivers blocked in recv, one message to each, acks in shared memory with one wake-up by the
last: the same pattern as a shootdown, without RAM, leases, doorbells or compiled code.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import tempfile
import time

import zmq

from cpus.zeromq import MESSAGE_BYTES

SEND_BOUND_MS = 10_000
STOP = b""


def bare_push_pull(targets: int, shots: int) -> list[float]:
    """Give the seconds of each of `shots` rounds of one message to each of `targets` receivers."""
    acks = mmap.mmap(-1, targets)  # one byte per receiver: no atomic operation needed
    wake = os.eventfd(0)
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="luf-bare-") as folder:
        fork = multiprocessing.get_context("fork")
        receivers = [
            fork.Process(target=_receive, args=(folder, i, acks, wake, cores), daemon=True)
            for i in range(targets)
        ]
        for process in receivers:
            process.start()
        try:
            with zmq.Context() as context:
                return _send(context, folder, targets, shots, acks, wake)
        finally:
            for process in receivers:
                process.join(5)
                process.kill()
            os.close(wake)


def _receive(folder: str, number: int, acks: mmap.mmap, wake: int, cores: list[int]) -> None:
    os.sched_setaffinity(0, {cores[number % len(cores)]})
    socket = zmq.Context().socket(zmq.PULL)
    socket.bind(f"ipc://{folder}/r{number}")
    while socket.recv() != STOP:
        acks[number] ^= 1
        # two last ones may both think so: the waiter counts rounds, not wake-ups
        if acks[:].count(acks[number]) == len(acks):
            os.eventfd_write(wake, 1)


def _send(
    context: zmq.Context, folder: str, targets: int, shots: int, acks: mmap.mmap, wake: int
) -> list[float]:
    sockets = [context.socket(zmq.PUSH) for _ in range(targets)]
    for number, socket in enumerate(sockets):
        socket.linger = SEND_BOUND_MS
        socket.connect(f"ipc://{folder}/r{number}")
    message, seconds, expected = bytes(MESSAGE_BYTES), [], 0
    for _ in range(shots):
        expected ^= 1
        began = time.perf_counter()
        for socket in sockets:
            socket.send(message)
        while acks[:].count(expected) < targets:
            os.eventfd_read(wake)
        seconds.append(time.perf_counter() - began)
    for socket in sockets:
        socket.send(STOP)
        socket.close()
    return seconds[1:]  # the first one connects
