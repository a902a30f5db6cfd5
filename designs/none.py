"""Flushes left out: wrong on purpose, so that the oracle has something to catch.

Mechanism: with `what=reclaim` every hook keeps its default, so nothing is flushed for what reclaim and
migration unmap. With `what=user` reclaim and migration flush as vanilla Linux does, but changes by the user
and page faults (munmap, mprotect, mremap, madvise, fork, copy on write, breakpoints, truncation, fdatasync)
interrupt nobody: only the CPU that makes the change flushes. `what=all` is both. Safety: none. A CPU goes on
reading, and writing, frames that belong to somebody else by now.
"""

from allocator.flush_sites import SITE_FAULT, SITE_FILE, SITE_USER, SITE_WRITE_FAULT
from cpus.cpumask import cpumask_clear
from designs.design import Design, hook
from designs.linux import Linux


@hook("shootdown")
def ask_nobody(ram, cpu, mm, freed_tables, cpus, d):
    """Leave nobody in the mask, if the flush is for a change by the user."""
    if ram.cpu_site[cpu] in (SITE_USER, SITE_FAULT, SITE_WRITE_FAULT, SITE_FILE):
        cpumask_clear(ram.call_mask, cpu)
    return 0


class NoFlush(Design):
    """leaves flushes out (those of reclaim, of the user, or all): must be caught by the oracle"""

    name = "none"
    parameters = {  # noqa: RUF012
        "what": {
            "reclaim": "what reclaim and migration unmap is not flushed",
            "user": "munmap, mprotect, mremap, madvise, fork, copy on write, truncation interrupt nobody",
            "all": "both",
        }
    }

    def __init__(self, **given: str):
        super().__init__(**given)
        self.hooks = {"reclaim": (), "user": (*Linux.hooks, ask_nobody), "all": (ask_nobody,)}[
            self.chosen["what"]
        ]
