"""Pressure runs: bands, the real kernel's own spread, and directions from run to run."""

from __future__ import annotations

import msgspec
import pytest

from emulator.golden.bands import (
    FLAT,
    INSIDE,
    NOT_EMULATED,
    NOT_RECORDED,
    OPPOSITE,
    OUTSIDE,
    SAME,
    UNDECIDED,
    band_verdict,
    change,
    first_runs,
    judge_directions,
    judge_runs,
    pairs,
)
from emulator.golden.data import PressureRun
from emulator.golden.rules import Explained, Explanation
from tests.golden.recorded import ROWS, run

NOBODY = Explained()
OFF = {"demotion_enabled": "false", "numa_balancing": "0"}


def recorded(*args, **kwargs) -> PressureRun:
    entry = run(*args, **kwargs)
    return msgspec.convert({**entry, "entry": entry}, PressureRun)


@pytest.mark.parametrize(
    ("real", "emulated", "verdict"),
    [
        (100, 125, INSIDE),
        (100, 126, OUTSIDE),
        (100, 80, INSIDE),
        (100, 79, OUTSIDE),
        (0, 0, INSIDE),
        (0, 1, OUTSIDE),
        (100, 0, OUTSIDE),
    ],
)
def test_a_band_is_a_factor_both_ways(real, emulated, verdict):
    """And a real 0 asks for 0."""
    assert band_verdict(real, emulated, 1.25) == verdict


def test_what_was_not_recorded_is_not_judged():
    """What was recorded and is not emulated is outside."""
    assert (band_verdict(None, 5, 2), band_verdict(5, None, 2)) == (NOT_RECORDED, OUTSIDE)


def test_what_the_real_kernel_did_itself_is_inside():
    """Real 1, recorded again 0: an emulated 0 is as good; 2 is not."""
    assert [band_verdict(1, emulated, 1.25, [0, 1]) for emulated in (0, 0.5, 2)] == [INSIDE, INSIDE, OUTSIDE]


def test_repetitions_are_the_spread_and_are_not_emulated_again():
    """X_rep2 belongs to X; alone, it stands for itself."""
    runs = [recorded("x", ipis=1000), recorded("x_rep2", ipis=960)]
    assert [one.tag for one in first_runs(runs)] == ["x"]
    assert [one.tag for one in first_runs(runs[1:])] == ["x_rep2"]
    ipis, share = judge_runs(runs, {"x": [run("x", ipis=1100, kswapd=0.9)]}, ROWS, NOBODY)
    assert (ipis.real, ipis.spread, ipis.emulated, ipis.ratio, ipis.verdict) == (
        1000,
        [960, 1000],
        1100,
        1.1,
        INSIDE,
    )
    assert (share.factor, share.verdict) == (2, OUTSIDE)


def test_a_run_that_failed_is_outside_and_one_that_was_not_run_is_said():
    """A failed emulation proves nothing, even with the right figures, and if only one seed failed."""
    runs = [recorded("x"), recorded("y")]
    rows = judge_runs(
        runs, {"x": [run("x"), run("x", clean=False, findings=["a lost IPI", "reuse"])]}, ROWS, NOBODY
    )
    assert [(row.tag, row.verdict, row.problem) for row in rows] == [
        *[("x", OUTSIDE, "a lost IPI; reuse")] * 2,
        *[("y", NOT_EMULATED, "")] * 2,
    ]


