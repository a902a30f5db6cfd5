"""`luf golden --again` reads what `--json` left, and nothing that contradicts itself."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from emulator.cli import main
from emulator.golden.data import GoldenError, MicroCell, kernel_folder, read_recording
from emulator.golden.report import render
from emulator.golden.result import read_fidelity
from emulator.golden.rules import Explained, read_rules
from tests.golden.recorded import cell, mirror, run, write


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """What a comparison left: rows of both kinds, a difference, bands, directions."""
    folder = tmp_path_factory.mktemp("left")
    data = write(
        folder / "data", [cell("a_munmap", 1), cell("f_fork")], [run("f8"), run("a8", workload="anon_rw")]
    )
    fake = mirror(read_recording(data))
    fake.cells["f_fork", 4, 16] = MicroCell({"tlb_ipi": [4]}, {})
    fake.runs["f8"] = run("f8", ipis=2000)
    out = folder / "out.json"
    assert main(["golden", "--data", str(data), "--json", str(out)], emulate=fake.emulation()) == 1
    return json.loads(out.read_text(encoding="utf-8"))


def again(folder: Path, table) -> object:
    file = folder / "again.json"
    file.write_text(json.dumps(table), encoding="utf-8")
    return read_fidelity(file, read_rules(kernel_folder("6.12")), Explained(), {})


def changed(table, path, value):
    """Return a copy with one value replaced; the path has numbers for lists."""
    table = copy.deepcopy(table)
    place = table
    *steps, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    for step in steps:
        place = place[step]
    place[last] = value
    return table


def test_what_was_left_is_read(tmp_path, left):
    """What is changed below was right before."""
    assert again(tmp_path, left).rows
    assert left["pressure"]["directions"]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("rows/0/T", 0, "'rows[0].T' must be at least 1 (got 0)"),
        ("rows/0/P", 2**40, "'rows[0].P' must be at most 1048576 (got 1099511627776)"),
        ("rows/0/kind", "count", "'rows[0].kind' must be counter or event (got 'count')"),
        ("rows/0/real", [], "'rows[0].real' must be a list of at least 1 (got [])"),
        ("rows/0/real", [3.0], "'rows[0].real' must be [min, median, max] of a counter, [mean] of events (g"),
        ("rows/0/real", [3, 2, 1], "'rows[0].real' must be [min, median, max] in this order (got [3.0, 2.0,"),
        ("rows/0/real", [-1, 0, 1], "'rows[0].real[0]' must be at least 0 (got -1)"),
        ("rows/0/emulated", "x", "'rows[0].emulated' must be a number or nothing (got 'x')"),
        ("rows/0/verdict", "right", "'rows[0].verdict' must be agrees or differs or varies or unknown (got"),
        ("rows/0/verdict", "differs", "'rows[0].verdict' must go with 3 in [3.0, 3.0, 3.0] (got 'differs')"),
        ("rows/0/metric", "", "'rows[0].metric' must be text of at least 1 character (got '')"),
        ("pressure/rows/0/kind", "space", "'pressure.rows[0].kind' must be count or time (got 'space')"),
        ("pressure/rows/0/factor", 0.5, "'pressure.rows[0].factor' must be at least 1 (got 0.5)"),
        ("pressure/rows/0/spread", [1.0], "'pressure.rows[0].spread' must be [lowest, highest], or nothing"),
        ("pressure/rows/0/own", [2.0, 1.0], "'pressure.rows[0].own' must be [lowest, highest], or nothing"),
        ("pressure/rows/0/verdict", "inside", "'pressure.rows[0].verdict' must be 'outside' by its figures"),
        ("pressure/directions/0/real", 1.5, "'pressure.directions[0].real' must be at most 1 (got 1.5)"),
        ("pressure/directions/0/verdict", "up", "'pressure.directions[0].verdict' must be same or opposite"),
        ("pressure/directions/0/respect", "x", "'pressure.directions[0].respect' must be T or policy or wor"),
        ("host_seconds", {}, "'host_seconds.micro' is missing"),
        ("host_seconds/micro", -1, "'host_seconds.micro' must be at least 0 (got -1)"),
        ("seed", -1, "'seed' must be at least 0 (got -1)"),
        ("repeat", 0, "'repeat' must be at least 1 (got 0)"),
        ("kernel", "6.1" * 100, "'kernel' must be '6.12' (got '6.16.1"),
        ("pressure", [], "'pressure' must be a table (got [])"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path, left, path, value, sentence):
    with pytest.raises(GoldenError) as refused:
        again(tmp_path, changed(left, path, value))
    assert str(refused.value).startswith(f"{tmp_path}/again.json: ")
    assert sentence in str(refused.value)


def test_a_direction_that_its_figures_deny(tmp_path, left):
    """Two changes of one sign are no opposites."""
    one = left["pressure"]["directions"][0] | {"real": 0.5, "emulated": 0.5, "verdict": "opposite"}
    with pytest.raises(GoldenError, match=r"directions\[0\]\.verdict' must go with 0\.5 and 0\.5"):
        again(tmp_path, changed(left, "pressure/directions/0", one))


def leaves(value, path=()):
    """Give the path of every value of a table."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from leaves(one, (*path, key))


@pytest.mark.parametrize("odd", [None, -1, 2**63, "x", [], {}, True])
def test_any_value_in_any_place_is_refused_or_reported(tmp_path, left, odd):
    """A report of what is accepted can be printed: nothing of another shape reaches it."""
    for path in leaves(left):
        if path[0] in ("rules", "summary", "cells"):  # which are made anew
            continue
        try:
            found = again(tmp_path, changed(left, "/".join(map(str, path)), odd))
        except GoldenError as error:
            said = str(error)
        else:
            said = "" if render(found, everything=True).plain else "nothing"
        assert len(said) < 400 + len(str(tmp_path)), path
