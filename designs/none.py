"""No flush at all for what reclaim and migration unmap: wrong on purpose, so that the oracle has something to catch.

Mechanism: every hook keeps its default. munmap and its kin still flush (they are the memory management's own).
Safety: none. A CPU goes on reading frames that belong to somebody else by now.
"""

from designs.design import Design


class NoFlush(Design):
    """never flushes after reclaim and migration: must be caught by the oracle"""

    name = "none"
