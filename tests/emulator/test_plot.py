"""A picture is drawn of any comparison, and of the formats that were promised."""

from __future__ import annotations

import pytest

from emulator.plot import draw
from emulator.result import Series
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
    empty = {"tlb_shootdowns": 0, "tlb_shootdowns_per_cpu": [0], "flush_sites": {}, "series": Series(), "runtime_ns": []}
    draw(comparison(run("none", **empty)), tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text()
    assert text.count("<g") > 10


def test_another_ending_is_refused(tmp_path):
    """One sentence, and no file."""
    with pytest.raises(ValueError, match=r"^'picture' must end in .png, .svg or .pdf \(got 'picture.bmp'\)$"):
        draw(comparison(), tmp_path / "picture.bmp")
    assert list(tmp_path.iterdir()) == []
