"""What a worker of a cluster does with a job: see whether it is the same luf, run it in a process of its own.
Imports nothing heavy: the engine is that process's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from distributed import WorkerPlugin, get_worker

from emulator.sweep.child import Answer, Children
from emulator.sweep.facts import facts


class Runs(WorkerPlugin):  # type: ignore[misc]
    """On each worker: the processes of one sweep. A run that nobody waits for any more, since the sweep was
    ended or its host has gone, is ended.
    """

    def __init__(self, name: str):
        self.name = name

    def setup(self, worker: Any) -> None:
        self.children = Children()

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        if start == "executing" and finish == "released":
            self.children.tell_to_end(key)

    def teardown(self, worker: Any) -> None:
        self.children.tell_to_end()


def on_worker(sweep: str, asked: Mapping[str, str], sent: bytes) -> bytes:
    """Run a pickled experiment, as a task of a worker."""
    worker = get_worker()
    for name, there in facts().items():
        if there != asked[name]:
            rule = f"must have the same {name} as the command, {asked[name]} (got {there})"
            return msgspec.json.encode(Answer(refused=f"worker {worker.address} {rule}"))
    runs: Any = worker.plugins[sweep]
    answer: bytes = runs.children(sent, worker.get_current_task())
    return answer
