"""In which order CPUs run, as far as a run chooses it: how far one goes in virtual time before others that
are behind it go first. Imports nothing heavy.
"""

from __future__ import annotations

SLICE_NS = 500_000
