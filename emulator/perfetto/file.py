"""The file of `--trace`: runs one beside the other, each with its tracks, in the format of ui.perfetto.dev.

    with TraceFile("out.pftrace") as trace:
        for experiment in experiments:
            experiment.run(trace=trace)
    print(trace.said())

It is written when all runs are over, or what there is of them when one was stopped.
"""

from __future__ import annotations

import gzip
from types import TracebackType
from typing import Any, Self

from emulator.output_file import write_output
from emulator.perfetto.names import Names
from emulator.perfetto.recorder import Recorder
from emulator.perfetto.tracks import Tracks
from workloads.rows import Workload

ZIPPED = ".gz"
LEVEL = 1  # ten times smaller, and twice as fast as the next but one


class TraceFile:
    """A trace that is being made, as a context manager that writes it. Raises OutputError."""

    def __init__(self, file: str):
        self.file = file
        self.runs: list[tuple[str, int, int]] = []  # title, records, of them lost
        self._pieces: list[bytes] = []
        self.written = 0  # bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.runs:
            data = b"".join(self._pieces)
            data = gzip.compress(data, LEVEL, mtime=0) if self.file.endswith(ZIPPED) else data
            write_output("trace", self.file, data)
            self.written = len(data)

    def recorder(self, ram: Any) -> Recorder:
        """Begin a run."""
        return Recorder(ram)

    def add(self, recorder: Recorder, workload: Workload, title: str, label: str) -> None:
        """Take a run over, whose CPU processes are gone."""
        recorder.look()
        ram = recorder.ram
        tracks = Tracks(ram, recorder, Names(ram, workload), len(self.runs))
        self._pieces += tracks.packets(title, label)
        self.runs.append((title, int(ram.cpu_span_head.sum()), recorder.lost))
        recorder.close()

    def said(self) -> str:
        """Say in a sentence what was written, and what is missing."""
        records, lost = sum(run[1] for run in self.runs), sum(run[2] for run in self.runs)
        missing = f"; {lost:,} more found no room, and each CPU's are whole up to the first" if lost else ""
        return f"{self.file}: {records:,} records, {self.written / 1e6:,.1f} MB, for ui.perfetto.dev{missing}"
