"""Compiled code is kept on disk and never stale; entries are reached through the text table, from kernels and
by Python.
"""

import ctypes
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.caching import IndexDataCacheFile

from allocator.hooks import HOOK_IDLE, HOOK_INIT, HOOK_TICK
from benchmarks.storm import small_ram
from cpus import compiled
from cpus import install as install_module
from cpus.compiled import (
    CacheError,
    Entry,
    cache_root,
    call,
    closure_hash,
    entry,
    install_python,
    kernel,
    prune_cache,
)
from cpus.install import install
from designs.memory_map import MACHINE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A project room of three files: `top` calls `middle`, which takes a constant from `bottom`; `other`
    stands apart.
    """
    folder = tmp_path / "stale_room"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "bottom.py").write_text("NUMBER = 1\n")
    (folder / "middle.py").write_text(
        "from cpus.compiled import kernel\nfrom stale_room.bottom import NUMBER\n\n\n@kernel\ndef middle(x):\n    return x + NUMBER\n"
    )
    (folder / "top.py").write_text(
        "from cpus.compiled import kernel\nimport stale_room.middle\nfrom stale_room.middle import middle\n\n\n"
        "@kernel\ndef top(x):\n    return 10 * middle(x)\n"
    )
    (folder / "other.py").write_text("WORD = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(compiled, "ROOMS", (*compiled.ROOMS, "stale_room"))
    yield folder
    for name in [name for name in sys.modules if name.startswith("stale_room")]:
        del sys.modules[name]


def _hashes(folder):
    compiled._direct_imports.cache_clear()
    closure_hash.cache_clear()
    return {name: closure_hash(str(folder / f"{name}.py")) for name in ("bottom", "middle", "top", "other")}


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


def _call_top(room, cache, decorator="kernel"):
    """Run top(5) in a fresh process with that cache; returns what it gives."""
    program = "import cpus.compiled as c; c.ROOMS += ('stale_room',)\n"
    if decorator == "njit":
        program += "import numba; c.kernel = numba.njit(cache=True)\n"
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
    """What the hash is for: numba's own cache runs the old code. Should this fail one day, the hash may go."""
    assert _call_top(room, tmp_path / "cache", "njit") == 60
    (room / "bottom.py").write_text("NUMBER = 2\n")
    assert _call_top(room, tmp_path / "cache", "njit") == 60


