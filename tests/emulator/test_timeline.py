"""When it flushed: counts keep their sum and their place in time, and what an older luf lost is said."""

from __future__ import annotations

import pytest

from emulator.experiment import run_design
from emulator.machine import load_machine
from emulator.report.timeline import ASCII_BLOCKS, BLOCKS, in_columns, timeline_text
from emulator.report.timeline_plot import draw_timeline
from emulator.result import Timeline
from tests.emulator.fixed import run

BINS = 240


def with_timeline(design: str, sites: dict[str, dict[int, int]], **about: int):
    """Return a run whose `sites` have counts at some pieces of time."""
    counts = {site: [places.get(i, 0) for i in range(BINS)] for site, places in sites.items()}
    return run(design, timeline=Timeline(end_ns=about.pop("end_ns", 10_000_000), sites=counts, **about))


def test_columns_keep_the_sum_and_the_time():
    """A run of half the axis ends in the middle; what comes after the last program is in the last column."""
    line = with_timeline("linux", {"kswapd": dict.fromkeys(range(BINS), 1)}, end_ns=100).timeline
    assert sum(in_columns(line, "kswapd", 100)) == sum(in_columns(line, "kswapd", 200)) == BINS
    assert in_columns(line, "kswapd", 200, 10)[5:] == [0] * 5
    late = Timeline(end_ns=100, piece_ns=30, sites={"kswapd": [1, 0, 0, 2, 4]})
    assert in_columns(late, "kswapd", 100, 10) == [0, 1, 0, 0, 0, 0, 0, 0, 0, 6]


DESIGNS = ["linux", "luf", "eager", "epoch", "invlpgb", "none"]


def run_of(design):
    machine = load_machine("guest-8cpu", cpus=4, overrides={f"nodes.{n}.memory_mib": 8 for n in (0, 1)})
    return run_design(design, machine, "readers-writer", tokens=2, leases=2, check="off")


@pytest.mark.parametrize("design", DESIGNS)
def test_its_sums_are_the_counters(design):
    """Site by site, and in all: every request of the run, in the text and in the table."""
    result = run_of(design)
    sums = {site: sum(counts) for site, counts in result.timeline.sites.items()}
    assert sums == result.flush_sites
    assert sum(sums.values()) == result.ipi.requests
    assert result.ipi.requests > 0 or design == "none"
    assert result.clean
    shown = [line.rsplit("  ", 1)[-1] for line in timeline_text([result]).splitlines()[2 : 2 + len(sums)]]
    assert sorted(int(count.replace(",", "")) for count in shown) == sorted(sums.values())


def test_text_has_a_row_for_each_site_largest_first():
    """One scale for all designs: the busiest column is a full block, a single one the lowest."""
    linux = with_timeline("linux", {"direct reclaim": {3: 5}, "kswapd": {0: 100, 239: 50}})
    luf = with_timeline("luf", {"page allocation": {120: 1}}, end_ns=20_000_000)
    lines = timeline_text([linux, luf]).splitlines()
    assert lines[1].endswith("20.0 ms")
    assert lines[2].startswith("linux  kswapd            █")
    assert lines[2].endswith("  150")
    assert lines[3].startswith("       direct reclaim    ")
    assert lines[4].split() == ["luf", "page", "allocation", "▁", "1"]
    assert lines[5] == "█ is 100 in 0.25 ms; ▁ at least one"


def test_a_plain_alphabet_keeps_the_heights():
    """As many letters as blocks, each for one of them, in the legend too."""
    runs = [with_timeline("linux", {"kswapd": {30 * i: 1 + 14 * i for i in range(8)}})]
    shown = timeline_text(runs)
    assert set(BLOCKS) <= set(shown)
    assert timeline_text(runs, ASCII_BLOCKS) == shown.translate(str.maketrans(BLOCKS, ASCII_BLOCKS))
    assert len(set(ASCII_BLOCKS)) == len(BLOCKS)


OLD = {"rings_wrapped": 2, "complete_from_ns": 5_000_000}


def test_what_an_older_luf_has_lost_is_not_drawn_as_nothing(tmp_path):
    """Half of its columns are `?`, in every row, and a sentence says why; the picture says so, too."""
    old = with_timeline("linux", {"kswapd": {200: 1}, "direct reclaim": {30: 8}}, **OLD)
    lines = timeline_text([old, with_timeline("luf", {"fault": {0: 3}})]).splitlines()
    rows = {line[5:25].strip(): line[25:105] for line in lines[2:5]}
    for site in ("kswapd", "direct reclaim"):
        assert rows[site][:40] == "?" * 40
        assert "?" not in rows[site][40:]
    assert "?" not in rows["fault"]
    said = "the event rings of 2 CPUs wrapped: what was before 5.0 ms is not known (?), and the sums are"
    assert lines[-1] == f"linux: {said} too small"
    draw_timeline([old], tmp_path / "old.svg")
    assert "not known: its event rings wrapped" in (tmp_path / "old.svg").read_text()
    draw_timeline([with_timeline("linux", {"kswapd": {200: 1}})], tmp_path / "new.svg")
    assert "not known" not in (tmp_path / "new.svg").read_text()
    assert "nobody after 5.0 ms" in timeline_text([with_timeline("linux", {}, **OLD)])


def test_nothing_to_show():
    """No timeline at all gives no text; a design that never flushed says so."""
    assert timeline_text([run("linux")]) == ""
    assert "none  nobody" in timeline_text([with_timeline("none", {})])


def test_picture(tmp_path):
    """It can be drawn, with or without something to show."""
    file = tmp_path / "timeline.png"
    draw_timeline([with_timeline("linux", {"kswapd": {1: 2}}, rings_wrapped=1), run("luf")], file)
    assert file.stat().st_size > 5_000
