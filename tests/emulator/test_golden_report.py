"""Differences come first, the unexplained before the explained; nothing is skipped in silence. Renew:
LUF_RENEW=1 pytest FILE.
"""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from emulator.golden.bands import UNDECIDED, judge_directions, judge_runs
from emulator.golden.compare import DIFFERS, judge_cells
from emulator.golden.data import MicroCell, kernel_folder, read_recording
from emulator.golden.document import document
from emulator.golden.plot import draw_fidelity
from emulator.golden.report import number, percent_down, print_fidelity, render
from emulator.golden.result import Fidelity, read_fidelity
from emulator.golden.rules import Explained, Explanation, NotModelled, read_rules
from tests.golden.recorded import ROWS, cell, mirror, run, write

EXPECTS = Path(__file__).with_name("expects")
EXPLAINED = Explained(
    difference=[
        Explanation(
            scenario="f_fork",
            mechanism="The stack's pages are not modelled: wp_page_copy() after dup_mmap().",
        ),
        Explanation(scenario="f1", metric="IPIs", mechanism="kcompactd() is not modelled."),
        Explanation(
            scenario="a_*", metric="pgfault", mechanism="Nothing any more, do_anonymous_page() is exact."
        ),
    ],
    not_modelled=[NotModelled(what="Swap", why="The recording has none.")],
)


@pytest.fixture
def fidelity(tmp_path) -> Fidelity:
    """A recording with one row of each kind, and an emulator that is wrong in some."""
    micro = [
        *(cell("a_munmap", T) for T in (1, 4)),
        cell("b_madvise", ipis=(3, 3, 6)),
        cell("c_mprotect", P=4096),
        cell("f_fork", ipis=(6, 12, 24), events={"remote_send_ipi/1": 8.667}, pgfault=[5, 5, 5]),
        cell("z_new"),
    ]
    off = {"settings": {"demotion_enabled": "false", "numa_balancing": "0"}}
    eight = [
        run("f8"),
        run("f8_rep2", ipis=960),
        run("f8_off", ipis=700, **off),
        run("a8", workload="anon_rw"),
    ]
    pressure = [run("f1", T=1, ipis=500), *eight]
    recording = read_recording(write(tmp_path / "data", micro, pressure))
    fake = mirror(recording)
    fake.cells["c_mprotect", 4, 4096] = MicroCell(
        {"tlb_ipi": [3]}, {"remote_send_ipi/all0": [1], "remote_shootdown/16": [3]}
    )
    fake.cells["f_fork", 4, 16] = MicroCell({"tlb_ipi": [3]}, {"remote_send_ipi/1": [9]})
    del fake.cells["z_new", 4, 16], fake.runs["a8"]
    fake.runs |= {"f1": run("f1", ipis=1500), "f8_off": run("f8_off", ipis=1200)}
    emulated = {tag: [entry] for tag, entry in fake.runs.items()}
    known = {scenario for scenario, _, _ in fake.cells}
    rules = read_rules(kernel_folder("6.12"))
    return Fidelity(
        rules=rules,
        explained=EXPLAINED,
        rows=judge_cells(recording.micro, fake.cells, sorted(known), rules, EXPLAINED),
        bands=judge_runs(recording.pressure, emulated, ROWS, EXPLAINED),
        directions=judge_directions(recording.pressure, emulated, ROWS, EXPLAINED),
        docs={"f_fork": "fork (write-protects the parent)"},
        micro_seconds=1.5,
        pressure_seconds=61.25,
    )


def check(name: str, text: str) -> None:
    file = EXPECTS / name
    if os.environ.get("LUF_RENEW"):
        file.write_text(text)
    assert text == file.read_text()


def test_seeds_and_what_they_leave_open_are_said(fidelity):
    """Heading, spread beside the value, a count of its own; a page with a table of them."""
    wide = [replace(row, own=[400.0, 1600.0]) for row in fidelity.bands]
    open_ = [replace(one, verdict=UNDECIDED, explanation="") for one in fidelity.directions]
    several = replace(fidelity, repeat=3, bands=wide, directions=open_)
    said = " ".join(render(several, everything=True).plain.split())
    assert "; seeds 1 to 3, jobs" in said
    assert "400..1,600" in said
    assert f"{len(open_)} changes not decided: the emulator's seeds overlap" in said
    page = document(several, "golden.png")
    assert "Undecided, since the emulator's own seeds overlap" in page
    assert page.count("400..1,600") == len(wide)
    assert "seed 1, jobs" in render(fidelity).plain


@pytest.mark.parametrize(("name", "everything"), [("golden.txt", False), ("golden-all.txt", True)])
def test_the_screen_is_the_golden_text(fidelity, name, everything):
    """Differences only, or every row."""
    check(name, render(fidelity, everything=everything).plain)


def test_the_page_is_the_golden_text(fidelity):
    """What agrees, what differs and why, what is not modelled."""
    check("golden.md", document(fidelity, "golden.png"))


