"""What it costs to take a page off the allocator under a design, and how much memory is clean: figures for
`Design.statistics`.

A take-off lasts from HOOK_TAKE_BEGIN to HOOK_TAKE_DONE. Its virtual ns go into a histogram of each CPU, four
buckets to a power of two, so percentiles are right to a quarter. Waiting for another CPU's flush is charged
too, at most as long as that flush took. Left out: waiting for locks (it costs no virtual time anywhere here).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cpus.abi.numbered import Numbered
from cpus.compiled import kernel
from cpus.layout import Sizes

BUCKETS = 256
STATS = Numbered[str]()  # columns of `stat`
FLUSHES = STATS.add("flushes")
MERGED = STATS.add("merged")
WAITS = STATS.add("waits")
WAIT_NS = STATS.add("wait_ns")
SKIPPED = STATS.add("skipped")
HELPED = STATS.add("helped")
KICKED = STATS.add("kicked")
SELF_FLUSHED = STATS.add("self_flushed")
SERIES_POINTS = 100


def measure_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Fields that the functions below need in a design's state."""
    return {
        # owner
        "takeoff_hist": (sizes.nr_cpus, BUCKETS), "takeoff_began": (sizes.nr_cpus,),
        "takeoff_max": (sizes.nr_cpus,),
        "stat": (sizes.nr_cpus, len(STATS)),  # owner
    }  # fmt: skip


@kernel
def bucket_of(ns):
    """Number of the bucket of a duration."""
    octave = 0
    while ns >> (octave + 1) > 0:
        octave += 1
    return ns if ns < 4 else 4 * (octave - 1) + ((ns >> (octave - 2)) & 3)


def bucket_end(bucket: int) -> int:
    """Largest duration of a bucket."""
    if bucket < 4:
        return bucket
    octave, quarter = bucket // 4 + 1, bucket % 4
    return (1 << octave) + ((quarter + 1) << (octave - 2)) - 1


@kernel
def note_takeoff(ram, state, cpu):
    """Count a take-off that ends now."""
    ns = max(ram.cpu_clock[cpu] - state.takeoff_began[cpu], 0)
    state.takeoff_hist[cpu, bucket_of(ns)] += 1
    state.takeoff_max[cpu] = max(state.takeoff_max[cpu], ns)


def _percentile(histogram: np.ndarray, share: float) -> int:
    total = int(histogram.sum())
    if total == 0:
        return 0
    return bucket_end(int(np.searchsorted(np.cumsum(histogram), share * total)))


def takeoff_statistics(ram: Any) -> dict[str, Any]:
    """Give counts, the latency of take-offs, and clean pages over time of a run that is over."""
    state, longest = ram.design, int(ram.design["takeoff_max"].max())
    histogram = state["takeoff_hist"].sum(axis=0)
    paid = histogram.copy()
    paid[0] = 0
    found: dict[str, Any] = dict(zip(STATS.values(), state["stat"].sum(axis=0).tolist(), strict=True))
    for name, counts in (("takeoff", histogram), ("takeoff_paid", paid)):
        found[name] = {
            "count": int(counts.sum()),
            "p50_ns": min(_percentile(counts, 0.5), longest),
            "p99_ns": min(_percentile(counts, 0.99), longest),
            "max_ns": longest,
        }
    found["clean_pages"] = clean_pages(ram)
    return found


def wrap_arounds(ram: Any, keys: int) -> dict[str, int]:
    """Say how many of LUF's keys were handed out again, and how often the 16 bits of v12's stamps wrapped."""
    return {
        "keys_used_again": max(0, int(ram.design["next_key"][0]) - (keys - 1)),
        "stamps_wrapped": int(ram.design["ugen"][0]) >> 16,
    }


def clean_pages(ram: Any) -> dict[str, list[int]]:
    """Give free pages with nothing pending over virtual time: t_ns, and a list for each node."""
    nodes = ram.nr_nodes
    count = min(int(ram.run_series_count[0]), ram.series_length)
    rows = ram.series[:count]
    rows = rows[rows[:, 0].argsort()][:: max(1, count // SERIES_POINTS)]
    return {"t_ns": rows[:, 0].tolist()} | {
        f"node{node}": rows[:, 1 + nodes + node].tolist() for node in range(nodes)
    }
