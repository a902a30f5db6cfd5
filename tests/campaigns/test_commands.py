"""The campaigns' own logic: what a cell's line says, where witnesses go, what of a page is kept. No engine
runs here.
"""

from __future__ import annotations

import pytest

from designs.shelf import design
from emulator.snapshots import Between
from tests.campaigns import published, results, seeds
from tests.campaigns.published_figures import FIGURES, Seen, agrees, change, figures_table
from tests.campaigns.takeoffs import COLUMNS, blocks, takeoff_table
from tests.emulator.fixed import REUSE, run


def test_a_cell_counts_kinds_and_keeps_the_first_witness(tmp_path):
    """Two dirty runs of three: both seeds, each kind with its count, one file a kind."""
    cell = seeds.Cell("none", "read-only:50%", 8)
    cell.note(1, {})
    cell.note(2, seeds.wrong(run("none", violations=[REUSE])))
    cell.note(3, seeds.wrong(run("none", violations=[REUSE], accounted={"message": [40, 39]})))
    assert cell.line().endswith("NOT clean: 2 of 3 (reuse 2, message unaccounted 1), seeds 2 3")
    cell.keep(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "none-read_only_50-8-message_unaccounted.txt",
        "none-read_only_50-8-reuse.txt",
    ]
    assert "seed 2\nVIOLATION  reuse" in (tmp_path / "none-read_only_50-8-reuse.txt").read_text()


def test_a_clean_cell_says_so():
    """One line."""
    cell = seeds.Cell("luf", "churn", 64)
    cell.note(1, {})
    assert " ".join(cell.line().split()) == "luf churn 64 CPUs 1 seeds 0.0 s all clean"


@pytest.mark.parametrize(("found", "code"), [({}, 0), ({"reuse": "proof"}, 1)])
def test_exit_code_and_one_line_a_cell(monkeypatch, capsys, tmp_path, found, code):
    """Every workload, every number of CPUs, every design; --workload may be repeated."""
    monkeypatch.setattr(seeds, "_run", lambda *cell: dict(found))
    what = [
        "--designs",
        "linux",
        "luf",
        "--workload",
        "churn",
        "fork-storm",
        "--workload",
        "xsbench",
        "--cpus",
        "2",
        "4",
        "--seeds",
        "2",
    ]
    assert seeds.main([*what, "--witnesses", str(tmp_path)]) == code
    assert len(capsys.readouterr().out.splitlines()) == 12


def test_table_of_results():
    """The first design has figures, the others changes; a run that was cut short is not compared."""
    rows = [
        results.Row("linux", "llama3x15", run("linux")),
        results.Row("luf", "llama3x15", run("luf")),
        results.Row("none", "llama3x15", run("none", violations=[REUSE])),
        results.Row("stuck", "llama3x15", None, "no ack from cpu3"),
    ]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in results.table(rows, "linux").splitlines()
    ]
    assert {len(line) for line in lines} == {13}
    assert lines[2][2:8] == ["1,580", "1,570", "-", "-", "2,001,000", "40,000"]
    assert lines[3][2:9] == ["42", "32", "1,538", "-97.3 %", "-50.0 %", "-80.0 %", "-4.4 %"]
    assert lines[4][4:9] == ["-"] * 5
    assert [line[-1] for line in lines[2:]] == [
        "clean",
        "clean",
        "violation: reuse",
        "stopped: no ack from cpu3",
    ]


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "clean"),
        ({"exercised": {"a": 1, "b": 0}}, "clean; exercised 1 of 2"),
        (
            {"exercised": {"a": 1, "b": 0}, "relies_on": ["a", "b"]},
            "clean; exercised 1 of 2; relied on, never: b",
        ),
        ({"exercised": {"a": 1}, "violations": [REUSE]}, "violation: reuse"),
    ],
)
def test_the_verdict_says_what_was_exercised(changes, verdict):
    """Of a clean run; one that is not clean needs no such words."""
    row = results.Row("linux", "churn", run("linux", **changes))
    assert results.table([row], "linux").splitlines()[2].endswith(f"| {verdict} |")
    assert results.median_row([row, row, row]).result is row.result


def test_the_median_of_several_seeds():
    """The middle run is shown, with the range; one that was not clean is shown in place of all."""
    rows = [results.Row("luf", "churn", run("luf", tlb_shootdowns=count)) for count in (30, 10, 20)]
    shown = results.median_row(rows)
    assert shown.result.tlb_shootdowns == 20
    assert "| 20 (10 - 30) |" in results.table([shown], "linux")
    stuck = results.Row("luf", "churn", None, "no ack")
    assert results.median_row([*rows, stuck]) is stuck


def test_changes_of_several_seeds_have_an_interval_or_say_that_none_is_seen():
    """A figure that lies apart in all runs is seen, one that is the same in both is not."""

    def several(design, shootdowns):
        runs = [run(design, seed=i, tlb_shootdowns=shootdowns + i, dtlb_load_misses=500) for i in range(5)]
        return results.median_row([results.Row(design, "churn", one) for one in runs])

    text = results.table([several("linux", 1000), several("luf", 100)], "linux")
    assert [cell.strip() for cell in text.splitlines()[3].split("|")][5:8] == [
        "900", "-89.8 % [-90.0, -89.6]", "the same"
    ]  # fmt: skip


