"""Carry runs on a Dask cluster: the same jobs, on workers that have the same luf.

A worker gets an experiment as bytes and gives an Answer as bytes; in between it starts a process (worker.py),
so that no run can cost a worker. Dask sends the job of a worker that was lost to another one; a run whose
process was lost is sent again from here. Whatever else ends a run is its result. Where workers say what they
have (LEASES, MEMORY), jobs ask for it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import pickle
import queue
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple
from uuid import uuid4

import dask
import msgspec
from distributed import Client, Future, KilledWorker, Security, rpc

from emulator.experiment import Experiment
from emulator.host_facts import memory_needed
from emulator.streams import tell
from emulator.sweep.child import Answer
from emulator.sweep.facts import facts
from emulator.sweep.plan import Job, SweepError
from emulator.sweep.scheduler import TRIES, Room, Take
from emulator.sweep.worker import Runs, on_worker
from inputs.text import clipped, on_a_line

CONNECT_S = 5  # that a scheduler has to answer
LOOK_S = 1  # between two looks at which workers there are
LEASES, MEMORY = "leases", "GiB"  # as workers announce them
WHY = 300  # characters

Resources = Mapping[str, float]


class Worker(NamedTuple):
    """What a worker has."""

    threads: int
    resources: Resources


def run_on(address: str, jobs: Sequence[Job], take: Take, room: Room) -> None:
    """Run all jobs on the cluster whose scheduler is at `address`: at a time as many as it carries, or
    `room.runs`, if that is not 0. Whatever ends this early ends them there, too. Raises SweepError if nobody
    answers, or the cluster cannot do it.
    """
    if not jobs:
        return
    with _client(address) as client, _runs_on(client) as sweep:
        tell(f"luf: the cluster's dashboard is {client.dashboard_link}")
        if not _workers(client):
            tell(f"luf: {address} has no worker yet")
        _carry(client, sweep, jobs, take, room)


@contextmanager
def _client(address: str) -> Iterator[Client]:
    """Connect with a scheduler. What Dask's loggers would say is said by what is raised."""
    for name in ("", ".client", ".core", ".comm"):
        logging.getLogger(f"distributed{name}").setLevel(logging.CRITICAL)
    try:
        kind = asyncio.run(_kind_at(address))
    except Exception as error:  # noqa: BLE001 (an address is text, and any program may answer)
        kind = f"{type(error).__name__} {error}".strip()
    if kind != "Scheduler":
        rule = "must be the address of a Dask scheduler that answers, such as tcp://HOST:8786"
        raise SweepError(f"'--dask' {rule} (got {clipped(address)}: {on_a_line(kind, WHY)})")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions that differ: those that matter are refused
        client = Client(address, timeout=CONNECT_S, set_as_default=False, name="luf sweep")
    with client, dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"}):
        yield client


async def _kind_at(address: str) -> str:
    """Ask who is there. A `Client` would wait for ever for one who takes calls and says nothing."""
    async with asyncio.timeout(CONNECT_S):
        async with rpc(address, connection_args=Security().get_connection_args("client")) as there:
            return str((await there.identity())["type"])


@contextmanager
def _runs_on(client: Client) -> Iterator[str]:
    """Have a `Runs` on all workers, those that join later, too; gives its name."""
    sweep = f"luf-{uuid4().hex[:12]}"
    try:
        client.register_plugin(Runs(sweep))
    except Exception as error:  # noqa: BLE001 (whatever it is, it is the worker's)
        raise _without_luf(error) from None
    try:
        yield sweep
    finally:
        with suppress(Exception):  # the scheduler may have gone, and its workers then end with it
            client.unregister_worker_plugin(sweep)


def _carry(client: Client, sweep: str, jobs: Sequence[Job], take: Take, room: Room) -> None:
    """Send jobs as there are places for them, and take what comes back, in the thread that asked.

    No more than that: Dask gives a job with resources to a worker at once, and has it wait there, however
    idle others are, and die with it. Workers may come at any time, so they are looked for.
    """
    asked = facts()
    waiting, tries, order = deque(jobs), Counter[str](), itertools.count()
    there: dict[Future, Job] = {}
    ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
    while waiting or there:
        workers = _workers(client)
        while waiting and workers:
            needs = needed(waiting[0].experiment, workers)
            if len(there) >= (room.runs or places(needs, workers)):
                break
            job = waiting.popleft()
            sent = pickle.dumps(job.experiment)
            future = client.submit(
                on_worker, sweep, asked, sent, pure=False, resources=needs, priority=-next(order)
            )
            there[future] = job
            future.add_done_callback(ended.put)
        try:
            future = ended.get(timeout=LOOK_S)
        except queue.Empty:
            continue
        job = there.pop(future)
        answer, final = _answer_of(future)
        tries[job.key] += 1
        if answer.lost and not final and tries[job.key] < TRIES:
            waiting.appendleft(job)
        else:
            take(job, answer)


def _workers(client: Client) -> list[Worker]:
    """Give what each worker has now. Raises SweepError if the cluster has gone."""
    try:
        found = client.scheduler_info(n_workers=-1)["workers"].values()
    except OSError:
        raise _gone() from None
    return [Worker(worker["nthreads"], worker["resources"]) for worker in found]


def needed(one: Experiment, workers: Sequence[Worker]) -> dict[str, float]:
    """Give what a run asks for, of what workers announce. Without a gate (0 leases), or with more leases than
    any of them has, it takes all of the largest. Raises SweepError if none has enough.
    """
    have = [worker.resources for worker in workers]
    names = [name for name in (LEASES, MEMORY) if any(name in its for its in have)]
    if not names:
        return {}
    gib = memory_needed(one.machine) / (1 << 30)
    able = [
        its for its in have if its.get(MEMORY, gib) >= gib and all(its.get(name, 0) > 0 for name in names)
    ]
    if not able:
        rule = f"a worker must announce {' and '.join(names)}, and for {one.machine.name} {gib:.1f} GiB"
        raise SweepError(f"{rule} (got {clipped(have)})")
    most = max(its.get(LEASES, 0) for its in able)
    needs = {LEASES: min(one.leases or most, most), MEMORY: gib}
    return {name: needs[name] for name in names}


def places(needs: Resources, workers: Sequence[Worker]) -> int:
    """Count how many such runs the workers carry side by side."""
    return sum(
        min(worker.threads, *(int(worker.resources.get(name, 0) / need) for name, need in needs.items()))
        if needs
        else worker.threads
        for worker in workers
    )


def _answer_of(future: Future) -> tuple[Answer, bool]:
    """Give how a run ended, and whether that is final. Raises SweepError if the cluster has gone."""
    if future.cancelled():
        raise _gone()
    error = future.exception()
    if error is None:
        return msgspec.json.decode(future.result(), type=Answer), False
    if isinstance(error, KilledWorker):
        return Answer(lost="all workers that had it were lost"), True
    raise _without_luf(error)


def _gone() -> SweepError:
    return SweepError("the cluster must stay up until the sweep has ended (got a scheduler that has gone)")


def _without_luf(error: Exception) -> SweepError:
    return SweepError(f"the scheduler and all workers must have luf installed (got {_why(error)})")


def _why(error: Exception) -> str:
    return on_a_line(f"{type(error).__name__}: {error}", WHY)
