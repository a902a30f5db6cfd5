"""Compiled code is kept once for all who have the same sources, in a bounded space that is never taken from
who uses it, and loaded only if nobody else can have written it.
"""

import importlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.storm import small_ram
from cpus import code_cache
from cpus.cache_place import CacheError
from cpus.code_cache import CODE, MARK, UNFINISHED, CodeCache, prune, use
from cpus.compiled import Entry, kernel

ROOT = Path(__file__).parents[2]
DAY_S = 86400

# a room that may have kernels, in a checkout that is a copy of the hardware's room
SAMPLE = """
from cpus.compiled import Text, entry, kernel


@kernel
def double(x):
    return 2 * x


def times(n):
    @kernel
    def multiply(x):
        return n * double(x)

    return multiply


@entry(Text("quadruple", 1))
def quadruple(ram, a):
    return double(double(a))
"""
RUN_SAMPLE = """
import sys
import cpus.code_cache as c
from cpus.ram import SegmentType
saved, save = [], c.CodeCache.save_overload
def noted(self, *what):
    saved.append(self.function.__name__)
    save(self, *what)
c.CodeCache.save_overload = noted
from benchmarks.sample import double, quadruple, times
segment = SegmentType("sample", {})
ready = quadruple.is_compiled_or_cached(segment)
quadruple.compile(segment)
print(double(21), times(3)(1), times(5)(1), ready, *sorted(saved))
"""


def run(program: str, checkout: Path, cache: Path) -> str:
    """Run a program in a checkout with a cache; returns what it says."""
    environment = os.environ | {"LUF_CACHE_DIR": str(cache), "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def checkout(folder: Path) -> Path:
    """Copy what a kernel needs, with other times than the original has."""
    shutil.copytree(ROOT / "cpus", folder / "cpus", copy_function=shutil.copyfile)
    (folder / "benchmarks").mkdir()
    (folder / "benchmarks" / "__init__.py").touch()
    (folder / "benchmarks" / "sample.py").write_text(SAMPLE)
    return folder


def kept(cache: Path) -> set[str]:
    return {str(path.relative_to(cache)) for path in cache.rglob(f"*{CODE}")}


def test_two_checkouts_share_what_one_has_compiled(tmp_path):
    """The second, in another folder, compiles and adds nothing. Planted: with one more line in a file that it
    imports, not directly, it does.
    """
    cache, one, two = tmp_path / "cache", checkout(tmp_path / "one"), checkout(tmp_path / "b" / "two")
    assert run(RUN_SAMPLE, one, cache) == "42 6 10 False double multiply multiply quadruple\n"
    first = kept(cache)
    assert len(first) == 4
    assert run(RUN_SAMPLE, two, cache) == "42 6 10 True\n"
    assert kept(cache) == first
    assert not any(str(tmp_path).encode() in (cache / name).read_bytes() for name in first)
    with open(two / "cpus" / "ram.py", "a", encoding="utf-8") as source:
        source.write("# one line more\n")
    assert run(RUN_SAMPLE, two, cache) == "42 6 10 False double multiply multiply quadruple\n"


MINE = """
from cpus.compiled import kernel

@kernel
def raising(x):
    if x > 1:
        raise ValueError("too large")
    return x
"""
RUN_MINE = """
import traceback
from mine import raising
try:
    raising(2)
except ValueError as error:
    print(traceback.extract_tb(error.__traceback__)[-1].filename)
"""


def test_an_error_names_the_copy_of_a_file_that_was_run(tmp_path):
    """Two copies of a user's file do not share code that would say where the other one lies."""
    cache = tmp_path / "cache"
    for name in ("one", "two"):
        folder = checkout(tmp_path / name)
        (folder / "mine.py").write_text(MINE)
        assert run(RUN_MINE, folder, cache) == f"{folder}/mine.py\n"


def test_a_file_may_be_imported_and_run_as_a_script(tmp_path):
    """A user's design file is both: compiled code names the module that it came from, so neither may get the
    other's from the cache.
    """
    file = tmp_path / "own.py"
    file.write_text(
        "from cpus.compiled import kernel\n\n@kernel\ndef one_more(x):\n    return x + 1\n\n"
        "print(one_more(1))\n"
    )
    imported = (
        f"import importlib.util as u, sys; s = u.spec_from_file_location('luf_design_own', {str(file)!r}); "
        "m = sys.modules['luf_design_own'] = u.module_from_spec(s); s.loader.exec_module(m)"
    )
    as_script = f"import runpy; runpy.run_path({str(file)!r}, run_name='__main__')"
    for program in (imported, as_script, imported):
        assert run(program, ROOT, tmp_path / "cache") == "2\n"
    assert {name.rpartition("-")[0].split("-")[0] for name in kept(tmp_path / "cache")} == {
        "__main__",
        "luf_design_own",
    }


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """The sample's module, by itself, with an empty cache."""
    (tmp_path / "one_sample.py").write_text(SAMPLE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LUF_CACHE_DIR", str(tmp_path / "cache"))
    yield importlib.import_module("one_sample")
    del sys.modules["one_sample"]


def again(made):
    """The same kernel, as another process has it before its first call."""
    return kernel(made.py_func)


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "no pickle", "no code", "folder", "pipe"])
def test_a_damaged_file_is_compiled_again(sample, tmp_path, damage):
    """And replaced: the next one loads it. Also if what was written cannot be loaded, or is no file."""
    sample.double(1)
    (file,) = (tmp_path / "cache").rglob(f"*{CODE}")
    whole = file.read_bytes()
    flipped = whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:]
    made = {"no pickle": b"\x80\x05garbage", "no code": pickle.dumps((1, 2, 3))}
    data = {"cut": whole[:-100], "empty": b"", "flipped": flipped} | {
        name: code_cache._head(code) + code for name, code in made.items()
    }
    file.unlink()
    if damage == "pipe":
        os.mkfifo(file, 0o600)
    elif damage != "folder":
        file.write_bytes(data[damage])
        file.chmod(0o600)
    else:
        file.mkdir()
        assert again(sample.double)(4) == 8
        file.rmdir()
    second, third = again(sample.double), again(sample.double)
    assert (second(4), sum(second.stats.cache_misses.values())) == (8, 1)
    assert (third(4), sum(third.stats.cache_misses.values())) == (8, 0)
    assert sum(third.stats.cache_hits.values()) == 1


