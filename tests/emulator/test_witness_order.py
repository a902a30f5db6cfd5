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
        (changed([LOAD, UNMAP, FREE, TAKE]), "the access is not the last line"),
        (changed([UNMAP, LOAD, FREE, TAKE, LOAD]), "load 0x1000: the access is before it"),
        (changed([FREE, UNMAP, TAKE, LOAD]), "unmap frame 7: the frame is free"),
        (changed([UNMAP, FREE, LOAD]), "it found handed out again, and the frame held file a, page 1"),
        (changed([FREE, TAKE, LOAD], found="file a, page 1, version 0"), "the frame held handed out again"),
        (with_lines(*LINES[::-1]), "the access is not the last line"),
        (with_lines(*sorted(LINES, key=lambda line: line["t_ns"])), "the access is not the last line"),
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
