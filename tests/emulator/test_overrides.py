"""What was changed of a machine, and with which parameters design and workload ran, is wherever a run is
shown: a sweep can tell its rows apart.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from emulator.cli import main
from emulator.experiment import run_design
from emulator.machine import MachineError, load_machine
from emulator.report.plot import picture_title
from emulator.report.text import report_text
from emulator.result import compare, from_json, read_comparison, to_json
from emulator.run_folder import toml_text
from inputs.text import visible
from tests.emulator.fixed import Experiment, comparison, run

CHANGED = {"costs.ipi_latency": 900, "tlb.pcid": False, "nodes.0.cpus": "0-2,3"}
TEXT = "costs.ipi_latency=900, tlb.pcid=false, nodes.0.cpus=0-2,3"
SETTINGS = [part for key in TEXT.split(", ") for part in ("--set", key)]
SHOWN = re.compile(rf"^          set +{re.escape(TEXT)}$", re.M)


def shows_settings(text: str) -> bool:
    return bool(SHOWN.search(text))


def test_set_is_on_the_screen_and_in_all_that_is_left(capsys, tmp_path, monkeypatch):
    """Screen, report, timeline, its file, result.json; and pictures, whose title is the same text."""
    monkeypatch.chdir(tmp_path)
    command = ["run", "linux", "--machine", "guest-8cpu", "--cpus", "4", "--leases", "2", *SETTINGS]
    for words in (command, ["report", "runs/latest"], ["report", "runs/latest", "--timeline"]):
        assert main(words, emulate=Experiment()) == 0
        assert shows_settings(capsys.readouterr().out)
    assert shows_settings(Path("runs/latest/timeline.txt").read_text(encoding="utf-8"))
    (result,) = read_comparison("runs/latest").runs
    assert result.overrides == CHANGED
    assert picture_title(result).splitlines()[-1] == f"set {TEXT}"
    assert main(["report", "runs/latest", "--picture", "picture.svg"]) == 0
    assert TEXT in Path("picture.svg").read_text(encoding="utf-8")


def test_nothing_is_said_where_nothing_was_changed():
    """The check above can fail."""
    assert not shows_settings(report_text(comparison()))
    assert picture_title(run()).count("\n") == 1
    assert shows_settings(report_text(comparison(run(overrides=CHANGED))))


def test_many_settings_wrap():
    """No line becomes longer than the screen."""
    many = {f"costs.a_rather_long_name_{i}": i for i in range(30)}
    lines = report_text(comparison(run(overrides=many))).splitlines()
    settings = [len(line) for line in lines if "a_rather_long_name" in line]
    assert len(settings) > 5
    assert max(settings) <= 120
    assert all(f"name_{i}={i}" in " ".join(lines) for i in range(30))


def test_a_sweep_tells_its_rows_apart():
    """Two runs that differ in one cost only: their results differ, survive JSON, and are no comparison."""
    runs = [run("linux", overrides={"costs.ipi_latency": ns}) for ns in (900, 1800)]
    assert [from_json(to_json(compare([one]))).runs[0].overrides for one in runs] == [
        {"costs.ipi_latency": 900},
        {"costs.ipi_latency": 1800},
    ]
    sentence = r"^'overrides' must be the same .* \(got costs.ipi_latency=1800, costs.ipi_latency=900\)$"
    with pytest.raises(ValueError, match=sentence):
        compare(runs)


def test_a_machine_remembers_what_was_changed(tmp_path):
    """Also when it is read from a run's folder, and changed once more; a machine file cannot claim it."""
    machine = load_machine("guest-8cpu", cpus=4, overrides=CHANGED)
    assert machine.overrides == CHANGED
    file = tmp_path / "config.toml"
    file.write_text(toml_text({"machine": msgspec.to_builtins(machine)}))
    assert load_machine(file) == machine
    again = load_machine(file, overrides={"costs.ipi_latency": 5, "swap_mib": 0})
    assert again.overrides == CHANGED | {"costs.ipi_latency": 5, "swap_mib": 0}
    assert (again.costs.ipi_latency, again.tlb.pcid) == (5, False)
    lying = tmp_path / "lying.toml"
    lying.write_text('like = "guest-8cpu"\n[overrides]\nx = 1\n')
    with pytest.raises(MachineError, match=r"^lying.toml: 'overrides' must be given as --set"):
        load_machine(lying)


def test_a_result_in_python_has_what_the_command_line_shows():
    """Machine, its scale and changes, and every parameter of design and workload."""
    machine = load_machine("guest-8cpu", cpus=2, overrides={"costs.ipi_latency": 900})
    result = run_design("luf:sync=help", machine, "munmap-storm:pages=4,threads=2", tokens=1, leases=1)
    assert result.clean
    assert (result.overrides, result.design_parameters["sync"]) == ({"costs.ipi_latency": 900}, "help")
    assert set(result.design_parameters) > {"sync"} or len(result.design_parameters) == 1
    assert result.workload_parameters == {"pages": 4, "threads": 2}
    assert (result.machine_text, result.scale_text) == (machine.summary(), machine.scaled_summary())
    first = report_text(compare([result])).splitlines()[0]
    assert re.fullmatch(f"machine   guest-8cpu +{re.escape(machine.summary())}", first)
    assert json.loads(to_json(result))["workload_parameters"] == {"pages": 4, "threads": 2}


@pytest.mark.parametrize(
    "name", ["tea \u2615 – 10\u00a0%", 'a "quote" and a \\\\', "a\x7fb", "\x1b[31m", "\udcff", "a\rb\x9b"]
)
def test_what_is_written_can_be_read(tmp_path, name):
    """The machine in a run's folder, whatever somebody calls it: as it was, or its odd characters visible."""
    machine = msgspec.structs.replace(load_machine("guest-8cpu"), name=name, overrides={"name": name})
    file = tmp_path / "config.toml"
    file.write_text(toml_text({"machine": msgspec.to_builtins(machine)}), encoding="utf-8")
    again = load_machine(file)
    assert again.name == again.overrides["name"] == visible(name)
