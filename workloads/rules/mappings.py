"""Nobody visits what main has unmapped, in whatever order the threads of a round run."""

from __future__ import annotations

import numpy as np

from workloads import rows as p
from workloads.rules.place import Place
from workloads.rules.rounds import segment_of


def check_mappings(process: p.Process, segments: list[np.ndarray]) -> None:
    """Check that MUNMAP and MMAP alternate, in main, and that nobody visits what is unmapped."""
    main, place = process.threads[0], Place(process.name, 0)
    unmapped: dict[tuple[int, int, int], int] = {}
    gaps: list[tuple[tuple[int, int, int], int, int]] = []
    for row in np.flatnonzero(np.isin(main["op"], (p.MUNMAP, p.MMAP))).tolist():
        what = (int(main["region"][row]), int(main["page"][row]), int(main["pages"][row]))
        if main["op"][row] == p.MUNMAP:
            if any(what[0] == r and what[1] < f + n and f < what[1] + what[2] for r, f, n in unmapped):
                raise ValueError(
                    f"{place} row {row}: MUNMAP must name mapped pages (got region, page, pages = {what})"
                )
            unmapped[what] = row
        elif what not in unmapped:
            raise ValueError(
                f"{place} row {row}: MMAP must name pages of an earlier MUNMAP "
                f"(got region, page, pages = {what})"
            )
        else:
            gaps.append((what, unmapped.pop(what), row))
    gaps += [(what, row, len(main)) for what, row in unmapped.items()]
    if gaps:
        _check_gaps(process, segments, gaps)


def _check_gaps(
    process: p.Process, segments: list[np.ndarray], gaps: list[tuple[tuple[int, int, int], int, int]]
) -> None:
    for thread, rows in enumerate(process.threads):
        at = np.flatnonzero(np.isin(rows["op"], (p.VISIT, p.POPULATE, p.DONTNEED)))
        touched = rows[at]
        first = touched["page"].astype(np.int64)
        end = first + touched["pages"]
        segment = segment_of(rows, at)
        begins = at if thread == 0 else segments[thread][segment, 1]
        ends = at if thread == 0 else segments[thread][segment, 2]
        for (region, page, pages), from_row, to_row in gaps:
            hit = (
                (touched["region"] == region)
                & (first < page + pages)
                & (end > page)
                & (begins < to_row)
                & (ends > from_row)
            )
            Place(process.name, thread).refuse(
                hit, f"'page' must not be unmapped (main's rows {from_row} to {to_row})", first, at
            )