def test_runs_are_paired_when_they_differ_in_one_respect():
    """T ascending, policy from off to on, file to anonymous; of two that are alike the smaller one."""
    runs = [
        *(recorded(f"f{T}_on", T=T) for T in (8, 1, 4)),
        recorded("f8_off", settings=OFF),
        recorded("a8_on", workload="anon_rw", mb_per_proc=150),
        recorded("big", mb_per_proc=672),
    ]
    assert [(respect, a.tag, b.tag) for respect, a, b in pairs(runs)] == [
        ("T", "f1_on", "f4_on"), ("T", "f4_on", "f8_on"), ("policy", "f8_off", "f8_on"),
        ("workload", "f8_on", "a8_on")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("real", "emulated", "verdict"),
    [(2000, 1100, SAME), (2000, 900, OPPOSITE), (2000, 1000, OPPOSITE), (1040, 1, FLAT)],
)
def test_a_change_has_the_real_sign(real, emulated, verdict):
    """Whatever its size; no change at all is not the same sign; a real change under 5 % has none."""
    runs = [recorded("f1", T=1), recorded("f8", ipis=real)]
    found = judge_directions(runs, {"f1": [run("f1")], "f8": [run("f8", ipis=emulated)]}, ROWS[:1], NOBODY)
    assert [(one.first, one.second, one.verdict) for one in found] == [("f1", "f8", verdict)]


def test_what_the_real_kernel_does_by_itself_is_no_direction():
    """A repeated run that is 20 % off makes changes of 20 % flat."""
    runs = [recorded("f1", T=1), recorded("f8", ipis=1150), recorded("f8_rep2", ipis=920)]
    (one,) = judge_directions(runs, {"f1": [run("f1")], "f8": [run("f8", ipis=1)]}, ROWS[:1], NOBODY)
    assert (one.verdict, round(one.real, 2)) == (FLAT, 0.13)


def seeds(tag, *ipis):
    return [run(tag, ipis=one) for one in ipis]


def test_several_seeds_are_judged_by_their_median():
    """One seed far off does not decide, and stands in the emulator's own spread."""
    runs = [recorded("x", ipis=1000)]
    (row,) = judge_runs(runs, {"x": seeds("x", 1100, 5000, 900)}, ROWS[:1], NOBODY)
    assert (row.emulated, row.own, row.verdict) == (1100, [900, 5000], INSIDE)
    (row,) = judge_runs(runs, {"x": seeds("x", 1100, 5000, 5001)}, ROWS[:1], NOBODY)
    assert (row.emulated, row.verdict) == (5000, OUTSIDE)
    assert judge_runs(runs, {"x": seeds("x", 1100)}, ROWS[:1], NOBODY)[0].own == []


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ((900, 1000), (1100, 1200), SAME),
        ((1100, 1200), (900, 1000), OPPOSITE),
        ((900, 1000), (1000, 1200), UNDECIDED),  # the right sign in the median
        ((900, 1300), (1000, 1010), UNDECIDED),  # the wrong one
        ((900, 900), (900, 900), UNDECIDED),
        ((1000,), (900,), OPPOSITE),  # a single seed has no spread to hide in
    ],
)
def test_seeds_that_overlap_decide_no_direction(first, second, verdict):
    """Right and wrong signs alike."""
    runs = [recorded("f1", T=1), recorded("f8", ipis=2000)]
    emulated = {"f1": seeds("f1", *first), "f8": seeds("f8", *second)}
    why = Explained(difference=[Explanation(scenario="*", mechanism="fork()")])
    (one,) = judge_directions(runs, emulated, ROWS[:1], why)
    assert (one.verdict, bool(one.explanation)) == (verdict, verdict == OPPOSITE)


def test_differences_of_pressure_are_explained_by_tag_and_metric():
    """Bands, and directions by the second run."""
    why = Explained(difference=[Explanation(scenario="f8*", metric="IPIs", mechanism="shrink_folio_list()")])
    emulated = {"f1": [run("f1")], "f8": [run("f8", ipis=900, kswapd=0.9)]}
    runs = [recorded("f1", T=1), recorded("f8", ipis=2000)]
    assert [row.explanation for row in judge_runs(runs, emulated, ROWS, why)] == [
        "",
        "",
        "shrink_folio_list()",
        "",
    ]
    assert [one.explanation for one in judge_directions(runs, emulated, ROWS[:1], why)] == [
        "shrink_folio_list()"
    ]


def test_a_change_is_a_share_of_the_larger_value():
    """From -1 to 1, 0 for nothing, None for what is not known."""
    assert [change(1, 2), change(2, 1), change(0, 3), change(0, 0), change(None, 1)] == [
        0.5,
        -0.5,
        1,
        0,
        None,
    ]
