"""The kernel's memory management: frames, buddy, pcp, LRU, rmap, faults, page cache, reclaim, migration,
tasks.

Follows Linux 6.12's names and constants. Whether a TLB flush may be skipped, deferred or merged is not
decided here but by the design, through `hooks.py`. Imports `cpus` only.
"""
