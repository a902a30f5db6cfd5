"""Stored results beside each other: what goes together, what is hidden, and what of settings is told."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from emulator.beside.page import page_of_beside
from emulator.beside.sides import beside
from emulator.beside.text import COLUMNS, beside_text
from emulator.cli import main
from emulator.repeats.result import repeats
from emulator.result import ResultError, to_json
from tests.emulator.fixed import REUSE, comparison, run
from tests.emulator.test_page import read
from tests.emulator.test_repeats import runs


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def stored(**results):
    """Write results to files; gives their names."""
    for name, found in results.items():
        Path(f"{name}.json").write_text(to_json(found))
    return [f"{name}.json" for name in results]


def several(*designs, first=400, seed=1, **changes):
    """Six runs of each design, as `luf compare --seeds 6` leaves them."""
    made = [one for design in designs for one in runs(design, 6, first=first, **changes)]
    return repeats(made)


def text_of(*found):
    return beside_text(beside([(f"runs/{i}", one) for i, one in enumerate(found)]))


def test_repeats_have_an_interval_and_equal_rows_are_hidden(capsys):
    names = stored(a=several("linux", "luf"), b=several("linux", "luf", first=500))
    assert main(["report", *names]) == 0
    text = capsys.readouterr().out
    head, linux, luf, verdict = text.split("\n\n")
    assert verdict.split() == ["verdict", "clean,", "exit", "code", "0"]
    assert "A   a.json: linux, luf, 6 runs each, seeds 1 to 6" in head
    assert "all settings are the same." in head
    for part in (linux, luf):
        assert "TLB shootdowns               402            502  +24.8 % [+24.0, +25.7]" in part
        assert "runtime" not in part
        assert "equal everywhere" in part
    assert max(map(len, text.splitlines())) <= COLUMNS


def test_equal_results_say_no_difference():
    """Also where each run differs from each other one: the same values on both sides are chance."""
    text = text_of(several("luf"), several("luf", first=401))
    assert "no difference seen (p = " in text
    assert "[" not in text
    assert "change\n                    rows hidden: " in text_of(several("luf"), several("luf"))


def test_counters_are_shown_only_beyond_chance():
    """A planted change of one counter is seen, one that is within the spread is not."""

    def made(shift):
        return repeats(
            run("luf", seed=i, vmstat={"pgfault": 1000 + shift + i, "pgmajfault": 50 + (i * 7 + shift) % 5})
            for i in range(1, 7)
        )

    text = text_of(made(0), made(101))
    assert "\npgfault   " in text
    assert "pgmajfault" not in text
    assert "1 without a difference seen" in text


def test_different_seeds_and_machines_are_told_in_one_sentence():
    mine = comparison(run("linux", seed=1), run("luf", seed=2))
    other = comparison(
        run("linux", seed=3, machine="mine", overrides={"costs.ipi_latency": 900}), run("luf", seed=3,
            machine="mine", overrides={"costs.ipi_latency": 900}, dtlb_load_misses=2_001_000),
    )  # fmt: skip
    text = " ".join(text_of(mine, other).split())
    said = "machine (A xeon6430-cxl, B mine), seed (A 1, 2, B 3), set.costs.ipi_latency (A none, B 900)."
    assert f"Not the same: {said}" in text
    assert "dTLB-load-misses 1,000,500 2,001,000 +100.0 %" in text
    assert "changes may be chance: to tell takes 5 + 5 runs" in text


def test_one_design_each_is_compared_whatever_its_name():
    text = text_of(comparison(run("linux")), comparison(run("luf")))
    assert "TLB shootdowns             1,580             42  -97.3 %" in text


def test_what_one_result_alone_has_is_named_and_nothing_in_common_is_refused():
    text = text_of(comparison(run("linux"), run("luf")), comparison(run("linux"), run("latr")))
    assert "luf: in A alone, not compared" in text
    assert "latr: in B alone, not compared" in text
    with pytest.raises(ResultError, match="must have a design in common, or one design each"):
        text_of(comparison(run("linux"), run("luf")), comparison(run("latr"), run("abis")))


def test_three_results_are_lettered_and_fit():
    text = text_of(*(several("linux", "luf", first=400 + 100 * i) for i in range(3)), several("luf", step=0))
    assert [line[32:36] for line in text.splitlines() if "+24.8 %" in line] == [" B  "] * 2
    assert max(map(len, text.splitlines())) <= COLUMNS


def test_table_and_lkp_say_where_each_run_is_from(capsys):
    names = stored(a=comparison(), b=comparison())
    assert main(["report", *names, "--table", "t.csv"]) == 0
    with Path("t.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(one["result"], one["design"]) for one in table] == [
        ("a.json", "linux"), ("a.json", "luf"), ("b.json", "linux"), ("b.json", "luf")
    ]  # fmt: skip
    assert capsys.readouterr().out == ""
    main(["report", *names, "--format", "lkp"])
    text = capsys.readouterr().out
    assert text.startswith("A  a.json\nB  b.json\n")
    assert "A linux" in text
    assert "B luf" in text


def test_a_page_of_several_results_is_whole_and_escaped():
    odd = [("runs/<b>1", several("linux", "luf")), ("runs/2", several("linux", "luf", first=500))]
    found = beside(odd)
    text = page_of_beside(found)
    reader = read(text)
    assert all(link.startswith("#") for link in reader.links)
    assert {"results", "figures", "ratios", "run-A", "run-B"} <= set(reader.ids)
    assert "runs/&lt;b&gt;1" in text
    assert "<b>1" not in text
    assert "+24.8 % [+24.0, +25.7]" in text
    assert page_of_beside(found) == text


def test_a_violation_in_one_of_them_is_the_exit_code(capsys):
    names = stored(a=comparison(), b=comparison(run("linux"), run("luf", violations=[REUSE])))
    assert main(["report", *names]) == 1


@pytest.mark.parametrize(
    ("more", "refused"),
    [
        (["--timeline"], "'--timeline' must be asked of one result"),
        (["--picture", "x.bmp"], "'picture' must end in .png, .svg or .pdf"),
        (["nowhere.json"], "nowhere.json"),
    ],
)
def test_refusals_are_one_sentence(more, refused, capsys):
    assert main(["report", *stored(a=comparison(), b=comparison()), *more]) == 2
    error = capsys.readouterr().err
    assert refused in error
    assert len(error.splitlines()) == 1


def test_no_result_at_all_is_refused(capsys):
    assert main(["report"]) == 2
    assert "'FOLDER' must be given at least once" in capsys.readouterr().err
