"""How large a workload may be, before anything of its size is made: processes, threads, regions, their pages.

The bounds are what the machine's tables hold; without them a figure with a digit too many would take all of
the host's memory.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any

from inputs.text import clipped, is_odd
from workloads.rows import (
    FOLIO_ORDER_MAX,
    PAGES_MAX,
    PROCESSES_MAX,
    REGIONS_MAX,
    THREADS_MAX,
    Region,
    Workload,
)

NAME_MAX = 200  # characters


def check_sizes(workload: Workload) -> None:
    """Raise ValueError for the first process, thread, region or name that no machine could have."""
    if not 1 <= len(workload.processes) <= PROCESSES_MAX:
        got = len(workload.processes)
        raise ValueError(f"'processes' must be from 1 to {PROCESSES_MAX:,} (got {got:,})")
    for process in workload.processes:
        if not 1 <= len(process.threads) <= THREADS_MAX:
            rule = f"'threads' must be from 1, the main one, to {THREADS_MAX}"
            raise ValueError(f"process {clipped(process.name)}: {rule} (got {len(process.threads)})")
        check_regions(process.name, process.regions)


def check_regions(process: str, regions: tuple[Region, ...]) -> None:
    """Raise ValueError for the first region of a process that cannot be, or if they are too many."""
    if len(regions) > REGIONS_MAX:
        raise ValueError(
            f"process {process!r}: 'regions' must be at most {REGIONS_MAX} (got {len(regions):,})"
        )
    for region in regions:
        if mistake := _mistake(region):
            key, rule, got = mistake
            where = f"process {process!r}: {key!r} of region {clipped(region.name)}"
            raise ValueError(f"{where} must be {rule} (got {clipped(got)})")
    names = [region.name for region in regions]
    if len(set(names)) < len(names):
        raise ValueError(f"process {process!r}: 'regions' must have a name each (got {clipped(names)})")


def is_name(text: Any) -> bool:
    """Is it text that a report can show on a line?"""
    return isinstance(text, str) and 0 < len(text) <= NAME_MAX and not is_odd(text) and "\n" not in text


def _mistake(region: Region) -> tuple[str, str, Any] | None:
    """Give key, rule and value of what is wrong with a region."""
    name = f"a name of at most {NAME_MAX} characters on one line"
    for key, text in (("name", region.name), ("file", region.file if region.file is not None else "-")):
        if not is_name(text):
            return key, name, text
    folio_order_max = FOLIO_ORDER_MAX if region.file is not None else 0
    bounds = {
        "pages": (1, PAGES_MAX, ""),
        "file_offset": (0, PAGES_MAX, ""),
        "folio_order": (0, folio_order_max, ", and 0 if it maps no file"),
    }
    for key, (least, most, more) in bounds.items():
        value: Any = getattr(region, key)
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not whole or not least <= value <= most:
            return key, f"a whole number from {least} to {most}{more}", value
    return None
