"""Numbers that stand for names: a table whose rows are numbered in the order in which they are declared.

    WAITS = Numbered[str]()
    WAIT_NONE = WAITS.add("nothing")
    WAIT_LEASE = WAITS.add("a lease")

The number is a constant that compiled code reads; the row is all that people read of it. As one statement
makes both, none can be there without the other, and no order has to be kept in two places.
"""

from __future__ import annotations

from typing import TypeVar

Row = TypeVar("Row")


class Numbered(dict[int, Row]):
    """Number -> row, in the order of declaration."""

    def add(self, row: Row, number: int | None = None) -> int:
        """Declare one more row; returns its number, the next one unless it is given."""
        chosen = max(self, default=-1) + 1 if number is None else number
        if chosen in self:
            raise ValueError(f"'number' must be given once (got {chosen} for {self[chosen]!r} and {row!r})")
        self[chosen] = row
        return chosen
