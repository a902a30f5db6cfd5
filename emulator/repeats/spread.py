"""Is a figure different under another design, and by how much? Medians, intervals, tests of repeated runs.

Runs of one seed differ, since CPUs race, and runs of several seeds differ more. So each side is a sample:
- how much: the ratio of the medians, with the percentile bootstrap's interval;
- whether: a permutation test of all figures of a pair together. Runs change sides, each with all its figures,
  and the largest difference of any figure, in its own standard deviations, is what chance can do (max-T of
  Westfall and Young, 1993). So a comparison of two equal designs reports any difference at all in a share
  ALPHA of all cases, however many figures it shows.
All numbers repeat: what is drawn comes from a fixed seed. Left out: pairing runs by seed, which share inputs
and not schedules.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ALPHA = 0.01  # of all figures of a pair together
CONFIDENCE = 0.95
RESAMPLES = 9999
RUNS_MIN = 2  # of a side, for an interval and for a test
FARTHEST, TINY = 1e9, 1e-300  # what differs although neither side varies is so many standard errors away

Sample = Sequence[float]


@dataclass(frozen=True, slots=True)
class Difference:
    """How one figure of two samples differs. `ratio` is that of the medians, second to first, with its
    interval; NaN where a median of the first is 0 (or can be, as drawn for the interval), or a side has one
    run. `p` is of the test of all figures.
    """

    ratio: float
    low: float
    high: float
    p: float

    @property
    def seen(self) -> bool:
        """Is it more than chance?"""
        return self.p <= ALPHA


def differences(first: Mapping[str, Sample], second: Mapping[str, Sample]) -> dict[str, Difference]:
    """Compare the figures that two samples of runs have in common: name -> values of a side, one a run.

    Raises ValueError if a side's figures are of different numbers of runs, or of none.
    """
    names = [name for name in first if name in second]
    if not names:
        return {}
    one, other = (_table(side, names) for side in (first, second))
    p = _together(one, other)
    return {name: Difference(*_ratio(one[i], other[i]), float(p[i])) for i, name in enumerate(names)}


def median_interval(values: Sample) -> tuple[float, float, float]:
    """Give the median of a sample, and the ends of its interval; NaN where there is one run."""
    drawn = np.asarray(values, float)
    middle = float(np.median(drawn))
    if drawn.size < RUNS_MIN:
        return middle, math.nan, math.nan
    chosen = np.random.default_rng(1).choice(drawn, (RESAMPLES, drawn.size))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.median(chosen, axis=1), [tail, 1 - tail])
    return middle, float(low), float(high)


def least_p(first: int, second: int) -> float:
    """The smallest p that so many runs a side can have: with fewer than 5 and 5 nothing can be seen."""
    return 1.0 if min(first, second) < RUNS_MIN else min(1.0, 2 / math.comb(first + second, first))


def _table(side: Mapping[str, Sample], names: Sequence[str]) -> np.ndarray:
    lengths = {len(side[name]) for name in names}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(f"figures must be of the same runs, at least 1 (got {sorted(lengths)})")
    return np.array([side[name] for name in names], float)


def _ratio(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Give the ratio of the medians and its interval."""

    def ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        found: np.ndarray = np.median(b, axis=axis) / np.median(a, axis=axis)
        return found

    if not np.median(one):
        return math.nan, math.nan, math.nan
    value = float(ratio(one, other))
    if min(one.size, other.size) < RUNS_MIN:
        return value, math.nan, math.nan
    from scipy import stats  # here, as it takes half a second, which a single run does not have

    rng = np.random.default_rng(1)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a median of 0 can be drawn, which gives no interval
        drawn = stats.bootstrap(
            (one, other), ratio, vectorized=True, method="percentile", confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES, rng=rng,
        ).confidence_interval  # fmt: skip
    if not math.isfinite(drawn.low + drawn.high):
        return value, math.nan, math.nan
    return value, float(drawn.low), float(drawn.high)


def _together(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Give each figure's p, corrected for all: tables of figures by runs."""
    runs, count = np.hstack([one, other]), one.shape[1]
    found = _distances(one, other)
    if min(count, other.shape[1]) < RUNS_MIN:
        return np.ones_like(found)

    def largest(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:  # each row: which runs are on a side
        furthest: np.ndarray = _distances(runs[:, a], runs[:, b]).max(axis=0)
        return furthest

    from scipy import stats

    test = stats.permutation_test(
        (np.arange(count), np.arange(count, runs.shape[1])), largest, vectorized=True, n_resamples=RESAMPLES,
        alternative="greater", rng=np.random.default_rng(1),
    )  # fmt: skip
    chance = test.null_distribution
    drawn = chance.size < math.comb(runs.shape[1], count)  # not all: what was seen is one of them
    as_large = (chance >= found[:, None] * (1 - 1e-9)).sum(axis=1)
    p: np.ndarray = (as_large + drawn) / (chance.size + drawn)
    return p


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Give by how many standard errors the means of each figure differ."""
    gap = np.abs(one.mean(axis=-1) - other.mean(axis=-1))
    error = np.sqrt(_variance(one) / one.shape[-1] + _variance(other) / other.shape[-1])
    found: np.ndarray = gap / np.maximum(error, gap / FARTHEST + TINY)
    return found


def _variance(side: np.ndarray) -> np.ndarray:
    return side.var(axis=-1, ddof=1) if side.shape[-1] > 1 else np.zeros(side.shape[:-1])
