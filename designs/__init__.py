"""Flush designs: when a TLB flush may be skipped, deferred or merged, and who pays for it.

A design is a file or a sub-package: a subclass of `Design` with its compiled hooks (allocator/hooks.py says
what each is asked). shelf.py lists them. What several share: linux.py (vanilla's batch), deferral.py (unmaps
whose flush may wait), held.py (frames held back), unmapped.py (munmap that flushes one CPU), measure.py
(figures), state.py (a design's own fields). Imports `cpus` and `allocator`; nothing here is known to them.
"""

from designs.design import Design, DesignError, hook, hooks
from designs.shelf import design, names

__all__ = ["Design", "DesignError", "design", "hook", "hooks", "names"]
