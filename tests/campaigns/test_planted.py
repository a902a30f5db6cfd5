"""The campaign over planted bugs: what it hunts again, and what its page says."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest

from tests.campaigns import planted
from tests.campaigns.planted import Journal, campaign, chosen
from tests.campaigns.planted_page import page, summary
from tests.planted.bugs import Bug, Change, all_bugs
from tests.planted.hunt import Hunt, from_report

BUGS = [
    Bug(name, f"{name} is wrong", "I1", "luf", (Change("designs/luf/ugen.py", name, "pass"),))
    for name in ("first", "second", "third")
]
FOUND = Hunt(
    "first", (), 60.0, True, signature="reuse", strategy="pct", test="munmap", runs=17, seconds=2.5, calls=4,
    switches=2, replays="100 of 100",
)  # fmt: skip


@pytest.fixture
def hunted(monkeypatch):
    """Names of what was hunted; each is found but `third`."""
    names = []

    def hunt(bug, seconds, *, without, cores, shrink):
        names.append(bug.name)
        return replace(FOUND, bug=bug.name, without=without, limit=seconds, found=bug.name != "third")

    monkeypatch.setattr(planted, "hunt", hunt)
    return names


def run(bugs, journal, without=()):
    return [one.bug for one in campaign(bugs, Journal(journal), 60.0, without, 1, True)]


def test_an_interrupted_campaign_goes_on(hunted, tmp_path):
    """What stands in the journal is not hunted again, but for what was changed, failed, or cut off there."""
    journal = tmp_path / "build" / "planted.jsonl"
    run(BUGS[:2], journal)
    journal.write_text(journal.read_text() + '{"bug": "third", "wit')
    assert run(BUGS, journal) == ["first", "second", "third"]
    assert hunted == ["first", "second", "third"]
    journal.write_text(journal.read_text() + "\n")  # the line that was cut off ends
    run(BUGS, journal, without=("litmus",))
    assert hunted[3:] == ["first", "second", "third"]
    again = replace(BUGS[0], changes=(Change("designs/luf/ugen.py", "first", "return"),))
    run([again, *BUGS[1:]], journal, without=("litmus",))
    assert hunted[6:] == ["first"]


def test_hunts_at_a_time_have_a_core_each(monkeypatch, tmp_path):
    """Two on one core had half of their time."""
    cores, both = [], threading.Barrier(2)

    def hunt(bug, seconds, **given):
        both.wait(10)
        cores.append(os.sched_getaffinity(0))
        return replace(FOUND, bug=bug.name)

    monkeypatch.setattr(planted, "hunt", hunt)
    mine = os.sched_getaffinity(0)
    list(campaign(BUGS[:2], Journal(tmp_path / "j"), 60.0, (), 2, True))
    assert [len(one) for one in cores] == [1, 1]
    assert len(mine) < 2 or cores[0] != cores[1]
    assert os.sched_getaffinity(0) == mine


def test_a_hunt_on_fewer_cores_is_another(hunted, tmp_path):
    """It had less time."""
    Journal(tmp_path / "j").add(BUGS[0], replace(FOUND, cores=1))
    list(campaign(BUGS[:1], Journal(tmp_path / "j"), 60.0, (), 1, True, 2))
    assert hunted == ["first"]


def test_a_hunt_that_failed_is_hunted_again(hunted, tmp_path):
    """It says nothing about the bug."""
    Journal(tmp_path / "j").add(BUGS[0], replace(FOUND, found=False, error="exit code 3"))
    run(BUGS[:1], tmp_path / "j")
    assert hunted == ["first"]


def test_names_are_chosen_and_a_wrong_one_is_refused():
    """By pattern and by kind."""
    bugs = all_bugs()
    assert {bug.name for bug in chosen(bugs, ["historic-*"], None)} == {
        name for name in bugs if name.startswith("historic-")
    }
    assert {bug.kind for bug in chosen(bugs, [], "engine")} == {"engine"}
    half = chosen(bugs, [], None, every=2)
    assert [bug.kind for bug in half].count("historic") == 8
    assert {bug.name for bug in half if bug.kind == "engine"} == {
        bug.name for bug in [bug for bug in bugs.values() if bug.kind == "engine"][::2]
    }
    with pytest.raises(ValueError, match=r"'--only' must name planted bugs \(got 'no-such-bug'\)"):
        chosen(bugs, ["historic-*", "no-such-bug"], None)


def test_the_page_says_what_was_found_and_what_a_part_is_worth():
    """One row for each bug, those that were missed last; the parts beside the same bugs with all."""
    bugs = {bug.name: bug for bug in BUGS}
    missed = replace(FOUND, bug="second", found=False, runs=900, seconds=60.0)
    without = [replace(FOUND, without=("points",), found=False), replace(missed, without=("points",))]
    text = page(bugs, [missed, FOUND, *without])
    first = "| `first` | first is wrong (`luf`) | I1 | reuse | munmap, pct | 17 | 2.5 |"
    assert f"{first} 4 calls, 2 switches, 100 of 100 |" in text
    assert text.index("| `first`") < text.index("| `second` | second is wrong (`luf`) | I1 | **no** |")
    assert "`third` | third is wrong (`luf`) | I1 | not hunted yet" in text
    assert "| without points | 0 of 2 | -1 |" in text
    assert summary([FOUND, missed]) == "1 of 2 found, median 2.5 s, slowest 2 s"


def test_a_report_of_stress_is_read():
    """Its first finding that does not show itself without the bug, and the case that it was shrunk to."""
    finding = {
        "signature": "reuse", "strategy": "pct", "workload": "munmap", "runs_until": 17, "seconds_until": 2.5,
        "again": "", "shrunk": {"calls": 4, "switches": 2, "replays": [100, 100], "text": "seed = 7"},
    }  # fmt: skip
    earlier = finding | {"signature": "stale read", "seconds_until": 1.0}
    design = {"runs": 40, "seconds": 9.0, "findings": [finding, earlier]}
    report = {"compile_seconds": 3.0, "designs": [design]}

    def but(*shown):
        return from_report("first", (), 60.0, report, lambda one: one["signature"] not in shown)

    assert but("stale read") == replace(FOUND, compiling=3.0, case="seed = 7")
    assert but().signature == "stale read"
    clean = but("stale read", "reuse")
    assert (clean.found, clean.runs, clean.seconds) == (False, 40, 9.0)
