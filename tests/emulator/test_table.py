"""Rows that other tools read: CSV, JSON lines, Parquet with units, a frame, and the kernel robot's text."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from emulator.cli import main
from emulator.repeats.lkp import lkp_text
from emulator.repeats.result import repeats
from emulator.repeats.table import TableError, row, rows, to_frame, unit_of, write_table
from emulator.result import to_json
from tests.emulator.fixed import comparison, run

RUNS = [
    run("linux", overrides={"sysctl.numa_balancing": False, "costs.ipi_latency": 900}),
    run("luf", seed=2, design_parameters={"sync": "waiter"}, vmstat={"pgfault": 7, "pswpin": 3}),
]


def test_a_row_has_what_was_run_and_what_came_out():
    one = row(RUNS[0])
    assert one["design"] == "linux"
    assert one["set.costs.ipi_latency"] == 900
    assert one["flush_sites.direct reclaim"] == 36
    assert one["pgmajfault"] == 56
    assert one["tlb_shootdowns"] == sum(RUNS[0].tlb_shootdowns_per_cpu)
    assert one["runtime_mean_ns"] == RUNS[0].runtime_mean_ns
    assert one["clean"] is True
    assert row(run("none", runtime_ns=[]))["runtime_mean_ns"] is None


def test_all_rows_have_the_same_columns():
    table = rows(RUNS)
    assert list(table[0]) == list(table[1])
    assert table[0]["pswpin"] is None
    assert table[1]["set.costs.ipi_latency"] is None
    assert table[1]["design.sync"] == "waiter"


def test_csv_and_json_lines_hold_the_rows(tmp_path):
    write_table(RUNS, tmp_path / "t.csv")
    write_table(RUNS, tmp_path / "t.jsonl")
    table = rows(RUNS)
    with open(tmp_path / "t.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [list(one) for one in read] == [list(one) for one in table]
    assert read[1]["tlb_shootdowns"] == str(table[1]["tlb_shootdowns"])
    assert [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()] == table


def test_parquet_is_read_by_pandas_and_duckdb_with_units(tmp_path):
    duckdb, pandas = pytest.importorskip("duckdb"), pytest.importorskip("pandas")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "t.parquet"
    write_table(RUNS, file)
    frame = pandas.read_parquet(file)
    assert frame["tlb_shootdowns"].tolist() == [one.tlb_shootdowns for one in RUNS]
    asked = duckdb.sql(f"select design, pgfault from '{file}' where seed = 2").fetchall()
    assert asked == [("luf", 7)]
    field = parquet.read_schema(file).field("runtime_mean_ns")
    assert field.metadata == {b"unit": b"virtual ns"}


def test_values_of_two_kinds_are_words_in_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_table([run(overrides={"x": 1}), run(overrides={"x": "one"})], tmp_path / "t.parquet")
    assert parquet.read_table(tmp_path / "t.parquet")["set.x"].to_pylist() == ["1", "one"]


def test_a_frame_has_the_rows():
    pytest.importorskip("pandas")
    assert to_frame(RUNS)["design"].tolist() == ["linux", "luf"]
    assert RUNS[0].to_frame().shape[0] == 1


def test_every_column_has_a_unit_or_is_none():
    """A figure that is added gets "count", unless it says otherwise."""
    assert {
        column for column in rows(RUNS)[0] if column.endswith("_ns") and unit_of(column) != "virtual ns"
    } == set()
    assert unit_of("flush_sites.kswapd") == "requests"
    assert unit_of("design") == unit_of("set.tlb.pcid") == ""


def test_what_is_not_installed_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        TableError, match=r"pyarrow must be installed for this: pip install 'luf-emulator\[tables\]'"
    ):
        write_table(RUNS, tmp_path / "t.parquet")
    assert not any(tmp_path.iterdir())


def test_the_command_writes_it(tmp_path, capsys):
    Path(tmp_path / "r.json").write_text(to_json(comparison()))
    assert main(["report", str(tmp_path / "r.json"), "--table", str(tmp_path / "t.csv")]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "t.csv").read_text().count("\n") == 3
    assert main(["report", str(tmp_path / "r.json"), "--table", str(tmp_path / "t.xls")]) == 2
    assert capsys.readouterr().err == "luf: 'table' must end in .csv, .jsonl, .parquet (got 't.xls')\n"
    assert main(["report", str(tmp_path / "r.json"), "--table", "/nowhere/t.csv"]) == 2
    assert "'--table' must be a file that can be written (got '/nowhere/t.csv'" in capsys.readouterr().err


def test_lkp_has_mean_spread_and_change(tmp_path, capsys):
    def with_shootdowns(design, *counts):
        return [
            run(design, seed=i, tlb_shootdowns=n, tlb_shootdowns_per_cpu=[n, 0, 0, 0])
            for i, n in enumerate(counts)
        ]

    text = lkp_text([*with_shootdowns("linux", 900, 1100), *with_shootdowns("luf", 100, 100)])
    (line,) = [one for one in text.splitlines() if "TLB:TLB_shootdowns" in one]
    assert line.split() == ["1000", "±", "14%", "-90.0%", "100", "interrupts.TLB:TLB_shootdowns"]
    assert "proc-vmstat.pgmajfault" in text
    (tmp_path / "r.json").write_text(to_json(repeats([run("linux"), run("luf")])))
    assert main(["report", str(tmp_path / "r.json"), "--format", "lkp"]) == 0
    assert "%stddev" in capsys.readouterr().out
