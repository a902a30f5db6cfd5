"""docs/debug-luf.md: each of its commands ends with the exit code and prints the words that stand there.
Renew: LUF_RENEW=1.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from emulator.cli import main

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "debug-luf.md"
RUN = re.compile(
    r"^    luf (?P<command>run [^\n]+)\n\n<!-- screen: exit code (?P<code>\d) -->\n```\n(?P<screen>.*?)```$",
    re.M | re.S,
)
NUMBER = re.compile(r"\b0x[0-9a-f_]+|\d[\d,]*(?:\.\d+)?")
RUNS = list(RUN.finditer(DOCUMENT.read_text()))


def words(text: str) -> str:
    """Give a text without its figures: a run repeats exactly, but they move with the engine's version."""
    return re.sub(r"\s+", " ", NUMBER.sub("#", text))


def part_of_the_screen(printed: str) -> str:
    """What the page shows of a screen: from what was checked on, without the path of the run's folder."""
    return printed[printed.index("\ncoherence") + 1 : printed.index("\nmore: ")]


def test_the_page_has_four_runs():
    assert [run["code"] for run in RUNS] == ["1", "1", "1", "0"]


@pytest.mark.parametrize("i", range(len(RUNS)), ids=[run["command"].split()[1] for run in RUNS])
def test_run_prints_what_is_there(i, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert main([*shlex.split(RUNS[i]["command"]), "--out", str(tmp_path)]) == int(RUNS[i]["code"])
    screen = part_of_the_screen(capsys.readouterr().out)
    if os.environ.get("LUF_RENEW"):
        now = DOCUMENT.read_text()
        shown = list(RUN.finditer(now))[i]
        DOCUMENT.write_text(now[: shown.start("screen")] + screen + now[shown.end("screen") :])
    assert words(screen) == words(list(RUN.finditer(DOCUMENT.read_text()))[i]["screen"])


def test_only_the_debug_feature_sees_two_and_only_the_oracle_one():
    """What the page says of its runs stands in its screens."""
    found = [
        ("luf debug" in run["screen"], "LUF DEBUG " in run["screen"], "VIOLATION " in run["screen"])
        for run in RUNS
    ]
    assert found == [(True, True, False), (True, True, False), (True, False, True), (True, False, False)]
