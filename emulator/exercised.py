"""What a run's "no violation" is worth: which rare branches it has taken, and which of those that the
design's safety depends on it has not.

A branch is a counter of the group EXERCISED (cpus/declare.py), whatever the design, or what the design names
in `relies_on`: a counter, or a figure of its own statistics. How often each was taken is in the result
(`Result.exercised`); several runs are added up.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpus.declare import Counter

NAMED = 6  # branches that were never taken, on a screen; all are in the JSON


def exercised(
    counters: Sequence[Counter],
    total: Mapping[str, int],
    relies_on: Sequence[str],
    figures: Mapping[str, Any],
) -> dict[str, int]:
    """Give how often each branch was taken in a run: of the counters, whose sums are `total`, and of the
    design's figures. Raises DesignError for a name in `relies_on` that is neither.
    """
    from cpus.declare import EXERCISED
    from designs.design import DesignError  # here, since a report of a run needs neither it nor numba

    found = {one.name: total[one.name] for one in counters if one.group == EXERCISED}
    for name in relies_on:
        taken = total.get(name, figures.get(name))
        if isinstance(taken, bool) or not isinstance(taken, int) or taken < 0:
            raise DesignError(
                f"'relies_on' must name counters, or whole numbers of the design's statistics (got {name!r})"
            )
        found[name] = taken
    return found


def added(runs: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up what several runs have taken."""
    found: dict[str, int] = {}
    for run in runs:
        for name, taken in run.items():
            found[name] = found.get(name, 0) + taken
    return found


def never(taken: Mapping[str, int]) -> list[str]:
    """Name the branches that were not taken."""
    return [name for name, times in taken.items() if times == 0]


def unproven(taken: Mapping[str, int], relies_on: Sequence[str]) -> list[str]:
    """Name those of them that the design's safety depends on."""
    return [name for name in relies_on if taken.get(name, 0) == 0]


def sentence(taken: Mapping[str, int]) -> str:
    """Say how many of the branches were taken: `17 of 23 rare branches; never: slot_recycled and 5 more`."""
    missing = never(taken)
    text = f"{len(taken) - len(missing)} of {len(taken)} rare branches"
    return f"{text}; never: {_some(missing)}" if missing else text


def warning(taken: Mapping[str, int], relies_on: Sequence[str]) -> str:
    """Warn of branches that the design relies on and that were never taken; "" if there is none."""
    missing = unproven(taken, relies_on)
    return f"its safety relies on what never happened here: {_some(missing)}" if missing else ""


def lines(label: str, text: str, width: int) -> list[str]:
    """Lay `design: text` out in lines of a width, the later ones under the text."""
    head = f"{label}: "
    return textwrap.wrap(head + text, width, subsequent_indent=" " * len(head), break_on_hyphens=False)


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