def test_columns_stay_apart(fidelity):
    """A range of three long numbers widens its column, in the head, too."""
    row = next(row for row in fidelity.rows if row.metric == "tlb_ipi" and row.verdict == DIFFERS)
    wide = replace(row, metric="pgfault", real=[4102, 4103, 4104])
    shown = render(replace(fidelity, rows=[wide], bands=[], directions=[])).plain.splitlines()
    head, line = next((a, b) for a, b in pairwise(shown) if a.startswith("scenario"))
    assert line.split()[3:5] == ["pgfault", "4,102..4,103..4,104"]
    assert head.index("real") + len("real") == line.index("4,104") + len("4,104")


def test_unexplained_differences_come_first(fidelity):
    """Then the explained ones, then unknown scenarios, runs that were not run and explanations that outlived
    their difference.
    """
    text = render(fidelity).plain
    places = [
        text.index(words)
        for words in (
            "micro, unexplained",
            "micro, explained: The stack's",
            "outside the band, unexplained",
            "explained: kcompactd()",
        )
    ]
    assert places == sorted(places)
    assert re.search(r"^not known +scenarios .*: z_new \(1 cell\)$", text, re.M)
    assert re.search(r"^not run +pressure runs .*: a8$", text, re.M)
    assert re.search(r"^outlived +.*a_\* pgfault: Nothing any more", text, re.M)
    assert "outlived" not in render(replace(fidelity, shipped=False)).plain, (
        "another recording need not have what is explained"
    )


def test_json_has_rows_cells_pressure_and_summary(fidelity):
    """Versioned; counts agree with the rows."""
    found = json.loads(fidelity.to_json())
    assert found["schema"] == "luf-golden/2"
    assert len(found["rows"]) == found["summary"]["micro"]["rows"] == len(fidelity.rows)
    assert len(found["cells"]) == found["summary"]["micro"]["cells"] == 6
    assert {row["tag"] for row in found["pressure"]["rows"]} == {"f1", "f8", "f8_off", "a8"}
    assert (found["summary"]["agrees"], found["summary"]["unknown_scenarios"]) == (False, {"z_new": 1})
    by_verdict = [
        sum(row["verdict"] == verdict for row in found["rows"])
        for verdict in ("agrees", "differs", "varies", "unknown")
    ]
    assert by_verdict == [
        found["summary"]["micro"][name] for name in ("agrees", "differs", "varies", "unknown")
    ]
    assert sum(by_verdict) == len(found["rows"])


def test_a_result_is_explained_anew(fidelity, tmp_path):
    """Verdicts stay, explanations are today's: of rows, bands and directions, and of nothing that agrees."""
    (tmp_path / "out.json").write_text(fidelity.to_json())
    today = Explained(difference=[Explanation(scenario="*", mechanism="fork() does it all.")])
    again = read_fidelity(tmp_path / "out.json", fidelity.rules, today, fidelity.docs)
    assert [row.verdict for row in again.rows] == [row.verdict for row in fidelity.rows]
    assert len(again.differences) == len(fidelity.differences) == 8
    assert {one.explanation for one in again.differences} == {"fork() does it all."}
    assert {row.explanation for row in again.rows if row.verdict != "differs"} == {""}
    assert read_fidelity(tmp_path / "out.json", fidelity.rules, EXPLAINED, fidelity.docs) == fidelity


def test_it_agrees_only_if_something_was_judged(fidelity):
    """Nothing but unknown scenarios is no agreement; nothing but agreeing rows is."""
    good = [row for row in fidelity.rows if row.scenario == "a_munmap"]
    new = [row for row in fidelity.rows if row.scenario == "z_new"]

    def agrees(rows) -> bool:
        return Fidelity(fidelity.rules, EXPLAINED, rows, [], []).agrees

    assert [agrees(rows) for rows in ([], new, good, good + new, fidelity.rows)] == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_colour_only_on_a_terminal(fidelity):
    """A pipe gets plain text."""
    stream = io.StringIO()
    print_fidelity(fidelity, stream)
    assert stream.getvalue() == render(fidelity).plain


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_it_is_drawn(fidelity, tmp_path, ending):
    """Both panels; also when there is nothing for one, or for both."""
    draw_fidelity(fidelity, tmp_path / f"picture{ending}")
    assert (tmp_path / f"picture{ending}").stat().st_size > 10_000
    draw_fidelity(Fidelity(fidelity.rules, EXPLAINED, [], [], []), tmp_path / f"empty{ending}")
    with pytest.raises(ValueError, match=r"^'--plot' must end in .png, .svg or .pdf \(got 'picture.bmp'\)$"):
        draw_fidelity(fidelity, tmp_path / "picture.bmp")


def test_shares_are_rounded_down_and_means_keep_their_digits():
    """Only all is 100 %."""
    assert [percent_down(2999, 3000), percent_down(3, 3), percent_down(0, 0)] == ["99.9 %", "100.0 %", "-"]
    assert [number(4096.0), number(8 + 2 / 3), number(0.0)] == ["4,096", "8.667", "0"]


def test_rows_survive_a_round_trip(fidelity):
    """What the JSON holds can be read as rows again."""
    from emulator.golden.compare import Row

    assert msgspec.json.decode(fidelity.to_json(), type=dict)["kernel"] == "6.12"
    assert msgspec.convert(json.loads(fidelity.to_json())["rows"], list[Row]) == fidelity.rows
