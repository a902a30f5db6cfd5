"""One check of the audit: how many objects there are, how many of them are right, and what is wrong with the
others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FAULTS_KEPT = 5  # with their sentence; the others are only counted


@dataclass(slots=True)
class Check:
    """A check named by a singular noun, so that a report can say "every NOUN". `expected` objects, of which
    `wrong` are not right.
    """

    name: str
    expected: int = 0
    wrong: int = 0
    faults: list[str] = field(default_factory=list)

    def of(self, objects: int) -> None:
        """Count objects that this check looks at."""
        self.expected += int(objects)

    def fault(self, sentence: str, objects: int = 1) -> None:
        """Note something that is wrong."""
        self.wrong += int(objects)
        if len(self.faults) < FAULTS_KEPT:
            self.faults.append(sentence)

    def equal(self, what: str, expected: int, found: int) -> None:
        """Fault unless two counts agree; not counted as objects."""
        if int(expected) != int(found):
            self.fault(f"{what}: expected {int(expected):,}, found {int(found):,}")

    def frames(self, ram: Any, bad: np.ndarray, sentence: str, *columns: np.ndarray) -> None:
        """Fault every frame where `bad`; `sentence` is formatted with pfn and the columns' values there."""
        found = np.flatnonzero(bad)
        for pfn in found[:FAULTS_KEPT].tolist():
            self.fault(sentence.format(pfn, *(int(column[pfn]) for column in columns)))
        self.wrong += max(0, len(found) - FAULTS_KEPT)

    @property
    def pair(self) -> tuple[int, int]:
        """(expected, found): equal exactly if nothing is wrong."""
        return self.expected, self.expected - self.wrong

    @property
    def text(self) -> str:
        """One sentence of what is wrong, empty if nothing is."""
        if not self.wrong:
            return ""
        more = f"; and {self.wrong - len(self.faults):,} more" if self.wrong > len(self.faults) else ""
        return f"{self.name}: {'; '.join(self.faults)}{more}"


def listed(kind: str, numbers: Iterable[int]) -> str:
    """Name the first few of some numbered objects: `cpu0, cpu3, cpu4 ...`."""
    found = [int(number) for number in numbers]
    return ", ".join(f"{kind}{number}" for number in found[:FAULTS_KEPT]) + (
        " ..." if len(found) > FAULTS_KEPT else ""
    )
