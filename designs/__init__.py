"""Flush designs, one file each: when a TLB flush may be skipped, deferred or merged, and who pays for it.

A design is a subclass of `Design` with its compiled hooks (allocator/hooks.py says what each is asked).
Imports `cpus` and `allocator`; nothing here is known to them.
"""

from designs.design import Design, DesignError, hook, hooks
from designs.shelf import design, names

__all__ = ["Design", "DesignError", "design", "hook", "hooks", "names"]
