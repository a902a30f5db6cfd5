"""Read a recorded page-visit trace (.npz with its .json beside it), and refuse one that contradicts itself.

Columns, one row per visit in global order: `thread` (0 main, k worker k, new at every evaluation), `page` in
`region`, `kind` (0 load, 1 store, 2 ifetch), `count` accesses. `eval_start`: rows at which evaluations begin,
rows before the first are start-up. `mark_pos`, `mark_thread`, `mark_id`: before row mark_pos thread
mark_thread enters function mark_id.
The JSON names regions, functions, evaluations and the memory system calls.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpus.abi.numbers import PAGE_BYTES
from inputs.archive import read_arrays
from inputs.decode import read_json
from inputs.file import shown

COLUMNS = ("thread", "page", "region", "kind", "count")
MARKS = ("mark_pos", "mark_thread", "mark_id")


@dataclass(frozen=True, slots=True)
class Recording:
    """A trace in memory: arrays by name, and what the JSON says."""

    path: Path
    arrays: dict[str, np.ndarray]
    about: dict[str, Any]

    @property
    def regions(self) -> list[dict[str, Any]]:
        """Return the JSON's regions, in order of their ids."""
        return self.about["regions"]

    def region(self, name: str) -> int:
        """Return the id of a region."""
        return [region["name"] for region in self.regions].index(name)

    @property
    def threads(self) -> int:
        """Return the number of threads, main included."""
        return int(self.arrays["thread"].max()) + 1

    def spans(self) -> list[tuple[int, int, int]]:
        """Give (evaluation, first row, end) of each recorded piece; start-up and warm-up are evaluation 0."""
        starts = [int(row) for row in self.arrays["eval_start"]]
        ends = [*starts[1:], len(self.arrays["thread"])]
        pieces = [
            (int(self.about["evals"][n]["i"]), first, end) for n, (first, end) in enumerate(zip(starts, ends))
        ]
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
    about = read_json(about_path, ValueError)
    arrays = read_arrays(path, (*COLUMNS, "eval_start", *MARKS), ValueError)
    _check_about(about_path, about)
    _check_arrays(path, arrays, about)
    return Recording(path, arrays, about)


def _check_about(path: Path, about: Any) -> None:
    if not isinstance(about, dict):
        raise ValueError(f"{path}: must be a JSON object (got {type(about).__name__})")
    if about.get("page_size") != PAGE_BYTES:
        raise ValueError(f"{path}: 'page_size' must be {PAGE_BYTES} (got {about.get('page_size')})")
    for name in ("regions", "evals", "mark_names", "mappings", "memory_syscalls"):
        if name not in about:
            raise ValueError(f"{path}: {name!r} must be given (got {', '.join(about)})")
    for number, region in enumerate(about["regions"]):
        missing = [name for name in ("id", "name", "pages", "file_backed", "writable") if name not in region]
        if missing or region["id"] != number or not isinstance(region["pages"], int) or region["pages"] < 1:
            raise ValueError(
                f"{path}: region {number} must have its number as id, a name, pages >= 1, "
                f"file_backed, writable (got {region})"
            )


def _check_arrays(path: Path, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    rows = len(arrays["thread"])
    if not rows:
        raise ValueError(f"{path}: 'thread' must have at least one row (got 0)")
    for names in (COLUMNS, MARKS):
        for name in names:
            if len(arrays[name]) != len(arrays[names[0]]):
                raise ValueError(
                    f"{path}: {name!r} must be as long as {names[0]!r}, {len(arrays[names[0]])} "
                    f"(got {len(arrays[name])})"
                )
    sizes = np.array([region["pages"] for region in about["regions"]])

    def refuse(name: str, bad: np.ndarray, rule: str) -> None:
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise ValueError(f"{path} row {row}: {name!r} must be {rule} (got {arrays[name][row]})")

    refuse("region", arrays["region"] >= len(sizes), f"below {len(sizes)}")
    refuse("page", arrays["page"] >= sizes[arrays["region"]], "inside its region")
    refuse("kind", arrays["kind"] > 2, "0, 1 or 2")
    refuse("count", arrays["count"] < 1, "at least 1")
    refuse("mark_pos", arrays["mark_pos"] > rows, f"at most {rows}, the number of rows")
    refuse("mark_thread", arrays["mark_thread"] > arrays["thread"].max(), "a thread of the trace")
    refuse("eval_start", arrays["eval_start"] >= rows, f"below {rows}, the number of rows")
    starts = arrays["eval_start"].astype(np.int64)
    refuse("eval_start", np.diff(starts, prepend=-1) <= 0, "growing")
    if not 1 <= len(starts) == len(about["evals"]):
        raise ValueError(
            f"{path}: 'eval_start' must have as many entries as the JSON's evals, "
            f"{len(about['evals'])} (got {len(starts)})"
        )
