"""No witness contradicts itself: the checker that every test's witnesses pass, and contradictions that it
must see.
"""

from __future__ import annotations

from copy import deepcopy

import pytest

from emulator.experiment import run_design
from emulator.judge import witness
from emulator.machine import load_machine
from emulator.report.proof import violation_text
from tests.emulator.witness_order import checked, contradictions

SOUND = {
    "frame": 7,
    "expected": "file a, page 1, version 0",
    "found": "memory that was handed out again",
    "however": "cpu3 did not flush this page after that unmap.",
    "events": [
        {"place": 10, "t_ns": 900, "kind": "unmap", "actor": "cpu1", "frame": 7, "what": "unmap frame 7"},
        {"place": 11, "t_ns": 950, "kind": "free", "actor": "cpu1", "frame": 7, "what": "free frame 7"},
        {"place": 20, "t_ns": 400, "kind": "take", "actor": "cpu2", "frame": 7, "what": "take frame 7"},
        {"place": 21, "t_ns": 300, "kind": "load", "actor": "cpu3", "frame": 7, "what": "load 0x1000"},
    ],
}
UNMAP, FREE, TAKE, LOAD = range(4)


def changed(order, **about):
    """Give the sound one with its lines in another order (places renumbered), or other facts."""
    other = deepcopy(SOUND) | about
    other["events"] = [deepcopy(SOUND["events"][i]) | {"place": n} for n, i in enumerate(order)]
    return other


def flush(place, cpu="cpu3"):
    return {"place": place, "t_ns": 0, "kind": "flush", "actor": cpu, "what": "flush mm 1"}


def test_a_sound_one_passes():
    """Clocks of different CPUs may say the opposite."""
    assert contradictions(SOUND) == []


LINES = SOUND["events"]


def with_lines(*lines):
    return SOUND | {"events": list(lines)}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (changed([UNMAP, TAKE, FREE, LOAD]), "take frame 7: the frame is owned"),
        (changed([LOAD, UNMAP, FREE, TAKE]), "what was judged is not the last line"),
        (changed([UNMAP, LOAD, FREE, TAKE, LOAD]), "load 0x1000: what was judged is before it"),
        (changed([FREE, UNMAP, TAKE, LOAD]), "unmap frame 7: the frame is free"),
        (changed([UNMAP, FREE, LOAD]), "it found handed out again, and the frame held file a, page 1"),
        (changed([FREE, TAKE, LOAD], found="file a, page 1, version 0"), "the frame held handed out again"),
        (with_lines(*LINES[::-1]), "what was judged is not the last line"),
        (with_lines(*sorted(LINES, key=lambda line: line["t_ns"])), "what was judged is not the last line"),
        (with_lines(flush(9), *LINES), "a flush is listed before the unmap"),
        (with_lines(LINES[0], flush(12), *LINES[2:]), "a flush is listed that is then denied"),
        (with_lines(LINES[0] | {"actor": "cpu2"}, *LINES[1:]), "cpu2's clock goes back"),
        (with_lines(LINES[0] | {"place": 99}, *LINES[1:]), "at place 11, behind 99"),
    ],
)
def test_planted_contradictions_are_seen(wrong, sentence):
    """And fail the test that makes such a witness."""
    assert any(sentence in found for found in contradictions(wrong)), contradictions(wrong)
    with pytest.raises(AssertionError, match="a witness contradicts itself"):
        checked(lambda: wrong)()


CALLED = with_lines(
    {"place": 9, "t_ns": 890, "kind": "call", "actor": "cpu1 (a/0)", "what": "begin munmap"},
    LINES[UNMAP] | {"actor": "cpu1 (a/0)"},
    LINES[FREE],
    {"place": 12, "t_ns": 400, "kind": "return", "actor": "cpu2 (a/0)", "what": "end munmap"},
    *LINES[TAKE:],
) | {"taken": {"call": "munmap", "what": "munmap of a", "actor": "cpu1 (a/0)", "begin": 9, "end": 12}}
BEGIN, TAKING, _, END = range(4)


def called(changes=(), taken=(), leave=()):
    """Give the sound one with a call, some of its lines changed, its name changed, some lines left out."""
    other = deepcopy(CALLED)
    other["taken"] |= dict(taken)
    for at, about in dict(changes).items():
        other["events"][at] |= about
    other["events"] = [line for at, line in enumerate(other["events"]) if at not in leave]
    other["events"].sort(key=lambda line: line["place"])
    return other


def test_a_sound_call_passes():
    """It may move to another CPU, and may not have returned."""
    assert contradictions(CALLED) == []
    under_way = called(leave=[END])
    del under_way["taken"]["end"]
    assert contradictions(under_way) == []


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            called({BEGIN: {"place": 11, "t_ns": 950}}, {"begin": 11}),
            "unmap frame 7: the call begins after it",
        ),
        (called({END: {"place": 9}, BEGIN: {"place": 8}}, {"begin": 8, "end": 9}), "the call ends before it"),
        (called({END: {"place": 8}}, {"end": 8}), "unmap frame 7: the call ends before it"),
        (called(taken={"begin": 8}), "the call begins at [9], and not at 8"),
        (called(taken={"end": 13}), "the call ends at [12], and not at 13"),
        (called(leave=[END]), "the call ends at [], and not at 12"),
        (called(leave=[BEGIN]), "the call begins at [], and not at 9"),
        (called(leave=[TAKING]), "a call is named, and took nothing away"),
        (
            called({BEGIN: {"actor": "cpu1 (b)"}}),
            "begin munmap: by (b), and the translation was taken by (a/0)",
        ),
        (
            called({END: {"actor": "cpu1 (a/1)"}}),
            "end munmap: by (a/1), and the translation was taken by (a/0)",
        ),
        (
            {name: what for name, what in CALLED.items() if name != "taken"},
            "a call is told, and none is named",
        ),
    ],
)
def test_planted_contradictions_of_calls_are_seen(wrong, sentence):
    """What is told of the call, what is named, and what it did."""
    assert any(sentence in found for found in contradictions(wrong)), contradictions(wrong)


def test_every_test_has_its_witnesses_checked():
    """The fixture of tests/conftest.py is at work here, too."""
    assert witness.witnessed.__wrapped__.__name__ == "witnessed"


def test_no_schedule_makes_none_contradict_itself():
    """`luf run none` with several workloads and seeds, free and controlled: each witness is sound, and is
    printed in the order of its lines, whatever the clocks say.
    """
    machine = load_machine("guest-8cpu", scale=16)
    caught = []
    for workload in ("llama3x15:scale=4096", "churn", "munmap-storm", "readers-writer"):
        for seed in range(1, 7):
            result = run_design("none", machine, workload, tokens=1, leases=1 + seed % 2, seed=seed)
            caught += result.violations
    assert len(caught) >= 5
    for violation in caught:
        assert contradictions(violation) == []
        text, at = violation_text(violation, violation["events"]), 0
        for line in violation["events"]:
            at = text.index(line["what"], at) + 1
