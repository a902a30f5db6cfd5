"""Takes spans out of the rings of a run (cpus/spans.py) while it goes on, and keeps them in a file without a
name, so that a long run needs no memory for them.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np

from cpus.spans import SPAN_WORDS, SPANS_KEPT


class Recorder:
    """The spans of one run. `look` at least as often as a ring takes to fill; CPUs wait for it if need be."""

    def __init__(self, ram: Any):
        self.ram = ram
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._pieces: list[tuple[int, int]] = []  # CPU, records: in the order of the file
        self.lost = 0  # records that found no room

    def look(self) -> None:
        """Take out what is there."""
        ram = self.ram
        for cpu in np.flatnonzero(ram.cpu_span_head != ram.cpu_span_tail).tolist():
            head, tail = int(ram.cpu_span_head[cpu]), int(ram.cpu_span_tail[cpu])
            ring = ram.span[cpu].reshape(SPANS_KEPT, SPAN_WORDS)
            first, last = tail % SPANS_KEPT, head % SPANS_KEPT
            parts = [ring[first:last]] if first < last else [ring[first:], ring[:last]]
            for part in parts:
                self._file.write(part.tobytes())
            self._pieces.append((cpu, head - tail))
            ram.cpu_span_tail[cpu] = head  # behind the copy: the CPU may write there from now on
        self.lost = int(ram.cpu_spans_lost.sum())

    def spans(self, cpu: int) -> np.ndarray:
        """Give the records of a CPU, in their order."""
        found, at = [np.zeros((0, SPAN_WORDS), np.int64)], 0
        for owner, count in self._pieces:
            size = count * SPAN_WORDS * 8
            if owner == cpu:
                self._file.seek(at)
                found.append(np.frombuffer(self._file.read(size), np.int64).reshape(-1, SPAN_WORDS))
            at += size
        self._file.seek(0, 2)
        return np.concatenate(found)

    def close(self) -> None:
        """Give the file back."""
        self._file.close()
