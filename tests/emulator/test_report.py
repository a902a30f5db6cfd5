"""The screen is the golden file; violations read like proofs. Renew: LUF_RENEW=1 pytest tests/emulator/test_report.py."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from emulator import talk
from emulator.report import percent, print_report, report_text, seconds, sites_text, violation_text
from tests.emulator.fixed import REUSE, comparison, run

EXPECTS = Path(__file__).with_name("expects")


def check(name: str, text: str) -> None:
    file = EXPECTS / f"{name}.txt"
    if os.environ.get("LUF_RENEW"):
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize(
    ("name", "designs"),
    [("compare", ["linux", "luf"]), ("single", ["luf"]), ("three", ["linux", "luf", "none"]), ("not-linux", ["none", "luf"])],
)
def test_report_is_the_golden_text(name, designs):
    """Two designs beside the talk, one alone, three, and a base that the talk did not have."""
    check(name, report_text(comparison(*map(run, designs))))


def test_report_of_a_dirty_run_is_the_golden_text():
    """A violation, a lost message and an unchecked run are said where the eye looks, then proved."""
    broken = run("none", violations=[REUSE], accounted={"message": [40, 39], "frame": [200, 200]})
    check("dirty", report_text(comparison(run("linux", check="off"), broken)))


def test_nothing_is_invented_when_nothing_happened():
    """No shootdown, nothing unmapped, no process ended: dashes and `nobody`, never a division by zero."""
    idle = {"tlb_shootdowns": 0, "tlb_shootdowns_per_cpu": [0] * 4, "flush_sites": {}, "runtime_ns": [], "accounted": {}}
    text = report_text(comparison(run("linux", **idle, unmap=type(run().unmap)()), run("luf", **idle)))
    assert "nobody" in text
    assert "nothing was counted" in text


NOTHING = "reclaim and migration unmapped nothing: this run does not say how a design flushes for them"


def test_a_run_without_reclaim_says_that_it_tells_nothing():
    """A clean run in which no page was unmapped is no proof: a line says so, and not where one run unmapped something or was stopped."""
    idle = {"unmap": type(run().unmap)()}
    assert report_text(comparison(run("linux", **idle), run("luf", **idle))).count(NOTHING) == 1
    for other in (run("luf"), run("luf", **idle, violations=[REUSE])):
        assert NOTHING not in report_text(comparison(run("linux", **idle), other))


def test_many_designs_wrap_in_blocks():
    """Twelve designs: three blocks of at most four beside the first, which opens each; no line of the table above 150 columns."""
    names = ["linux", "luf", *(f"design{i}" for i in range(9)), "a/long/path/to/my_file.py:MyDesign"]
    lines = report_text(comparison(*map(run, names))).splitlines()
    heads = [line for line in lines if line.split()[:1] == ["linux"] and "delta" in line]
    assert [line.split().count("delta") for line in heads] == [4, 4, 3]
    assert heads[2].split()[-4].startswith("…")
    assert max(map(len, lines)) <= 150
    assert sum("TLB shootdowns" in line for line in lines) == 3
    assert " ".join(lines).count("no violation") == 12


def test_colour_only_on_a_terminal():
    """A pipe gets the plain text, byte for byte."""
    pipe = io.StringIO()
    print_report(comparison(), pipe)
    assert pipe.getvalue() == report_text(comparison())
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    os.environ.setdefault("TERM", "xterm")
    print_report(comparison(), terminal)
    assert "\x1b[" in terminal.getvalue() or os.environ.get("NO_COLOR")


def test_violation_tells_let_then_however_in_order_of_time():
    """Events are sorted; only the first line says Let."""
    text = violation_text({**REUSE, "design": "none", "seed": 4}, REUSE["events"])
    lines = text.splitlines()
    assert lines[0].startswith("VIOLATION  reuse: cpu3 read memory that now belongs to somebody else")
    assert lines[0].endswith("design none, seed 4, t = 1,204.7 us")
    assert lines[1] == "  cpu3 loaded 0x7f3a_0004_2000 (file model1, page 66) through a TLB entry filled at 981.2 us;"
    assert lines[2] == "  frame 3141 now holds anon(mm 2, page 12)"
    assert lines.pop(3).startswith("  Let    cpu7 unmap page 66")
    assert lines[3].startswith("         cpu9 take frame 3141")
    assert lines[4] == "  Then   cpu3 should have been flushed before frame 3141 was used again."
    assert lines[5].startswith("  However no interrupt was sent")


def test_violation_with_little_known_still_reads():
    """Whatever the oracle could not say is left out."""
    assert violation_text({"kind": "lost wakeup"}) == "VIOLATION  lost wakeup: a CPU: lost wakeup\n  a CPU loaded\n"


def test_numbers_as_people_write_them():
    """Percent, durations, sites."""
    assert [percent(x) for x in (-0.967, 0.03, 0.0001, 12.5)] == ["-96.7 %", "+3.0 %", "0.0 %", "+1,250.0 %"]
    assert [seconds(x) for x in (1.871, 0.0332, 118.26, 4000, 0, 5e-7)] == ["1.871 s", "33.20 ms", "118.3 s", "4,000 s", "0 s", "0.500 us"]
    assert sites_text({"kswapd": 996, "a": 2, "b": 1, "c": 1}) == "kswapd 100 %, a < 1 %, b < 1 %, 1 more < 1 %"


def test_the_talks_changes_are_those_of_the_slides():
    """-97.2, -49.0, -75.2, -83.2 and -4.49 %."""
    pairs = (talk.TLB_SHOOTDOWNS, talk.DTLB_LOAD_MISSES, talk.DTLB_STORE_MISSES, talk.ITLB_LOAD_MISSES)
    assert [round(talk.change(pair) * 100, 1) for pair in pairs] == [-97.2, -49.0, -75.2, -83.2]
    assert round(talk.runtime_change() * 100, 2) == -4.49
    assert talk.TLB_SHOOTDOWNS == {"linux": 7_859_322_631, "luf": 219_066_035}
