"""Which call did it: calls that nest, sleep, have not returned, or whose begin the rings no longer hold; and
reclaim, demotion and promotion in whole runs.
"""

from __future__ import annotations

import numpy as np
import pytest

from cpus.events import (
    CALL_DEMOTION,
    CALL_DIRECT,
    CALL_KSWAPD,
    CALL_ROW,
    EV_CALL,
    EV_RETURN,
    EV_UNMAP,
    EVENT_TASK_SHIFT,
)
from emulator.experiment import run_design
from emulator.judge.taken import open_calls
from emulator.machine import load_machine
from emulator.order import LONG_SLICE_NS

ME, OTHER = 1 | 5 << EVENT_TASK_SHIFT, 2 | 6 << EVENT_TASK_SHIFT
ME_ELSEWHERE = 3 | 5 << EVENT_TASK_SHIFT


def ring(*events):
    """Events in order, numbered from 1 on: (kind, a, b, c, who)."""
    return np.array([(i, 0, kind, a, b, c, 0, who) for i, (kind, a, b, c, who) in enumerate(events, 1)])


def begin(call, b, who=ME):
    return EV_CALL, call, b, 0, who


def end(call, b, who=ME, later=0):
    return EV_RETURN, call, b, later, who


def unmap(who=ME):
    return EV_UNMAP, 77, 1, 0, who


def calls_at(events):
    """Give (kind of call, number of its begin, of its end) of all that were open at the unmap."""
    at = events[events[:, 2] == EV_UNMAP][0].tolist()
    return [(call.begin[3], call.begin[0], call.end and call.end[0]) for call in open_calls(events, at)]


@pytest.mark.parametrize(
    ("events", "calls"),
    [
        ([begin(CALL_ROW, 4), unmap(), end(CALL_ROW, 4)], [(CALL_ROW, 1, 3)]),
        ([begin(CALL_ROW, 4), unmap()], [(CALL_ROW, 1, None)]),
        ([unmap(), begin(CALL_ROW, 4), end(CALL_ROW, 4)], []),
        ([begin(CALL_ROW, 4), end(CALL_ROW, 4), unmap()], []),
        # of another thread, and of the same one on another CPU
        ([begin(CALL_ROW, 4, OTHER), unmap(), end(CALL_ROW, 4, OTHER)], []),
        ([begin(CALL_ROW, 4), unmap(ME_ELSEWHERE), end(CALL_ROW, 4, ME_ELSEWHERE)], [(CALL_ROW, 1, 3)]),
        # one in the other, and one that was over before
        (
            [begin(CALL_ROW, 4), begin(CALL_DIRECT, 0), end(CALL_DIRECT, 0), begin(CALL_DIRECT, 1), unmap(),
             end(CALL_DIRECT, 1), end(CALL_ROW, 4)],
            [(CALL_DIRECT, 4, 6), (CALL_ROW, 1, 7)],
        ),
        (
            [begin(CALL_KSWAPD, 0), begin(CALL_DEMOTION, 1), end(CALL_DEMOTION, 1), unmap()],
            [(CALL_KSWAPD, 1, None)],
        ),
        # it sleeps, twice, and another thread runs meanwhile
        (
            [begin(CALL_ROW, 4), end(CALL_ROW, 4, later=1), begin(CALL_ROW, 9, OTHER), begin(CALL_ROW, 4),
             unmap(), end(CALL_ROW, 4, later=1), end(CALL_ROW, 9, OTHER), begin(CALL_ROW, 4),
             end(CALL_ROW, 4)],
            [(CALL_ROW, 1, 9)],
        ),
        # the same row once more: a loop
        (
            [begin(CALL_ROW, 4), end(CALL_ROW, 4), begin(CALL_ROW, 4), unmap(), end(CALL_ROW, 4)],
            [(CALL_ROW, 3, 5)],
        ),
        # its begin is lost, and so is that of what it was in
        ([end(CALL_DIRECT, 0), unmap(), end(CALL_ROW, 4)], []),
        ([begin(CALL_DIRECT, 0), unmap(), end(CALL_DIRECT, 0), end(CALL_ROW, 4)], [(CALL_DIRECT, 1, 3)]),
    ],
)  # fmt: skip
def test_open_calls(events, calls):
    """Innermost first, each with the numbers of the events at which it began and returned."""
    assert calls_at(ring(*events)) == calls


def test_reclaim_and_demotion_are_named():
    """Whoever it was that took the page from a CPU that `none` has forgotten; it had ended before."""
    machine, named = load_machine("guest-8cpu", scale=16), set()
    for seed in (1, 2, 4):
        (violation,) = run_design(
            "none", machine, "churn", tokens=1, leases=1, seed=seed, slice_ns=LONG_SLICE_NS
        ).violations
        taken = violation["taken"]
        assert taken["end"] < violation["events"][-1]["place"]
        assert ("kswapd" in taken["call"]) == ("(kswapd" in taken["actor"])
        named.add(taken["call"])
    assert named == {"direct reclaim", "demotion in reclaim by kswapd", "reclaim by kswapd"}
