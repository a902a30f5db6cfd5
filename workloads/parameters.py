"""Read `NAME:key=value,key=value` of a generated workload: whole numbers, each with its least and most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inputs.text import clipped, whole_number
from workloads.rows import THREADS_MAX

CPUS = 8  # if nobody says how many CPUs there are
MEMORY_PAGES = 16_384  # and how much memory


@dataclass(frozen=True, slots=True)
class Room:
    """What a generator may know of where its workload will run: CPUs, and pages of all nodes."""

    cpus: int = CPUS
    pages: int = MEMORY_PAGES


@dataclass(frozen=True, slots=True)
class Parameter:
    """One key: its least and most value, and what it is."""

    least: int
    most: int
    what: str


THREADS = Parameter(1, THREADS_MAX, "threads; one for each CPU if not given")


def parameters(name: str, text: str, known: Mapping[str, Parameter]) -> dict[str, int]:
    """Give the values of `key=value,key=value`; raises ValueError with workload, key, rule and value.

    >>> parameters("churn", "threads=4", {"threads": THREADS})
    {'threads': 4}
    """
    found: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or key not in known:
            keys = ", ".join(f"{key}=N" for key in known) or "none"
            raise ValueError(f"workload {name!r}: a parameter must be one of {keys} (got {clipped(part)})")
        if key in found:
            raise ValueError(f"workload {name!r}: {key!r} must be given once (got {clipped(part)} again)")
        rule = known[key]
        number = whole_number(value)
        if number is None or not rule.least <= number <= rule.most:
            raise ValueError(
                f"workload {name!r}: {key!r} must be a whole number from {rule.least} to "
                f"{rule.most} (got {clipped(value)})"
            )
        found[key] = number
    return found
