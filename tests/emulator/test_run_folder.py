"""A run folder is complete or not there; numbers are never shared; what died is swept away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib

import pytest

from emulator.run_folder import new_run_folder, toml_text, versions, write_comparison
from tests.emulator.fixed import comparison, run


def names(folder) -> list[str]:
    return sorted(os.listdir(folder))


def test_folders_are_numbered_and_latest_points_to_the_newest(tmp_path):
    """0001, 0002, ...; `latest` follows."""
    for kind in ("compare", "none"):
        with new_run_folder(tmp_path / "runs", kind) as folder:
            folder.write("a/b", kind)
    assert names(tmp_path / "runs") == ["0001-compare", "0002-none", "latest"]
    assert (tmp_path / "runs" / "latest" / "a" / "b").read_text() == "none"


def test_a_folder_named_latest_costs_the_link_only(tmp_path, capsys):
    """The run is kept, a line says why `latest` does not point to it, and no half-made link stays."""
    (tmp_path / "latest").mkdir()
    with new_run_folder(tmp_path, "compare"):
        pass
    assert names(tmp_path) == ["0001-compare", "latest"]
    assert (
        capsys.readouterr().err == f"luf: {tmp_path}/latest does not point to 0001-compare: Is a directory\n"
    )


def test_a_failed_run_leaves_nothing(tmp_path):
    """Not even an empty folder, and `latest` stays."""
    with new_run_folder(tmp_path, "compare"):
        pass
    with pytest.raises(KeyboardInterrupt), new_run_folder(tmp_path, "compare") as folder:  # noqa: PT012 (the block is what fails)
        folder.write("half", "x")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["0001-compare", "latest"]


def test_while_it_is_written_it_is_hidden(tmp_path):
    """Nobody who lists the folder sees a half-written result; a second run takes the next number."""
    with new_run_folder(tmp_path, "one") as first, new_run_folder(tmp_path, "two") as second:
        assert [name for name in names(tmp_path) if not name.startswith(".")] == []
        assert (first.name, second.name) == ("0001-one", "0002-two")
    assert names(tmp_path) == ["0001-one", "0002-two", "latest"]


def test_a_killed_run_leaves_no_result_and_is_swept(tmp_path):
    """SIGKILL while writing: no visible folder, and the next run removes the hidden one."""
    program = f"""
import sys, time
from emulator.run_folder import new_run_folder
with new_run_folder({str(tmp_path)!r}, "compare") as folder:
    folder.write("result.json", "half of it")
    print("writing", flush=True)
    time.sleep(60)
"""
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "writing\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait(10)
    writer.stdout.close()
    assert names(tmp_path) == [".0001.partial"]
    with new_run_folder(tmp_path, "compare"):
        pass
    assert names(tmp_path) == ["0001-compare", "latest"]


def test_a_folder_that_is_still_written_is_not_swept(tmp_path):
    """Two runs at once do not disturb each other."""
    with new_run_folder(tmp_path, "slow") as slow:
        with new_run_folder(tmp_path, "quick"):
            pass
        slow.write("kept", "yes")
    assert (tmp_path / "0001-slow" / "kept").read_text() == "yes"


def test_a_comparison_folder_has_everything(tmp_path):
    """Result, resolved config twice, environment, and per design the counters and three text files."""
    config = {
        "seed": 1,
        "designs": ["linux", "luf"],
        "machine": {"cpus": 4, "nodes": [{"name": "DRAM"}], "tlb": {"pcid": True}},
    }
    with new_run_folder(tmp_path, "compare") as folder:
        write_comparison(folder, comparison(), config)
    place = tmp_path / "0001-compare"
    assert names(place) == ["config.json", "config.toml", "environment.json", "linux", "luf", "result.json"]
    assert names(place / "luf") == ["counters.json", "interrupts", "perf-stat", "vmstat"]
    assert json.loads((place / "config.json").read_text()) == config
    assert tomllib.loads((place / "config.toml").read_text()) == config
    assert json.loads((place / "luf" / "counters.json").read_text())["tlb_shootdowns"] == [10, 12, 9, 11]


def test_each_design_has_a_folder_of_its_own(tmp_path):
    """Also if the names are equal once they are names of files, lead out of the folder, or are those of its
    files.
    """
    designs = ["a:b", "a b", "..", "../x", "result.json", "luf", "luf"]
    with new_run_folder(tmp_path, "compare") as folder:
        write_comparison(folder, comparison(*map(run, designs)), {})
    assert names(tmp_path) == ["0001-compare", "latest"]
    place = tmp_path / "0001-compare"
    folders = ["_", "_x", "a_b", "a_b-2", "luf", "luf-2", "result.json-2"]
    assert [name for name in names(place) if (place / name).is_dir()] == folders
    assert all("perf-stat" in names(place / name) for name in folders)


def test_toml_text_is_toml():
    """Nested tables, lists of tables, odd strings."""
    table = {"text": 'a "b"\n', "on": True, "sizes": [1, 2.5], "deep": {"er": {"x": 1}, "y": 2}}
    table["rows"] = [{"a": 1, "in": {"b": 2}}, {"a": 3}]
    assert tomllib.loads(toml_text(table)) == table


def test_versions_name_what_decides_a_run():
    """Python and the libraries, libzmq's own version included."""
    assert {"python", "numpy", "numba", "pyzmq", "libzmq"} <= set(versions())