def test_versions_are_files_of_their_own(sample, tmp_path):
    """By types, by values in a closure, by the compiler's options: nobody needs a number that others choose
    too.
    """
    for argument in (1, 1.5):
        sample.double(argument)
        sample.times(3)(argument)
        sample.times(4)(argument)
    assert len(kept(tmp_path / "cache")) == 6
    folder = sample.double._cache.folder
    checked = CodeCache(sample.double.py_func, folder, sample.double._cache.options | {"boundscheck": True})
    signature = sample.double.signatures[0]
    codegen = sample.double.targetctx.codegen()
    assert sample.double._cache.file_of(signature, codegen).exists()
    assert not checked.file_of(signature, codegen).exists()


def test_an_entry_is_ready_for_the_layout_that_it_was_compiled_for(sample):
    """Another segment's type is another version, which nobody has compiled."""
    ram = small_ram(1)
    sample.quadruple.compile(ram._type)
    fresh = Entry(sample.quadruple.text, sample.quadruple.function)
    assert fresh.is_compiled_or_cached(ram._type)
    assert not fresh.is_compiled_or_cached(type(ram._type)("another layout", ram._type.places))


def folder(cache: Path, name: str, size: int, unused_days: float) -> Path:
    """Make a folder of code that nobody has used for so long."""
    made = cache / f"{name}-{abs(hash(name)) % 16**16:016x}"
    made.mkdir(parents=True)
    (made / f"f-1-0123{CODE}").write_bytes(MARK + bytes(size - len(MARK)))
    stamp = time.time() - unused_days * DAY_S
    os.utime(made, (stamp, stamp))
    return made


