"""Numbers that name things: a table whose rows are numbered in the order in which they are declared.

    WAITS = Numbered[str]()
    WAIT_NONE = WAITS.add("nothing")
    WAIT_LEASE = WAITS.add("a lease")

The number is a constant that compiled code reads; the row is all that people read of it. As one statement
makes both, none can be there without the other, and no order has to be kept in two places.
"""

from __future__ import annotations

from typing import TypeVar

Row = TypeVar("Row")


class Numbered(list[Row]):
    """Rows by their numbers."""

    def add(self, row: Row) -> int:
        """Declare one more row; returns its number."""
        self.append(row)
        return len(self) - 1
