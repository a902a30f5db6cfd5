"""The emulator does what the real kernel did. `luf golden` compares everything; here a part that takes
seconds.
"""

from __future__ import annotations

import pytest

from emulator.golden.compare import DIFFERS, judge_cells, tally
from emulator.golden.data import kernel_folder, read_recording
from emulator.golden.report import real_text
from emulator.golden.rules import read_explained, read_rules
from emulator.report.progress import Progress

FOLDER = kernel_folder("6.12")
THREADS, PAGES = (1, 4), (1, 33, 34)
SHARE_LEAST = 0.95


def test_small_cells_of_every_scenario_agree():
    """At least 95 % of the rows do, and each that does not is explained."""
    emulated = pytest.importorskip("emulator.golden.micro")
    cells = [cell for cell in read_recording(FOLDER).micro if cell.T in THREADS and cell.P in PAGES]
    known = emulated.scenario_names()
    asked = [cell.key for cell in cells if cell.scenario in known]
    with Progress("micro") as progress:
        found = emulated.emulate_micro(asked, seed=1, jobs=2, progress=progress)
    rows = judge_cells(cells, found, known, read_rules(FOLDER), read_explained(FOLDER))
    unexplained = [row for row in rows if row.verdict == DIFFERS and not row.explanation]
    reported = [
        f"{row.key} {row.metric}: real {real_text(row)}, emulated {row.emulated} {row.problem}"
        for row in unexplained
    ]
    assert reported == []
    share = tally(rows).share
    assert share is not None
    assert share >= SHARE_LEAST