def test_the_table_of_take_offs():
    """Designs that measure them, with what those that paid took, and the level of clean pages as blocks of
    one height for all.

    The height is that of the second half: before memory is full there are many more clean pages, beside which
    all else would look alike.
    """
    times = {"p50_ns": 1_800, "p99_ns": 6_100, "max_ns": 12_000}
    stats = {"flushes": 7, "merged": 30, "waits": 2, "wait_ns": 2_400_000,
             "takeoff": {"count": 5_000} | times, "takeoff_paid": {"count": 40} | times}  # fmt: skip
    runs = [
        run("linux"),
        run(
            "luf",
            design_stats=stats
            | {"clean_pages": {"t_ns": [1, 2, 3, 4, 5, 6], "node0": [80_000, 60_000, 400, 800, 0, 200]}},
        ),
        run("luf:sync=each", design_stats=stats | {"clean_pages": {"t_ns": [], "node0": []}}),
    ]
    lines = takeoff_table(runs).splitlines()
    cells = [cell.strip() for cell in lines[-2].strip("|").split("|")]
    assert cells[:10] == [
        "luf",
        "42",
        "7",
        "30",
        "2",
        "2.400 ms",
        "40 of 5,000",
        "1.800 us",
        "6.100 us",
        "12.00 us",
    ]
    assert cells[10:] == [f"`{'█' * 8}{'▄' * 4}{'█' * 4}{' ' * 4}{'▂' * 4}`", "0"]
    assert lines[-1].startswith("| luf:sync=each |")
    assert "Full height is 800 pages" in takeoff_table(runs)
    assert takeoff_table(runs[:1]) == ""
    assert len(blocks(range(1000), 999)) == COLUMNS
    assert blocks([1] * COLUMNS, 1_000_000) == "▁" * COLUMNS


def test_a_slot_without_an_end_is_refused():
    """A page whose lines were filled anew had lost its end, and the next run would have lost the text."""
    begin, end = results.BEGIN.format("open question"), results.END.format("open question")
    with pytest.raises(ValueError, match="must be followed by"):
        results.by_hand(f"{begin}\ntext {end[:12]}\n{end[13:]}\n", "open question")


def test_what_was_written_by_hand_is_kept():
    """The slot survives; everything else is new."""
    parts = {
        "head": "# Results\n",
        "designs": "D\n",
        "timeline": "T\n",
        "takeoffs": "P\n",
        "workloads": "W\n",
        "switches": "S\n",
    }
    first = results.document(parts, "")
    assert results.SLOTS["open question"] in first
    mine = first.replace(results.SLOTS["open question"], "One global flusher.\n\nWhy: ...")
    again = results.document({**parts, "designs": "D2\n"}, mine)
    assert again == mine.replace("D\n", "D2\n")


def test_every_generated_workload_is_in_the_results():
    """Those that need a parameter, with several."""
    names = results.workload_names()
    assert names[0] == "llama3x15"
    assert {
        "xsbench:file=1",
        "munmap-storm",
        "readers-writer",
        "churn",
        "fork-storm",
        "read-only:0%",
        "read-only:99%",
    } <= set(names)


def test_every_design_is_in_the_results_once():
    """`luf` stands for luf:sync=owner; eager has its own section."""
    names = results.every_design()
    assert {"linux", "luf", "luf:sync=help", "latr", "latr:ring=256"} <= set(names)
    assert not {"luf:sync=owner", "latr:ring=64", "eager"} & set(names)


@pytest.mark.parametrize(
    ("said", "ours", "direction", "size"),
    [(-0.9, -0.5, True, True), (-0.9, -0.4, True, False), (-0.9, 0.9, False, False), (0.5, 1.1, True, False),
     (-0.7, -0.001, False, False), (0.0, 0.01, True, True), (0.0, -0.3, False, False),
     (661.0, 859.0, True, True)],
)  # fmt: skip
def test_what_agrees_with_a_published_figure(said, ours, direction, size):
    """Same sign, not nothing; between half and twice. Where nothing was published to change, nothing may."""
    assert agrees(said, ours)[:2] == (direction, size)


def test_every_published_figure_can_be_run_and_says_where_it_is_from():
    """Experiment and designs exist; the source has its grade."""
    for figure in FIGURES:
        assert figure.experiment in published.EXPERIMENTS
        assert [design(name).name for name in (figure.base, figure.design) if name]
        assert figure.source.endswith(("[measured]", "[cited]")), figure


def test_table_of_published_figures():
    """Each figure a line of equal cells; below it, a reason for each that does not agree."""
    names = {(figure.experiment, name) for figure in FIGURES for name in (figure.base, figure.design)}
    same = Seen(run("linux", vmstat={"pgmigrate_success": 10}))
    found = {key: Seen(same.result, (published_part(),), 1) for key in names}
    text = figures_table(found)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {10}
    assert len(table) == len(FIGURES) + 2
    flat = [figure for figure in FIGURES if figure.base and abs(figure.published) >= 0.02]
    assert sum(line.startswith("- `") for line in text.splitlines()) >= len(flat), (
        "every run is the same, so nothing has changed"
    )
    assert all(change(figure, same, same) == 0 for figure in FIGURES if figure.what == "runtime")


def published_part():
    """What a measured part is: 2 interrupts in 1,000 ns."""
    return Between((0, 2), {"shootdown_wait_ns": 500}, {}, {}, 1000)


def test_sections_are_replaced_where_they_stand():
    """The rest of the page stays; a new section comes last."""
    page = "# Results\n\n## A\n\na\n\n## B\n\nb\n\n## C\n\nc\n"
    again = published.replaced(page, {"B": "new\n", "D": "d"})
    assert again == "# Results\n\n## A\n\na\n\n## B\n\nnew\n\n## C\n\nc\n\n## D\n\nd\n"
    assert published.replaced(again, {"B": "new", "D": "d"}) == again


def test_a_machine_that_cannot_be_is_refused_before_anything_runs(capsys):
    with pytest.raises(SystemExit) as stopped:
        seeds.main(["--scale", "8192", "--cpus", "4", "64"])
    assert stopped.value.code == 2
    assert "'nodes[0].memory_mib' must be at least 8 after scaling (got 5.2)" in capsys.readouterr().err
