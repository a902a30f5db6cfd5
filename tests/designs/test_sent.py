"""What arrives is kept in the cache by its content, and only what is proved to be that is ever removed."""

from __future__ import annotations

import os

import pytest

from cpus.cache_place import CacheError
from designs import sent

FILES = (("mine.py", "import parts.inner\r\n"), ("parts/inner.py", "ROUNDS = 7\n"))
OLD_S = 1_000_000


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("LUF_CACHE_DIR", str(tmp_path))
    return tmp_path / sent.FOLDER


def test_what_nobody_has_used_for_long_goes_if_it_is_named_by_its_content(place):
    """Planted: what somebody has put there, or changed, stays, however old."""
    ours, changed = sent._kept(FILES), sent._kept(FILES[1:])
    (ours / "__pycache__").mkdir()
    (changed / "diary.py").write_text("dear = 1\n")
    foreign = place / "0123456789abcdef"
    foreign.mkdir()
    (place / "note").write_text("kept\n")
    for path in (ours, changed, foreign, place / "note"):
        os.utime(path, (OLD_S, OLD_S))
    fresh = sent._kept((("other.py", ""),))
    assert set(place.iterdir()) == {changed, foreign, place / "note", fresh}


def test_a_folder_that_others_can_write_to_is_refused(place):
    """What lies in it is executed."""
    sent._kept(FILES)
    place.chmod(0o777)
    with pytest.raises(CacheError, match="must be a folder that only you can write to"):
        sent._kept(FILES)
