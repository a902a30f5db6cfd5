"""The text files have the kernel's layout: the usual awk lines work on them."""

from __future__ import annotations

import re
import subprocess

from emulator.report.formats import interrupts_text, perf_stat_text, vmstat_text
from tests.emulator.fixed import REUSE, run


def awk(program: str, text: str) -> str:
    return subprocess.run(
        ["awk", program], input=text, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()


def test_interrupts_has_the_layout_of_proc_interrupts():
    """Header of CPU columns; numbers right under them; the text that people grep for."""
    lines = interrupts_text(run("linux")).splitlines()
    assert lines == [
        "           CPU0       CPU1       CPU2       CPU3       ",
        "RES:          1          2          3          4   Rescheduling interrupts",
        "CAL:          5          5          5          5   Function call interrupts",
        "TLB:        400        380        410        390   TLB shootdowns",
    ]


def test_awk_sums_the_tlb_row():
    """`awk '/TLB/'` over the columns gives the total of the run."""
    total = awk(
        "/TLB/ {s = 0; for (i = 2; i <= NF - 2; i++) s += $i; print s}", interrupts_text(run("linux"))
    )
    assert int(total) == run("linux").tlb_shootdowns == 1580


def test_vmstat_is_name_and_value():
    """One pair a line, as in /proc/vmstat."""
    text = vmstat_text(run("linux"))
    assert awk('$1 == "pgfault" {print $2}', text) == "1234"
    assert all(re.fullmatch(r"\w+ \d+", line) for line in text.splitlines())


def test_perf_stat_prints_what_perf_prints():
    """Value with thousands separators, event name; awk finds the three events of the talk."""
    text = perf_stat_text(run("linux"))
    assert " Performance counter stats for 'system wide':" in text
    assert awk('/dTLB-load-misses/ {gsub(",", "", $1); print $1}', text) == "2001000"
    assert awk('/iTLB-load-misses/ {gsub(",", "", $1); print $1}', text) == "40000"
    assert awk("/seconds time elapsed/ {print $1}", text) == "1.872000000"
    assert awk('/dTLB-loads/ {gsub(",", "", $1); print $1}', text) == "4000000000"


def test_a_stopped_run_has_no_elapsed_time():
    """A violation ended it before its processes: perf's own words for what it could not count."""
    text = perf_stat_text(run("none", violations=[REUSE], accounted={}))
    assert re.search(r"^ +<not counted> seconds time elapsed$", text, re.M)
