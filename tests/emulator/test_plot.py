"""A picture is drawn of any comparison, and of the formats that were promised."""

from __future__ import annotations

import math

import pytest
from matplotlib.figure import Figure

from emulator.report import plot_many
from emulator.report.picture import room_above
from emulator.report.plot import (
    DESIGN_COLOURS,
    DESIGN_MARKERS,
    draw,
    draw_changes,
    drawn_sites,
    marker,
    pattern,
    picture_title,
    quiet_cpus,
    site_colour,
)
from emulator.result import Series, from_json, to_json
from tests.emulator.fixed import comparison, run

MAGIC = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_a_comparison_is_drawn(tmp_path, ending):
    """The file is what its name says, and not empty."""
    draw(comparison(), tmp_path / f"picture{ending}")
    data = (tmp_path / f"picture{ending}").read_bytes()
    assert data.startswith(MAGIC[ending])
    assert len(data) > 10_000


def test_a_run_without_anything_is_drawn(tmp_path):
    """One design, no shootdown, no samples, no runtime."""
    empty = {
        "tlb_shootdowns": 0,
        "tlb_shootdowns_per_cpu": [0],
        "flush_sites": {},
        "series": Series(),
        "runtime_ns": [],
    }
    draw(comparison(run("none", **empty)), tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text()
    assert text.count("<g") > 10


HUGE = 2**63 - 1
ODD_NAMES = ("$x_$", "$\\foo$", "_x", "\u4e2d\u6587", "\U0001f600", "a" * 500, "a\nb", "{}%s")


@pytest.mark.filterwarnings("error")
def test_any_name_is_drawn_as_it_is(tmp_path):
    """One that matplotlib would read as a formula, one that it has no letters for, one that is too long: a
    picture without a word, in which all stand in the legends.
    """
    named = {"node_names": ODD_NAMES[:2], "machine_text": "x" * 100_000, "overrides": {"a": "b " * 9_000}}
    runs = [run(name, flush_sites=dict.fromkeys(ODD_NAMES, 9), **named) for name in ("$x_$", "_x", "a" * 500)]
    draw(comparison(*runs), tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text()
    told = {"$x_$": 5, " _x": 6, f"{'a' * 20} ... {'a' * 20}": 6}  # the first has no bar of changes
    assert {name: text.count(f"<!-- {name}") for name in told} == told


@pytest.mark.filterwarnings("error")
def test_any_figure_that_a_result_may_have_is_drawn(tmp_path):
    """The largest ones that are read, none at all, and more designs than a legend has rows for."""
    most = {
        "tlb_shootdowns": HUGE, "tlb_shootdowns_per_cpu": [HUGE, 0], "dtlb_load_misses": HUGE, "counters": {},
        "runtime_ns": [HUGE] * 3, "flush_sites": {"kswapd": HUGE, "fault": HUGE},
        "series": Series(t_ns=[0, HUGE], free_mib=[[1e19, 0.0], [0.0, 1e19]]),
    }  # fmt: skip
    least = most | {"dtlb_load_misses": 1, "series": Series(t_ns=[5], free_mib=[]), "runtime_ns": [1]}
    for runs in ([run("a", **most), run("b", **least)], [run("b", **least), run("a", **most)]):
        table = to_json(comparison(*runs))
        draw(from_json(table), tmp_path / "picture.png")
    assert room_above(1e19, 6.0, 10_000, 3) < math.inf


def test_another_ending_is_refused(tmp_path):
    """One sentence, and no file."""
    with pytest.raises(ValueError, match=r"^'picture' must end in .png, .svg or .pdf \(got 'picture.bmp'\)$"):
        draw(comparison(), tmp_path / "picture.bmp")
    assert list(tmp_path.iterdir()) == []


def test_designs_differ_in_colour_or_marker():
    """Also the eighth from the first; bars, which have no markers, in colour or hatching."""
    designs = range(len(DESIGN_COLOURS) * len(DESIGN_MARKERS))
    for look in (marker, pattern):
        assert len({(DESIGN_COLOURS[i % len(DESIGN_COLOURS)], look(i)) for i in designs}) == len(designs)
    figure = Figure()
    axes = figure.subplots()
    draw_changes(axes, comparison(*(run(f"d{i}") for i in range(9))))
    bars = [container.patches[0] for container in axes.containers]
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in bars}) == len(bars) == 8


def test_one_large_change_does_not_flatten_the_others():
    """Beyond +100 % the scale is logarithmic; without such a change it is linear."""
    scales = []
    for misses in (2_500_000, 20_000_000):
        figure = Figure()
        axes = figure.subplots()
        draw_changes(axes, comparison(run("linux"), run("luf"), run("eager", dtlb_load_misses=misses)))
        down, zero = (axes.transData.transform((0, percent))[1] for percent in (-100, 0))
        assert (zero - down) / axes.bbox.height > 0.3
        scales.append(axes.get_yscale())
    assert scales == ["linear", "symlog"]


def test_a_run_of_rounds_is_titled_so():
    """One round is no `1 tokens`, and a script has neither."""
    for tokens, unit, title in (
        (1, "round", "1 round"),
        (1, "token", "1 token"),
        (2, "token", "2 tokens"),
        (0, "token", ""),
    ):
        words = picture_title(run("linux", tokens=tokens, unit=unit)).split("\n")[1].split("   ·   ")
        assert words[1:-1] == [title] * bool(title)


def test_sites_of_an_older_result_are_drawn_too(tmp_path):
    """A name that no site bears today has a colour, and its place between the known ones and "other"."""
    sites = {"other": 1, "swap-out": 2, "page allocation": 3, "kswapd": 4}
    assert drawn_sites(sites) == ["kswapd", "page allocation", "swap-out", "other"]
    assert len({site_colour(site) for site in sites}) == 4
    draw(comparison(run("linux", flush_sites=sites)), tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").stat().st_size > 10_000


def test_cpus_that_nobody_interrupts_are_shown_as_such():
    """Those that no design interrupts, and no other."""
    runs = [run("linux", tlb_shootdowns_per_cpu=[5, 0, 0, 2]), run("luf", tlb_shootdowns_per_cpu=[1, 0, 3])]
    assert quiet_cpus(runs) == [1]


def test_each_of_twenty_designs_has_a_row_of_its_own():
    """CPUs without a shootdown have no shade, changes stand in their cells, names beside the rows."""
    figure = Figure(layout="constrained")
    left, right = figure.subplots(1, 2)
    runs = [run(f"d{i}", tlb_shootdowns_per_cpu=[i, 0, 7]) for i in range(20)]
    plot_many.per_cpu(figure, left, runs)
    shades = left.images[0].get_array()
    assert shades.shape == (20, 3)
    assert shades.mask.sum(axis=0).tolist() == [1, 20, 0]
    assert [name.get_text().split(":")[0] for name in left.get_yticklabels()] == [one.design for one in runs]
    plot_many.changes(
        right, [("luf", [-0.94, None]), ("latr", [0.5, 0.0])], ["shootdowns", "runtime"], "linux"
    )
    assert [text.get_text() for text in right.texts] == ["-94.0", "-", "+50.0", "0.0"]
