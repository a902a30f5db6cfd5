"""Begin a run shortly before numbers wrap around that a short run would never bring there.

Left out: keys of LUF, which nothing stands for before they were handed out.
"""

from __future__ import annotations

from typing import Any

from designs.linux import FLUSHED_SHIFT, PENDING_LARGE

BEFORE = 8  # steps
STAMPS = {1: 1 << 16, 2: 1 << 63}  # where LUF's wrap: the 16 bits of v12, and the whole word


def begin_near_wrap(ram: Any, which: int) -> None:
    """Set the pending flushes of each mm, all of them done, and LUF's stamps, all CPUs done up to there."""
    batched = PENDING_LARGE - BEFORE
    ram.mm_batched[:] = batched | batched << FLUSHED_SHIFT
    if "ugen" in ram.design:
        stamp = STAMPS[which] - BEFORE
        ram.design["ugen"][0], ram.design["ugen_done"][:] = stamp, stamp - 1