def names(folders: list[str]) -> list[str]:
    return [name.rpartition("-")[0] for name in folders]


def test_what_nobody_has_used_for_long_goes(tmp_path):
    """However little there is."""
    for name, days in (("old", 30), ("new", 1)):
        folder(tmp_path, name, 10, days)
    assert names(prune(tmp_path, unused_days_max=21)) == ["old"]
    assert names([path.name for path in tmp_path.iterdir() if path.is_dir()]) == ["new"]
    assert prune(tmp_path, unused_days_max=21) == []


@pytest.mark.parametrize(
    ("limit", "gone"), [(300, []), (299, ["c"]), (199, ["c", "b"]), (0, ["c", "b", "a"])]
)
def test_the_least_recently_used_goes_until_the_rest_fits(tmp_path, limit, gone):
    """And no more."""
    for name, days in (("a", 1), ("b", 2), ("c", 3)):
        folder(tmp_path, name, 100, days)
    assert names(prune(tmp_path, size_max=limit)) == gone


def test_what_is_not_ours_stays(tmp_path):
    """A folder that merely looks like one of ours, also if the names in it do, a file in one of ours, a
    link.
    """
    mine = folder(tmp_path, "mine", 10, 30)
    (mine / "diary.txt").write_text("kept\n")
    theirs = tmp_path / "notes-0123456789abcdef"
    theirs.mkdir()
    (theirs / "diary.txt").write_text("kept\n")
    sources = tmp_path / "morse-0123456789abcdee"
    sources.mkdir()
    for name in ("message.code", "answer.unfinished"):
        (sources / name).write_text("... --- ...\n")
    elsewhere = folder(tmp_path / "elsewhere", "far", 10, 30)
    (tmp_path / "link-0123456789abcdee").symlink_to(elsewhere)
    assert prune(tmp_path, size_max=-1, unused_days_max=-1) == []
    assert (mine / "diary.txt").exists()
    assert (theirs / "diary.txt").exists()
    assert len(list(sources.iterdir())) == 2
    assert len(list(elsewhere.iterdir())) == 1


def test_what_this_process_uses_stays(tmp_path):
    used = folder(tmp_path, "used", 10, 30)
    use(used)
    assert prune(tmp_path, size_max=-1, unused_days_max=-1) == []
    assert used.exists()


USER = "import sys\nfrom pathlib import Path\nfrom cpus.code_cache import use\nuse(Path(sys.argv[1]))\n"
SAVER = """
import os, sys
from benchmarks.storm import kernel
sys.path.insert(0, sys.argv[1])
from one_sample import double
replace = os.replace
def slowly(*files):
    print("writing", flush=True)
    sys.stdin.read()
    replace(*files)
os.replace = slowly
double(1)
"""