def test_a_file_may_be_imported_and_run_as_a_script(tmp_path):
    """A user's design file is both: compiled code names the module that it came from, so neither may get the
    other's from the cache.
    """
    file = tmp_path / "own.py"
    file.write_text(
        "from cpus.compiled import kernel\n\n@kernel\ndef one_more(x):\n    return x + 1\n\nprint(one_more(1))\n"
    )
    environment = os.environ | {"LUF_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    imported = (
        f"import importlib.util as u, sys; s = u.spec_from_file_location('luf_design_own', {str(file)!r}); "
        "m = sys.modules['luf_design_own'] = u.module_from_spec(s); s.loader.exec_module(m)"
    )
    for command in (["-c", imported], [str(file)], ["-c", imported]):
        done = subprocess.run(
            [sys.executable, *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("2\n", "")


def test_code_without_a_file_is_compiled_without_a_cache():
    """As in a notebook: a function made from a string."""
    space = {}
    exec(compile("def twice(x):\n    return 2 * x\n", "<cell 1>", "exec"), space)
    assert kernel(space["twice"])(21) == 42


FIRST, SECOND, PYTHON = HOOK_INIT, HOOK_TICK, HOOK_IDLE  # any places that take five


@entry(FIRST)
def add_up(ram, a, b, c, d, e):
    """Add up, weighted, so that the order of arguments shows."""
    return a + 10 * b + 100 * c + 1000 * d + 10000 * e


@entry(SECOND)
def call_the_first(ram, a, b, c, d, e):
    """Entries call entries; the RAM comes along."""
    ram.run_tokens[0] += 1
    return call(ram, FIRST, e, d, c, b, a)


@entry(FIRST)
def multiply(ram, a, b, c, d, e):
    """Another one in the same place."""
    return a * b * c * d * e


@kernel
def _call_number(ram, number, a, b, c, d, e):
    return call(ram, number, a, b, c, d, e)


def _call(ram, text, *arguments):
    return _call_number(ram, MACHINE.text[text.name], *arguments)


def test_entries_are_called_through_the_table():
    """From a kernel, from an entry, with all five arguments and the RAM; a later entry replaces an earlier
    one.
    """
    ram = small_ram(2)
    install(ram, [add_up, call_the_first])
    assert _call(ram, FIRST, 1, 2, 3, 4, 5) == 54321
    assert _call(ram, SECOND, 1, 2, 3, 4, 5) == 12345
    assert ram.run_tokens[0] == 1
    install(ram, [multiply])
    assert _call(ram, SECOND, 1, 2, 3, 4, 5) == 120


def test_each_machine_has_its_own_table():
    """Two RAMs, two designs, one compiled caller."""
    one, other = small_ram(2), small_ram(2)
    install(one, [add_up])
    install(other, [multiply])
    assert [_call(ram, FIRST, 1, 1, 1, 1, 2) for ram in (one, other)] == [21111, 2]


def test_a_python_function_is_an_entry_too():
    """Compiled code calls it with five int64, negative ones too, and gets its int."""
    ram = small_ram(2)
    seen = []

    def listen(*arguments):
        seen.append(arguments)
        return -7

    keep = install_python(ram, PYTHON, listen)
    assert _call(ram, PYTHON, 1, -2, 1 << 62, -(1 << 63), 0) == -7
    assert seen == [(1, -2, 1 << 62, -(1 << 63), 0)]
    assert ctypes.cast(keep, ctypes.c_void_p).value == ram.text[PYTHON]  # what must be kept is what is called


def test_progress_is_told_of_what_is_compiled_alone(monkeypatch, tmp_path):
    """Compiling takes long at the first run: name, number and how many. What the cache holds is loaded, and
    nothing is told.
    """
    monkeypatch.setattr(install_module, "compile_ahead", lambda *_: 0)
    ram, told = small_ram(2), []
    fresh = [Entry(item.text, item.function) for item in (add_up, call_the_first)]
    monkeypatch.setenv("LUF_CACHE_DIR", str(tmp_path))
    install(ram, fresh, lambda *what: told.append(what))
    assert told == [("add_up", 0, 2), ("call_the_first", 1, 2)]
    install(ram, [Entry(item.text, item.function) for item in fresh], lambda *what: told.append(what))
    assert len(told) == 2


def unwritable_home(monkeypatch, tmp_path) -> Path:
    """Leave nothing but the temporary folder for the cache; gives the place there."""
    (tmp_path / "file").touch()
    monkeypatch.delenv("LUF_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(compiled.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"luf-emulator-{os.getuid()}"


def test_the_temporary_cache_is_private(monkeypatch, tmp_path):
    """Whoever can write there decides what is executed: made for us alone, and so again if others may read
    it.
    """
    place = unwritable_home(monkeypatch, tmp_path)
    assert cache_root() == place
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o755)
    assert cache_root() == place
    assert place.stat().st_mode & 0o777 == 0o700


def test_a_wanted_cache_is_used_or_refused(monkeypatch, tmp_path):
    """Who names a folder wants that one, and not silently another."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("LUF_CACHE_DIR", str(tmp_path / "new" / "cache"))
    assert cache_root() == tmp_path / "new" / "cache"
    monkeypatch.setenv("LUF_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        CacheError, match=rf"^LUF_CACHE_DIR must name .* \(got {tmp_path}/file/cache: Not a directory\)$"
    ):
        cache_root()


@pytest.mark.parametrize("wrong", ["writable", "link", "file", "owner"])
def test_a_temporary_cache_of_others_is_refused(monkeypatch, tmp_path, wrong):
    """One sentence; nothing is loaded from there."""
    place = unwritable_home(monkeypatch, tmp_path)
    if wrong == "link":
        place.symlink_to(tmp_path)
    elif wrong == "file":
        place.touch()
    else:
        place.mkdir()
    if wrong == "writable":
        place.chmod(0o777)
    if wrong == "owner":
        user = os.getuid()
        place = place.rename(tmp_path / f"luf-emulator-{user + 1}")
        monkeypatch.setattr(os, "getuid", lambda: user + 1)
    with pytest.raises(
        CacheError,
        match=rf"^{place}: the cache of compiled code must be a folder that only you can write to \(got .*LUF_",
    ):
        cache_root()


def saved_at_once(folder, save):
    """Save versions `a` and `b` of one function, b while a is between its choice of a file name and writing
    it; what either then finds.
    """
    a, b = (IndexDataCacheFile(str(folder), "function", 1) for _ in range(2))
    write_index = a._save_index

    def meanwhile(index):
        with open(folder / "lock", "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting.append("b")
            else:
                fcntl.flock(lock, fcntl.LOCK_UN)
                save(b, "b", "code of b")
        write_index(index)

    waiting = []
    a._save_index = meanwhile
    save(a, "a", "code of a")
    for name in waiting:
        save(b, name, "code of b")
    return [IndexDataCacheFile(str(folder), "function", 1).load(name) for name in "ab"]


def test_processes_that_save_at_once_do_not_take_the_same_file(tmp_path):
    """numba's own save loses b's version (or, the other way round, would give a's code for b's)."""
    for name in ("own", "ours"):
        (tmp_path / name).mkdir()
    assert saved_at_once(tmp_path / "own", IndexDataCacheFile.save.__wrapped__) == ["code of a", None]
    assert saved_at_once(tmp_path / "ours", IndexDataCacheFile.save) == ["code of a", "code of b"]


def test_unused_code_is_pruned(tmp_path, monkeypatch):
    """Only what nobody has loaded for so long goes."""
    monkeypatch.setenv("LUF_CACHE_DIR", str(tmp_path))
    for name, age_days in (("old-1234", 30), ("new-1234", 1)):
        (tmp_path / name).mkdir()
        stamp = (tmp_path / name).stat().st_atime - age_days * 86400
        os.utime(tmp_path / name, (stamp, stamp))
    assert prune_cache(21) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["new-1234"]
