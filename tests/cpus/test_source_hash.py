"""What compiled code depends on is hashed by content: stale code never runs, and a place or a time is not
part of it.
"""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cpus import source_hash as module
from cpus.source_hash import source_hash

ROOT = Path(__file__).parents[2]
MIDDLE = (
    "from cpus.compiled import kernel\nfrom stale_room.bottom import NUMBER\n\n\n"
    "@kernel\ndef middle(x):\n    return x + NUMBER\n"
)
TOP = (
    "from cpus.compiled import kernel\nimport stale_room.middle\nfrom stale_room.middle import middle\n\n\n"
    "@kernel\ndef top(x):\n    return 10 * middle(x)\n"
)


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A project room of three files: `top` calls `middle`, which takes a constant from `bottom`; `other`
    stands apart.
    """
    folder = tmp_path / "stale_room"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "bottom.py").write_text("NUMBER = 1\n")
    (folder / "middle.py").write_text(MIDDLE)
    (folder / "top.py").write_text(TOP)
    (folder / "other.py").write_text("WORD = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "ROOMS", (*module.ROOMS, "stale_room"))
    _forget()
    yield folder
    _forget()
    for name in [name for name in sys.modules if name.startswith("stale_room")]:
        del sys.modules[name]


def _forget():
    """As in a new process."""
    module._sources.clear()
    module._hashes.clear()
    module._folder_of.cache_clear()


def _hashes(folder):
    _forget()
    return {name: source_hash(str(folder / f"{name}.py")) for name in ("bottom", "middle", "top", "other")}


def _changed(before, after):
    return {name for name in before if before[name] != after[name]}


def test_an_edit_changes_the_hash_of_all_that_depend_on_it_and_no_other(room):
    """Editing a file that is imported, directly or not, makes a new cache folder; others keep theirs."""
    first = _hashes(room)
    assert _hashes(room) == first
    (room / "bottom.py").write_text("NUMBER = 2\n")
    second = _hashes(room)
    assert _changed(first, second) == {"bottom", "middle", "top"}
    (room / "top.py").write_text((room / "top.py").read_text() + "\n")
    assert _changed(second, _hashes(room)) == {"top"}


@pytest.mark.parametrize(
    "statement",
    [
        "from stale_room import bottom",
        "def late():\n    if WORD:\n        from stale_room.bottom import NUMBER",
        "try:\n    pass\nexcept ValueError:\n    pass\nelse:\n    import stale_room.bottom as low",
        "match WORD:\n    case 1:\n        import bottom",
        "from stale_room.bottom import (\n    # import what it counts\n    NUMBER as low,\n)",
        "from stale_room.bottom import (\n    NUMBER as low,\n)  # its one name",
        "from stale_room.bottom \\\n    import NUMBER",
        "import os; import stale_room.bottom",
        "if WORD: import stale_room.bottom",
        '"""\nimport this\n"""\nimport stale_room.bottom',
        '"""\nfrom here import is one word\n"""\nimport stale_room.bottom',
    ],
)
def test_imports_are_found_wherever_they_stand(room, statement):
    """Of a module, of names in it, deep inside other statements, and of the file beside by its bare name."""
    (room / "other.py").write_text(f"WORD = 1\n{statement}\n")
    first = _hashes(room)
    (room / "bottom.py").write_text("NUMBER = 2\n")
    assert "other" in _changed(first, _hashes(room))


def test_two_files_that_change_places_are_another_hash(room):
    """The names that files are imported by count, not their contents alone."""
    (room / "other.py").write_text("NUMBER = 5\n")
    (room / "top.py").write_text("from stale_room import bottom, other\n")
    first = source_hash(str(room / "top.py"))
    (room / "bottom.py").write_text("NUMBER = 5\n")
    (room / "other.py").write_text("NUMBER = 1\n")
    _forget()
    assert source_hash(str(room / "top.py")) != first


def test_a_copy_in_another_place_made_at_another_time_has_the_same_hash(room, tmp_path, monkeypatch):
    """As a second checkout is."""
    first = _hashes(room)
    copy = tmp_path / "a" / "stale_room"
    shutil.copytree(room, copy, copy_function=shutil.copyfile)
    os.utime(copy / "bottom.py", (0, 0))
    monkeypatch.syspath_prepend(copy.parent)
    importlib.invalidate_caches()
    assert _hashes(copy) == first


def test_a_module_that_is_loaded_again_is_hashed_again(room):
    """In a process that lives on, as a notebook's: neither the old code nor the old hash for the new code."""
    from stale_room import top

    assert top.top(5) == 60
    first = source_hash(str(room / "top.py"))
    (room / "bottom.py").write_text("NUMBER = 20\n")
    (room / "middle.py").write_text(MIDDLE + "# and more\n")
    (room / "top.py").write_text(TOP + "# and more\n")
    for name in ("bottom", "middle", "top"):
        sys.modules[f"stale_room.{name}"] = importlib.reload(importlib.import_module(f"stale_room.{name}"))
    assert sys.modules["stale_room.top"].top(5) == 250
    assert source_hash(str(room / "top.py")) != first


def _call_top(room, cache, decorator="kernel"):
    """Run top(5) in a fresh process with that cache; returns what it gives."""
    program = "import cpus.source_hash as s; s.ROOMS += ('stale_room',)\n"
    if decorator == "njit":
        program += "import numba, cpus.compiled as c; c.kernel = numba.njit(cache=True)\n"
    program += "from stale_room.top import top; print(top(5))"
    environment = os.environ | {
        "PYTHONPATH": f"{room.parent}:{ROOT}",
        "LUF_CACHE_DIR": str(cache),
        "NUMBA_CACHE_DIR": str(cache),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return int(done.stdout)


def test_no_stale_code_runs(room, tmp_path):
    """A constant two files away changes: the next process computes with the new one, from the same cache."""
    assert _call_top(room, tmp_path / "cache") == 60
    (room / "bottom.py").write_text("NUMBER = 2\n")
    assert _call_top(room, tmp_path / "cache") == 70


def test_planted_plain_numba_cache_is_stale(room, tmp_path):
    """What the hash is for: numba's cache runs the old code. Should this fail one day, the hash may go."""
    assert _call_top(room, tmp_path / "cache", "njit") == 60
    (room / "bottom.py").write_text("NUMBER = 2\n")
    assert _call_top(room, tmp_path / "cache", "njit") == 60
