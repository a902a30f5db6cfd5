"""What is said of repeated runs holds: equal designs differ as seldom as is promised, a small difference is
seen, and intervals hold what they should.
"""

import math
import warnings

import numpy as np
import pytest

from emulator.repeats.spread import ALPHA, differences, least_p


def sample(rng, runs, *, change=1.0, spread=0.1, figures=6):
    """Runs whose figures hang together, as those of one run do."""
    common = rng.normal(0, 1, runs)
    return {
        f"figure {i}": change * 1000 * np.exp(spread * (common + rng.normal(0, 1, runs)) / math.sqrt(2))
        for i in range(figures)
    }


def test_equal_designs_differ_as_seldom_as_is_promised():
    """Any of six figures, in 100 comparisons of 6 and 6 runs: about one is expected, 5 hardly ever are."""
    rng = np.random.default_rng(1)
    seen = sum(
        any(one.seen for one in differences(sample(rng, 6), sample(rng, 6)).values()) for _ in range(100)
    )
    assert seen <= 4


def test_a_small_difference_is_seen_and_measured():
    rng = np.random.default_rng(2)
    found = differences(sample(rng, 12, spread=0.015), sample(rng, 12, spread=0.015, change=1.03))
    for one in found.values():
        assert one.seen
        assert one.low < 1.03 < one.high
        assert one.low < one.ratio < one.high


def test_intervals_hold_the_truth_as_often_as_they_say():
    """95 of 100; of 100 that are drawn, 88 at the least."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(100):
        (one,) = differences(sample(rng, 6, figures=1), sample(rng, 6, figures=1, change=0.5)).values()
        held += one.low <= 0.5 <= one.high
    assert held >= 88


def test_the_same_numbers_give_the_same_answer():
    rng = np.random.default_rng(4)
    one, other = sample(rng, 6), sample(rng, 6)
    assert differences(one, other) == differences(one, other)


@pytest.mark.parametrize("runs", [(1, 1), (4, 4), (5, 5), (6, 6)])
def test_too_few_runs_cannot_tell(runs):
    """All of one side above all of the other: the strongest evidence that so many runs can be."""
    first, second = ({"figure": [base + i / 100 for i in range(n)]} for base, n in zip((1, 2), runs))
    one = differences(first, second)["figure"]
    assert one.p == pytest.approx(least_p(*runs))
    assert one.seen == (runs >= (5, 5)) == (least_p(*runs) <= ALPHA)


def test_what_has_no_ratio_is_still_tested():
    """From nothing to something."""
    one = differences({"figure": [0] * 6}, {"figure": [1, 2, 3, 2, 1, 2]})["figure"]
    assert math.isnan(one.ratio)
    assert one.seen


def test_equal_numbers_are_no_difference():
    one = differences({"figure": [5] * 6}, {"figure": [5] * 6})["figure"]
    assert (one.ratio, one.low, one.high, one.p) == (1, 1, 1, 1)


@pytest.mark.parametrize("values", [{"a": [], "b": []}, {"a": [1, 2], "b": [1]}])
def test_figures_of_different_runs_are_refused(values):
    with pytest.raises(ValueError, match="of the same runs"):
        differences(values, values)


def test_a_median_of_0_that_can_be_drawn_gives_no_interval_and_no_warning():
    """Of counters that are 0 in half of the runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = differences({"rare": [0, 0, 0, 4, 4, 4]}, {"rare": [0, 4, 0, 4, 0, 5]})["rare"]
    assert math.isnan(found.low)
    assert not found.seen
