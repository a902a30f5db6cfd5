"""`trace` in hooks and kernels: its lines reach stderr and a proof, in order, and change nothing."""

from __future__ import annotations

import re

from cpus.trace import TRACES_FIRST
from emulator.judge.traces import kept_lines
from emulator.order import LONG_SLICE_NS
from tests.emulator.test_design_faults import run
from tests.emulator.test_experiment import run as talk

LINE = re.compile(r"trace ([\d,]+) ns, cpu(\d), task (\d+) in hook shootdown: (.*)")


def lines(text):
    """Give (ns, cpu, what is said) of each line that was printed."""
    found = [LINE.fullmatch(line) for line in text.splitlines()]
    assert all(found)
    return [(int(one[1].replace(",", "")), int(one[2]), one[4]) for one in found]


def test_lines_are_printed_in_order(capsys):
    """CPU, virtual time, task, hook; the text with values in its places, and the others behind it."""
    kept = []
    run("tracing", observe=lambda ram: kept.extend(kept_lines(ram)))
    printed = lines(capsys.readouterr().err)
    assert len(printed) > 100
    for cpu in range(3):
        said = [what for _, c, what in printed if c == cpu]
        assert said == [f"round {n} of 0x3 CPUs {int(cpu == 2)} -1" for n in range(len(said))]
        times = [ns for ns, c, _ in printed if c == cpu]
        assert times == sorted(times)
    assert [line.said for line in kept] == [what for *_, what in printed]
    assert [line.number for line in kept] == list(range(1, len(kept) + 1))
    assert [line.sequence for line in kept] == sorted(line.sequence for line in kept)


def test_tracing_changes_nothing(capsys):
    """A controlled run is the same run with lines and without: the same events, counters, clocks."""
    assert run("tracing").fingerprint == run("sound").fingerprint


def test_a_hot_hook_cannot_fill_the_disk(capsys):
    """The first lines of each CPU are printed, the rest is counted; the last ones are kept for a proof."""
    last = []
    run("chatting", observe=lambda ram: last.append(kept_lines(ram)[-1].said))
    said = capsys.readouterr().err.splitlines()
    printed = [
        line for line in said if line.endswith(" lines of cpu2 are not printed") or "cpu2, task" in line
    ]
    assert len(printed) == TRACES_FIRST + 1
    assert re.fullmatch(r"trace: [\d,]+ more lines of cpu2 are not printed", printed[-1])
    assert printed[0].endswith(": line 0")
    assert last == ["line 1999"]


NOTES = """from cpus.trace import trace
from designs.design import hook
from designs.none import NoFlush


@hook("pte_cleared")
def note(ram, cpu, mm, vpn, pte, object):
    if vpn == {page}:
        trace(ram, cpu, "cleared {{:#x}} in mm", vpn, mm)
    return 0


class Notes(NoFlush):
    def __init__(self):
        super().__init__()
        self.hooks = (note,)
"""


def test_lines_stand_in_a_proof(tmp_path, capsys):
    """A violation, and the same run once more with lines about its page: the same proof, in which each line
    stands before the unmap: that is an event when the hook has answered, since it may yet be undone.
    """
    how = {"leases": 1, "slice_ns": LONG_SLICE_NS}
    first = next(result for seed in range(1, 9) if (result := talk("none", seed=seed, **how)).violations)
    violation, file = first.violations[0], tmp_path / "notes.py"
    file.write_text(NOTES.format(page=violation["page"]))
    events = talk(f"{file}:Notes", seed=first.seed, **how).violations[0]["events"]
    traced = [one for one in events if one["what"].startswith("trace: ")]
    assert [one for one in events if one not in traced] == violation["events"]
    assert traced
    for at, one in enumerate(events):
        if one in traced:
            mm = one["what"].rpartition(" ")[2]
            assert one["what"] == f"trace: cleared {violation['page']:#x} in mm {mm}"
            assert f" from mm {mm} at 0x{violation['address']:_x} " in events[at + 1]["what"]
            assert one["actor"] == events[at + 1]["actor"]
