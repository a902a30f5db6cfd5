"""In which order CPUs run, as far as a run chooses it: how far one goes in virtual time before others that
are behind it go first. Imports nothing heavy.

A slice must be short beside what a CPU does at a stretch (tens of us between two waits for the disk), since
whoever is not at it at that moment of the host counts as idle when a flush is sent. docs/time.md has how far
figures hang on it. A run that looks for failures in few events is another thing: there any order is as good
as another, and a long slice makes a run shorter.
"""

from __future__ import annotations

SLICE_NS = 5_000
MEASURED_SLICE_NS = 10_000  # up to here figures lie within 10 % of those of the finest (docs/time.md)
FINE_SLICE_NS = 2_000  # what `luf converge` takes for the limit
LONG_SLICE_NS = 500_000  # of runs that look for failures: litmus tests, stress, replays


def hangs_on(leases: int, slice_ns: int) -> str:
    """Say why figures of a run hang on how it was emulated; nothing if they have been seen not to."""
    if leases == 0:
        return "--leases 0: the host decides who runs when, so counts hang on the host"
    if slice_ns > MEASURED_SLICE_NS:
        return f"--slice {slice_ns}: who is busy when a flush is sent hangs on it above {MEASURED_SLICE_NS:,}"
    return ""
