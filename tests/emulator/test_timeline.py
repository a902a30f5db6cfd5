"""When it flushed: counts keep their sum and their place in time, and what the rings lost is said."""

from __future__ import annotations

from emulator.report.timeline import ASCII_BLOCKS, BINS, BLOCKS, rebinned, timeline_text
from emulator.report.timeline_plot import draw_timeline
from emulator.result import Timeline
from tests.emulator.fixed import run


def with_timeline(design: str, sites: dict[str, dict[int, int]], **about: int):
    """Return a run whose `sites` have counts at some pieces of time."""
    counts = {site: [places.get(i, 0) for i in range(BINS)] for site, places in sites.items()}
    return run(design, timeline=Timeline(end_ns=about.pop("end_ns", 10_000_000), sites=counts, **about))


def test_rebinning_keeps_the_sum_and_the_time():
    """A run of half the axis ends in the middle."""
    counts = [1] * BINS
    assert sum(rebinned(counts, 100, 100)) == sum(rebinned(counts, 50, 100)) == BINS
    assert rebinned(counts, 50, 100, 10)[5:] == [0] * 5


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


def test_wrapped_rings_are_said():
    """Nobody takes a part for the whole."""
    text = timeline_text(
        [with_timeline("linux", {"kswapd": {200: 1}}, rings_wrapped=2, complete_from_ns=8_000_000)]
    )
    assert text.endswith(
        "linux: the event rings of 2 CPUs wrapped; some of what was before 8.0 ms is missing\n"
    )


def test_nothing_to_show():
    """No timeline at all gives no text; a design that never flushed says so."""
    assert timeline_text([run("linux")]) == ""
    assert "none  nobody" in timeline_text([with_timeline("none", {})])


def test_picture(tmp_path):
    """It can be drawn, with or without something to show."""
    file = tmp_path / "timeline.png"
    draw_timeline([with_timeline("linux", {"kswapd": {1: 2}}, rings_wrapped=1), run("luf")], file)
    assert file.stat().st_size > 5_000
