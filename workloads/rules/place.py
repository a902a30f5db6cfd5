"""Name the row that breaks a rule, in the form `process 'llama0' thread 2 row 17: ...`."""

from __future__ import annotations

import numpy as np


class RowError(ValueError):
    """A rule that a row breaks."""

    def __init__(self, process: str, thread: int, row: int, rule: str) -> None:
        self.process, self.thread, self.row, self.rule = process, thread, row, rule
        super().__init__(
            f"process {process!r} {'chunk_rows' if thread < 0 else f'thread {thread}'} row {row}: {rule}"
        )


class Place:
    """Names a process and a thread in error messages."""

    def __init__(self, process: str, thread: int) -> None:
        self.process, self.thread = process, thread
        self.text = f"process {process!r} " + ("chunk_rows" if thread < 0 else f"thread {thread}")

    def __str__(self) -> str:
        return self.text

    def refuse(self, bad: np.ndarray, rule: str, values: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Raise for the first true element of `bad`; `rows` gives its row number if `bad` covers only some
        rows.
        """
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            row = first if rows is None else int(rows[first])
            raise RowError(self.process, self.thread, row, f"{rule} (got {values[first]})")
