"""Carry runs side by side, as many as the host has room for: leases, which are cores, and bytes of memory.

Jobs begin in their order: none overtakes one that waits for room. What ended is handed on in the thread that
asked, one at a time. A run whose process was lost is begun again, at most TRIES times in all; whatever else
ends a run is its result.
"""

from __future__ import annotations

import os
import pickle
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
import psutil

from emulator.experiment import Experiment
from emulator.host_facts import memory_needed
from emulator.sweep.child import Answer, Children, Run
from emulator.sweep.plan import Job

TRIES = 3

Take = Callable[[Job, Answer], None]


@dataclass(frozen=True, slots=True)
class Room:
    """What runs take, or what there is."""

    leases: int
    bytes: int
    runs: int = 1


def room_here(jobs: int | None) -> Room:
    """What this host has, for at most so many runs at a time."""
    cores = len(os.sched_getaffinity(0))
    return Room(cores, psutil.virtual_memory().available, jobs or cores)


def need_of(one: Experiment, cores: int) -> Room:
    """What a run takes; without a gate (0 leases), or with more leases than cores, it takes all cores."""
    return Room(min(one.leases or cores, cores), memory_needed(one.machine))


def run_here(jobs: Iterable[Job], take: Take, room: Room, run: Run | None = None) -> None:
    """Run all jobs in processes of their own. `run` stands in for these in tests. Whatever ends this early
    ends the processes, too.
    """
    children = Children()
    waiting, tries = deque(jobs), Counter[str]()
    running: dict[str, Room] = {}
    ended: queue.SimpleQueue[tuple[Job, bytes]] = queue.SimpleQueue()
    try:
        while waiting or running:
            while waiting and _fits(need := need_of(waiting[0].experiment, room.leases), running, room):
                job = waiting.popleft()
                running[job.key] = need
                _begin(job, run or children, ended)
            job, text = ended.get()
            del running[job.key]
            answer = msgspec.json.decode(text, type=Answer)
            tries[job.key] += 1
            if answer.lost and tries[job.key] < TRIES:
                waiting.appendleft(job)
            else:
                take(job, answer)
    finally:
        children.end()


def _fits(need: Room, running: dict[str, Room], room: Room) -> bool:
    """Is there room for one more? The first run always has it: that the host can carry it was checked."""
    taken = running.values()
    return not taken or (
        len(taken) < room.runs
        and sum(one.leases for one in taken) + need.leases <= room.leases
        and sum(one.bytes for one in taken) + need.bytes <= room.bytes
    )


def _begin(job: Job, run: Run, ended: queue.SimpleQueue[tuple[Job, bytes]]) -> None:
    """Run a job in a thread that waits for its process."""
    sent = pickle.dumps(job.experiment)

    def wait() -> None:
        try:
            text = run(sent)
        except Exception as error:  # noqa: BLE001 (told by who waits for this thread)
            text = msgspec.json.encode(Answer(failed=f"{type(error).__name__}: {error}"))
        ended.put((job, text))

    threading.Thread(target=wait, name=job.key, daemon=True).start()
