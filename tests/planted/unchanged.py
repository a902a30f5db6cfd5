"""Does the job of a finding show the same in the sources as they are? Then no planted bug is behind it.

    python -m tests.planted.unchanged FINDING.json

FINDING is what `luf stress --json` has of one finding, with `design` and `check` beside it. The job runs with
its own seed and with others, and the case that it was shrunk to as it stands: printed is how many runs
showed the same signature.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from designs import shelf
from emulator.replay.file import read_replay
from emulator.replay.seen import runner
from emulator.schedule import Schedule
from emulator.stress.arena import Arenas
from emulator.stress.job import Job
from emulator.stress.task import tried

SEEDS = 20  # runs of the job, the first with its own


def main() -> None:
    """Read a finding, run it, print how often the same came."""
    finding = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with Arenas(say=lambda _: None) as arenas:
        print(sum(found == finding["signature"] for found in signatures(finding, arenas)))


def signatures(finding: Mapping[str, Any], arenas: Arenas) -> Iterator[str]:
    """Give what the runs of a finding's job, and of its small case, show here."""
    design, job = shelf.ready(finding["design"]), job_of(finding)
    for i in range(SEEDS):
        yield tried(arenas, job.with_seed(job.seed + i), design).signature
    if small := finding["shrunk"]:
        with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
            file.write(small["text"])
            file.flush()
            case = read_replay(file.name).case
        yield runner(arenas, design)(case).signature


def job_of(finding: Mapping[str, Any]) -> Job:
    """Make a job of what a report says of it."""
    schedule = Schedule(**finding["schedule"]) if finding["schedule"] else None
    return Job(
        finding["job"], finding["workload"], finding["strategy"], finding["seed"],
        tuple(sorted(finding["knobs"].items())), finding["check"], schedule,
    )  # fmt: skip


if __name__ == "__main__":
    main()