def started(program: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start a process that waits at its end, or where it says."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )
    assert process.stdout.readline().strip()
    return process


def test_what_another_process_uses_stays_until_it_has_ended(tmp_path):
    """However it ends. That it was used makes it young again."""
    used = folder(tmp_path, "used", 10, 30)
    with started(USER + "print('using', flush=True)\nsys.stdin.read()", used) as user:
        assert prune(tmp_path, size_max=-1, unused_days_max=-1) == []
        assert used.exists()
        user.send_signal(signal.SIGKILL)
        user.wait()
    assert prune(tmp_path) == []
    assert names(prune(tmp_path, size_max=-1)) == ["used"]


def test_what_another_process_is_writing_stays(sample, tmp_path):
    """It is not there yet under its name; afterwards it is."""
    cache = tmp_path / "cache"
    with started(SAVER, tmp_path, LUF_CACHE_DIR=str(cache)) as saver:
        (unfinished,) = cache.rglob(f"*{UNFINISHED}")
        assert prune(cache, size_max=-1, unused_days_max=-1) == []
        assert (unfinished.exists(), kept(cache)) == (True, set())
        saver.communicate()
    assert len(kept(cache)) == 1
    assert not unfinished.exists()
    loaded = again(sample.double)
    assert (loaded(2), sum(loaded.stats.cache_misses.values())) == (4, 0)


def test_who_compiles_prunes_and_who_loads_does_not(sample, tmp_path, monkeypatch):
    """The first that a process saves makes it look, and then so many bytes."""
    cache, looked = tmp_path / "cache", []
    monkeypatch.setattr(code_cache, "prune", lambda root: looked.append(prune(root)))
    monkeypatch.setitem(code_cache._unpruned, "bytes", code_cache.PRUNE_EVERY)
    folder(cache, "old", 10, 30)
    sample.double(1)
    assert [names(gone) for gone in looked] == [["old"]]
    sample.double(1.5)
    again(sample.double)(1)
    assert len(looked) == 1
    monkeypatch.setitem(code_cache._unpruned, "bytes", code_cache.PRUNE_EVERY - 1)
    again(sample.double)(1)
    assert len(looked) == 1
    sample.double(1j)
    assert len(looked) == 2


def test_what_is_kept_is_for_us_alone(sample, tmp_path):
    """Folders and files too, whatever the umask."""
    mask = os.umask(0)
    try:
        sample.double(1)
    finally:
        os.umask(mask)
    (file,) = (tmp_path / "cache").rglob(f"*{CODE}")
    assert [path.stat().st_mode & 0o777 for path in (file, file.parent)] == [0o600, 0o700]


class Evil:
    """A pickle that leaves a file behind when it is loaded."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("way", ["owner", "group", "others", "link", "none"])
def test_what_others_could_write_is_not_executed(sample, tmp_path, monkeypatch, way):
    """A poisoned file in our own folder, that of another user or with rights for others: compiled again, and
    replaced. Planted: with nobody else's hand in it the poison works.
    """
    sample.double(1)
    (file,) = (tmp_path / "cache").rglob(f"*{CODE}")
    poison = pickle.dumps(Evil(tmp_path / "marker"))
    file.write_bytes(code_cache._head(poison) + poison)
    if way in ("group", "others"):
        file.chmod(0o620 if way == "group" else 0o602)
    if way == "link":
        file.rename(tmp_path / "poison")
        file.symlink_to(tmp_path / "poison")
    found = os.fstat
    theirs = {"owner": os.getuid() + 1}.get(way, os.getuid())
    monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result((*found(fd)[:4], theirs, *found(fd)[5:])))
    assert again(sample.double)(4) == 8
    assert (tmp_path / "marker").exists() == (way == "none")
    monkeypatch.undo()
    assert file.lstat().st_mode & 0o177777 == 0o100600


def test_a_folder_of_code_that_others_can_write_to_is_refused(sample, tmp_path, monkeypatch):
    """As a cache of an older luf under umask 0 has it."""
    sample.double(1)
    (file,) = (tmp_path / "cache").rglob(f"*{CODE}")
    file.parent.chmod(0o777)
    monkeypatch.setattr(code_cache, "_used", set())
    with pytest.raises(CacheError, match=rf"^{file.parent}: the cache .* \(got drwxrwxrwx of user "):
        again(sample.double)(4)


UNKEPT = """
import errno, os, sys
import cpus.code_cache as c
def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
c.os.replace = full
sys.path.insert(0, sys.argv[1])
from one_sample import double, quadruple
print(double(21), double(0.5))
"""


def test_a_full_disk_costs_the_cache_and_not_the_run(sample, tmp_path):
    """One line says what is not kept and why, however much it is; nothing half-written stays."""
    cache = tmp_path / "cache"
    done = subprocess.run(
        [sys.executable, "-c", UNKEPT, str(tmp_path)],
        env=os.environ | {"LUF_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "42 1.0\n")
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    assert done.stderr == f"luf: compiled code is not kept: {folder}: No space left on device\n"
    assert list(folder.iterdir()) == []
