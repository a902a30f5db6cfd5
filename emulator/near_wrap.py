"""Begin a run shortly before numbers wrap around that a short run would never bring there.

Such a machine is one that has run for long: all that was counted is done. Left out: keys of LUF, which
nothing stands for before they were handed out; the 63rd bit of its stamps, which no machine will see (beyond
it "no stamp", 0, would be the newest).
"""

from __future__ import annotations

from typing import Any

from designs.linux import FLUSHED_SHIFT, PENDING_LARGE

BEFORE = 8  # steps
STAMPS = 1 << 16  # as many as v12 tells apart


def begin_near_wrap(ram: Any) -> None:
    """Set the pending flushes of each mm, all of them done, and LUF's stamps, all CPUs done up to there."""
    batched = PENDING_LARGE - BEFORE
    ram.mm_batched[:] = batched | batched << FLUSHED_SHIFT
    if "ugen" in ram.design:
        ram.design["ugen"][0], ram.design["ugen_done"][:] = STAMPS - BEFORE, STAMPS - BEFORE - 1
