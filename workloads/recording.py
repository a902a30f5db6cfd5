"""Read a recorded page-visit trace (.npz with its .json beside it), and refuse one that contradicts itself.

Columns, one row per visit in global order: `thread` (0 main, k worker k, new at every evaluation), `page` in
`region`, `kind` (0 load, 1 store, 2 ifetch), `count` accesses. `eval_start`: rows at which evaluations begin,
rows before the first are start-up. `mark_pos`, `mark_thread`, `mark_id`: before row mark_pos thread
mark_thread enters function mark_id.
The JSON names regions, functions, evaluations and the memory system calls (workloads/recorded.py).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inputs.archive import read_arrays
from inputs.checked import converted
from inputs.decode import read_json
from inputs.file import shown
from workloads.recorded import About, TracedRegion, check_about
from workloads.rows import ROW, THREADS_MAX

COLUMNS = ("thread", "page", "region", "kind", "count")
MARKS = ("mark_pos", "mark_thread", "mark_id")
COUNT_MAX = int(np.iinfo(ROW["count"]).max)


@dataclass(frozen=True, slots=True)
class Recording:
    """A trace in memory: arrays by name, and what the JSON says."""

    path: Path
    arrays: dict[str, np.ndarray]
    about: About

    @property
    def regions(self) -> list[TracedRegion]:
        """Return the JSON's regions, in order of their ids."""
        return self.about.regions

    def region(self, name: str) -> int:
        """Return the id of a region."""
        return [region.name for region in self.regions].index(name)

    @property
    def threads(self) -> int:
        """Return the number of threads, main included."""
        return int(self.arrays["thread"].max()) + 1

    def spans(self) -> list[tuple[int, int, int]]:
        """Give (evaluation, first row, end) of each recorded piece; start-up and warm-up are evaluation 0."""
        starts = self.arrays["eval_start"].tolist()
        ends = [*starts[1:], len(self.arrays["thread"])]
        pieces = [(self.about.evals[n].i, first, end) for n, (first, end) in enumerate(zip(starts, ends))]
        return ([(-1, 0, starts[0])] if starts[0] else []) + pieces


def read(path: str | Path) -> Recording:
    """Return the trace at `path`; ValueError names the file, the rule and the value if something is wrong
    with it.
    """
    path = Path(path)
    about_path = path.with_suffix(".json")
    for needed in (path, about_path):
        if not os.path.lexists(needed):
            rule = "trace must be a .npz file with a .json of the same name beside it"
            raise ValueError(f"{shown(needed)}: {rule} (got no such file)")
    about = converted(read_json(about_path), About, shown(about_path))
    check_about(shown(about_path), about)
    return Recording(
        path, _checked(shown(path), read_arrays(path, (*COLUMNS, "eval_start", *MARKS)), about), about
    )


def _checked(name: str, arrays: dict[str, np.ndarray], about: About) -> dict[str, np.ndarray]:
    """Return the arrays, each number inside its bounds, in the types that rows have."""
    rows = len(arrays["thread"])
    if not rows:
        raise ValueError(f"{name}: 'thread' must have at least one row (got 0)")
    for columns in (COLUMNS, MARKS):
        for column in columns:
            if len(arrays[column]) != len(arrays[columns[0]]):
                raise ValueError(
                    f"{name}: {column!r} must be as long as {columns[0]!r}, {len(arrays[columns[0]])} "
                    f"(got {len(arrays[column])})"
                )

    def refuse(column: str, bad: np.ndarray, rule: str) -> None:
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise ValueError(f"{name} row {row}: {column!r} must be {rule} (got {arrays[column][row]})")

    def bounded(column: str, least: int, most: int, kind: str, rule: str = "") -> None:
        values = arrays[column]
        refuse(column, (values < least) | (values > most), rule or f"from {least:,} to {most:,}")
        arrays[column] = values.astype(kind)

    bounded("thread", 0, THREADS_MAX - 1, "u2")
    bounded("region", 0, len(about.regions) - 1, "u2")
    bounded("kind", 0, 2, "u1", "0, 1 or 2")
    bounded("count", 1, COUNT_MAX, "u4")
    bounded("page", 0, COUNT_MAX, "u4")
    bounded("mark_pos", 0, rows, "i8", f"from 0 to {rows}, the number of rows")
    bounded("mark_thread", 0, int(arrays["thread"].max()), "u2", "a thread of the trace")
    bounded("eval_start", 0, rows - 1, "i8", f"below {rows}, the number of rows")
    sizes = np.array([region.pages for region in about.regions])
    refuse("page", arrays["page"] >= sizes[arrays["region"]], "inside its region")
    refuse("mark_pos", np.diff(arrays["mark_pos"], prepend=0) < 0, "at least that of the mark before")
    refuse("mark_id", ~np.isin(arrays["mark_id"], [int(one) for one in about.mark_names]), "in mark_names")
    starts = arrays["eval_start"]
    refuse("eval_start", np.diff(starts, prepend=-1) <= 0, "growing")
    if len(starts) != len(about.evals):
        raise ValueError(
            f"{name}: 'eval_start' must have as many entries as the JSON's evals, "
            f"{len(about.evals)} (got {len(starts)})"
        )
    return arrays
